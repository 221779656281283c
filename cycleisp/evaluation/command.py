"""``cycleisp evaluate``: thin commands over the protocols."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cycleisp_runtime.cli import report_error

if TYPE_CHECKING:
    from cycleisp.evaluation.scores import Report

__all__ = ["evaluate"]

_folder = click.argument("folder", type=click.Path(path_type=Path))
_raw_model = click.option(
    "--model",
    default="edge",
    show_default=True,
    metavar="MODEL",
    help="FILE.safetensors with a RAW denoiser, or the path or shipped name of a bundle.",
)
_srgb_model = click.option(
    "--model",
    required=True,
    type=click.Path(path_type=Path),
    metavar="FILE.safetensors",
    help="The weights of an sRGB denoiser.",
)
_metadata = click.option(
    "--metadata",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Where the METADATA_RAW_010.MAT of each image stand, in the images' order by name. "
    "Without them each image's noise is estimated from its blocks.",
)
_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
_output = click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="An existing folder for what the server takes.",
)
_force = click.option("--force", is_flag=True, help="Replace files that exist.")


@click.group()
def evaluate() -> None:
    """Measure a denoiser on real noise, or denoise for a benchmark's server."""


@evaluate.command("pairs")
@_folder
@_srgb_model
@_json
def pairs(folder: Path, model: Path, as_json: bool) -> None:
    """PSNR and SSIM on any folder of noisy and clean pictures, by the first part of their names.

    Pictures are NAME_noisy.EXT and NAME_clean.EXT, or noisy/NAME.EXT and clean/NAME.EXT. They are
    taken as 8-bit sRGB, the output is rounded to 8 bits. Exits with 1 if a pair cannot be judged;
    the others are.
    """
    from cycleisp.evaluation.denoisers import load_srgb_denoiser
    from cycleisp.evaluation.pairs import find_picture_pairs, judged_pair
    from cycleisp.evaluation.scores import mean_scores

    found = find_picture_pairs(folder)
    denoise = load_srgb_denoiser(model)

    with _progress() as begin:
        report = mean_scores(
            [pair.group for pair in found],
            lambda index: judged_pair(denoise, found[index]),
            begin=lambda index: begin(found[index].name, len(found)),
            failed=lambda error: report_error(str(error)),
        )
    _print(report, as_json)
    if report.failed:
        raise click.exceptions.Exit(1)


@evaluate.command("sidd-raw")
@_folder
@_raw_model
@_metadata
@_json
def sidd_raw(folder: Path, model: str, metadata: Path | None, as_json: bool) -> None:
    """PSNR and SSIM on SIDD's RAW validation blocks, by phone."""
    from cycleisp.evaluation.denoisers import load_raw_denoiser
    from cycleisp.evaluation.sidd import validate_raw

    denoise = load_raw_denoiser(model)
    with _progress() as begin:
        report = validate_raw(folder, denoise, metadata, begin)
    _print(report, as_json)


@evaluate.command("sidd-srgb")
@_folder
@_srgb_model
@_json
def sidd_srgb(folder: Path, model: Path, as_json: bool) -> None:
    """PSNR and SSIM on SIDD's sRGB validation blocks, by phone."""
    from cycleisp.evaluation.denoisers import load_srgb_denoiser
    from cycleisp.evaluation.sidd import validate_srgb

    denoise = load_srgb_denoiser(model)
    with _progress() as begin:
        report = validate_srgb(folder, denoise, begin)
    _print(report, as_json)


@evaluate.command("sidd-benchmark-raw")
@_folder
@_raw_model
@_metadata
@_output
@_force
def sidd_benchmark_raw(
    folder: Path, model: str, metadata: Path | None, output: Path, force: bool
) -> None:
    """Denoise SIDD's RAW benchmark blocks into SubmitRaw.mat."""
    from cycleisp.evaluation.denoisers import load_raw_denoiser
    from cycleisp.evaluation.sidd import submit_raw

    denoise = load_raw_denoiser(model)
    with _progress() as begin:
        path = submit_raw(folder, output, denoise, metadata, begin, force=force)
    click.echo(path)


@evaluate.command("sidd-benchmark-srgb")
@_folder
@_srgb_model
@_output
@_force
def sidd_benchmark_srgb(folder: Path, model: Path, output: Path, force: bool) -> None:
    """Denoise SIDD's sRGB benchmark blocks into SubmitSrgb.mat."""
    from cycleisp.evaluation.denoisers import load_srgb_denoiser
    from cycleisp.evaluation.sidd import submit_srgb

    denoise = load_srgb_denoiser(model)
    with _progress() as begin:
        path = submit_srgb(folder, output, denoise, begin, force=force)
    click.echo(path)


@evaluate.command("dnd-raw")
@_folder
@_raw_model
@_output
@_force
@click.option(
    "--released",
    is_flag=True,
    help="Mix up GRBG and GBRG as published code does; only to reproduce its numbers.",
)
def dnd_raw(folder: Path, model: str, output: Path, force: bool, released: bool) -> None:
    """Denoise DND's RAW boxes into the 50 files of a submission."""
    from cycleisp.evaluation.denoisers import load_raw_denoiser
    from cycleisp.evaluation.dnd import submit_raw

    denoise = load_raw_denoiser(model)
    with _progress() as begin:
        paths = submit_raw(folder, output, denoise, begin, released=released, force=force)
    click.echo("\n".join(map(str, paths)))


@evaluate.command("dnd-srgb")
@_folder
@_srgb_model
@_output
@_force
def dnd_srgb(folder: Path, model: Path, output: Path, force: bool) -> None:
    """Denoise DND's sRGB boxes into the 50 files of a submission."""
    from cycleisp.evaluation.denoisers import load_srgb_denoiser
    from cycleisp.evaluation.dnd import submit_srgb

    denoise = load_srgb_denoiser(model)
    with _progress() as begin:
        paths = submit_srgb(folder, output, denoise, begin, force=force)
    click.echo("\n".join(map(str, paths)))


@contextmanager
def _progress() -> Iterator[Callable[[str, int], None]]:
    """A line on stderr, for someone who watches, that each call with (name, total) overwrites."""
    if not sys.stderr.isatty():
        yield lambda _name, _total: None
        return
    start, done = time.monotonic(), 0

    def begin(name: str, total: int) -> None:
        nonlocal done
        left = (time.monotonic() - start) / done * (total - done) if done else 0
        line = f"{done}/{total}  {name}  {timedelta(seconds=round(left))} left"
        click.echo(f"\r\033[K{line}", nl=False, err=True)
        done += 1

    yield begin
    click.echo("\r\033[K", nl=False, err=True)


def _print(report: Report, as_json: bool) -> None:
    import msgspec

    from cycleisp.training.distributed import ranks_of_environment

    if not ranks_of_environment().first:
        return
    if as_json:
        click.echo(msgspec.json.encode(report).decode())
        return
    width = max(5, *(len(each.group) for each in report.means))
    click.echo(f"{'group':{width}}      n        PSNR in dB              SSIM           s/MP")
    for group in report.means:
        mean = group.mean
        click.echo(
            f"{group.group:{width}}  {group.pictures:5}  {mean.noisy_psnr:7.2f} -> {mean.psnr:7.2f}"
            f"   {mean.noisy_ssim:.4f} -> {mean.ssim:.4f}  {mean.seconds_per_mp:8.2f}"
        )
    if report.failed:
        click.echo(f"{report.failed} could not be judged")
