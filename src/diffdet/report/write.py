"""From a run folder to its `report.html`."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

from diffdet._version import __version__
from diffdet.core.errors import InputError
from diffdet.report.collect import CONFIG, REPORT, RunRecord, read_run

KINDS = ("optimise", "train", "image", "background")
"""Jobs whose runs have a report."""


def render(record: RunRecord) -> str:
    """The report of a run as the text of one HTML file.

    Args:
        record: Content of the run folder.

    Returns:
        HTML that needs no other file.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

    environment = Environment(
        loader=PackageLoader("diffdet.report"),
        autoescape=select_autoescape(["html", "j2"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    values: dict[str, Any]
    if record.kind == "image":
        from diffdet.report.image import context

        values = context(record)
    elif record.kind == "train":
        from diffdet.report.train import context as train_context

        values = train_context(record)
    elif record.kind == "background":
        from diffdet.report.background import context as background_context

        values = background_context(record)
    else:
        from diffdet.report.optimise import context as optimise_context

        values = optimise_context(record)
    config_path = record.folder / CONFIG
    config_text = config_path.read_text(encoding="utf-8") if config_path.is_file() else ""
    shared = {
        "version": __version__,
        "css": _template("style.css"),
        "view_code": _template("view.js"),
        "config_text": config_text,
    }
    return environment.get_template(f"{record.kind}.html.j2").render(**shared, **values)


def _template(name: str) -> str:
    return (resources.files("diffdet.report") / "templates" / name).read_text(encoding="utf-8")


def write_report(folder: str | Path) -> Path:
    """Write the report of a run into its folder.

    Args:
        folder: Folder of an `optimise`, `train`, `image` or `background evaluate` run, finished or not.

    Returns:
        Path of the report.

    Raises:
        InputError: If the folder holds no run, or one of a kind that has no report.
        FileDamagedError: If a file of the run cannot be read.
        StorageError: If the report cannot be written.
    """
    from diffdet.core.storage import write_text

    record = read_run(Path(folder))
    if record.kind not in KINDS:
        raise InputError(
            f"RUN: expected the folder of a run of {' or '.join(KINDS)}, given {str(record.folder)!r}, which holds the "
            f"result of {record.kind!r}"
        )
    path = record.folder / REPORT
    write_text(path, render(record))
    return path
