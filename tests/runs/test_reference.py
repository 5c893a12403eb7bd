"""The reference of configurations in the documentation is that of the code, and its examples work."""

from __future__ import annotations

import re

import pytest
import yaml

from diffdet.cli.main import COMMANDS
from diffdet.runs.config import as_mapping, load_config, to_yaml
from diffdet.runs.config.reference import markdown

MARK = "<!-- from here on made by `diffdet.runs.config.reference`; a test says how to renew it -->\n"
RENEW = (
    'python -c "from pathlib import Path; from diffdet.runs.config.reference import markdown; '
    "p = Path('docs/command_line.md'); t = p.read_text(); i = t.index('<!-- from here on'); "
    "p.write_text(t[:t.index('\\n', i) + 1] + '\\n' + markdown())\""
)


@pytest.fixture
def page(repository):
    return (repository / "docs" / "command_line.md").read_text(encoding="utf-8")


def test_the_reference_is_up_to_date(page):
    written = page.split(MARK)[1].strip()
    assert written == markdown().strip(), f"renew it: {RENEW}"


def test_every_command_is_described(page):
    for name in COMMANDS:
        assert f"\n`{name}`\n: " in page
        assert f"diffdet {name}" in page


def test_the_examples_of_sections_are_valid(page, tmp_path):
    examples = [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)]
    assert len(examples) == 3
    for example in examples[:2]:
        data = as_mapping(load_config("hello_world"), fill_z=False)
        data |= example
        if "optimiser" in example:
            data["schedule"] |= {"cost_warmup_epochs": 0}
        path = tmp_path / "mine.yaml"
        path.write_text(to_yaml(data))
        load_config(path)


def test_the_lines_of_commands_name_options_that_exist(page):
    from click.testing import CliRunner

    from diffdet.cli.main import cli

    block = re.search(r"## Commands\n\n```\n(.*?)```", page, re.DOTALL)
    assert block is not None
    for line in block.group(1).splitlines():
        name = line.split()[1]
        help_text = CliRunner().invoke(cli, [name, "--help"]).output
        for option in re.findall(r"--[a-z]+", line):
            assert option in help_text, f"{option} of {name}"
