"""What reading one file may cost."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Limits"]

_MEBIBYTE = 1 << 20
_ADDRESS_SPACE_BYTES = 2 << 30
"""Room for the interpreter, NumPy, LibRaw and their threads; reserved, hardly used."""

_BYTES_PER_SAMPLE = 16
"""LibRaw holds at most four uint16 per sample; the rest is slack for its line buffers."""

_SAMPLES_PER_BYTE = 64
"""No RAW coding comes near this: lossless JPEG cannot go below one bit per sample, which is 8."""


@dataclass(frozen=True)
class Limits:
    """Bounds on one file, checked before memory is taken.

    Attributes:
        seconds: wall time, and processor time, that decoding a small file may take.
        seconds_per_mebibyte: what each MiB of the file adds to that.
        max_samples: largest stored frame, masked borders included.
        max_file_bytes: largest file.
    """

    seconds: float = 8.0
    seconds_per_mebibyte: float = 0.2
    max_samples: int = 1 << 28
    max_file_bytes: int = 1 << 32

    def decode_seconds(self, file_bytes: int) -> float:
        """Time to decode a file of this size."""
        return self.seconds + self.seconds_per_mebibyte * file_bytes / _MEBIBYTE

    def samples(self, file_bytes: int) -> int:
        """Samples that a file of this size may declare."""
        return min(self.max_samples, _SAMPLES_PER_BYTE * file_bytes)

    def decode_memory_bytes(self, file_bytes: int) -> int:
        """Address space of the process that decodes a file of this size."""
        return _ADDRESS_SPACE_BYTES + 2 * file_bytes + _BYTES_PER_SAMPLE * self.samples(file_bytes)
