"""Rendered pictures denoised one after the other, as ``batch.py`` does with RAW files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from cycleisp_runtime.batch import Outcome, begun, failures_told, make_folder
from cycleisp_runtime.jobs import Job
from cycleisp_runtime.picture_files import read_picture, write_picture
from cycleisp_runtime.pictures import PictureDenoiser
from cycleisp_runtime.stopwatch import Stopwatch
from cycleisp_runtime.text import printable
from cycleisp_runtime.writers import check_output

__all__ = ["denoise_picture_file"]


def denoise_picture_file(
    job: Job,
    denoiser: PictureDenoiser,
    *,
    tile: int | None = None,
    exact: bool = False,
    force: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Outcome:
    """What became of this picture; failures of the file itself are in it, not raised.

    Args:
        job: the file to read and the file to write; the folder of the latter is made if need be.
        denoiser: an open denoiser.
        tile: as for ``PictureDenoiser``.
        exact: the same.
        force: replace an output that exists.
        progress: called with (tiles done, tiles in all).

    Raises:
        SettingsError: where the settings fit no picture at all.
    """
    outcome = begun(job, denoiser.bundle, denoiser.backend)
    watch = Stopwatch()
    outcome.seconds = watch.seconds
    with failures_told(job, outcome):
        if job.output.parent.is_dir():
            check_output(job.output, source=job.source, force=force)
        with watch.step("read"):
            picture = read_picture(job.source)
        height, width, _ = picture.pixels.shape
        outcome.size = (width, height)
        denoised = denoiser(picture.pixels, tile=tile, exact=exact, progress=progress)
        watch.seconds.update(denoised.seconds)
        outcome.warnings += denoised.warnings
        with watch.step("write"):
            make_folder(job.output)
            written = replace(picture, pixels=denoised.picture)
            write_picture(written, job.output, source=job.source, force=force)
        outcome.output = printable(job.output)
    return outcome
