"""Claims of the documents: links lead somewhere, commands name what exists, the README's example runs."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib

import pytest


def documents(repository):
    found = [*repository.glob("*.md"), *(repository / "docs").rglob("*.md"), *(repository / "benchmarks").rglob("*.md")]
    return [path for path in found if "_build" not in path.parts]


def command(repository, name):
    text = (repository / "README.md").read_text(encoding="utf-8")
    match = re.search(rf"^<!-- command: {name} -->\n```bash\n(.*?)\n```$", text, re.MULTILINE | re.DOTALL)
    assert match, f"README.md has no command {name!r}"
    return match[1]


def test_relative_links_lead_to_files(repository):
    broken = []
    for path in documents(repository):
        text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if (
                "://" not in target
                and not target.startswith("#")
                and not (path.parent / target.partition("#")[0]).exists()
            ):
                broken.append(f"{path.relative_to(repository)}: {target}")
    assert not broken, "\n".join(broken)


@pytest.mark.parametrize("name", ["main", "tests"])
def test_readme_commands_start_from_a_fresh_clone(repository, name):
    text = command(repository, name)
    assert text.startswith("python3 -m venv .venv && .venv/bin/pip install -c constraints.txt ")
    extras = re.search(r"\.\[([\w,]+)\]", text)
    assert extras
    declared = tomllib.loads((repository / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(extras[1].split(",")) <= set(declared)


def test_readme_fits_a_screen_or_two(repository):
    assert len((repository / "README.md").read_text(encoding="utf-8").splitlines()) <= 100


def test_readme_example_runs(repository, tmp_path):
    text = (repository / "README.md").read_text(encoding="utf-8")
    match = re.search(r"^<!-- example -->\n```python\n(.*?)\n```$", text, re.MULTILINE | re.DOTALL)
    assert match
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", match[1]], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    inside, outside = map(float, re.search(r"X0 in the lead ([\d.]+) m, outside ([\d.]+) m", done.stdout).groups())
    assert inside < outside / 3
    assert "nan" not in done.stdout
    assert done.stdout.count("tensor") == 3 * 8


def test_versions_agree(repository):
    from diffdet import __version__

    assert f"version: {__version__}" in (repository / "CITATION.cff").read_text()
    assert f"## {__version__}" in (repository / "CHANGELOG.md").read_text()


def test_constraints_pin_every_runtime_dependency(repository):
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *(one for some in project["optional-dependencies"].values() for one in some)]
    names = {re.split(r"[\[<>=]", one)[0].lower() for one in wanted} - {"diffdet"}
    lines = (repository / "constraints.txt").read_text().splitlines()
    pinned = {line.partition("==")[0].lower() for line in lines if "==" in line}
    assert names <= {name.replace("_", "-") for name in pinned}
    assert "torch==2.13.0" in lines
    assert all(re.search(r">=|^diffdet", one) and not re.search(r"<|~=|==", one) for one in wanted)
    assert not any("://" in line or "@" in line or line.startswith("/") for line in lines)


def test_figure_of_the_coordinates_page_is_what_its_script_draws(repository, tmp_path):
    # The picture is stored; here only that the script still runs and draws a picture of the same size.
    pytest.importorskip("matplotlib")
    target = tmp_path / "coordinates.png"
    script = repository / "docs" / "figures" / "coordinates.py"
    subprocess.run([sys.executable, str(script), str(target)], check=True)
    # width and height stand at bytes 16 to 24 of a PNG
    assert target.read_bytes()[16:24] == (repository / "docs" / "figures" / "coordinates.png").read_bytes()[16:24]
