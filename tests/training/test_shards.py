"""Shards: what is written comes back, from a stream and at random; strangers' files are refused."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cycleisp.synthesis.raw_noise import NoiseLevel
from cycleisp.synthesis.shard_reader import ShardedPairs, stream_pairs
from cycleisp.synthesis.shards import (
    Sample,
    ShardRecord,
    Skipped,
    check_shard,
    read_index,
    write_index,
    write_shard,
)
from cycleisp_runtime.errors import InputError, SettingsError
from cycleisp_runtime.noise import NoiseModel

LEVEL = NoiseLevel(NoiseModel((0.1, 0.2, 0.3, 0.4), (1e-3, 2e-3, 3e-3, 4e-3)), 1e-5)


def samples(first: int, count: int) -> Iterator[Sample]:
    for number in range(first, first + count):
        rng = np.random.default_rng(number)
        shape = (4, 10 + number, 13)
        clean, noisy = rng.random(shape, np.float32), rng.random(shape, np.float32)
        yield Sample(f"{number:07d}-a", f"below/a {number}.png", clean, noisy, LEVEL)


@pytest.fixture(name="folder")
def folder_of_two_shards(tmp_path: Path) -> Path:
    write_shard(tmp_path / "shard-000000.tar", samples(0, 3))
    assert write_index(tmp_path, 2) is None
    assert not (tmp_path / "index.json").exists()
    write_shard(tmp_path / "shard-000001.tar", [Skipped("b.png", "damaged"), *samples(3, 2)])
    assert write_index(tmp_path, 2) is not None
    return tmp_path


def test_pairs_come_back_in_16_bits(folder: Path) -> None:
    pairs = ShardedPairs(folder, verify=True)
    wanted = list(samples(0, 5))
    assert len(pairs) == len(wanted) == 5
    for number, sample in enumerate(wanted):
        pair = pairs[number]
        clean, noisy = pair.floats()
        # Half a step of 1/65535, and the rounding of float32 at 1.
        np.testing.assert_allclose(clean, sample.clean, rtol=0, atol=0.5 / 65535 + 1e-7)
        np.testing.assert_allclose(noisy, sample.noisy, rtol=0, atol=0.5 / 65535 + 1e-7)
        assert (pair.key, pair.level) == (sample.key, LEVEL)
        assert clean.dtype == np.float32


def test_white_and_black_stay_what_they_are(tmp_path: Path) -> None:
    ends = np.array([0, 1], np.float32).reshape(1, 1, 2).repeat(3, axis=0)
    write_shard(tmp_path / "shard-000000.tar", [Sample("a", "a", ends, ends, LEVEL)])
    write_index(tmp_path, 1)
    clean, _ = ShardedPairs(tmp_path)[0].floats()
    np.testing.assert_array_equal(clean, ends)


def test_a_stream_gives_the_same_pairs(folder: Path) -> None:
    index, mapped = read_index(folder), ShardedPairs(folder)
    number = 0
    for shard in index.shards:
        with (folder / shard.file).open("rb") as file:
            for pair in stream_pairs(file, sha256=shard.sha256):
                np.testing.assert_array_equal(pair.clean, mapped[number].clean)
                np.testing.assert_array_equal(pair.noisy, mapped[number].noisy)
                assert (pair.key, pair.level) == (mapped[number].key, mapped[number].level)
                number += 1
    assert number == len(mapped)


def test_a_pipe_can_be_read(folder: Path) -> None:
    content = (folder / "shard-000000.tar").read_bytes()
    reading, writing = os.pipe()

    def write() -> None:
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(content)

    writer = threading.Thread(target=write)
    writer.start()
    with os.fdopen(reading, "rb") as pipe:
        assert [pair.key for pair in stream_pairs(pipe)] == [s.key for s in samples(0, 3)]
    writer.join()


def test_the_same_samples_give_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    write_shard(other / "shard-000000.tar", samples(0, 3))
    for name in ("shard-000000.tar", "shard-000000.json"):
        assert (other / name).read_bytes() == (folder / name).read_bytes()


def test_other_programs_see_a_plain_tar_of_plain_arrays(folder: Path) -> None:
    first = next(samples(0, 1))
    with tarfile.open(folder / "shard-000000.tar") as tar:
        names = tar.getnames()
        assert names[:3] == [f"{first.key}.{role}" for role in ("clean.npy", "noisy.npy", "json")]
        assert {(member.mtime, member.uid, member.uname) for member in tar} == {(0, 0, "")}
        member = tar.extractfile(names[0])
        facts = tar.extractfile(names[2])
        assert member is not None
        assert facts is not None
        array = np.load(io.BytesIO(member.read()), allow_pickle=False)
        noise = msgspec.json.decode(facts.read())["noise"]
    assert (array.dtype, array.shape) == (np.uint16, first.clean.shape)
    assert noise == {
        "shot": [0.1, 0.2, 0.3, 0.4],
        "read": [1e-3, 2e-3, 3e-3, 4e-3],
        "row": 1e-5,
    }


def test_a_patch_is_a_function_of_the_generator_and_the_same_place_in_both(folder: Path) -> None:
    pairs = ShardedPairs(folder)
    patch = pairs.draw(np.random.default_rng([3, 4, 5]), 8)
    again = ShardedPairs(folder).draw(np.random.default_rng([3, 4, 5]), 8)
    np.testing.assert_array_equal(patch.clean, again.clean)
    assert patch.key == again.key
    whole = next(pairs[number] for number in range(len(pairs)) if pairs[number].key == patch.key)
    places = [
        (top, left)
        for top in range(whole.clean.shape[1] - 7)
        for left in range(whole.clean.shape[2] - 7)
        if np.array_equal(whole.clean[:, top : top + 8, left : left + 8], patch.clean)
    ]
    ((top, left),) = places
    np.testing.assert_array_equal(whole.noisy[:, top : top + 8, left : left + 8], patch.noisy)


def test_all_places_are_drawn_the_last_ones_too(folder: Path) -> None:
    pairs = ShardedPairs(folder)
    rng = np.random.default_rng(0)
    corners = {
        patch.clean[0, -1, -1] == pairs[0].clean[0, 9, 12]
        for patch in (pairs.draw(rng, 10) for _ in range(200))
    }
    assert corners == {True, False}


def test_a_patch_that_does_not_fit_is_refused(folder: Path) -> None:
    with pytest.raises(SettingsError, match="smaller than a patch"):
        ShardedPairs(folder).draw(np.random.default_rng(0), 14)


def altered(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[700] ^= 1
    path.write_bytes(content)


def test_an_altered_shard_is_found_where_hashes_are_asked_for(folder: Path) -> None:
    record = read_index(folder).shards[0]
    altered(folder / record.file)
    with pytest.raises(InputError, match="altered"):
        check_shard(folder, record, hash_too=True)
    with pytest.raises(InputError, match="altered"):
        ShardedPairs(folder, verify=True)
    with (folder / record.file).open("rb") as file, pytest.raises(InputError, match="altered"):
        list(stream_pairs(file, sha256=record.sha256))
    ShardedPairs(folder)


def test_a_shard_of_another_size_is_always_found(folder: Path) -> None:
    with (folder / "shard-000001.tar").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(InputError, match="altered"):
        ShardedPairs(folder)
    (folder / "shard-000001.tar").unlink()
    with pytest.raises(InputError, match="cannot be read"):
        ShardedPairs(folder)


def rewritten(folder: Path, change: Callable[[ShardRecord], object]) -> None:
    index = read_index(folder)
    shards = [change(index.shards[0]), *index.shards[1:]]
    (folder / "index.json").write_bytes(
        msgspec.json.encode({"format": index.format, "shards": shards})
    )


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda shard: msgspec.structs.replace(shard, bytes=100), "outside of its shard"),
        (lambda shard: msgspec.structs.replace(shard, file="../shard-000000.tar"), "not an index"),
        (lambda shard: {"file": shard.file}, "not an index"),
    ],
)
def test_a_false_index_is_refused(
    folder: Path, change: Callable[[ShardRecord], object], reason: str
) -> None:
    rewritten(folder, change)
    with pytest.raises(InputError, match=reason):
        ShardedPairs(folder)


def test_a_folder_without_index_or_pairs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="index cannot be read"):
        ShardedPairs(tmp_path)
    write_shard(tmp_path / "shard-000000.tar", [Skipped("b.png", "damaged")])
    write_index(tmp_path, 1)
    with pytest.raises(InputError, match="no pair"):
        ShardedPairs(tmp_path)


def npy(array: npt.NDArray[np.generic], *, pickled: bool = False) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=pickled)
    return file.getvalue()


GOOD = npy(np.zeros((3, 4, 5), np.uint16))
FACTS = b'{"noise": {"shot": [0.1, 0.1, 0.1, 0.1], "read": [0, 0, 0, 0], "row": 0}}'


class _Bomb:
    def __reduce__(self) -> tuple[object, ...]:
        return (pytest.fail, ("unpickled",))


def tar_of(members: dict[str, bytes], kind: bytes = tarfile.REGTYPE) -> io.BytesIO:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            info.type = kind
            info.linkname = "/etc/passwd" if kind != tarfile.REGTYPE else ""
            tar.addfile(info, io.BytesIO(content))
    file.seek(0)
    return file


def a_sample(**changes: bytes) -> dict[str, bytes]:
    parts = {"clean": GOOD, "noisy": GOOD, "facts": FACTS, **changes}
    return {"a.clean.npy": parts["clean"], "a.noisy.npy": parts["noisy"], "a.json": parts["facts"]}


def test_a_tar_that_others_packed_is_read() -> None:
    (pair,) = stream_pairs(tar_of(a_sample()))
    assert pair.clean.shape == (3, 4, 5)


HEADER_LIES = GOOD.replace(b"(3, 4, 5)", b"(3, 9, 5)")

HOSTILE = {
    "no tar": (io.BytesIO(b"x" * 2048), "not a tar file"),
    "empty": (io.BytesIO(b""), "ends in the middle"),
    "a path": (tar_of({"../a.clean.npy": GOOD}), "no shard of ours"),
    "a folder": (tar_of({"b/a.clean.npy": GOOD}), "no shard of ours"),
    "an absolute path": (tar_of({"/a.clean.npy": GOOD}), "no shard of ours"),
    "another member": (tar_of({"a.exe": GOOD}), "no shard of ours"),
    "a link": (tar_of({"a.clean.npy": b""}, tarfile.SYMTYPE), "no shard of ours"),
    "a hard link": (tar_of({"a.clean.npy": b""}, tarfile.LNKTYPE), "no shard of ours"),
    "a device": (tar_of({"a.clean.npy": b""}, tarfile.CHRTYPE), "no shard of ours"),
    "no noisy": (tar_of({"a.clean.npy": GOOD, "a.json": FACTS}), "not complete"),
    "another order": (
        tar_of(dict(reversed(a_sample().items()))),
        "not complete",
    ),
    "pickled": (
        tar_of(a_sample(clean=npy(np.array([_Bomb()], object), pickled=True))),
        "a sample is damaged",
    ),
    "a pickle": (tar_of(a_sample(clean=pickle.dumps(_Bomb()))), "a sample is damaged"),
    "floats": (tar_of(a_sample(clean=npy(np.zeros((3, 4, 5))))), "a sample is damaged"),
    "two channels": (
        tar_of(a_sample(clean=npy(np.zeros((2, 4, 5), np.uint16)))),
        "a sample is damaged",
    ),
    "columns first": (
        tar_of(a_sample(clean=npy(np.zeros((3, 4, 5), np.uint16, order="F")))),
        "a sample is damaged",
    ),
    "more than there is": (tar_of(a_sample(clean=HEADER_LIES)), "a sample is damaged"),
    "no array": (tar_of(a_sample(clean=b"")), "a sample is damaged"),
    "another size": (tar_of(a_sample(noisy=npy(np.zeros((3, 4, 6), np.uint16)))), "differ in size"),
    "no noise": (tar_of(a_sample(facts=b"{}")), "a sample is damaged"),
    "impossible noise": (
        tar_of(a_sample(facts=FACTS.replace(b"0.1,", b"7.5,"))),
        "a sample is damaged",
    ),
    "nested facts": (tar_of(a_sample(facts=b"[" * 100_000)), "a sample is damaged"),
}


@pytest.mark.parametrize(("stream", "reason"), HOSTILE.values(), ids=HOSTILE.keys())
def test_strangers_streams_are_refused(stream: io.BytesIO, reason: str) -> None:
    stream.seek(0)
    with pytest.raises(InputError, match=reason):
        list(stream_pairs(stream))


def test_a_member_that_says_it_is_huge_is_refused_before_it_is_read() -> None:
    header = tarfile.TarInfo("a.clean.npy")
    header.size = 2**33 - 1
    stream = io.BytesIO(header.tobuf(tarfile.USTAR_FORMAT))
    with pytest.raises(InputError, match="too large"):
        list(stream_pairs(stream))


@pytest.mark.parametrize("length", [100, 511, 513, 700, 3000])
def test_a_stream_that_is_cut_is_refused(folder: Path, length: int) -> None:
    content = (folder / "shard-000000.tar").read_bytes()[:length]
    with pytest.raises(InputError, match="ends in the middle"):
        list(stream_pairs(io.BytesIO(content)))


@given(place=st.integers(0, 3071), value=st.integers(0, 255))
def test_any_byte_may_be_any_other(place: int, value: int) -> None:
    content = bytearray(tar_of(a_sample()).getvalue())
    content[place] = value
    with contextlib.suppress(InputError):
        list(stream_pairs(io.BytesIO(content)))
