"""Sessions for developers: `nox -l` lists them, `nox -s tests` runs one; constraints.txt pins what they install."""

from __future__ import annotations

import nox

nox.options.sessions = ["lint", "types", "tests"]
nox.options.reuse_existing_virtualenvs = True

PINNED = ("-c", "constraints.txt")


@nox.session
def lint(session: nox.Session) -> None:
    """Style and formatting."""
    session.install(*PINNED, "ruff")
    session.run("ruff", "check", *(session.posargs or ["."]))
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Static types of the package."""
    session.install(*PINNED, "-e", ".[root,parquet,view,onnx,dev]")
    session.run("pyright", "--pythonpath", f"{session.bin}/python", *session.posargs)


@nox.session
def tests(session: nox.Session) -> None:
    """The whole suite; arguments go to pytest."""
    session.install(*PINNED, "-e", ".[root,parquet,view,onnx,test]")
    session.run("python", "-m", "pytest", *(session.posargs or ["-n", "2"]))


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation as HTML in docs/_build; warnings are errors."""
    session.install(*PINNED, "-e", ".[docs]")  # the package too: the API pages are made of its docstrings
    session.run("sphinx-build", "-W", "--keep-going", "-b", "html", "docs", "docs/_build")


@nox.session
def bench(session: nox.Session) -> None:
    """Timings beside those of the published packages; results are appended to benchmarks/results."""
    session.install(*PINNED, "-e", ".")
    session.run("python", "benchmarks/tomography.py", *session.posargs)
