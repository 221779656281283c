"""``cycleisp denoise``: RAW files in, cleaner DNGs or pictures out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cycleisp_runtime.cli import report_error, report_warning
from cycleisp_runtime.cli.layout_option import dump_layout
from cycleisp_runtime.cli.model_options import ModelOptions, model_options
from cycleisp_runtime.cli.noise_option import noise_model
from cycleisp_runtime.cli.progress import TileProgress, progress_of_frames
from cycleisp_runtime.errors import SettingsError

if TYPE_CHECKING:
    from cycleisp_runtime.batch import NoiseFacts, Outcome
    from cycleisp_runtime.jobs import Format, Job
    from cycleisp_runtime.noise import NoiseModel
    from cycleisp_runtime.readers import DumpLayout

__all__ = ["denoise"]


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
    help="Side of a tile in packed samples (2x2 cells); what --memory allows by default.",
)
@click.option(
    "--exact",
    is_flag=True,
    help="Take the attention of a network that pools from the whole frame: in its memory, slowly.",
)
@click.option(
    "--layout",
    metavar="TEXT",
    callback=dump_layout,
    help="How to read dumps without a header: width=768, height=512, cfa=RGGB, packing=u16le, "
    "black=600, and bits, white, stride, offset if need be; one text, no spaces.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per input.")
@model_options
def denoise(
    options: ModelOptions,
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
    exact: bool,
    layout: DumpLayout | None,
    as_json: bool,
) -> None:
    """Denoise RAW files: files, folders or patterns.

    With a model of rendered pictures, PNG, JPEG or TIFF files become pictures of the same kind.
    Exits with 1 if any input failed; the others are done all the same.
    """
    from cycleisp_runtime.batch import BatchSettings, denoise_file
    from cycleisp_runtime.bundle import find_bundle
    from cycleisp_runtime.jobs import find_inputs, plan_jobs

    if find_bundle(model).record.task == "srgb":
        from cycleisp_runtime.picture_batch import denoise_picture_file
        from cycleisp_runtime.picture_files import PICTURE_SUFFIXES as SUFFIXES

        _refuse_options_of_raw(
            {
                "--noise": noise is not None,
                "--strength": strength != 1,
                "--keep-levels": keep_levels,
                "--layout": layout is not None,
                "--format dng": file_format == "dng",
            }
        )
        sources = find_inputs(inputs, recursive=recursive, outside=output, suffixes=SUFFIXES)
        jobs = plan_jobs(sources, output, file_format=file_format, suffixes=SUFFIXES, default=None)
        with options.load_for_pictures(model) as pictures:
            _run(
                jobs,
                lambda job, progress: denoise_picture_file(
                    job, pictures, tile=tile, exact=exact, force=force, progress=progress
                ),
                as_json=as_json,
            )
        return

    sources = find_inputs(inputs, recursive=recursive, outside=output)
    jobs = plan_jobs(sources, output, file_format=file_format)
    settings = BatchSettings(noise, strength, tile, exact, keep_levels, layout, force)
    with options.load(model) as denoiser:
        _run(
            jobs,
            lambda job, progress: denoise_file(job, denoiser, settings, progress),
            as_json=as_json,
        )


def _refuse_options_of_raw(given: Mapping[str, bool]) -> None:
    for option, is_given in given.items():
        if is_given:
            raise SettingsError(
                "only for RAW files; the model is for rendered pictures", subject=option
            )


def _run(
    jobs: Sequence[Job],
    denoise_one: Callable[[Job, TileProgress | None], Outcome],
    *,
    as_json: bool,
) -> None:
    """Do the jobs and say what became of each; exit with 1 if any failed."""
    import msgspec

    failed = False
    with progress_of_frames(len(jobs)) as begin:
        for job in jobs:
            outcome = denoise_one(job, begin(job.source.name))
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
    seconds = sum(outcome.seconds.values())
    if outcome.cfa is None:
        return f"{outcome.input} -> {outcome.output}: {width}x{height}, {seconds:.1f} s"
    gain = outcome.expected_gain_db
    expected = "" if gain is None else f"expected gain {gain:.1f} dB, "
    return (
        f"{outcome.input} -> {outcome.output}: {outcome.camera or 'unknown camera'}, "
        f"{width}x{height} {outcome.cfa}, noise: {_noise_words(outcome.noise)}, "
        f"{expected}levels x{outcome.level_scale}, {seconds:.1f} s"
    )


def _noise_words(noise: NoiseFacts | None) -> str:
    if noise is None or noise.shot is None:
        return "none"
    confidence = f", {noise.confidence} confidence" if noise.confidence else ""
    return f"{noise.source}{confidence} (shot {noise.shot:.2e}, read {noise.read:.2e})"
