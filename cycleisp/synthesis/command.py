"""``cycleisp synthesize``: noisy and clean pairs from clean pictures, by trained networks."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cycleisp_runtime.cli import report_error
from cycleisp_runtime.cli.progress import progress_of_frames

if TYPE_CHECKING:
    from cycleisp.synthesis.run import Outcome

__all__ = ["synthesize"]

_FILE = click.Path(path_type=Path)


@click.command()
@click.argument("kind", type=click.Choice(["raw", "srgb", "sidd"]))
@click.argument("inputs", nargs=-1, required=True, type=_FILE, metavar="INPUT...")
@click.option(
    "-o",
    "--output",
    required=True,
    type=_FILE,
    metavar="FOLDER",
    help="Made if its parent exists. Pairs of the same synthesis that stand there are kept.",
)
@click.option("--rgb2raw", required=True, type=_FILE, metavar="FILE", help="Trained network.")
@click.option("--color-branch", type=_FILE, metavar="FILE", help="Trained network, for sRGB.")
@click.option("--raw2rgb", type=_FILE, metavar="FILE", help="Trained network, for sRGB.")
@click.option(
    "--noise",
    metavar="LAW|FILE.json",
    help="unprocessing, cycleisp-dnd, cycleisp-sidd, or the measured profile of a sensor. "
    "SIDD brings its own.",
)
@click.option("--poisson", is_flag=True, help="Count photo-electrons instead of Gaussian noise.")
@click.option(
    "--row-noise",
    type=click.FloatRange(0, 100),
    default=0.0,
    metavar="FACTOR",
    help="Add noise that a sensor row shares, of FACTOR times the variance of the read noise.",
)
@click.option("--hot", type=click.FloatRange(0, 1), default=0.0, help="Share of pixels at white.")
@click.option("--dead", type=click.FloatRange(0, 1), default=0.0, help="Share of pixels at black.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option(
    "--target",
    type=click.Choice(["blurred", "round-trip", "residual"]),
    default="residual",
    show_default=True,
    help="The clean side of sRGB: what RGB2RAW saw (the paper's), its way through both networks, "
    "or the photograph, to which the rendered noise is added.",
)
@click.option(
    "--as",
    "file_format",
    type=click.Choice(["tar", "png", "dng", "npz"]),
    default="tar",
    show_default=True,
    help="Shards for training, or two pictures or one file per pair.",
)
@click.option("--samples-per-shard", type=click.IntRange(min=1), default=64, show_default=True)
@click.option(
    "--tile",
    type=click.IntRange(min=128),
    default=1024,
    show_default=True,
    metavar="N",
    help="Longest side in pixels that networks are given at once; a smaller one takes less memory.",
)
@click.option(
    "--contact-sheet",
    type=_FILE,
    metavar="FILE.png",
    help="Also show some of the pictures on their way.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def synthesize(as_json: bool, **options: object) -> None:
    """Make pairs of RAW or sRGB from clean pictures (files or folders), or sRGB from SIDD.

    Started by torchrun, every process makes its share. Stopped and started again with the same
    arguments, it goes on. Exits with 1 if a picture was skipped; pairs are made of all others.
    """
    import msgspec

    from cycleisp.synthesis.job import SynthesisSettings, run_synthesis

    settings = SynthesisSettings(**options)  # type: ignore[arg-type]  # click has checked them
    with ExitStack() as bars:
        outcome = run_synthesis(
            settings, lambda inputs: bars.enter_context(progress_of_frames(inputs))
        )
    if as_json:
        click.echo(msgspec.json.encode(outcome).decode())
    else:
        click.echo(f"{settings.output}: {_words(outcome)}")
    for skipped in outcome.skipped:
        report_error(f"{skipped.source}: skipped: {skipped.reason}")
    if outcome.skipped:
        raise click.exceptions.Exit(1)


def _words(outcome: Outcome) -> str:
    """What was done, for people."""
    rate = outcome.megapixels / max(outcome.seconds, 1e-9)
    return (
        f"{outcome.made} pairs made, {outcome.megapixels:.1f} MP in {outcome.seconds:.1f} s "
        f"({rate:.2f} MP/s), {outcome.kept} parts kept, {len(outcome.skipped)} inputs skipped"
        + ("" if outcome.complete else "; other processes are not done")
    )
