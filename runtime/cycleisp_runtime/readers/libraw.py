"""LibRaw at arm's length: decoding in a child process with limits on time and memory."""

from __future__ import annotations

import importlib.util
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from cycleisp_runtime.errors import InputError
from cycleisp_runtime.readers.limits import Limits

__all__ = ["Decoded", "LibRawFacts", "decode"]

Four = tuple[float, float, float, float]
Nine = tuple[float, float, float, float, float, float, float, float, float]

_CHILD = Path(__file__).with_name("libraw_child.py")
_MAX_HEADER_BYTES = 1 << 16

_FAILURES = {
    "LibRawFileUnsupportedError": "LibRaw finds no RAW picture that it can decode",
    "LibRawIOError": "the picture data end before the frame is complete",
    "LibRawDataError": "the picture data are damaged",
    "LibRawTooBigError": "the frame is too large to decode",
    "LibRawUnsufficientMemoryError": "the frame is too large to decode",
    "MemoryError": "the frame is too large to decode",
    "FrameTooLargeError": "the frame is too large for a file of this size: it is cut short",
}

_DATA_COMPLAINTS = (b"data corrupted", b"Unexpected end of file")
"""What LibRaw prints, often without failing, when a decoder ran out of sensible data."""

_SIGXCPU, _SIGKILL = -24, -9
"""Exit status of a child stopped by its limit on processor time, or by the system."""


class LibRawFacts(msgspec.Struct, frozen=True):
    """What LibRaw says about a file; 0 stands for "unknown" as in LibRaw.

    ``stored_colors`` and ``area_colors`` are indices into ``colors`` of the 2x2 cell at the corner
    of the stored frame and of ``area`` (top, left, height, width), row by row. ``black`` and
    ``white_balance`` are in the order of ``colors``. Matrices are row by row; ``xyz_to_camera`` is
    for D65.
    """

    flat: bool
    height: int
    width: int
    area: tuple[int, int, int, int]
    colors: str
    color_count: int
    pattern_sides: tuple[int, int]
    stored_colors: tuple[int, int, int, int]
    area_colors: tuple[int, int, int, int]
    black: Four
    white: float
    white_balance: Four
    xyz_to_camera: Nine
    camera_to_srgb: Nine
    flip: int
    iso: float | None
    shutter_s: float | None
    aperture: float | None
    focal_length_mm: float | None


class _Answer(msgspec.Struct, frozen=True):
    failure: str | None
    facts: LibRawFacts | None


class Decoded(NamedTuple):
    """Samples (H, W) uint16 of the stored frame, or (0, 0) where it is no mosaic, and the facts."""

    samples: npt.NDArray[np.uint16]
    facts: LibRawFacts


def decode(file: IO[bytes], source: Path, limits: Limits) -> Decoded:
    """The stored frame of an open RAW file, decoded in another process.

    Raises:
        InputError: where LibRaw fails, crashes, complains, or exceeds the limits.
    """
    file_bytes = os.fstat(file.fileno()).st_size
    seconds = limits.decode_seconds(file_bytes)
    command = [
        sys.executable,
        "-I",
        os.fspath(_CHILD),
        str(math.ceil(seconds)),
        str(limits.decode_memory_bytes(file_bytes)),
        str(limits.samples(file_bytes)),
        _folder_of("rawpy"),
    ]
    with tempfile.TemporaryFile() as answer:
        file.seek(0)
        complaints = _run(command, file, answer, seconds, source)
        answer.seek(0)
        decoded = _read_answer(answer, source)
    if any(complaint in complaints for complaint in _DATA_COMPLAINTS):
        raise InputError(
            "the picture data are damaged or incomplete",
            subject=source,
            hint="copy the file again from the camera",
        )
    return decoded


def _folder_of(package: str) -> str:
    """The folder to import a package from: an isolated interpreter leaves the user's own out."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise InputError(f"{package} is not installed", hint=f"pip install {package}")
    return os.fspath(Path(spec.origin).parent.parent)


def _run(
    command: list[str], stdin: IO[bytes], stdout: IO[bytes], seconds: float, source: Path
) -> bytes:
    """Run to the end and give what was printed on stderr; the child never outlives this call."""
    # One BLAS thread: NumPy is only asked to hold an array.
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    child = subprocess.Popen(
        command, stdin=stdin, stdout=stdout, stderr=subprocess.PIPE, env=environment
    )
    try:
        _, complaints = child.communicate(timeout=seconds)
    except BaseException as error:
        child.kill()
        child.communicate()
        if isinstance(error, subprocess.TimeoutExpired):
            raise _too_slow(source, seconds) from error
        raise
    if child.returncode == 0:
        return bytes(complaints)
    if child.returncode == _SIGXCPU:
        raise _too_slow(source, seconds)
    raise _broken(child.returncode, complaints, source) from subprocess.CalledProcessError(
        child.returncode, command, stderr=complaints
    )


def _broken(status: int, complaints: bytes, source: Path) -> InputError:
    """The child ended early: by its own error, by the system, or by a crash inside LibRaw."""
    if status == 1:
        last_line = complaints.decode("utf-8", "replace").strip().rpartition("\n")[2]
        return InputError("the decoder failed", subject=source, met=last_line)
    if status == _SIGKILL:
        return InputError(
            "decoding was stopped by the system, most likely for want of memory", subject=source
        )
    return InputError(
        "decoding crashed",
        subject=source,
        met=f"exit status {status}",
        hint="the file is damaged, or made to do harm",
    )


def _too_slow(source: Path, seconds: float) -> InputError:
    return InputError(
        f"decoding was stopped after {seconds:.0f} s",
        subject=source,
        hint="the file is damaged, or made to do harm",
    )


def _read_answer(answer: IO[bytes], source: Path) -> Decoded:
    header = answer.readline(_MAX_HEADER_BYTES)
    try:
        reply = msgspec.json.decode(header, type=_Answer)
    except msgspec.DecodeError as error:
        raise InputError("decoding gave no answer", subject=source) from error
    facts = reply.facts
    if facts is None:
        problem = _FAILURES.get(str(reply.failure), "LibRaw cannot decode this file")
        raise InputError(problem, subject=source)
    samples = np.fromfile(answer, "<u2", max(0, facts.height) * max(0, facts.width))
    if samples.size != facts.height * facts.width:
        raise InputError("decoding gave an incomplete frame", subject=source)
    return Decoded(samples.astype(np.uint16, copy=False).reshape(facts.height, facts.width), facts)
