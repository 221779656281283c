"""MATLAB files as MATLAB writes them, for readers to read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import scipy.io

from cycleisp_runtime.bayer import Phase

__all__ = ["PATTERNS", "write_dnd", "write_metadata", "write_v5", "write_v73"]


PATTERNS = {
    Phase.RGGB: [[1, 2], [2, 3]],
    Phase.GRBG: [[2, 1], [3, 2]],
    Phase.GBRG: [[2, 3], [1, 2]],
    Phase.BGGR: [[3, 2], [2, 1]],
}
"""As DND writes them, with MATLAB's axes: 1 is R, 2 is G, 3 is B."""


def write_v5(path: Path, **variables: object) -> Path:
    """A v5 file, its variables deflated as by default."""
    scipy.io.savemat(path, variables, do_compression=True)
    return path


def write_v73(path: Path, **arrays: npt.NDArray[Any]) -> Path:
    """A v7.3 file: a header of 512 bytes, HDF5 with the axes reversed, deflated chunks."""
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, array in arrays.items():
            _write(file, name, array)
    _write_header(path)
    return path


def _write(group: h5py.Group, name: str, array: npt.NDArray[Any]) -> h5py.Dataset:
    deflated = "gzip" if array.size > 1000 else None
    return group.create_dataset(name, data=array.T, compression=deflated)


def _write_header(path: Path) -> None:
    with path.open("r+b") as file:
        text = b"MATLAB 7.3 MAT-file, Platform: GLNXA64, Created on: Mon Jan 1 HDF5 schema 1.00 ."
        file.write(text.ljust(116) + bytes(8) + b"\x00\x02IM")


def write_dnd(
    folder: Path,
    images: list[npt.NDArray[Any]],
    patterns: list[list[list[int]]],
    boxes: list[list[int]],
    noise: list[tuple[float, float]],
) -> Path:
    """DND's archive, RAW or sRGB by the number of axes: every image with the same boxes."""
    space = "raw" if images[0].ndim == 2 else "srgb"
    (folder / f"images_{space}").mkdir(parents=True)
    for index, image in enumerate(images):
        name = "Inoisy" if space == "raw" else "InoisySRGB"
        write_v73(folder / f"images_{space}" / f"{index + 1:04d}.mat", **{name: image})
    with h5py.File(folder / "info.mat", "w", userblock_size=512) as file:
        info, elements = file.create_group("info"), file.create_group("#refs#")
        tables: dict[str, list[h5py.Reference]] = {"boundingboxes": [], "camera": [], "nlf": []}
        for index, (pattern, (shot, read)) in enumerate(zip(patterns, noise, strict=True)):
            corners = _write(elements, f"boxes{index}", np.array(boxes, np.float64))
            camera = elements.create_group(f"camera{index}")
            _write(camera, "pattern", np.array(pattern, np.float64))
            profile = elements.create_group(f"nlf{index}")
            _write(profile, "a", np.array([[shot]]))
            _write(profile, "b", np.array([[read]]))
            for table, element in zip(tables.values(), (corners, camera, profile), strict=True):
                table.append(element.ref)
        for name, references in tables.items():
            info.create_dataset(name, data=[references], dtype=h5py.ref_dtype)
    _write_header(folder / "info.mat")
    return folder


def write_metadata(
    path: Path, phase: Phase, noise: tuple[float, float], *, in_sub_directory: bool = False
) -> Path:
    """The metadata of a SIDD frame: what imfinfo says of a DNG, with the tags it does not know."""
    tags = np.empty((3, 1), [("ID", object), ("Offset", object), ("Value", object)])
    tags[:, 0] = [
        (33421, 700, np.array([[2, 2]], np.uint16)),
        (33422, 708, np.array(PATTERNS[phase], np.uint8).reshape(1, 4) - 1),
        (51041, 900, np.array([[*noise, *noise, *noise]])),
    ]
    metadata: dict[str, Any] = {"Filename": "0001_NOISY_RAW_010.DNG", "Width": 64, "Make": "Google"}
    if in_sub_directory:
        directories = np.empty((1, 1), object)
        directories[0, 0] = {"Height": 48, "UnknownTags": tags}
        metadata["SubIFDs"] = directories
    else:
        metadata["UnknownTags"] = tags
    return write_v5(path, metadata=metadata)
