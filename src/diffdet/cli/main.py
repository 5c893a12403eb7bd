"""The command `diffdet`: which commands there are, and how every one of them ends.

Command modules are imported when their command is named, and heavy packages inside the commands: `--help` and
`--version` never load torch.
"""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any

import click

from diffdet._version import __version__

EXIT_DONE, EXIT_FAILED, EXIT_USAGE = 0, 1, 2
EXIT_SIGINT, EXIT_SIGTERM = 130, 143

COMMANDS: dict[str, tuple[str, str]] = {
    "optimise": ("diffdet.cli.optimise:optimise", "Improve a detector by gradient descent and report on it."),
    "check": ("diffdet.cli.check:check", "Compare the gradients of a design with finite differences, and advise."),
    "train": ("diffdet.cli.train:train", "Train a network on events and report on it."),
    "simulate": ("diffdet.cli.simulate:simulate", "Send muons through a design and write the hits."),
    "image": ("diffdet.cli.image:image", "Turn recorded hits into an image of radiation lengths."),
    "background": (
        "diffdet.cli.background:background",
        "Generate, judge, train on and convert background of a pixel detector.",
    ),
    "config": ("diffdet.cli.config:config", "List, show, describe and check configurations."),
    "report": ("diffdet.cli.report:report", "Rebuild report.html from a run folder."),
    "doctor": ("diffdet.cli.doctor:doctor", "Versions, devices, threads, memory, and what each extra enables."),
}
"""Commands in the order of the help, with where each is found and its summary."""

ALIASES = {"optimize": "optimise"}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are named."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Names of the commands, in order."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import a command; None when there is no such command."""
        name = ALIASES.get(cmd_name, cmd_name)
        if name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that the arguments name, or refuse with the nearest one."""
        name = args[0]
        if self.get_command(ctx, name) is None and not name.startswith("-"):
            import difflib

            near = difflib.get_close_matches(name, COMMANDS, n=1)
            hint = f" Did you mean `{near[0]}`?" if near else ""
            ctx.fail(f"COMMAND: expected one of {', '.join(COMMANDS)}, given {name!r}.{hint}")
        found, command, rest = super().resolve_command(ctx, args)
        return (ALIASES.get(found, found) if found else found), command, rest

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """The table of commands, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, "-V", "--version", message="diffdet %(version)s")
def cli() -> None:
    """diffdet: simulate cosmic muons, image what they crossed, and let gradients improve the detector.

    The main job is `diffdet optimise --out RUN`: it runs the built-in ladle furnace from a poor detector to a good one
    and writes RUN/report.html.
    """


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line and leave the process with the command's exit code.

    Args:
        args: Arguments; those of the process when None.
    """
    sys.exit(run(args))


def run(args: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        args: Arguments; those of the process when None.

    Returns:
        0 done; 1 failed while running; 2 bad usage or bad input, nothing written; 130 or 143 stopped by a signal.
    """
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        return _run(args)


def _run(args: Sequence[str] | None) -> int:
    try:
        outcome: Any = cli.main(args=None if args is None else list(args), prog_name="diffdet", standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.Exit as exit_:
        return exit_.exit_code
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "diffdet"
        return _complain(f"{_sentence(error.format_message())}\n{' ' * 16}see `{command} --help`", EXIT_USAGE)
    except click.ClickException as error:
        return _complain(error.format_message(), EXIT_USAGE)
    except (click.Abort, KeyboardInterrupt):
        return _complain("interrupted", EXIT_SIGINT)
    except BrokenPipeError:
        return _end_of_output()
    except SystemExit as exit_:
        # click leaves by itself, with 1, when the output is closed; it marks the stream so that nothing flushes it
        # again.
        closed = "PacifyFlush" in type(sys.stdout).__name__
        return _end_of_output() if closed else int(exit_.code or 0)
    except Exception as error:
        return _explain(error)
    return outcome if isinstance(outcome, int) else EXIT_DONE


def _end_of_output() -> int:
    """Whoever read the output, for example `head`, has seen enough; Python would complain once more when it closes."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno() if sys.__stdout__ else 1)
    return EXIT_DONE


def _explain(error: Exception) -> int:
    """One message for an exception, and the exit code that it means."""
    from diffdet.core.errors import DiffdetError, InputError, LockedError, MissingExtraError, NotSupportedError

    if os.environ.get("DIFFDET_TRACEBACK"):
        import traceback

        traceback.print_exception(error)
    refused = isinstance(error, (InputError, LockedError, MissingExtraError, NotSupportedError))
    if isinstance(error, DiffdetError):
        return _complain(str(error), EXIT_USAGE if refused or getattr(error, "nothing_written", False) else EXIT_FAILED)
    if isinstance(error, OSError):
        return _complain(f"{error.filename or 'file'}: {error.strerror or error}", EXIT_FAILED)
    if isinstance(error, MemoryError):
        return _complain("out of memory; a smaller `muons.batch` needs less", EXIT_FAILED)
    return _complain(
        f"internal error: {type(error).__name__}: {error}\n(DIFFDET_TRACEBACK=1 in the environment shows where)",
        EXIT_FAILED,
    )


def _sentence(message: str) -> str:
    return message.strip().removesuffix(".")


def _complain(message: str, code: int) -> int:
    click.echo(f"diffdet: error: {message}", err=True)
    return code


def _show_warning(message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: Any) -> None:
    """Our warnings concern the user and are one line; those of other packages name where they come from."""
    if category.__module__.startswith("diffdet"):
        click.echo(f"diffdet: warning: {message}", err=True)
    elif not issubclass(category, (DeprecationWarning, PendingDeprecationWarning, FutureWarning)):
        click.echo(f"diffdet: warning: {message} ({os.path.basename(filename)}:{lineno})", err=True)
