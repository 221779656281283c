"""The GPU as the driver describes it, with a driver that was made up."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import pytest

from cycleisp_runtime.engines import gpu
from cycleisp_runtime.engines.gpu import Gpu, find_gpu
from cycleisp_runtime.errors import BackendError

ATTRIBUTES = {16: 14, 75: 8, 76: 7}


def a_driver(init: int = 0) -> dict[str, Any]:
    """Functions of libcuda by name; arguments come as ctypes passes them."""

    def put(pointer: Any, value: int) -> int:  # noqa: ANN401  ctypes has no name for its kind
        ctypes.cast(pointer, ctypes.POINTER(ctypes.c_int)).contents.value = value
        return 0

    def name(buffer: ctypes.Array[ctypes.c_char], _size: int, _device: object) -> int:
        buffer.value = b"Orin (nvgpu)"
        return 0

    return {
        "cuInit": lambda _flags: init,
        "cuDeviceGet": put,
        "cuDeviceGetName": name,
        "cuDriverGetVersion": lambda version: put(version, 12060),
        "cuDeviceGetAttribute": lambda value, which, _device: put(value, ATTRIBUTES[which]),
    }


def install(monkeypatch: pytest.MonkeyPatch, driver: dict[str, Any] | OSError) -> None:
    def load(name: str) -> dict[str, Any]:
        assert name == "libcuda.so.1"
        if isinstance(driver, OSError):
            raise driver
        return driver

    monkeypatch.setattr(ctypes, "CDLL", load)


@pytest.mark.parametrize(
    ("line", "driver"),
    [
        (None, "CUDA 12060"),
        ("NVRM version: 540.4.0\nGCC version: 12\n", "CUDA 12060, NVRM version: 540.4.0"),
    ],
)
def test_the_facts_of_a_gpu(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, line: str | None, driver: str
) -> None:
    install(monkeypatch, a_driver())
    monkeypatch.setattr(gpu, "KERNEL_MODULE", tmp_path / "version")
    if line is not None:
        (tmp_path / "version").write_text(line)
    assert find_gpu() == Gpu("Orin (nvgpu)", (8, 7), 14, driver)


def test_no_driver_and_no_gpu_are_no_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, OSError("libcuda.so.1: cannot open shared object file"))
    assert find_gpu() is None
    install(monkeypatch, a_driver(init=100))
    assert find_gpu() is None


def test_a_driver_that_does_not_work_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, a_driver(init=803))
    with pytest.raises(BackendError, match="cuInit gives error 803"):
        find_gpu()
