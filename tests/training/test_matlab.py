"""Arrays out of MATLAB's two formats, and files that must not be followed."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from cycleisp.data import matlab
from cycleisp.data.matlab import read_array, read_struct
from cycleisp_runtime.errors import InputError
from tests.training.matlab_files import write_v5, write_v73

Writer = Callable[..., Path]

ARRAY = np.arange(2 * 3 * 4, dtype=np.float32).reshape(2, 3, 4)


@pytest.mark.parametrize("write", [write_v5, write_v73])
def test_axes_are_those_of_matlab_in_both_formats(write: Writer, tmp_path: Path) -> None:
    path = write(tmp_path / "a.mat", x=ARRAY, other=np.zeros((2, 2)))
    assert np.array_equal(read_array(path, "x"), ARRAY)


@pytest.mark.parametrize("write", [write_v5, write_v73])
def test_too_large_an_array_is_refused(
    write: Writer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.mat", x=ARRAY)
    monkeypatch.setattr(matlab, "LARGEST_ARRAY", ARRAY.nbytes - 1)
    with pytest.raises(InputError, match="too large"):
        read_array(path, "x")


@pytest.mark.parametrize("write", [write_v5, write_v73])
def test_a_missing_variable_is_named(write: Writer, tmp_path: Path) -> None:
    path = write(tmp_path / "a.mat", y=ARRAY)
    with pytest.raises(InputError, match=r"there is no x \(met y\)"):
        read_array(path, "x")


@pytest.mark.parametrize("content", [b"", b"MATLAB 5.0", b"\x89HDF\r\n\x1a\n" + bytes(600)])
def test_what_is_no_matlab_file_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.mat").write_bytes(content)
    with pytest.raises(InputError, match="not a readable MATLAB"):
        read_array(tmp_path / "a.mat", "x")


@pytest.mark.parametrize("write", [write_v5, write_v73])
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.9])
def test_a_truncated_file_is_refused(write: Writer, kept: float, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).random((64, 64))
    path = write(tmp_path / "a.mat", x=noise)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(InputError):
        read_array(path, "x")


@pytest.mark.parametrize("value", [{"a": 1}, "text", np.array([[{"a": 1}]], object), 1j])
def test_only_real_numbers_are_taken_from_v5(value: object, tmp_path: Path) -> None:
    path = write_v5(tmp_path / "a.mat", x=value)
    with pytest.raises(InputError, match=r"not an array of numbers|not real"):
        read_array(path, "x")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.mat: cannot be read"):
        read_array(tmp_path / "a.mat", "x")


def test_data_in_other_files_is_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret.mat"
    write_v73(secret, x=np.ones((4, 4)))
    with h5py.File(tmp_path / "a.mat", "w") as file:
        file["external_link"] = h5py.ExternalLink(str(secret), "/x")
        file["x"] = np.ones((4, 4))
        file["soft_link"] = h5py.SoftLink("/x")
        file.create_dataset("external_storage", (16,), np.uint8, external=[(str(secret), 0, 16)])
        layout = h5py.VirtualLayout((4, 4), np.float64)
        layout[:] = h5py.VirtualSource(str(secret), "x", (4, 4))
        file.create_virtual_dataset("virtual", layout)
    for name in ("external_link", "soft_link", "external_storage", "virtual"):
        with pytest.raises(InputError, match=r"is a link|in another file"):
            read_array(tmp_path / "a.mat", name)


def test_a_huge_shape_without_data_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.mat", "w") as file:
        file.create_dataset("x", (2**20, 2**20), np.float32, chunks=(64, 64))
        file.create_dataset("chunk", (64,), np.float32, chunks=(2**28,), maxshape=(None,))
    with pytest.raises(InputError, match="too large"):
        read_array(tmp_path / "a.mat", "x")
    with pytest.raises(InputError, match="stored in a way"):
        read_array(tmp_path / "a.mat", "chunk")


def element(kind: int, content: bytes) -> bytes:
    return struct.pack("<II", kind, len(content)) + content + bytes(-len(content) % 8)


def matrix(kind: int, name: bytes, content: bytes) -> bytes:
    flags, sides = struct.pack("<II", kind, 0), struct.pack("<ii", 1, 1)
    return element(14, element(6, flags) + element(5, sides) + element(1, name) + content)


HEADER = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"
CELL, DOUBLE = 1, 6


def test_deep_nesting_is_refused_before_scipy_overflows_the_stack(tmp_path: Path) -> None:
    nested = matrix(DOUBLE, b"", element(9, struct.pack("<d", 1)))
    for _ in range(3500):
        nested = matrix(CELL, b"", nested)
    (tmp_path / "a.mat").write_bytes(HEADER + matrix(CELL, b"metadata", nested))
    with pytest.raises(InputError, match="nested too deep"):
        read_struct(tmp_path / "a.mat", "metadata")


@pytest.mark.parametrize("name", ["_LARGEST_STRUCT", "LARGEST_ARRAY"])
def test_a_variable_that_inflates_without_end_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bomb = matrix(DOUBLE, b"metadata", element(9, bytes(2**22)))
    (tmp_path / "a.mat").write_bytes(HEADER + element(15, zlib.compress(bomb)))
    monkeypatch.setattr(matlab, name, 2**20)
    read = read_struct if name == "_LARGEST_STRUCT" else read_array
    with pytest.raises(InputError, match="inflates to more than it should"):
        read(tmp_path / "a.mat", "metadata")
