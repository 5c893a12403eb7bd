"""Configurations: what is refused and how, what round trips, what changes them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from diffdet.core.errors import InputError
from diffdet.runs.config import (
    FORMAT_VERSION,
    RunConfig,
    as_mapping,
    builtin_names,
    builtin_text,
    json_schema,
    load_config,
    to_yaml,
)
from diffdet.runs.config.quantities import ANGLE_UNITS, LENGTH_UNITS, MOMENTUM_UNITS, parse_quantity


def written(folder: Path, text: str, name: str = "design.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "units", "metres"),
    [
        ("15 mm", LENGTH_UNITS, 0.015),
        ("1.5cm", LENGTH_UNITS, 0.015),
        ("1e2 um", LENGTH_UNITS, 1e-4),
        ("100 µm", LENGTH_UNITS, 1e-4),
        ("-2 km", LENGTH_UNITS, -2000.0),
        (".3 m", LENGTH_UNITS, 0.3),
        ("0.7", LENGTH_UNITS, 0.7),
        ("1e4", {}, 1e4),
        ("180 deg", ANGLE_UNITS, 3.141592653589793),
        ("12 mrad", ANGLE_UNITS, 0.012),
        ("300 MeV", MOMENTUM_UNITS, 0.3),
    ],
)
def test_quantities_carry_their_unit(text, units, metres):
    assert parse_quantity(text, units, "a quantity") == metres


@pytest.mark.parametrize("mm", range(1, 400, 7))
def test_lengths_in_millimetres_are_the_nearest_double(mm):
    assert parse_quantity(f"{mm} mm", LENGTH_UNITS, "a length") == float(f"{mm}e-3")


@pytest.mark.parametrize("name", builtin_names())
def test_built_in_designs_are_valid_and_the_default_is_the_ladle_furnace(name):
    config = load_config(name)
    assert config.name == name
    assert builtin_names()[0] == "ladle_furnace" == load_config().name
    assert "\t" not in builtin_text(name)


@pytest.mark.parametrize("kind", ["yaml", "json"])
@pytest.mark.parametrize("name", builtin_names())
def test_a_resolved_configuration_reads_back_to_itself(name, kind, tmp_path):
    config = load_config(name, sets=["seed=7"])
    data = as_mapping(config)
    text = to_yaml(data) if kind == "yaml" else json.dumps(data)
    again = load_config(written(tmp_path, text, f"resolved.{kind}"))
    assert as_mapping(again) == data
    assert again.seed == 7


def test_toml_is_read(tmp_path):
    data = as_mapping(load_config("hello_world"))

    def toml(value):
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, dict):
            inner = ", ".join(f"{json.dumps(str(k))} = {toml(v)}" for k, v in value.items() if v is not None)
            return "{" + inner + "}"
        if isinstance(value, list):
            return "[" + ", ".join(map(toml, value)) + "]"
        return json.dumps(value)

    text = "\n".join(f"{key} = {toml(value)}" for key, value in data.items() if value is not None)
    assert as_mapping(load_config(written(tmp_path, text, "design.toml"))) == data


def test_every_default_is_written_out():
    data = as_mapping(load_config("hello_world"))

    def keys(model, section, path=""):
        for name, field in model.model_fields.items():
            assert (field.alias or name) in section, f"{path}.{name}"

    keys(RunConfig, data)
    panel = data["volume"]["layers"][0]["panels"][0]
    assert panel["resolution"] == 10_000.0
    assert [layer["z"] for layer in data["volume"]["layers"]] == [1.0, 0.8, 0.2]
    assert data["format_version"] == FORMAT_VERSION


def test_tops_of_layers_are_exact_decimals():
    # 0.4 + 1.0 + 0.4 is 1.7999999999999998 in doubles
    assert load_config("ladle_furnace").volume.tops() == [1.8, 1.4, 0.4]
    assert load_config("ladle_furnace").volume.passive_z == (0.4, 1.4)
    assert load_config("ladle_furnace").volume.voxel_shape == (10, 10, 10)


def test_sets_change_values_and_stars_change_all():
    config = load_config(
        "hello_world",
        sets=["volume.layers.0.panels.*.span=[50 cm, 0.4]", "muons.momentum=null", "optimiser.z_pos={lr: 2}"],
        seed=5,
        device="auto",
    )
    assert [panel.span for panel in config.volume.detectors[0].panels] == [(0.5, 0.4)] * 4
    assert config.muons.momentum is None
    assert (config.optimiser["z_pos"].lr, config.optimiser["z_pos"].rate) == (2.0, None)
    assert (config.seed, config.device) == (5, "auto")


def test_sets_reach_the_arguments_of_a_bare_name():
    config = load_config("ladle_furnace", sets=["callbacks.0.args={}", "inference.volume.args.smooth=0.5"])
    assert config.callbacks[0].class_ == "MuonResampler"
    assert config.inference.volume.args == {"smooth": 0.5}


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("seed", ("--set", "'seed'", "KEY=VALUE")),
        ("=3", ("--set", "'=3'", "KEY=VALUE")),
        ("volume.layers.9.voxel=1", ("volume.layers.9.voxel", "'9'", "from 0 to 2")),
        ("volume.layers.x.voxel=1", ("volume.layers.x.voxel", "'x'", "from 0 to 2")),
        ("name.low=1", ("name.low", "low")),
        ("seed=[1, 2", ("--set seed", "[1, 2", "YAML")),
    ],
)
def test_sets_that_lead_nowhere_are_refused(assignment, words):
    with pytest.raises(InputError) as raised:
        load_config("hello_world", sets=[assignment])
    for word in words:
        assert word in str(raised.value)


def test_smoke_makes_every_size_small_and_says_so():
    config = load_config("ladle_furnace", smoke=True)
    assert config.smoke
    assert config.schedule.total_epochs <= 4
    assert config.passives.train * config.passives.n_kinds * config.muons.per_volume <= 4000
    assert as_mapping(load_config("ladle_furnace"))["smoke"] is False


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.yaml", "volume: [", ("a.yaml", "YAML")),
        ("a.yaml", "seed: 1\nseed: 2\n", ("seed", "given twice")),
        ("a.json", '{"seed": 1, "seed": 2}', ("seed", "given twice")),
        ("a.json", "{", ("a.json", "JSON")),
        ("a.toml", "seed = = 3", ("a.toml", "TOML")),
        ("a.yaml", "- 1\n- 2\n", ("a.yaml", "list", "volume:")),
        ("a.yaml", "", ("a.yaml", "NoneType", "volume:")),
        ("a.txt", "seed: 1", ("a.txt", ".yaml")),
        ("a.yaml", "!!python/object/apply:os.system ['true']", ("a.yaml", "python/object")),
        ("a.yaml", "seed: &a [*a]", ("a.yaml", "levels")),
        (
            "a.yaml",
            "a: &a [1,1,1,1,1,1,1,1,1]\n"
            + "".join(f"{chr(98 + k)}: &{chr(98 + k)} [{', '.join(['*' + chr(97 + k)] * 9)}]\n" for k in range(8)),
            ("a.yaml", "200000"),
        ),
        ("a.json", "[" * 100_000, ("a.json", "JSON")),
        ("a.json", '{"a": ' + "[" * 80 + "]" * 80 + "}", ("a.json", "60 levels")),
    ],
    ids=lambda value: str(value)[:24],
)
def test_files_that_are_no_configuration_are_refused(name, text, words, tmp_path):
    with pytest.raises(InputError) as raised:
        load_config(written(tmp_path, text, name))
    for word in words:
        assert word in str(raised.value)


def test_files_that_cannot_be_read_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"ladle_furnace.*does not exist. Did you mean `ladle_furnace`"):
        load_config("ladle_furnac")
    with pytest.raises(InputError, match="folder"):
        load_config(tmp_path)
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="UTF-8"):
        load_config(tmp_path / "binary.yaml")
    (tmp_path / "large.yaml").write_bytes(b"#" * (5 * 2**20))
    with pytest.raises(InputError, match="4 MiB"):
        load_config(tmp_path / "large.yaml")


def test_several_errors_are_told_together():
    with pytest.raises(InputError) as raised:
        load_config("hello_world", sets=["volume.layers.*.thickness=-1"])
    text = str(raised.value)
    assert text.startswith("hello_world: 3 values cannot be used\n")
    assert [line.split(":")[0].strip() for line in text.splitlines()[1:]] == [
        f"volume.layers[{k}].thickness" for k in range(3)
    ]


def test_the_schema_accepts_the_designs_and_names_every_section():
    schema = json_schema()
    json.dumps(schema, allow_nan=False)
    assert set(schema["properties"]) == set(as_mapping(load_config()))
    for name, definition in schema["$defs"].items():
        for key, field in definition.get("properties", {}).items():
            assert field.get("description"), f"{name}.{key} has no description in the schema"
        assert definition["additionalProperties"] is False, name


def test_relative_paths_start_at_the_configuration(tmp_path):
    data = as_mapping(load_config("hello_world"))
    data["passives"]["layouts"] = [{"file": "cube.npz"}]
    data["search_path"] = ["parts"]
    data["callbacks"].append({"class": "mine:Mine"})
    config = load_config(written(tmp_path, to_yaml(data)))
    assert config.passives.layouts[0].file == str(tmp_path / "cube.npz")
    assert config.search_path == [str(tmp_path / "parts"), str(tmp_path)]
