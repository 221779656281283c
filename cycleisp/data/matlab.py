"""MATLAB files from strangers: arrays of either format, and structs of the older one.

The older format, v5, SciPy reads; the newer, v7.3, is HDF5. Sizes are checked before SciPy
allocates: a file is a few deflated variables, each of which may claim or inflate to any size.
"""

from __future__ import annotations

import io
import math
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
import numpy.typing as npt

from cycleisp.data.hdf5 import array_of, is_hdf5, member, open_hdf5
from cycleisp_runtime.errors import InputError

__all__ = ["blamed_on", "read_array", "read_struct"]

_Read = TypeVar("_Read")

LARGEST_ARRAY = 2**30
"""Bytes. SIDD's blocks take 336 MB, a frame of DND 0.9 GB at most."""

_LARGEST_STRUCT = 2**24
_MOST_MATRICES = 3000
"""In a struct: SciPy overflows the stack at some thousand nested ones. Metadata of a DNG has some
hundred, none deep."""

_CLASS_BYTES = {
    "double": 8,
    "single": 4,
    **{f"{sign}int{bits}": bits // 8 for sign in ("", "u") for bits in (8, 16, 32, 64)},
}
_HEADER_BYTES = 128
_COMPRESSED = 15
_MATRIX_TAGS = (struct.pack("<I", 14), struct.pack(">I", 14))
"""How a compressed element and a matrix begin: "MAT-File Format", MathWorks, table 1-1."""


def read_array(path: Path, name: str) -> npt.NDArray[np.generic]:
    """The numbers of one variable, with the axes as MATLAB has them.

    Raises:
        InputError: where the file is not MATLAB's, or the variable is absent, no array of real
            numbers, or takes more than 1 GiB.
    """
    if is_hdf5(path):
        with open_hdf5(path) as file:
            return array_of(member(file, name), LARGEST_ARRAY)
    return _read_v5(path, lambda file: _array_v5(path, file, name))


def read_struct(path: Path, name: str) -> dict[str, Any]:
    """One struct of a v5 file, as nested dicts, lists and arrays.

    Raises:
        InputError: where the file is not MATLAB's v5, has no such struct or an absurd one.
    """
    return _read_v5(path, lambda file: _struct_v5(path, file, name))


@contextmanager
def blamed_on(subject: Path | str) -> Iterator[None]:
    """The InputError of the block, with the file that its values came from."""
    try:
        yield
    except InputError as error:
        raise InputError(
            error.problem, subject=subject, met=error.met, wanted=error.wanted
        ) from error


def _read_v5(path: Path, read: Callable[[BinaryIO], _Read]) -> _Read:
    try:
        with path.open("rb") as file:
            return read(file)
    except InputError:
        raise
    except OSError as error:
        raise InputError("cannot be read", subject=path, met=error.strerror or error) from error
    except Exception as error:  # SciPy lets many kinds of error through
        raise InputError(
            "not a readable MATLAB file", subject=path, hint="download it again"
        ) from error


def _array_v5(path: Path, file: BinaryIO, name: str) -> npt.NDArray[np.generic]:
    from scipy.io import loadmat, whosmat

    listed = whosmat(file)
    found = [(shape, kind) for variable, shape, kind in listed if variable == name]
    if len(found) != 1:
        raise InputError(
            f"there is no {name}",
            subject=path,
            met=", ".join(variable for variable, _, _ in listed[:5]) or "nothing",
        )
    ((shape, kind),) = found
    if kind not in _CLASS_BYTES:
        raise InputError(f"{name} is not an array of numbers", subject=path, met=kind)
    size = math.prod(shape) * _CLASS_BYTES[kind]
    if size > LARGEST_ARRAY:
        raise InputError(f"{name} is too large", subject=path, met=shape, wanted="at most 1 GiB")
    _inflated(path, file, LARGEST_ARRAY, keep=False)
    array: npt.NDArray[np.generic] = loadmat(file, variable_names=[name])[name]
    if array.dtype.kind == "c":
        raise InputError(f"{name} is not real", subject=path)
    return array


def _struct_v5(path: Path, file: BinaryIO, name: str) -> dict[str, Any]:
    from scipy.io import loadmat

    content = _inflated(path, file, _LARGEST_STRUCT, keep=True)
    if sum(map(content.count, _MATRIX_TAGS)) > _MOST_MATRICES:
        raise InputError("nested too deep for metadata", subject=path)
    value = loadmat(io.BytesIO(content), variable_names=[name], simplify_cells=True).get(name)
    if not isinstance(value, dict):
        raise InputError(f"there is no struct {name}", subject=path)
    return value


def _inflated(path: Path, file: BinaryIO, most: int, *, keep: bool) -> bytes:
    """The file with its elements inflated; empty where only the size was to be checked."""
    file.seek(0)
    header = file.read(_HEADER_BYTES)
    order = "<" if header.endswith(b"IM") else ">"
    kept, total = [header], 0
    while tag := file.read(8):
        kind, remaining = struct.unpack(f"{order}II", tag)
        deflated = kind == _COMPRESSED
        inflate = zlib.decompressobj()
        kept.append(b"" if deflated else tag)
        while remaining:
            piece = file.read(min(remaining, 2**16))
            if not piece:
                raise InputError("the file ends early", subject=path, hint="download it again")
            remaining -= len(piece)
            content = inflate.decompress(piece) if deflated else piece
            total += len(content)
            if total > most:
                raise InputError(
                    "inflates to more than it should", subject=path, wanted=f"at most {most} bytes"
                )
            if keep:
                kept.append(content)
    file.seek(0)
    return b"".join(kept)
