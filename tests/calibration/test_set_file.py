"""What is written is read back; everything else is refused, by name, before it can do harm."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from cycleisp_calibration.set_file import (
    CalibrationSet,
    hash_file,
    load_calibration_set,
    save_calibration_set,
)
from cycleisp_calibration.sets import BuiltSet
from cycleisp_runtime.backends.onnxruntime import OnnxRuntimeBackend
from cycleisp_runtime.bundle import find_bundle
from cycleisp_runtime.errors import CalibrationError, InputError


@pytest.fixture
def path(raw_set: BuiltSet, tmp_path: Path) -> Path:
    path = tmp_path / "set.npz"
    save_calibration_set(raw_set.calibration, path, force=False)
    return path


def test_a_set_is_read_back(raw_set: BuiltSet, path: Path) -> None:
    read = load_calibration_set(path, task="raw")
    assert msgspec.structs.replace(read.record, sha256="0" * 64) == raw_set.calibration.record
    assert read.record.sha256 == hash_file(path)
    assert list(read.arrays) == ["noisy", "variance", "noise_scale"]
    for name, array in raw_set.calibration.arrays.items():
        np.testing.assert_array_equal(read.arrays[name], array)


def test_other_programs_take_the_file(path: Path) -> None:
    """As ModelOpt does: one array per input of the graph, the same number of tiles in each."""
    bundle = find_bundle("edge")
    with np.load(path, allow_pickle=False) as arrays:
        tensors = bundle.record.tensors
        assert sorted(arrays) == sorted(tensors.inputs)
        noisy, variance, scale = (arrays[name] for name in ("noisy", "variance", "noise_scale"))
    assert {len(noisy), len(variance), len(scale)} == {40}
    assert {noisy.dtype, variance.dtype, scale.dtype} == {np.dtype(np.float32)}
    backend = OnnxRuntimeBackend(bundle, "fp32", threads=1)
    try:
        denoised = backend.run(tensors.fill(noisy[:1], variance[:1], float(scale[0, 0, 0, 0])))
    finally:
        backend.close()
    assert denoised.shape == noisy[:1].shape
    assert np.isfinite(denoised).all()


def test_the_manifest_names_no_folder(photographs: tuple[Path, ...], path: Path) -> None:
    text = path.with_suffix(".json").read_text("utf-8")
    assert photographs[0].name in text
    assert "/" + photographs[0].name not in text
    assert str(photographs[0].parent) not in text


def test_a_set_of_another_task_is_refused(path: Path) -> None:
    with pytest.raises(CalibrationError, match="task raw, 4 channels, wanted task srgb, 3"):
        load_calibration_set(path, task="srgb")


def test_a_set_without_its_manifest_is_refused(path: Path) -> None:
    path.with_suffix(".json").unlink()
    with pytest.raises(InputError, match="the manifest of the calibration set is missing"):
        load_calibration_set(path, task="raw")


def test_a_missing_set_is_refused(path: Path) -> None:
    path.unlink()
    with pytest.raises(InputError, match="no such calibration set"):
        load_calibration_set(path, task="raw")


def test_a_changed_byte_is_refused(path: Path) -> None:
    content = bytearray(path.read_bytes())
    for place in np.random.default_rng(0).integers(len(content), size=20):
        content[place] ^= 1
        path.write_bytes(content)
        with pytest.raises(InputError, match="altered since its manifest was written"):
            load_calibration_set(path, task="raw")
        content[place] ^= 1


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"format": "cycleisp-calibration/2"}, "not a manifest of a calibration set"),
        ({"surprise": 1}, "not a manifest of a calibration set"),
        ({"channels": 3}, "a calibration set for other networks"),
        ({"side": 24}, "not a manifest of a calibration set"),
        ({"side": 4096}, "the calibration set is too large"),
        ({"side": 256}, "not a readable calibration set"),
        ({"tiles": []}, "not a manifest of a calibration set"),
        ({"sources": []}, "a tile is of a file that is not listed"),
        ({"side": 112}, "the file is too large"),
        ({"sha256": "0" * 64}, "altered since its manifest was written"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(
    path: Path, change: dict[str, object], problem: str
) -> None:
    manifest = path.with_suffix(".json")
    manifest.write_text(json.dumps(json.loads(manifest.read_text("utf-8")) | change), "utf-8")
    with pytest.raises((InputError, CalibrationError), match=problem):
        load_calibration_set(path, task="raw")


def _with_content(path: Path, content: bytes) -> None:
    """The set replaced, its manifest made to agree, as whoever means harm would."""
    path.write_bytes(content)
    manifest = path.with_suffix(".json")
    record = json.loads(manifest.read_text("utf-8"))
    record["sha256"] = hash_file(path)
    manifest.write_text(json.dumps(record), "utf-8")


def _pickled(arrays: dict[str, Any]) -> bytes:
    file = io.BytesIO()
    arrays["noisy"] = np.array([{"code": "runs"}] * 40, object)
    np.savez(file, **arrays)
    return file.getvalue()


def _renamed(arrays: dict[str, Any]) -> bytes:
    file = io.BytesIO()
    np.savez(file, input=arrays.pop("noisy"), **arrays)
    return file.getvalue()


def _giant(arrays: dict[str, Any]) -> bytes:  # noqa: ARG001  one of a table
    """Names that fit, and a header that asks for 4 TB."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": (1 << 40,)}
    )
    return _archive(dict.fromkeys(("noisy", "variance", "noise_scale"), header.getvalue()))


def _saved(arrays: dict[str, Any]) -> dict[str, bytes]:
    members = {}
    for name, array in arrays.items():
        file = io.BytesIO()
        np.save(file, array)
        members[name] = file.getvalue()
    return members


def _short(arrays: dict[str, Any]) -> bytes:
    return _archive({name: content[:-4] for name, content in _saved(arrays).items()})


def _long(arrays: dict[str, Any]) -> bytes:
    return _archive({name: content + b"more" for name, content in _saved(arrays).items()})


def _compressed(arrays: dict[str, Any]) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def _double(arrays: dict[str, Any]) -> bytes:
    file = io.BytesIO()
    np.savez(file, **{name: array.astype(np.float64) for name, array in arrays.items()})
    return file.getvalue()


def _archive(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return file.getvalue()


@pytest.mark.parametrize(
    "attack",
    [
        _pickled, _renamed, _giant, _short, _long, _double, _compressed,
        lambda _arrays: b"no archive", pickle.dumps,
    ],
)  # fmt: skip
def test_an_archive_that_does_not_fit_is_refused(
    path: Path, raw_set: BuiltSet, attack: Callable[[dict[str, Any]], bytes]
) -> None:
    _with_content(path, attack(dict(raw_set.calibration.arrays)))
    problem = "not a readable calibration set|has other arrays|the file is too large"
    with pytest.raises(InputError, match=problem):
        load_calibration_set(path, task="raw")


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("noisy", 0.25, "tile 7 is constant"),
        ("noisy", np.nan, "tile 7 is not a number, or infinite"),
        ("variance", np.inf, "tile 7 is not a number, or infinite"),
        ("variance", -1e-6, "tile 7 is of negative variance"),
        ("noise_scale", np.nan, "tile 7 is not a number, or infinite"),
    ],
)
def test_a_useless_tile_is_refused(
    raw_set: BuiltSet, tmp_path: Path, name: str, value: float, problem: str
) -> None:
    record, arrays = raw_set.calibration.record, dict(raw_set.calibration.arrays)
    arrays[name] = arrays[name].copy()
    arrays[name][7] = value
    save_calibration_set(CalibrationSet(record, arrays), tmp_path / "set.npz", force=False)
    with pytest.raises(CalibrationError, match=problem):
        load_calibration_set(tmp_path / "set.npz", task="raw")
