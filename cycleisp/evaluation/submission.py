"""The files that the servers of DND and SIDD take, as the demos of their authors write them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, Literal

import h5py
import numpy as np
import numpy.typing as npt

from cycleisp_runtime.writers.atomic import atomic_output

__all__ = ["SiddBlocks", "write_dnd_submission", "write_sidd_submission"]

SiddBlocks = Literal["Raw", "Srgb"]

_USERBLOCK = 512


def write_dnd_submission(
    path: Path, boxes: Sequence[npt.NDArray[np.float32]], *, raw: bool, force: bool
) -> None:
    """One of the 50 files of a submission: the cell ``Idenoised``, ``israw``, ``eval_version``.

    MATLAB v5, as the Python tools of DND write it.

    Args:
        path: 0001.mat to 0050.mat.
        boxes: (h, w) mosaics or (h, w, 3) sRGB, float32 in [0, 1], in the order of ``info.mat``.
        raw: whether they are mosaics.
        force: whether a file that stands there may be replaced.

    Raises:
        OutputError: where it cannot be written.
    """
    from scipy.io import savemat

    cells = np.empty((1, len(boxes)), object)
    for index, box in enumerate(boxes):
        cells[0, index] = box
    with atomic_output(path, source=None, force=force) as file:
        savemat(file, {"Idenoised": cells, "israw": raw, "eval_version": "1.0"})


def write_sidd_submission(
    path: Path,
    blocks: npt.NDArray[Any],
    space: SiddBlocks,
    seconds_per_mp: float,
    *,
    force: bool,
) -> None:
    """``SubmitRaw.mat`` or ``SubmitSrgb.mat``: a cell of blocks, the time, and a struct of text.

    MATLAB v7.3, which is HDF5 with the axes reversed behind a header of 512 bytes, and cells as
    references into the group ``#refs#``.

    Args:
        path: the file.
        blocks: (N, M, H, W) or (N, M, H, W, 3), what each cell of N x M holds.
        space: in the names of the variables.
        seconds_per_mp: what denoising took.
        force: whether a file that stands there may be replaced.

    Raises:
        OutputError: where it cannot be written.
    """
    with atomic_output(path, source=None, force=force) as file:
        with h5py.File(file, "w", userblock_size=_USERBLOCK) as hdf5:
            _write_cells(hdf5, f"DenoisedBlocks{space}", blocks)
            _write(hdf5, f"TimeMP{space}", np.array([[seconds_per_mp]]), "double")
            optional = hdf5.create_group("OptionalData")
            optional.attrs["MATLAB_class"] = np.bytes_("struct")
            _write_text(optional, "MethodName", "cycleisp")
        _write_header(file)


_CLASSES = {"float32": "single", "uint8": "uint8"}


def _write_cells(hdf5: h5py.File, name: str, blocks: npt.NDArray[Any]) -> None:
    images, count = blocks.shape[:2]
    elements = hdf5.create_group("#refs#")
    table = np.empty((count, images), h5py.ref_dtype)
    for image, block in np.ndindex(images, count):
        element = f"{image}_{block}"
        _write(elements, element, blocks[image, block].T, _CLASSES[blocks.dtype.name])
        table[block, image] = elements[element].ref
    cells = hdf5.create_dataset(name, data=table, dtype=h5py.ref_dtype)
    cells.attrs["MATLAB_class"] = np.bytes_("cell")


def _write(group: h5py.Group, name: str, array: npt.NDArray[Any], kind: str) -> h5py.Dataset:
    dataset = group.create_dataset(name, data=array)
    dataset.attrs["MATLAB_class"] = np.bytes_(kind)
    return dataset


def _write_text(group: h5py.Group, name: str, text: str) -> None:
    codes = np.frombuffer(text.encode("utf-16-le"), np.uint16)[:, None]
    _write(group, name, codes, "char").attrs["MATLAB_int_decode"] = np.int32(2)


def _write_header(file: BinaryIO) -> None:
    """116 bytes of text, 8 unused, version 2.0, and IM for little endian."""
    date = time.strftime("%a %b %d %H:%M:%S %Y")
    text = f"MATLAB 7.3 MAT-file, Platform: GLNXA64, Created on: {date} HDF5 schema 1.00 ."
    file.seek(0)
    file.write(text.encode().ljust(116) + bytes(8) + b"\x00\x02IM")
