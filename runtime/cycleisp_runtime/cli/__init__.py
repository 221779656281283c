"""The command ``cycleisp``: a group whose commands packages add by entry points.

A command is a thin layer: parse, call a library, print. Its module imports nothing heavy, because
``cycleisp --help`` loads it for its one line; what the command needs is imported when it runs.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import click

from cycleisp_runtime.errors import CycleISPError
from cycleisp_runtime.text import printable

__all__ = ["CommandGroup", "main", "report_error", "report_warning"]

COMMANDS = "cycleisp.commands"
INTERRUPTED = 130
"""128 + SIGINT, as shells report it."""

_EXTRA_OF_PACKAGE = {"cycleisp": "train", "cycleisp_export": "export"}


def report_error(line: str) -> None:
    """One line on stderr about what was not done."""
    click.echo(f"cycleisp: error: {printable(line)}", err=True)


def report_warning(line: str) -> None:
    """One line on stderr about what was done, but may disappoint."""
    click.echo(f"cycleisp: warning: {printable(line)}", err=True)


class CommandGroup(click.Group):
    """Commands by entry point, and the one place that turns exceptions into exit codes.

    0 done, 1 what a CycleISPError says or a missing extra, 2 what click's parser does not accept,
    130 interrupted or terminated. Anything else is a bug and keeps its traceback.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  click's signature
        """Names of all commands that are installed."""
        return sorted(_entries())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """The command of this name, its module imported now; None where there is none."""
        entry = _entries().get(cmd_name)
        if entry is None:
            return None
        try:
            command: click.Command = entry.load()
        except ModuleNotFoundError as error:
            return _unavailable(entry, error)
        return command

    def invoke(self, ctx: click.Context) -> object:
        """Run the command that was asked for."""
        _open_missing_streams()
        try:
            with _terminated_as_interrupted():
                return super().invoke(ctx)
        except CycleISPError as error:
            report_error(str(error))
            ctx.exit(1)
        except ModuleNotFoundError as error:
            line = _missing_extra(_entries()[str(ctx.invoked_subcommand)], error)
            if line is None:
                raise
            report_error(line)
            ctx.exit(1)
        except OSError as error:
            if error.errno != errno.ENOSPC or error.filename is not None:
                raise
            report_error("standard output cannot be written: no space left on device")
            ctx.exit(1)
        except KeyboardInterrupt:
            report_error("interrupted")
            ctx.exit(INTERRUPTED)


def _open_missing_streams() -> None:
    """What a program writes that was started with stdout or stderr closed is lost, as it wants."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            nowhere = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115  to the end
            setattr(sys, name, nowhere)


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM, which stops services, ends the block as Ctrl-C does: nothing is left behind."""
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    ):
        yield
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _entries() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=COMMANDS)}


def _missing_extra(entry: EntryPoint, error: ModuleNotFoundError) -> str | None:
    """The line that names the extra of this command; None where no extra would help."""
    extra = _EXTRA_OF_PACKAGE.get(entry.module.partition(".")[0])
    if extra is None:
        return None
    return (
        f"{entry.name} needs {error.name}, which is not installed: pip install 'cycleisp[{extra}]'"
    )


def _unavailable(entry: EntryPoint, error: ModuleNotFoundError) -> click.Command:
    """A command that stands in for one whose module cannot be imported."""

    @click.command(
        entry.name,
        help=_missing_extra(entry, error) or str(error),
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    )
    def command() -> None:
        raise error

    return command


@click.group(cls=CommandGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="cycleisp", prog_name="cycleisp")
def main() -> None:
    """Neural denoising of camera RAW on the edge."""
