"""``cycleisp denoise``: RAW files in, cleaner DNGs or pictures out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cycleisp_runtime.cli import report_error, report_warning
from cycleisp_runtime.cli.noise_option import noise_model
from cycleisp_runtime.cli.progress import progress_of_frames
from cycleisp_runtime.errors import CycleISPError

if TYPE_CHECKING:
    from cycleisp_runtime.batch import NoiseFacts, Outcome
    from cycleisp_runtime.jobs import Format
    from cycleisp_runtime.noise import NoiseModel
    from cycleisp_runtime.readers import DumpLayout

__all__ = ["denoise"]


def _dump_layout(
    _ctx: click.Context, _param: click.Parameter, value: str | None
) -> DumpLayout | None:
    """The layout of a dump, as ``DumpLayout.parse`` reads it."""
    if value is None:
        return None
    from cycleisp_runtime.readers import DumpLayout

    try:
        return DumpLayout.parse(value)
    except CycleISPError as error:
        raise click.BadParameter(error.reason) from error


@click.command()
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    help="A file in .dng, .tif or .png for one input; else a folder, made if its parent exists.",
)
@click.option(
    "--format",
    "file_format",
    type=click.Choice(["dng", "tif", "png"]),
    help="Of the files in an output folder; dng by default. tif and png are rendered, to look at.",
)
@click.option("--force", is_flag=True, help="Replace outputs that exist. Inputs never are.")
@click.option("-r", "--recursive", is_flag=True, help="Look into the folders below a folder, too.")
@click.option(
    "--model",
    default="edge",
    show_default=True,
    metavar="BUNDLE",
    help="The name of a shipped model, or the path of a bundle.",
)
@click.option(
    "--noise",
    metavar="SHOT,READ",
    callback=noise_model,
    help="variance = SHOT x + READ, in units of the normalised signal. By default the file's own "
    "NoiseProfile, else an estimate from the frame.",
)
@click.option(
    "--strength",
    type=click.FloatRange(0, 1),
    default=1.0,
    show_default=True,
    help="Share of the model's correction, of what is expected to help the frame; 0 leaves every "
    "sample as it is.",
)
@click.option(
    "--keep-levels", is_flag=True, help="Write at the input's levels instead of all 16 bits."
)
@click.option(
    "--tile",
    type=click.IntRange(min=1),
    metavar="N",
    help="Side of a tile in packed samples (2x2 cells); a smaller one takes less memory.",
)
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    metavar="N",
    help="Threads of the network; one per physical core by default.",
)
@click.option(
    "--layout",
    metavar="TEXT",
    callback=_dump_layout,
    help="How to read dumps without a header: width=768, height=512, cfa=RGGB, packing=u16le, "
    "black=600, and bits, white, stride, offset if need be; one text, no spaces.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per input.")
def denoise(
    inputs: tuple[str, ...],
    output: Path,
    file_format: Format | None,
    force: bool,
    recursive: bool,
    model: str,
    noise: NoiseModel | None,
    strength: float,
    keep_levels: bool,
    tile: int | None,
    threads: int | None,
    layout: DumpLayout | None,
    as_json: bool,
) -> None:
    """Denoise RAW files: files, folders or patterns.

    Exits with 1 if any input failed; the others are done all the same.
    """
    import msgspec

    from cycleisp_runtime.batch import BatchSettings, denoise_file
    from cycleisp_runtime.denoiser import Denoiser
    from cycleisp_runtime.jobs import find_inputs, plan_jobs

    sources = find_inputs(inputs, recursive=recursive, outside=output)
    jobs = plan_jobs(sources, output, file_format=file_format)
    settings = BatchSettings(noise, strength, tile, keep_levels, layout, force)
    failed = False
    with (
        Denoiser.load(model, threads=threads) as denoiser,
        progress_of_frames(len(jobs)) as begin,
    ):
        for job in jobs:
            outcome = denoise_file(job, denoiser, settings, begin(job.source.name))
            if as_json:
                click.echo(msgspec.json.encode(outcome).decode())
            elif outcome.error is None:
                click.echo(_line(outcome))
            for warning in outcome.warnings:
                report_warning(f"{outcome.input}: {warning}")
            if outcome.error is not None:
                report_error(outcome.error)
                failed = True
    if failed:
        raise click.exceptions.Exit(1)


def _line(outcome: Outcome) -> str:
    """A file that was done, for people."""
    width, height = outcome.size or (0, 0)
    gain = outcome.expected_gain_db
    expected = "" if gain is None else f"expected gain {gain:.1f} dB, "
    return (
        f"{outcome.input} -> {outcome.output}: {outcome.camera or 'unknown camera'}, "
        f"{width}x{height} {outcome.cfa}, noise: {_noise_words(outcome.noise)}, "
        f"{expected}levels x{outcome.level_scale}, {sum(outcome.seconds.values()):.1f} s"
    )


def _noise_words(noise: NoiseFacts | None) -> str:
    if noise is None or noise.shot is None:
        return "none"
    confidence = f", {noise.confidence} confidence" if noise.confidence else ""
    return f"{noise.source}{confidence} (shot {noise.shot:.2e}, read {noise.read:.2e})"
