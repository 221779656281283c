"""``cycleisp doctor``: what is installed, what fits, what works."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from cycleisp_runtime.cli.progress import progress_of_frames
from cycleisp_runtime.text import printable

if TYPE_CHECKING:
    from cycleisp_runtime.doctor import Examination

__all__ = ["doctor"]


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def doctor(as_json: bool) -> None:
    """Examine this machine and try every backend on a small tile.

    On a GPU this may build an engine first, which takes minutes. Exits with 1 where something that
    is installed does not work or does not fit.
    """
    import msgspec

    from cycleisp_runtime.doctor import CHECKS, examine

    with progress_of_frames(len(CHECKS)) as begin:
        examination = examine(begin)
    if as_json:
        click.echo(msgspec.json.encode(examination).decode())
    else:
        for line in _lines(examination):
            click.echo(printable(line))
    if not examination.healthy:
        raise click.exceptions.Exit(1)


def _lines(examination: Examination) -> Iterator[str]:
    machine = examination.machine
    yield f"machine   {machine.board or machine.cpu}, {machine.architecture}, {machine.cores} cores"
    if machine.l4t is not None:
        yield f"jetpack   {examination.jetpack or 'not known'}, L4T {machine.l4t}"
    gpu = machine.gpu
    yield f"gpu       {'none' if gpu is None else f'{gpu.name}, driver {gpu.driver}'}"
    versions = (f"{name} {version}" for name, version in machine.versions.items())
    yield f"packages  {', '.join(versions)}"
    for backend in examination.backends:
        yield f"{backend.state:<9} {backend.backend} on {backend.device}: {backend.line}"
        if backend.hint is not None:
            yield f"          {backend.hint}"
    for finding in examination.findings:
        yield f"{finding.severity:<9} {finding.line}"
        yield f"          {finding.hint}"
    yield "healthy" if examination.healthy else "not healthy"
