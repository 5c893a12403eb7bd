"""Pages do what they say: Python blocks run, files that pages show are written, and their commands work.

The blocks of a page are taken in order, in one namespace and one empty folder:

- ``python`` blocks are executed with warnings as errors; one that begins with ``# name.py`` is a file of the reader's,
  is appended to it, and executed in the namespace of the page, too;
- ``yaml`` blocks that begin with ``# name.yaml`` become that file;
- ``bash`` blocks: every ``diffdet`` command is parsed by the command line itself; on pages that the reader works
  through from top to bottom it is run, too, at a tiny size.

``<!-- before this block: ... -->`` holds lines of Python that a reader need not see; ``<!-- not run: reason -->``
leaves the block below out, and is counted.
"""

from __future__ import annotations

import re
import shlex
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

import click
import pytest
import torch

from diffdet.cli.main import cli, run

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs" / "numerics").glob("*.md"))]
WORKED_THROUGH = {"getting_started", "extending"}
"""Pages whose commands are run, in order."""
LEFT_OUT = 1
"""How many blocks are not run."""
MANY = 1000  # muons above which a command is made smaller

BLOCK = re.compile(r"(?:^<!--(?P<note>.*?)-->\n)?^```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    kind: str
    text: str
    line: int
    note: str

    @property
    def file(self) -> str | None:
        """Name of the file that it shows, from its first line."""
        match = re.match(r"# ([\w./]+\.(?:py|yaml))(?:, continued)?\n", self.text)
        return match[1] if match else None

    @property
    def left_out(self) -> bool:
        return self.note.startswith("not run:")


def read_blocks(page: Path) -> list[Block]:
    """All fenced blocks with a language."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(m["kind"], m["text"], text[: m.start("text")].count("\n") + 1, (m["note"] or "").strip())
        for m in BLOCK.finditer(text)
    ]


def commands(block: Block) -> list[list[str]]:
    """Arguments of every ``diffdet`` command in a block, with where its output goes."""
    found = []
    for line in block.text.replace("\\\n", " ").splitlines():
        for part in re.split(r"&&|;", line):
            words = shlex.split(part, comments=True)
            place = next((k for k, word in enumerate(words) if word.rpartition("/")[2] == "diffdet"), None)
            if place is not None:
                found.append(words[place + 1 :])
    return found


def pages_with(kind: str) -> list[Path]:
    return [page for page in PAGES if any(block.kind == kind for block in read_blocks(page))]


def name_of(page: Path) -> str:
    return page.stem


@pytest.fixture
def _as_it_was(monkeypatch, tmp_path):
    """An empty folder, and modules, generators and threads as they were before."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("MPLBACKEND", "Agg")
    known, dtype = set(sys.modules), torch.get_default_dtype()
    yield
    torch.set_default_dtype(dtype)
    for name in set(sys.modules) - known:
        if Path(getattr(sys.modules[name], "__file__", None) or "/").is_relative_to(tmp_path):
            del sys.modules[name]


def execute(block: Block, page: Path, names: dict) -> None:
    """Run a Python block; an error names the line of the page."""
    before = block.note.removeprefix("before this block:") if block.note.startswith("before this block:") else ""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        exec(compile(before, "set-up", "exec"), names)
        code = compile("\n" * (block.line - 1) + block.text, str(page), "exec", dont_inherit=True)
        exec(code, names)


def write_file(block: Block, folder: Path) -> None:
    assert block.file is not None
    path = folder / block.file
    more = ", continued" in block.text.partition("\n")[0]
    assert more == path.is_file(), f"{block.file}: the first block of a file says its name, others `, continued`"
    with path.open("a", encoding="utf-8") as file:
        file.write(block.text + ("\n\n" if block.kind == "python" else ""))


def made_small(words: list[str]) -> list[str]:
    """A command at a tiny size: `--smoke` optimisations, checks of few updates, few muons."""
    if words[0] == "optimise":
        return [*words, "--smoke", "--quiet"]
    if words[0] == "check":
        return [*words, "--updates=4", "--muons=100", "--quiet"]
    if words[0] == "simulate":
        return [str(min(MANY, int(word))) if word.isdigit() else word for word in words]
    return words


def run_commands(block: Block, capsys: pytest.CaptureFixture[str]) -> None:
    for words in commands(block):
        target = Path(words[words.index(">") + 1]) if ">" in words else None
        arguments = made_small(words[: words.index(">")] if target else words)
        arguments = [str(ROOT / word) if word.startswith("examples/") else word for word in arguments]
        capsys.readouterr()
        with warnings.catch_warnings():
            warnings.simplefilter("default")  # warnings of ours are for the reader, who sees them as a line
            code = run(arguments)
        captured = capsys.readouterr()
        # gradients of hundred muons may be undecided; that a check runs is what counts here
        assert code == 0 or (words[0] == "check" and code == 1), f"{shlex.join(arguments)}:\n{captured.err}"
        if target:
            target.write_text(captured.out, encoding="utf-8")


@pytest.mark.usefixtures("_as_it_was")
@pytest.mark.filterwarnings("ignore::DeprecationWarning:plotly")
@pytest.mark.parametrize("page", pages_with("python"), ids=name_of)
def test_blocks_of_a_page_run_in_order(page, tmp_path, capsys):
    names = {"__name__": "page"}
    for block in read_blocks(page):
        if block.left_out:
            continue
        if block.file is not None:
            write_file(block, tmp_path)
        if block.kind == "python":
            execute(block, page, names)
        elif block.kind == "bash" and page.stem in WORKED_THROUGH:
            run_commands(block, capsys)


def parse(words: list[str]) -> None:
    """Let the command line read a command, without running it."""
    context, command = click.Context(cli, info_name="diffdet"), cli
    while isinstance(command, click.Group):
        name, command, words = command.resolve_command(context, words)
        assert command is not None, name
        context = click.Context(command, parent=context, info_name=name)
    command.make_context(command.name, list(words), parent=context.parent)


@pytest.mark.parametrize("page", pages_with("bash"), ids=name_of)
def test_commands_of_a_page_are_understood(page, tmp_path, monkeypatch):
    # Each is parsed as for real: options, their types, and the number of arguments; files need not be there.
    monkeypatch.chdir(tmp_path)
    for block in read_blocks(page):
        for words in commands(block) if block.kind == "bash" and not block.left_out else []:
            parse(words[: words.index(">")] if ">" in words else words)


@pytest.mark.parametrize("page", pages_with("bash"), ids=name_of)
def test_shell_blocks_name_programs_that_there_are(page):
    ours = {"diffdet", "python", "python3", "pip", "source", "srun", "nox", "bash"}
    for block in read_blocks(page):
        if block.kind == "bash":
            for line in block.text.replace("\\\n", " ").splitlines():
                for part in re.split(r"&&|;", line):
                    words = shlex.split(part, comments=True)
                    assert not words or words[0].rpartition("/")[2] in ours, f"{page.name}: {part}"


def test_blocks_that_are_not_run_are_counted():
    left_out = [(page.name, block.line) for page in PAGES for block in read_blocks(page) if block.left_out]
    assert len(left_out) == LEFT_OUT, left_out


def test_no_page_has_a_fence_that_is_not_seen():
    # a block in a list or a quotation would be indented, and left out by accident
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        fences = re.findall(r"^[ >]*```(?:python|bash|yaml)\b", text, re.MULTILINE)
        assert len(fences) == sum(block.kind in ("python", "bash", "yaml") for block in read_blocks(page)), page.name


def test_block_of_this_test_is_read_as_meant(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "<!-- not run: an example -->\n```python\n1 / 0\n```\n\n```yaml\n# a.yaml\nb: 1\n```\n\n```\nplain\n```\n"
    )
    first, second = read_blocks(page)
    assert (first.kind, first.left_out, first.line) == ("python", True, 3)
    assert (second.kind, second.file, second.left_out) == ("yaml", "a.yaml", False)
