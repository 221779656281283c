"""``cycleisp calibrate``: what a network's INT8 scales are taken from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cycleisp_runtime.cli import report_error, report_warning
from cycleisp_runtime.cli.progress import progress_of_frames

if TYPE_CHECKING:
    from cycleisp_calibration.views import Task

__all__ = ["calibrate"]


@click.group()
def calibrate() -> None:
    """Make what networks and sensors are calibrated with."""


@calibrate.command("set")
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    metavar="SET.npz",
    help="The tiles; a manifest SET.json and a contact sheet SET.png go beside it.",
)
@click.option(
    "--task",
    type=click.Choice(["raw", "srgb"]),
    default="raw",
    show_default=True,
    help="The networks that the set is for.",
)
@click.option("--tiles", type=int, default=500, show_default=True, help="How many, at most.")
@click.option(
    "--tile",
    "side",
    type=int,
    default=256,
    show_default=True,
    metavar="N",
    help="Side of a tile in samples of the sensor or pixels; RAW tiles are packed to half of it.",
)
@click.option(
    "--noise",
    multiple=True,
    metavar="SHOT,READ",
    help="variance = SHOT x + READ of the sensor whose noise is put on photographs; repeat it for "
    "several levels. By default low, middle and high for RAW, none for sRGB.",
)
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True)
@click.option("--force", is_flag=True, help="Replace files that exist. Inputs never are.")
@click.option("--json", "as_json", is_flag=True, help="Print the manifest.")
def set_(
    inputs: tuple[str, ...],
    output: Path,
    task: Task,
    tiles: int,
    side: int,
    noise: tuple[str, ...],
    seed: int,
    force: bool,
    as_json: bool,
) -> None:
    """Choose tiles for INT8 from RAW files, or from photographs.

    Files are RAW, or pictures by their suffix: .jpg, .png, .tif, .webp. Folders are searched for
    RAW files; pictures are named one by one or by a pattern. RAW frames have the noise that they
    declare or show; clean photographs become RAW by a simulated sensor. Tiles come evenly from 27
    strata of noise, brightness and texture, near-duplicates left out.

    Exits with 1 if any input failed; the set is made of the others all the same.
    """
    import msgspec

    from cycleisp_calibration.sets import build_calibration_set, check_set_outputs, write_set
    from cycleisp_calibration.survey import SetSettings
    from cycleisp_runtime.jobs import find_inputs
    from cycleisp_runtime.noise import NoiseModel

    settings = SetSettings(task, tiles, side, tuple(map(NoiseModel.parse, noise)), seed)
    sources = find_inputs(inputs)
    check_set_outputs(output, sources=sources, force=force)
    with progress_of_frames(2 * len(sources)) as begin:
        built = build_calibration_set(sources, settings, begin)
        record = write_set(built, output, sources=sources, force=force)
    if as_json:
        click.echo(msgspec.json.encode(record).decode())
    else:
        filled = sum(count > 0 for count in record.strata.values())
        click.echo(
            f"{output}: {len(record.tiles)} tiles of {record.side}x{record.side} from "
            f"{len(record.sources)} files, {filled} of {len(record.strata)} strata, "
            f"{record.duplicates} near-duplicates left out of {record.candidates} candidates"
        )
    for warning in built.warnings:
        report_warning(warning)
    for error in built.errors:
        report_error(error)
    if built.errors:
        raise click.exceptions.Exit(1)
