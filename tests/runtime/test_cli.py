"""The group of commands: what it lists, and which exit code each ending has."""

from __future__ import annotations

import errno
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from cycleisp_runtime import cli
from cycleisp_runtime.cli import main
from cycleisp_runtime.errors import BackendError, InputError, SettingsError
from cycleisp_runtime.readers import read_frame
from tests.helpers import RAW

NOT_INSTALLED = "which is not installed: pip install"


@pytest.fixture
def ending(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    """Makes a command ``end`` that ends by the exception it is given."""

    def install(error: BaseException) -> None:
        @click.command
        def end() -> None:
            raise error

        class Entry(EntryPoint):
            def load(self) -> click.Command:
                return end

        entry = Entry("end", "cycleisp.training.command:end", cli.COMMANDS)
        monkeypatch.setattr(cli, "_entries", lambda: {"end": entry})

    return install


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (InputError("not RAW", subject="a.dng"), 1, "cycleisp: error: a.dng: not RAW"),
        (BackendError("out of memory"), 1, "cycleisp: error: out of memory"),
        (SettingsError("unknown key", met="lr"), 1, "cycleisp: error: unknown key (met lr)"),
        (KeyboardInterrupt(), 130, "cycleisp: error: interrupted"),
        (
            OSError(errno.ENOSPC, "No space left on device"),
            1,
            "cycleisp: error: standard output cannot be written: no space left on device",
        ),
        (
            ModuleNotFoundError("No module named 'torch'", name="torch"),
            1,
            f"cycleisp: error: end needs torch, {NOT_INSTALLED} 'cycleisp[train]'",
        ),
    ],
)
def test_errors_are_one_line_and_a_code(
    ending: Callable[[BaseException], None], error: BaseException, code: int, line: str
) -> None:
    ending(error)
    result = CliRunner().invoke(main, ["end"])
    assert result.exit_code == code
    assert result.stderr == f"{line}\n"
    assert result.stdout == ""


def test_a_bug_keeps_its_traceback(ending: Callable[[BaseException], None]) -> None:
    ending(ZeroDivisionError())
    assert isinstance(CliRunner().invoke(main, ["end"]).exception, ZeroDivisionError)


def test_a_command_that_cannot_be_imported_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Entry(EntryPoint):
        def load(self) -> click.Command:
            raise ModuleNotFoundError("No module named 'onnx'", name="onnx")

    entry = Entry("export", "cycleisp_export.command:export", cli.COMMANDS)
    monkeypatch.setattr(cli, "_entries", lambda: {"export": entry})
    listing = CliRunner().invoke(main, ["--help"])
    assert listing.exit_code == 0
    result = CliRunner().invoke(main, ["export", "run", "--force"])
    assert result.exit_code == 1
    line = f"cycleisp: error: export needs onnx, {NOT_INSTALLED} 'cycleisp[export]'\n"
    assert result.stderr == line


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_lists_the_commands(option: str) -> None:
    result = CliRunner().invoke(main, [option])
    assert result.exit_code == 0
    assert "denoise" in result.stdout
    assert "info" in result.stdout


@pytest.mark.parametrize("name", main.list_commands(click.Context(main)))
def test_every_command_has_help(name: str) -> None:
    result = CliRunner().invoke(main, [name, "--help"])
    assert result.exit_code == 0
    assert result.stdout.startswith(f"Usage: main {name}")


def test_version() -> None:
    assert CliRunner().invoke(main, ["--version"]).stdout.startswith("cycleisp, version ")


@pytest.mark.parametrize("arguments", [["nonsense"], ["denoise"], ["info", "--nonsense"]])
def test_usage_errors_are_2(arguments: list[str]) -> None:
    assert CliRunner().invoke(main, arguments).exit_code == 2


@pytest.mark.parametrize("closed", ["1>&-", "2>&-", "1>&- 2>&-"])
def test_a_stream_that_is_closed_changes_nothing_else(tmp_path: Path, closed: str) -> None:
    frame, output = RAW / "d750_black_delta.dng", tmp_path / "out.dng"
    program = f"{sys.executable} -c 'from cycleisp_runtime.cli import main; main()'"
    command = f"{program} denoise {frame} -o {output} --model tiny --noise 1e-4,1e-6 {closed}"
    done = subprocess.run(["sh", "-c", command], capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert read_frame(output).samples.shape == read_frame(frame).samples.shape
