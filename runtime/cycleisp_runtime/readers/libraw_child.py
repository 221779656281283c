"""Decodes a RAW file with LibRaw, in a process of its own.

LibRaw runs for minutes on some crafted files and crashes on others, so it never runs inside the
program that asked. This file is run by its path in an isolated interpreter and imports nothing of
the package. It reads the RAW file from standard input and writes to standard output

    one line of JSON     {"failure": name or null, "facts": what LibRaw says or null}
    height * width * 2   bytes of little-endian uint16, the stored frame, where facts say "flat"

Arguments: seconds of processor time, bytes of address space, largest number of samples, and the
folder that holds rawpy.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import rawpy

_HEADER_BYTES = 1 << 16


class FrameTooLargeError(Exception):
    """The file declares more samples than allowed; nothing has been decoded yet."""


def main() -> None:
    """Decode standard input and answer on standard output."""
    seconds, memory_bytes, max_samples = (int(argument) for argument in sys.argv[1:4])
    _limit_resources(seconds, memory_bytes, 2 * max_samples + _HEADER_BYTES)
    sys.path.append(sys.argv[4])
    import rawpy

    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever LibRaw prints must not mix with the answer
    failure, facts, samples = None, None, memoryview(b"")
    try:
        facts, samples = _decode(rawpy.imread(sys.stdin.buffer), max_samples)
    except (
        rawpy.LibRawError,
        rawpy.NotSupportedError,
        FrameTooLargeError,
        MemoryError,
    ) as error:
        failure = type(error).__name__
    header = json.dumps({"failure": failure, "facts": facts}, allow_nan=False)
    answer.write(header.encode() + b"\n")
    answer.write(samples)
    answer.flush()


def _decode(raw: rawpy.RawPy, max_samples: int) -> tuple[dict[str, object], memoryview]:
    """What LibRaw says, and its stored frame."""
    import numpy as np
    from rawpy import RawType

    sizes = raw.sizes
    if sizes.raw_height * sizes.raw_width > max_samples:
        raise FrameTooLargeError
    other = getattr(raw, "other", None)  # rawpy 0.24 has none
    is_flat = raw.raw_type == RawType.Flat
    samples = raw.raw_image if is_flat else np.empty((0, 0), np.uint16)
    top, left = sizes.top_margin, sizes.left_margin
    pattern = raw.raw_pattern
    facts = {
        "flat": is_flat,
        "height": int(samples.shape[0]),
        "width": int(samples.shape[1]),
        "area": [top, left, sizes.height, sizes.width],
        "colors": raw.color_desc.decode("ascii", "replace"),
        "color_count": raw.num_colors,
        "pattern_sides": [0, 0] if pattern is None else list(pattern.shape),
        "stored_colors": _cell_colors(raw, 0, 0) if is_flat else [0] * 4,
        "area_colors": _cell_colors(raw, top, left) if is_flat else [0] * 4,
        "black": _finite(raw.black_level_per_channel),
        "white": raw.white_level,
        "white_balance": _finite(raw.camera_whitebalance),
        "xyz_to_camera": _finite(raw.rgb_xyz_matrix[:3].ravel()),
        "camera_to_srgb": _finite(raw.color_matrix[:3, :3].ravel()),
        "flip": sizes.flip,
        "iso": _finite_or_none(getattr(other, "iso_speed", None)),
        "shutter_s": _finite_or_none(getattr(other, "shutter_speed", None)),
        "aperture": _finite_or_none(getattr(other, "aperture", None)),
        "focal_length_mm": _finite_or_none(getattr(other, "focal_length", None)),
    }
    return facts, np.ascontiguousarray(samples, "<u2").data


def _cell_colors(raw: rawpy.RawPy, top: int, left: int) -> list[int]:
    return [int(raw.raw_color(top + row, left + column)) for row in (0, 1) for column in (0, 1)]


def _finite(values: Iterable[float]) -> list[float]:
    """The values, with LibRaw's 0 for "unknown" in place of what JSON cannot write."""
    return [float(value) if math.isfinite(value) else 0.0 for value in values]


def _finite_or_none(value: float | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None


def _limit_resources(seconds: int, memory_bytes: int, output_bytes: int) -> None:
    try:
        import resource
    except ImportError:  # Windows: the parent's clock is the only limit
        return
    for kind, value in (
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_FSIZE, output_bytes),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(kind)
        soft = value if hard == resource.RLIM_INFINITY else min(value, hard)
        try:
            resource.setrlimit(kind, (soft, hard))
        except (OSError, ValueError):  # macOS knows RLIMIT_AS and does not take it
            continue


if __name__ == "__main__":
    main()
