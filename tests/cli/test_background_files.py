"""`diffdet background convert` and `inspect`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from diffdet.cli.background_files import convert, inspect
from diffdet.core.errors import InputError, NotSupportedError, StorageError
from diffdet.overlay.io.source import open_events, read_events

FILES = Path(__file__).resolve().parents[1] / "overlay" / "files"
SPLIT = FILES / "pxd_lookalike_split99.root"


def run(command, *arguments):
    return CliRunner().invoke(command, [str(argument) for argument in arguments], catch_exceptions=False)


def test_every_kind_of_file_can_be_reached_from_an_overlay_file(tmp_path):
    whole = read_events(SPLIT)
    here = SPLIT
    for name, kind in (("a.root", None), ("b.h5", None), ("c.parquet", None), ("d.root", "rntuple"), ("e", None)):
        kinds = ("--kind", kind) if kind else ()
        done = run(convert, here, tmp_path / name, *kinds, "--json")
        assert done.exit_code == 0, done.output
        result = json.loads(done.stdout)
        assert result["events"] == 20
        assert result["digits"] == len(whole)
        here = tmp_path / name
        assert read_events(here).equal(whole)
    assert json.loads(run(inspect, tmp_path / "d.root", "--json").stdout)["metadata"]["converted_from"] == "c.parquet"


def test_inspection_counts_what_is_there():
    result = json.loads(run(inspect, SPLIT, "--json").stdout)
    source = open_events(SPLIT)
    whole = source.read()
    assert result["digits"] == len(whole)
    assert result["mended"] == source.counts.problems
    assert result["charge_adu"]["mean"] == pytest.approx(whole.charge.double().mean().item(), abs=1e-3)
    assert len(result["sensors"]) == 40
    assert result["occupancy_percent"] == pytest.approx(100 * whole.occupancy().mean().item(), abs=1e-4)
    few = json.loads(run(inspect, SPLIT, "--events", 3, "--json").stdout)
    assert few["events"] == 3
    assert few["digits"] == int(whole.counts()[:3].sum())
    text = run(inspect, SPLIT).output
    assert "overlay file of Belle II's software" in text


def test_bad_input_is_refused_and_nothing_written(tmp_path):
    with pytest.raises(NotSupportedError, match="unsplit"):
        run(convert, FILES / "pxd_lookalike_split0.root", tmp_path / "a.root")
    with pytest.raises(StorageError, match="no file"):
        run(inspect, tmp_path / "none.root")
    with pytest.raises(InputError, match=r"--out.*\.h5"):
        run(convert, SPLIT, tmp_path / "a.root", "--kind", "hdf5")
    with pytest.raises(InputError, match="must end in"):
        run(convert, SPLIT, tmp_path / "a.txt")
    (tmp_path / "there.h5").write_text("mine")
    with pytest.raises(InputError, match="--overwrite"):
        run(convert, SPLIT, tmp_path / "there.h5")
    assert (tmp_path / "there.h5").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["there.h5"]
