"""Pairs in tar files, as the format ``cycleisp-shards/1`` has them.

A folder of shards holds, after the webdataset convention (one sample is the members that share a
name up to its first dot, side by side):

    shard-000000.tar    KEY.clean.npy   (C, h, w) little-endian uint16: round(65535 x), x in [0, 1]
                        KEY.noisy.npy   the same
                        KEY.json        source, noise and size, for people and other readers
    shard-000000.json   ShardRecord: hash and size of the tar, where each array lies in it
    index.json          Index: all records; there once every shard is

C is 4 for packed RAW (R, Gr, Gb, B, normalised) and 3 for sRGB. 16 bits of the unit range err by at
most 7.7e-6, a rounding noise of 106.5 dB below white: the smallest read variance of the published
laws is 100 times as large. float16 would err by 2.4e-4 at white, 8 bits by 2e-3.

The same samples give the same bytes. A shard and its record appear whole, the record last.
"""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, BinaryIO, Final, Literal

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Meta

from cycleisp.synthesis.raw_noise import NoiseLevel
from cycleisp_runtime.errors import InputError
from cycleisp_runtime.noise import NoiseModel
from cycleisp_runtime.writers.atomic import atomic_output

__all__ = [
    "INDEX_NAME",
    "KEY_PATTERN",
    "WHITE",
    "ArrayRecord",
    "Index",
    "NoiseRecord",
    "Sample",
    "SampleRecord",
    "ShardRecord",
    "Skipped",
    "check_shard",
    "read_index",
    "read_record",
    "shard_name",
    "write_index",
    "write_shard",
]

INDEX_NAME: Final = "index.json"

WHITE: Final = 65535

KEY_PATTERN: Final = r"[A-Za-z0-9_-]{1,80}"
"""No dot, which would end it for webdataset, and no path."""

_MAX_RECORD_BYTES = 1 << 30
"""Of an index; a million samples take 500 MB."""

_BLOCK = tarfile.BLOCKSIZE

_Variance = Annotated[float, Meta(ge=0, lt=1)]
_Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
_Count = Annotated[int, Meta(ge=0)]
_Side = Annotated[int, Meta(ge=1, le=1 << 20)]
_Text = Annotated[str, Meta(max_length=1 << 16)]
_PerPlane = tuple[float, float, float, float]


class _Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A part of the files beside the shards."""


class ArrayRecord(_Record, frozen=True):
    """Where the samples of an array begin in the tar, in bytes, and its shape (C, h, w)."""

    offset: _Count
    shape: tuple[Literal[3, 4], _Side, _Side]

    @property
    def bytes(self) -> int:
        """How long it is."""
        channels, height, width = self.shape
        return 2 * channels * height * width


class NoiseRecord(_Record, frozen=True):
    """Noise in normalised units, per plane R, Gr, Gb, B; ``row`` is shared by a sensor row."""

    shot: _PerPlane
    read: _PerPlane
    row: _Variance

    @property
    def level(self) -> NoiseLevel:
        """As it is computed with.

        Raises:
            InputError: where a number is out of its range.
        """
        return NoiseLevel(NoiseModel(self.shot, self.read), self.row)


class SampleRecord(_Record, frozen=True):
    """One sample."""

    key: Annotated[str, Meta(pattern=rf"^{KEY_PATTERN}\Z")]
    source: _Text
    noise: NoiseRecord
    clean: ArrayRecord
    noisy: ArrayRecord


class Skipped(_Record, frozen=True):
    """An input that gave no sample, and why."""

    source: _Text
    reason: _Text


class ShardRecord(_Record, frozen=True):
    """One tar file."""

    file: Annotated[str, Meta(pattern=r"^shard-[0-9]{6,}\.tar\Z")]
    bytes: _Count
    sha256: _Sha256
    samples: tuple[SampleRecord, ...]
    skipped: tuple[Skipped, ...]


class Index(_Record, frozen=True):
    """A whole folder."""

    format: Literal["cycleisp-shards/1"]
    shards: tuple[ShardRecord, ...]


@dataclass(frozen=True)
class Sample:
    """A pair to be stored.

    Attributes:
        key: its name, after ``KEY_PATTERN``.
        source: the photograph's name, for people.
        clean: (C, h, w) float32 in [0, 1]; packed RAW or sRGB.
        noisy: the same with noise.
        level: its noise.
    """

    key: str
    source: str
    clean: npt.NDArray[np.float32]
    noisy: npt.NDArray[np.float32]
    level: NoiseLevel


def shard_name(number: int) -> str:
    """The file name of a shard."""
    return f"shard-{number:06d}.tar"


def write_shard(path: Path, samples: Iterable[Sample | Skipped]) -> ShardRecord:
    """Write a shard and, last, its record beside it; each appears whole or not at all.

    Raises:
        OutputError: where one cannot be written.
    """
    with atomic_output(path, source=None, force=True) as file:
        tar = _TarWriter(file)
        written, skipped = [], []
        for sample in samples:
            if isinstance(sample, Skipped):
                skipped.append(sample)
            else:
                written.append(_write_sample(tar, sample))
        tar.end()
    record = ShardRecord(
        path.name, tar.position, tar.sha256.hexdigest(), tuple(written), tuple(skipped)
    )
    with atomic_output(path.with_suffix(".json"), source=None, force=True) as file:
        file.write(msgspec.json.encode(record) + b"\n")
    return record


class _TarWriter:
    """Members one after the other: USTAR headers without time or owner, hashed on the way."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.position = 0
        self.sha256 = hashlib.sha256()

    def add(self, name: str, *parts: bytes | memoryview) -> int:
        """Write one member; returns where its last part begins."""
        header = tarfile.TarInfo(name)
        header.size = sum(len(part) for part in parts)
        self._write(header.tobuf(tarfile.USTAR_FORMAT, "ascii", "strict"))
        for part in parts:
            begin = self.position
            self._write(part)
        self._write(bytes(-header.size % _BLOCK))
        return begin

    def end(self) -> None:
        """Write the two empty blocks that end a tar file."""
        self._write(bytes(2 * _BLOCK))

    def _write(self, content: bytes | memoryview) -> None:
        self._file.write(content)
        self.sha256.update(content)
        self.position += len(content)


def _write_sample(tar: _TarWriter, sample: Sample) -> SampleRecord:
    level = sample.level
    noise = NoiseRecord(level.pixel.shot, level.pixel.read, level.row)
    clean = _write_array(tar, f"{sample.key}.clean.npy", sample.clean)
    noisy = _write_array(tar, f"{sample.key}.noisy.npy", sample.noisy)
    facts = {"source": sample.source, "shape": clean.shape, "noise": noise}
    tar.add(f"{sample.key}.json", msgspec.json.encode(facts))
    return SampleRecord(sample.key, sample.source, noise, clean, noisy)


def _write_array(tar: _TarWriter, name: str, values: npt.NDArray[np.float32]) -> ArrayRecord:
    codes = np.rint(values * np.float32(WHITE)).astype("<u2")
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(codes))
    begin = tar.add(name, header.getvalue(), codes.data.cast("B"))
    channels, height, width = codes.shape
    return ArrayRecord(begin, (4 if channels == 4 else 3, height, width))


def read_record(folder: Path, number: int) -> ShardRecord | None:
    """The record of a shard that is written; None where it is not, or not readable."""
    try:
        content = (folder / shard_name(number)).with_suffix(".json").read_bytes()
        return msgspec.json.decode(content, type=ShardRecord)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None


def write_index(folder: Path, shards: int) -> Index | None:
    """Write the index over this many shards; None, and nothing, while one is still missing.

    Raises:
        OutputError: where it cannot be written.
    """
    records = [read_record(folder, number) for number in range(shards)]
    index = Index("cycleisp-shards/1", tuple(record for record in records if record is not None))
    if len(index.shards) < shards:
        return None
    with atomic_output(folder / INDEX_NAME, source=None, force=True) as file:
        file.write(msgspec.json.encode(index) + b"\n")
    return index


def read_index(folder: Path) -> Index:
    """The index of a folder of shards.

    Raises:
        InputError: where there is none, it is damaged, or an array lies outside of its shard.
    """
    path = folder / INDEX_NAME
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_RECORD_BYTES)
        index = msgspec.json.decode(content, type=Index)
    except OSError as error:
        raise InputError(
            "the index cannot be read",
            subject=path,
            met=error.strerror,
            hint="let `cycleisp synthesize` finish, with the same arguments",
        ) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(
            f"not an index: {error}", subject=path, wanted="JSON of cycleisp-shards/1"
        ) from error
    for shard in index.shards:
        for sample in shard.samples:
            for array in (sample.clean, sample.noisy):
                if array.offset + array.bytes > shard.bytes:
                    raise InputError(
                        "an array lies outside of its shard", subject=path, met=sample.key
                    )
    return index


def check_shard(folder: Path, record: ShardRecord, *, hash_too: bool) -> None:
    """Nothing, where the shard has the size, and if asked for the hash, that its record says.

    Raises:
        InputError: where it is missing or altered.
    """
    path = folder / record.file
    try:
        with path.open("rb") as file:
            same = os.fstat(file.fileno()).st_size == record.bytes and (
                not hash_too or _sha256_of(file) == record.sha256
            )
    except OSError as error:
        raise InputError("cannot be read", subject=path, met=error.strerror) from error
    if not same:
        raise InputError("altered since it was written", subject=path, hint="synthesise it again")


def _sha256_of(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()
