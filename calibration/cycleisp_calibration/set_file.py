"""A calibration set on disk: SET.npz with the network's inputs, SET.json that says what they are.

The arrays have the names of the graph's inputs, so ModelOpt and ONNX Runtime take the same file.
Both files come from strangers: the manifest must fit its schema, the arrays their hash, and their
sizes what the manifest says, before anything is allocated for them. Nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import io
import math
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

import msgspec
import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy

from cycleisp_calibration.measures import is_constant
from cycleisp_calibration.set_record import CHANNELS, MAX_SAMPLES, SetRecord, tile_shapes
from cycleisp_runtime.errors import CalibrationError, InputError
from cycleisp_runtime.readers import Limits, check_file
from cycleisp_runtime.writers import atomic_output

__all__ = ["CalibrationSet", "hash_file", "load_calibration_set", "save_calibration_set"]

_MAX_MANIFEST = Limits(max_file_bytes=1 << 24)
_ENCRYPTED = 1
"""Bit of a member's flags (PKWARE APPNOTE 4.4.4)."""

_MOST_HEADER_BYTES = 1 << 12
"""What the archive holds beside the samples."""

_HASH_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class CalibrationSet:
    """Tiles that a network is calibrated with.

    Attributes:
        record: what they are.
        arrays: float32 by the name of the graph's input, N tiles in each, shaped (N, *shape) as
            ``tile_shapes`` says, in the units of ``views.Tile.inputs``.
    """

    record: SetRecord
    arrays: dict[str, npt.NDArray[np.float32]]


def save_calibration_set(calibration: CalibrationSet, path: Path, *, force: bool) -> SetRecord:
    """Write ``path`` and its manifest, and return the manifest with the hash in it.

    The manifest comes last: until it is there, the arrays are refused.

    Raises:
        OutputError: where a file cannot be written, or stands there and ``force`` is not given.
    """
    with atomic_output(path, source=None, force=force) as file:
        np.savez(file, allow_pickle=False, **calibration.arrays)
        file.seek(0)
        sha256 = _sha256(file)
    record = msgspec.structs.replace(calibration.record, sha256=sha256)
    with atomic_output(path.with_suffix(".json"), source=None, force=force) as file:
        file.write(msgspec.json.format(msgspec.json.encode(record), indent=1) + b"\n")
    return record


def load_calibration_set(path: Path, *, task: Literal["raw", "srgb"]) -> CalibrationSet:
    """The set in ``path`` and the manifest beside it, for a network of this task.

    Raises:
        InputError: where a file is missing, damaged or altered, or is not of our format.
        CalibrationError: where the set is of another task or channel count, or a tile in it is
            constant, not finite, or has no noise.
    """
    if not path.is_file():
        raise InputError(
            "no such calibration set", subject=path, hint="make one by cycleisp calibrate set"
        )
    record = _read_record(path.with_suffix(".json"))
    if (record.task, record.channels) != (task, CHANNELS[task]):
        raise CalibrationError(
            "a calibration set for other networks",
            subject=path,
            met=f"task {record.task}, {record.channels} channels",
            wanted=f"task {task}, {CHANNELS[task]} channels",
            hint=f"make one by cycleisp calibrate set --task {task}",
        )
    if len(record.tiles) * record.side**2 > MAX_SAMPLES:
        raise InputError(
            "the calibration set is too large",
            subject=path,
            met=f"{len(record.tiles)} tiles of {record.side}",
            wanted=f"at most {MAX_SAMPLES} pixels in all",
        )
    try:
        check_file(path, Limits(max_file_bytes=_array_bytes(record) + _MOST_HEADER_BYTES))
        with path.open("rb") as file:
            _check_hash(file, record, path)
            arrays = _read_arrays(file, record, path)
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, NotImplementedError) as error:
        raise InputError("not a readable calibration set", subject=path) from error
    _check_tiles(record, arrays, path)
    return CalibrationSet(record, arrays)


def _read_record(path: Path) -> SetRecord:
    try:
        check_file(path, _MAX_MANIFEST)
        record = msgspec.json.decode(path.read_bytes(), type=SetRecord)
    except OSError as error:
        raise InputError(
            "the manifest of the calibration set is missing",
            subject=path,
            hint="keep it beside the set, or make the set anew by cycleisp calibrate set",
        ) from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise InputError(f"not a manifest of a calibration set: {error}", subject=path) from error
    if any(tile.source >= len(record.sources) for tile in record.tiles):
        raise InputError("a tile is of a file that is not listed", subject=path)
    return record


def hash_file(path: Path) -> str:
    """SHA-256 of a file in hexadecimal.

    Raises:
        InputError: where it cannot be read.
    """
    try:
        check_file(path)
        with path.open("rb") as file:
            return _sha256(file)
    except OSError as error:
        raise InputError(error.strerror or "cannot be read", subject=path) from error


def _sha256(file: BinaryIO) -> str:
    """Hash from here to the end."""
    state = hashlib.sha256()
    while chunk := file.read(_HASH_CHUNK_BYTES):
        state.update(chunk)
    return state.hexdigest()


def _check_hash(file: BinaryIO, record: SetRecord, path: Path) -> None:
    sha256 = _sha256(file)
    file.seek(0)
    if sha256 != record.sha256:
        raise InputError(
            "altered since its manifest was written",
            subject=path,
            met=f"sha256 {sha256[:12]}",
            wanted=f"sha256 {record.sha256[:12]}",
            hint="fetch both files again, or make the set anew",
        )


def _read_arrays(
    file: BinaryIO, record: SetRecord, path: Path
) -> dict[str, npt.NDArray[np.float32]]:
    """The arrays, each as large as the manifest says.

    Raises:
        ValueError, OSError, EOFError, zipfile.BadZipFile, NotImplementedError: where this is no
            such archive.
    """
    shapes = tile_shapes(record.task, record.side)
    with zipfile.ZipFile(file) as archive:
        members = {member.filename: member for member in archive.infolist()}
        if sorted(members) != sorted(f"{name}.npy" for name in shapes):
            raise InputError(
                "the calibration set has other arrays",
                subject=path,
                met=", ".join(members)[:200],
                wanted=", ".join(f"{name}.npy" for name in shapes),
            )
        return {
            name: _read_array(archive, members[f"{name}.npy"], (len(record.tiles), *shape))
            for name, shape in shapes.items()
        }


def _read_array(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, wanted: tuple[int, ...]
) -> npt.NDArray[np.float32]:
    if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & _ENCRYPTED:
        raise ValueError(f"{member.filename} is compressed or encrypted")
    header = io.BytesIO()
    npy.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": wanted})
    with archive.open(member) as file:
        # Compared instead of parsed: only what NumPy writes for these very arrays is read.
        if file.read(len(header.getvalue())) != header.getvalue():
            raise ValueError(f"{member.filename} is not float32 {wanted}")
        content = file.read(4 * math.prod(wanted))
        if file.read(1):
            raise ValueError(f"{member.filename} is longer than it says")
    return np.frombuffer(content, "<f4").reshape(wanted)


def _array_bytes(record: SetRecord) -> int:
    shapes = tile_shapes(record.task, record.side).values()
    return 4 * len(record.tiles) * sum(map(math.prod, shapes))


def _check_tiles(record: SetRecord, arrays: dict[str, npt.NDArray[np.float32]], path: Path) -> None:
    for number, tile in enumerate(record.tiles):
        inputs = {name: array[number] for name, array in arrays.items()}
        if not all(np.isfinite(each).all() for each in inputs.values()):
            problem = "not a number, or infinite"
        elif is_constant(inputs["noisy"]):
            problem = "constant"
        elif any(each.min() < 0 for name, each in inputs.items() if name != "noisy"):
            problem = "of negative variance"
        else:
            continue
        raise CalibrationError(
            f"tile {number} is {problem}",
            subject=path,
            met=f"from {record.sources[tile.source].file} at ({tile.left}, {tile.top})",
            hint="make the set anew by cycleisp calibrate set",
        )
