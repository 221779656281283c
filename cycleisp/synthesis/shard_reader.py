"""Pairs out of shards: in the order of a stream, or any of them at random.

Arrays are matched, not unpickled or evaluated: a member is a plain file with a plain name, its
size has a bound, its header must say uint16 and fit its size. Everything else is refused.
"""

from __future__ import annotations

import functools
import hashlib
import math
import mmap
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from cycleisp.synthesis.raw_noise import NoiseLevel
from cycleisp.synthesis.shards import (
    KEY_PATTERN,
    WHITE,
    ArrayRecord,
    NoiseRecord,
    check_shard,
    read_index,
)
from cycleisp_runtime.errors import InputError, SettingsError

__all__ = ["ShardedPairs", "StoredPair", "stream_pairs"]

_MAX_MEMBER_BYTES = 1 << 30
"""A photograph of 179 MP in sRGB."""

_MOST_MAPPED = 256

_BLOCK = tarfile.BLOCKSIZE
_MEMBER_NAME = re.compile(rf"({KEY_PATTERN})\.(clean\.npy|noisy\.npy|json)")
_ARRAY_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00..\{'descr': '<u2', 'fortran_order': False, "
    rb"'shape': \(([34]), ([0-9]{1,7}), ([0-9]{1,7})\), \} *\n",
    re.DOTALL,
)
"""As NumPy writes it (numpy.lib.format, version 1.0); another spelling is not read."""

_ROLES = ("clean.npy", "noisy.npy", "json")
"""In the order in which a sample has them."""


@dataclass(frozen=True)
class StoredPair:
    """A pair as it is stored.

    Attributes:
        key: its name.
        clean: (C, h, w) uint16, round(65535 x); packed RAW (C = 4) or sRGB (C = 3).
        noisy: the same with noise.
        level: its noise.
    """

    key: str
    clean: npt.NDArray[np.uint16]
    noisy: npt.NDArray[np.uint16]
    level: NoiseLevel

    def floats(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Clean and noisy, float32 in [0, 1]."""
        scale = np.float32(1 / WHITE)
        return self.clean * scale, self.noisy * scale


class _Facts(msgspec.Struct, frozen=True):
    """What is needed of KEY.json."""

    noise: NoiseRecord


def stream_pairs(
    file: BinaryIO, *, subject: Path | str = "stream", sha256: str | None = None
) -> Iterator[StoredPair]:
    """The pairs of one shard, in order, from a file or a pipe; nothing is read twice.

    Args:
        file: the tar, from its beginning.
        subject: what errors call it.
        sha256: what all of it must hash to, in hexadecimal; None to take it as it is. That it does
            is known only after the last pair.

    Raises:
        InputError: where it ends too early, is no shard of ours, or has another hash.
    """
    hashed = None if sha256 is None else _Hashed(file)
    stream = _TarStream(hashed or file, subject)
    while (first := stream.member()) is not None:
        members = [first, stream.member(), stream.member()]
        key = first[0]
        if [member and member[:2] for member in members] != [(key, role) for role in _ROLES]:
            raise InputError("a sample is not complete", subject=subject, met=key)
        clean, noisy, facts = (member[2] for member in members if member)
        yield _pair(key, clean, noisy, facts, subject)
    if hashed is not None and hashed.of_all() != sha256:
        raise InputError(
            "altered since it was written", subject=subject, wanted=f"SHA-256 {sha256}"
        )


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


class _Hashed:
    """A file that is hashed as it is read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._sha256 = hashlib.sha256()

    def read(self, size: int, /) -> bytes:
        content = self._file.read(size)
        self._sha256.update(content)
        return content

    def of_all(self) -> str:
        """SHA-256 of the whole file, whose rest is read."""
        while self.read(1 << 20):
            pass
        return self._sha256.hexdigest()


class _TarStream:
    """Members of a USTAR file, read forwards."""

    def __init__(self, file: _Readable, subject: Path | str) -> None:
        self._file = file
        self._subject = subject

    def member(self) -> tuple[str, str, bytes] | None:
        """Key, role and content of the next member; None at the end of the archive."""
        block = self._read(_BLOCK)
        if not any(block):
            return None
        try:
            header = tarfile.TarInfo.frombuf(block, "ascii", "strict")
        except (tarfile.HeaderError, UnicodeDecodeError) as error:
            raise InputError("not a tar file", subject=self._subject) from error
        name = _MEMBER_NAME.fullmatch(header.name)
        if header.type != tarfile.REGTYPE or name is None:
            raise InputError(
                "a member that no shard of ours has",
                subject=self._subject,
                met=header.name,
                wanted="plain files named KEY.clean.npy, KEY.noisy.npy, KEY.json",
            )
        if not 0 <= header.size <= _MAX_MEMBER_BYTES:
            raise InputError(
                "a member is too large",
                subject=self._subject,
                met=f"{header.name} of {header.size} bytes",
                wanted=f"at most {_MAX_MEMBER_BYTES}",
            )
        content = self._read(header.size)
        self._read(-header.size % _BLOCK)
        return name[1], name[2], content

    def _read(self, size: int) -> bytes:
        try:
            content = self._file.read(size)
        except OSError as error:
            raise InputError("cannot be read", subject=self._subject, met=error.strerror) from error
        if len(content) < size:
            raise InputError("ends in the middle of a shard", subject=self._subject)
        return content


def _pair(key: str, clean: bytes, noisy: bytes, facts: bytes, subject: Path | str) -> StoredPair:
    try:
        level = msgspec.json.decode(facts, type=_Facts).noise.level
        pair = StoredPair(key, _array(clean), _array(noisy), level)
    except (msgspec.DecodeError, ValueError, RecursionError, InputError) as error:
        raise InputError("a sample is damaged", subject=subject, met=key) from error
    if pair.clean.shape != pair.noisy.shape:
        raise InputError("clean and noisy differ in size", subject=subject, met=key)
    return pair


def _array(content: bytes) -> npt.NDArray[np.uint16]:
    """The array in an .npy file, read-only.

    Raises:
        ValueError: where it is not (3 or 4, h, w) uint16 in C order, of the size it says.
    """
    header = _ARRAY_HEADER.match(content)
    if header is None:
        raise ValueError("no array of ours")
    shape = tuple(map(int, header.groups()))
    if len(content) != header.end() + 2 * math.prod(shape) or 0 in shape:
        raise ValueError("another size than it says")
    return np.frombuffer(content, "<u2", offset=header.end()).reshape(shape)


class ShardedPairs:
    """All pairs of a folder of shards, each at hand at once; files are mapped, not read.

    Args:
        folder: holds ``index.json`` and the shards.
        verify: hash every shard first.

    Raises:
        InputError: where the index or a shard is missing, damaged or altered, or all are empty.
    """

    def __init__(self, folder: Path, *, verify: bool = False) -> None:
        index = read_index(folder)
        for shard in index.shards:
            check_shard(folder, shard, hash_too=verify)
        self._folder = folder
        self._samples = [(sample, shard.file) for shard in index.shards for sample in shard.samples]
        if not self._samples:
            raise InputError("there is no pair in these shards", subject=folder)
        # Each mapping holds a file open, of which a process may have 1024.
        self._mapped = functools.lru_cache(_MOST_MAPPED)(self._map)

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, number: int) -> StoredPair:
        """The pair of this number; its arrays are views of the file."""
        sample, file = self._samples[number]
        content = self._mapped(file)
        clean, noisy = (_view(content, array) for array in (sample.clean, sample.noisy))
        return StoredPair(sample.key, clean, noisy, sample.noise.level)

    def draw(self, rng: np.random.Generator, side: int) -> StoredPair:
        """A random square of a random pair, at its place in both; reads no more than that.

        Args:
            rng: the same state gives the same square.
            side: of the square in the samples of an array: packed ones for RAW.

        Raises:
            SettingsError: where the pair that was drawn is smaller than ``side``.
        """
        pair = self[int(rng.integers(len(self)))]
        height, width = pair.clean.shape[1:]
        if min(height, width) < side:
            raise SettingsError(
                "a stored picture is smaller than a patch",
                subject=pair.key,
                met=f"{width}x{height}",
                wanted=f"{side} or more",
                hint="choose a smaller patch or synthesise from larger photographs",
            )
        top, left = (int(rng.integers(extent - side + 1)) for extent in (height, width))
        clean, noisy = (
            array[:, top : top + side, left : left + side] for array in (pair.clean, pair.noisy)
        )
        return StoredPair(pair.key, clean, noisy, pair.level)

    def _map(self, file: str) -> mmap.mmap:
        path = self._folder / file
        try:
            with path.open("rb") as opened:
                return mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise InputError("cannot be read", subject=path, met=error.strerror) from error


def _view(content: mmap.mmap, array: ArrayRecord) -> npt.NDArray[np.uint16]:
    codes = np.frombuffer(content, "<u2", count=array.bytes // 2, offset=array.offset)
    return codes.reshape(array.shape)
