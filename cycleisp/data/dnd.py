"""DND: the Darmstadt noise dataset, 50 images of 20 boxes each, in the files of its archive.

T. Ploetz, S. Roth, "Benchmarking Denoising Algorithms with Real Photographs", CVPR 2017. All files
are MATLAB's v7.3; samples are normalised, in [0, 1]. Names are those of public loaders; they were
not checked against the set itself.

    info.mat               info: boundingboxes, camera.pattern, nlf.a and nlf.b per image
    images_raw/0001.mat    Inoisy (H, W), a Bayer mosaic
    images_srgb/0001.mat   InoisySRGB (H, W, 3)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import h5py
import numpy as np
import numpy.typing as npt

from cycleisp.data.hdf5 import array_of, checked_dataset, member, open_hdf5, referenced
from cycleisp.data.matlab import blamed_on
from cycleisp_runtime.bayer import Phase
from cycleisp_runtime.errors import InputError
from cycleisp_runtime.noise import NoiseModel

__all__ = ["DndImage", "read_boxes", "read_dnd"]

_BOXES_BYTES = 2**16
_LARGEST_SIDE = 1024
"""Of a box. Published are 512."""

_COLOURS = {1: "R", 2: "G", 3: "B"}


@dataclass(frozen=True)
class DndImage:
    """What ``info.mat`` says of one image.

    Attributes:
        number: 1 to 50; in the names of its files.
        boxes: top, left, bottom, right of each box in samples, from 0, the ends not included.
        phase: of the mosaic.
        noise: of the RAW, in normalised units.
    """

    number: int
    boxes: tuple[tuple[int, int, int, int], ...]
    phase: Phase
    noise: NoiseModel


def read_dnd(folder: Path, *, released: bool = False) -> list[DndImage]:
    """All images of the archive.

    Args:
        folder: it holds ``info.mat``.
        released: read the pattern with its axes exchanged, as HDF5 has them, and take the BGGR that
            is then left for RGGB. The code released with CycleISP and that of Brooks et al. do so:
            GRBG and GBRG are mixed up. Only to reproduce their numbers.

    Raises:
        InputError: where the file cannot be read or describes no such set.
    """
    path = folder / "info.mat"
    with open_hdf5(path) as file:
        info = _group(member(file, "info"))
        count = checked_dataset(member(info, "boundingboxes"), "O").size
        if not 1 <= count <= 50:
            raise InputError("not the images of DND", subject=path, met=count, wanted=50)
        return [_image(path, info, index, released=released) for index in range(count)]


def _group(item: h5py.Group | h5py.Dataset) -> h5py.Group:
    if not isinstance(item, h5py.Group):
        raise InputError("not a struct", subject=f"{item.file.filename}: {item.name}")
    return item


def _image(path: Path, info: h5py.Group, index: int, *, released: bool) -> DndImage:
    subject = f"{path}, image {index + 1}"
    boxes = array_of(referenced(member(info, "boundingboxes"), index), _BOXES_BYTES)
    camera = _group(referenced(member(info, "camera"), index))
    pattern = array_of(member(camera, "pattern"), _BOXES_BYTES)
    profile = _group(referenced(member(info, "nlf"), index))
    shot, read = (float(array_of(member(profile, name), 8).item()) for name in ("a", "b"))
    codes = tuple(int(code) for code in (pattern.T if released else pattern).ravel())
    letters = "".join(_COLOURS.get(code, "?") for code in codes)
    phase = next((phase for phase in Phase if phase.value == letters), None)
    if phase is None:
        raise InputError(
            "not a Bayer pattern", subject=subject, met=codes[:4], wanted="1 2 2 3 in some order"
        )
    if released and phase is Phase.BGGR:
        phase = Phase.RGGB
    fit = boxes.ndim == 2 and boxes.shape[1] == 4 and 1 <= boxes.shape[0] <= 20
    if not fit or not np.isfinite(boxes).all():
        raise InputError("not boxes", subject=subject, met=boxes.shape, wanted="(20, 4)")
    with blamed_on(subject):
        noise = NoiseModel.uniform(shot, read)
    corners = boxes.astype(np.int64).tolist()
    return DndImage(index + 1, tuple(_box(subject, row) for row in corners), phase, noise)


def _box(subject: str, corners: list[int]) -> tuple[int, int, int, int]:
    """From MATLAB's first and last row and column, which count from 1.

    The first row and column, counted from 0, must be even, so that the box has the phase of its
    image; the sides a multiple of 4, as the smallest networks want.
    """
    first_row, first_column, last_row, last_column = corners
    top, left, bottom, right = first_row - 1, first_column - 1, last_row, last_column
    sides = bottom - top, right - left
    whole = not any(corner % 2 for corner in (top, left)) and not any(side % 4 for side in sides)
    if min(top, left) < 0 or not all(0 < side <= _LARGEST_SIDE for side in sides) or not whole:
        raise InputError(
            "a box does not hold whole CFA cells",
            subject=subject,
            met=corners,
            wanted="odd first row and column, sides of 512",
        )
    return top, left, bottom, right


def read_boxes(
    folder: Path, image: DndImage, space: Literal["raw", "srgb"]
) -> Iterator[npt.NDArray[np.float32]]:
    """The noisy content of each box: (h, w) mosaic or (h, w, 3) sRGB, float32, clipped to [0, 1].

    Only the boxes are read. The files may also stand beside ``info.mat``, as the code that was
    released with CycleISP has them.

    Raises:
        InputError: where the image cannot be read or does not hold the boxes.
    """
    name = f"{image.number:04d}.mat"
    inside = folder / f"images_{space}"
    path = (inside if inside.is_dir() else folder) / name
    with open_hdf5(path) as file:
        dataset = checked_dataset(member(file, "Inoisy" if space == "raw" else "InoisySRGB"), "f")
        if dataset.ndim != (2 if space == "raw" else 3) or dataset.shape[:-2] not in {(), (3,)}:
            raise InputError("not an image of DND", subject=path, met=dataset.shape)
        width, height = dataset.shape[-2:]
        for top, left, bottom, right in image.boxes:
            if bottom > height or right > width:
                raise InputError(
                    "a box leaves the image",
                    subject=path,
                    met=f"{bottom}x{right}",
                    wanted=f"{height}x{width}",
                )
            samples = dataset[..., left:right, top:bottom].T.astype(np.float32)
            if not np.isfinite(samples).all():
                raise InputError("samples are not finite", subject=path)
            yield np.clip(samples, 0, 1)
