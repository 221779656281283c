"""``cycleisp data``: training data made of a user's own files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cycleisp_runtime.cli import report_error, report_warning
from cycleisp_runtime.cli.progress import progress_of_frames

if TYPE_CHECKING:
    from cycleisp.data.pairs_folder import PairRecord
    from cycleisp.data.prepare import Outcome

__all__ = ["data"]


@click.group()
def data() -> None:
    """Make training data."""


@data.command()
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Where the pairs go; made if its parent exists. Pairs that stand there stay.",
)
@click.option("-r", "--recursive", is_flag=True, help="Look into the folders below a folder, too.")
@click.option(
    "--fivek",
    is_flag=True,
    help="Normalise and render as the authors of CycleISP did to FiveK, to compare with their "
    "results: levels of each frame's own, black left in, JPEG.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per input.")
def prepare(
    inputs: tuple[str, ...], output: Path, recursive: bool, fivek: bool, as_json: bool
) -> None:
    """Make pairs of RAW and sRGB from RAW files: files, folders or patterns.

    What was prepared before is not made again. Exits with 1 if any input failed; the others are
    prepared all the same.
    """
    import msgspec

    from cycleisp.data.prepare import PairsWriter
    from cycleisp_runtime.jobs import find_inputs

    sources = find_inputs(inputs, recursive=recursive, outside=output)
    writer = PairsWriter(output, "fivek" if fivek else "levels")
    prepared = existing = failed = 0
    with progress_of_frames(len(sources)) as begin:
        for source in sources:
            begin(source.name)
            outcome = writer.add(source)
            if as_json:
                click.echo(msgspec.json.encode(outcome).decode())
            elif outcome.pair is not None:
                click.echo(_line(outcome, outcome.pair))
            for warning in outcome.warnings:
                report_warning(f"{outcome.input}: {warning}")
            if outcome.error is not None:
                report_error(outcome.error)
                failed += 1
            elif outcome.existing:
                existing += 1
            else:
                prepared += 1
    click.echo(f"{prepared} prepared, {existing} there already, {failed} failed", err=True)
    if failed:
        raise click.exceptions.Exit(1)


def _line(outcome: Outcome, pair: PairRecord) -> str:
    """A file that was done, for people."""
    if outcome.existing:
        return f"{outcome.input}: there already as {pair.stem}"
    return (
        f"{outcome.input} -> {pair.stem}: {pair.camera or 'unknown camera'}, "
        f"{pair.width}x{pair.height} of {pair.cfa}, {outcome.seconds:.1f} s"
    )


@data.command()
@click.argument(
    "folders", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="SIDD..."
)
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Where the pairs go; made if its parent exists. Pairs that stand there stay.",
)
def sidd(folders: tuple[Path, ...], output: Path) -> None:
    """Make pairs of SIDD Small or Medium, noisy and clean, for `cycleisp train finetune-sidd`.

    SIDD is the folder that holds Data; RAW and sRGB are published apart and may lie in two folders.
    What was prepared before is not made again. Exits with 1 if any frame failed; the others are
    prepared all the same.
    """
    from cycleisp.data.sidd import find_sidd_pairs
    from cycleisp.data.sidd_pairs import add_sidd_frame
    from cycleisp_runtime.errors import CycleISPError

    frames, incomplete = find_sidd_pairs(*folders)
    for name in incomplete:
        report_error(f"{name}: not all of RAW, sRGB and metadata, noisy and GT, are there")
    added = existing = 0
    failed = len(incomplete)
    with progress_of_frames(len(frames)) as begin:
        for frame in frames:
            begin(frame.name)
            try:
                if add_sidd_frame(output, frame):
                    added += 1
                else:
                    existing += 1
            except CycleISPError as error:
                report_error(str(error))
                failed += 1
    click.echo(f"{added} prepared, {existing} there already, {failed} failed", err=True)
    if failed:
        raise click.exceptions.Exit(1)
