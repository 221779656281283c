"""HDF5 files from strangers, among them MATLAB's v7.3: read within bounds, and within the file.

HDF5 lets a dataset take its bytes from another file, by an external link, external storage or a
virtual layout. None of these is followed here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt

from cycleisp_runtime.errors import InputError

__all__ = ["array_of", "checked_dataset", "is_hdf5", "member", "open_hdf5", "referenced"]

_LARGEST_CHUNK = 2**24
"""Bytes. MATLAB's own chunks are some hundred KiB."""


def is_hdf5(path: Path) -> bool:
    """Whether the file is HDF5; false also where it cannot be read."""
    return bool(h5py.is_hdf5(path))


@contextmanager
def open_hdf5(path: Path) -> Iterator[h5py.File]:
    """The file, open for reading. What h5py fails at in the block is the file's fault.

    Raises:
        InputError: where it is not readable HDF5.
    """
    try:
        with h5py.File(path, "r") as file:
            yield file
    # h5py's errors on damaged files
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, MemoryError) as error:
        raise InputError(
            "not a readable MATLAB v7.3 file", subject=path, hint="download it again"
        ) from error


def member(group: h5py.Group, name: str) -> h5py.Group | h5py.Dataset:
    """What stands in the group under this name, in this file.

    Raises:
        InputError: where there is nothing, or a link that may lead elsewhere.
    """
    if name not in set(group):
        raise InputError(
            f"there is no {name}",
            subject=group.file.filename,
            met=", ".join(sorted(group)[:5]) or "nothing",
        )
    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        raise InputError(f"{name} is a link", subject=group.file.filename, wanted="the data itself")
    return group[name]


def referenced(table: h5py.Group | h5py.Dataset, index: int) -> h5py.Group | h5py.Dataset:
    """The element ``index`` of a MATLAB cell or struct array with one row or one column.

    Raises:
        InputError: where the table does not hold that many references.
    """
    checked = checked_dataset(table, "O")
    if not 0 <= index < checked.size or checked.ndim != 2 or 1 not in checked.shape:
        raise InputError(
            "the table is too short",
            subject=f"{checked.file.filename}: {checked.name}",
            met=checked.shape,
            wanted=f"a row of more than {index}",
        )
    return checked.file[checked[(0, index) if checked.shape[0] == 1 else (index, 0)]]


def checked_dataset(item: h5py.Group | h5py.Dataset, kinds: str = "fiu") -> h5py.Dataset:
    """The dataset, known to keep its samples in this file, plain or deflated in small chunks.

    Args:
        item: what a file holds.
        kinds: NumPy's letters for the kinds of samples that are wanted.

    Raises:
        InputError: where it is something else.
    """
    where = f"{item.file.filename}: {item.name}"
    if not isinstance(item, h5py.Dataset) or item.dtype.kind not in kinds or item.shape is None:
        raise InputError("not an array of the kind that is needed", subject=where)
    if item.is_virtual or item.external:
        raise InputError("its samples are in another file", subject=where)
    filters = set(item._filters)  # noqa: SLF001  the only list of all of them
    chunk_bytes = math.prod(item.chunks or ()) * item.dtype.itemsize
    if filters - {"gzip", "shuffle", "fletcher32"} or chunk_bytes > _LARGEST_CHUNK:
        raise InputError(
            "stored in a way that MATLAB does not",
            subject=where,
            met=", ".join(sorted(filters)) or f"chunks of {chunk_bytes} bytes",
            wanted=f"deflated chunks of at most {_LARGEST_CHUNK} bytes",
        )
    return item


def array_of(item: h5py.Group | h5py.Dataset, most_bytes: int) -> npt.NDArray[np.generic]:
    """All samples, with the axes as MATLAB has them, which are the reverse of HDF5's.

    Raises:
        InputError: where it is no array of numbers, or a larger one.
    """
    dataset = checked_dataset(item)
    if dataset.size * dataset.dtype.itemsize > most_bytes:
        raise InputError(
            "the array is too large",
            subject=f"{dataset.file.filename}: {dataset.name}",
            met=dataset.shape,
            wanted=f"at most {most_bytes} bytes",
        )
    array: npt.NDArray[np.generic] = dataset[()]
    return array.T
