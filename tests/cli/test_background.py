"""`diffdet background`: sample, evaluate and train from the command line, and what they refuse."""

from __future__ import annotations

import json

import pytest

from diffdet.cli.main import run
from diffdet.overlay.clusters.generator import ClusterGenerator
from diffdet.overlay.io.neutral import digits_writer
from diffdet.overlay.io.source import open_events, read_events


@pytest.mark.parametrize("suffix", ["h5", "root", "parquet"])
def test_sample_writes_events_that_say_where_they_come_from(tmp_path, capsys, suffix):
    if suffix != "h5":
        pytest.importorskip("uproot" if suffix == "root" else "pyarrow")
    out = tmp_path / f"b.{suffix}"
    assert run(["background", "sample", "--events", "3", "--out", str(out), "--seed", "5", "--run", "2", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    digits = read_events(out)
    assert told["digits"] == len(digits)
    assert digits.equal(ClusterGenerator().sample(3, seed=5, run=2))
    assert "not on Belle II data" in open_events(out).metadata["trained_on"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--events", "2", "--out", "b.txt"], "must end in one of"),
        (["--events", "0", "--out", "b.h5"], "--events"),
        (["--events", "2", "--out", "no/b.h5"], "folder that exists"),
        (["--events", "2", "--out", "b.h5", "--model", "convnot"], "Did you mean 'convnet'"),
        (["--events", "2", "--out", "b.h5", "--missing", "2.1.9"], "must be a sensor of PXD"),
        (["--events", "2", "--out", "b.h5", "--checkpoint", "none.safetensors"], "checkpoint"),
    ],
)
def test_bad_input_is_refused_and_nothing_written(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert run(["background", "sample", *arguments]) != 0
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_exists_is_replaced_only_on_request(tmp_path, capsys):
    out = tmp_path / "b.h5"
    out.write_text("mine")
    assert run(["background", "sample", "--events", "1", "--out", str(out), "-q"]) == 2
    assert out.read_text() == "mine"
    assert "--overwrite" in capsys.readouterr().err
    assert run(["background", "sample", "--events", "1", "--out", str(out), "-q", "--overwrite"]) == 0
    assert read_events(out).n_events == 1


def test_evaluate_compares_two_files_and_reports(tmp_path, capsys):
    for name, seed in (("sample", 1), ("real", 2)):
        with digits_writer(tmp_path / f"{name}.h5", {"source": "generated", "trained_on": "a test"}) as file:
            file.write(ClusterGenerator().sample(12, seed=seed))
    out = tmp_path / "run"
    arguments = [str(tmp_path / "sample.h5"), "--against", str(tmp_path / "real.h5"), "--events", "6"]
    assert run(["background", "evaluate", *arguments, "--out", str(out), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert set(result["figures"]) == {"sample", "floor", "bootstrap", "library"}
    assert result["trained_on"] == "a test"
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "IEA-GAN" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert page.count("<svg") >= 9
    # rebuilt from the folder it is the same
    assert run(["report", str(out), "-q"]) == 0
    assert (out / "report.html").read_text(encoding="utf-8") == page
    assert run(["background", "evaluate", *arguments, "--out", str(out), "-q"]) == 2


def test_train_learns_clusters_from_a_file(tmp_path):
    with digits_writer(tmp_path / "data.h5") as file:
        file.write(ClusterGenerator().sample(4, seed=1))
    out = tmp_path / "run"
    assert run(["background", "train", "clusters", "--data", str(tmp_path / "data.h5"), "--out", str(out), "-q"]) == 0
    weights = out / "clusters.safetensors"
    assert ClusterGenerator.from_checkpoint(weights).describe()["trained_on"] == str(tmp_path / "data.h5")
    again = tmp_path / "again.h5"
    options = ["--events", "1", "--checkpoint", str(weights), "--out", str(again), "-q"]
    assert run(["background", "sample", *options]) == 0


def test_unknown_commands_and_models_name_the_nearest(tmp_path, capsys):
    assert run(["background", "sampel"]) == 2
    assert "Did you mean `sample`?" in capsys.readouterr().err
    assert run(["background", "train", "cluster", "--out", str(tmp_path / "run")]) == 2
    assert "Did you mean 'clusters'?" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
