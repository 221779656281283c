"""Progress of long commands: bars for someone who watches, nothing in a pipe."""

from __future__ import annotations

import io
import sys

import pytest

from cycleisp_runtime.cli.progress import progress_of_phases


class Terminal(io.StringIO):
    """What rich takes for a terminal."""

    def isatty(self) -> bool:
        return True


def test_phases_are_named_with_their_steps_and_the_time_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with progress_of_phases() as update:
        update("quality", 1, 2)
        update("report", 3, 3)
    shown = terminal.getvalue()
    assert shown.index("report") < shown.index("100%")
    assert "0:00:00" in shown


def test_a_pipe_gets_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    with progress_of_phases() as update:
        update("quality", 1, 2)
    assert capfd.readouterr() == ("", "")
