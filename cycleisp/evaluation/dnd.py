"""DND: the files that its server scores. Its truth is not public."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from cycleisp.data.dnd import DndImage, read_boxes, read_dnd
from cycleisp.evaluation.denoisers import MosaicDenoiser, SrgbDenoiser
from cycleisp.evaluation.submission import write_dnd_submission
from cycleisp_runtime.writers.atomic import check_output

__all__ = ["submit_raw", "submit_srgb"]

Begin = Callable[[str, int], None]
"""Called before each box with its name and how many there are."""


def submit_raw(
    folder: Path,
    output: Path,
    denoise: MosaicDenoiser,
    begin: Begin,
    *,
    released: bool,
    force: bool,
) -> list[Path]:
    """The 50 files of a RAW submission, in the folder ``output``.

    Every box of 512x512 is clipped to [0, 1], flipped to RGGB, packed, denoised with the variance
    map a * x + b of its image, clipped, flipped back, and stored as float32 without rounding.

    Args:
        folder: of the archive; it holds ``info.mat``.
        output: an existing folder.
        denoise: from ``load_raw_denoiser``.
        begin: told about progress.
        released: as ``read_dnd``; only to reproduce the numbers of published code.
        force: whether files that stand there may be replaced.

    Raises:
        InputError: where the archive cannot be read.
        OutputError: where a file cannot be written.
    """
    images = read_dnd(folder, released=released)

    def run(image: DndImage, box: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return denoise(box, image.phase, image.noise)

    return _submit(folder, images, "raw", run, output, begin, force=force)


def submit_srgb(
    folder: Path, output: Path, denoise: SrgbDenoiser, begin: Begin, *, force: bool
) -> list[Path]:
    """The 50 files of an sRGB submission: each box through the network as a whole, then clipped.

    Raises:
        InputError: where the archive cannot be read.
        OutputError: where a file cannot be written.
    """
    return _submit(
        folder, read_dnd(folder), "srgb", lambda _, box: denoise(box), output, begin, force=force
    )


def _submit(
    folder: Path,
    images: list[DndImage],
    space: Literal["raw", "srgb"],
    run: Callable[[DndImage, npt.NDArray[np.float32]], npt.NDArray[np.float32]],
    output: Path,
    begin: Begin,
    *,
    force: bool,
) -> list[Path]:
    paths = [output / f"{image.number:04d}.mat" for image in images]
    for path in paths:
        check_output(path, source=None, force=force)
    total = sum(len(image.boxes) for image in images)
    for image, path in zip(images, paths, strict=True):
        denoised = []
        for number, box in enumerate(read_boxes(folder, image, space), start=1):
            begin(f"{image.number:04d}_{number:02d}", total)
            denoised.append(run(image, box))
        write_dnd_submission(path, denoised, raw=space == "raw", force=force)
    return paths
