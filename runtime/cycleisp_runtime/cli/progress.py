"""Progress over frames and tiles, or over the phases of one long task, for someone who watches."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["PhaseProgress", "TileProgress", "progress_of_frames", "progress_of_phases"]

TileProgress = Callable[[int, int], None]
"""Called with (tiles done, tiles in all) of the frame at hand."""

PhaseProgress = Callable[[str, int, int], None]
"""Called with (phase, steps done, steps in all); the steps of a phase take about equally long."""


@contextmanager
def progress_of_phases() -> Iterator[PhaseProgress]:
    """A bar with the time that is left of the phase at hand, on stderr where that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda _phase, _done, _total: None
        return

    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True, redirect_stdout=False) as bars:
        task = bars.add_task("", total=None)

        def update(phase: str, done: int, total: int) -> None:
            if bars.tasks[task].description != phase:
                bars.reset(task, description=phase)
            bars.update(task, completed=done, total=total)

        yield update


@contextmanager
def progress_of_frames(frames: int) -> Iterator[Callable[[str], TileProgress | None]]:
    """Bars on stderr where it is a terminal, else nothing.

    Gives a function to call at the start of every frame, with its name; what that returns is to be
    called after every tile.
    """
    if not sys.stderr.isatty():
        yield lambda _name: None
        return

    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    bars = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=sys.stdout.isatty(),  # else rich would send a report in a pipe to stderr
    )
    with bars:
        all_frames = bars.add_task("frames", total=frames)
        tiles = bars.add_task("", total=None)
        begun = 0

        def begin(name: str) -> TileProgress:
            nonlocal begun
            bars.update(all_frames, completed=begun)
            bars.reset(tiles, description=name, total=None)
            begun += 1
            return lambda done, total: bars.update(tiles, completed=done, total=total)

        yield begin
