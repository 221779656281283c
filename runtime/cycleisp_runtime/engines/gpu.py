"""The GPU that an engine is built for, asked of the CUDA driver itself.

``libcuda`` is there wherever an engine can run, on a Jetson as on a desktop, while the Python
packages around it may not be.
"""

from __future__ import annotations

import contextlib
import ctypes
from pathlib import Path

import msgspec

from cycleisp_runtime.errors import BackendError

__all__ = ["Gpu", "find_gpu"]

# cuda.h of CUDA 12: CUresult and CUdevice_attribute.
NO_DEVICE = 100
MULTIPROCESSOR_COUNT = 16
COMPUTE_CAPABILITY_MAJOR = 75
COMPUTE_CAPABILITY_MINOR = 76

MAX_NAME_BYTES = 256
KERNEL_MODULE = Path("/proc/driver/nvidia/version")


class Gpu(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an engine depends on.

    Attributes:
        name: as the driver gives it.
        compute_capability: major and minor.
        multiprocessors: those switched on; the power mode of a Jetson changes their number.
        driver: the CUDA version that it supports, and the version line of its kernel module.
    """

    name: str
    compute_capability: tuple[int, int]
    multiprocessors: int
    driver: str


def find_gpu() -> Gpu | None:
    """The first GPU that CUDA may use; None where there is no driver or no GPU.

    Raises:
        BackendError: where the driver is there but does not work.
    """
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None

    def call(function: str, *arguments: object) -> None:
        status = driver[function](*arguments)
        if status != 0:
            raise BackendError(
                f"the CUDA driver does not work: {function} gives error {status}",
                hint="nvidia-smi may say more; restart after a change of the driver",
            )

    if driver["cuInit"](0) == NO_DEVICE:
        return None
    call("cuInit", 0)
    device, version = ctypes.c_int(), ctypes.c_int()
    name = ctypes.create_string_buffer(MAX_NAME_BYTES)
    call("cuDeviceGet", ctypes.byref(device), 0)
    call("cuDeviceGetName", name, MAX_NAME_BYTES, device)
    call("cuDriverGetVersion", ctypes.byref(version))

    def attribute(which: int) -> int:
        value = ctypes.c_int()
        call("cuDeviceGetAttribute", ctypes.byref(value), which, device)
        return value.value

    return Gpu(
        name=name.value.decode("utf-8", "replace"),
        compute_capability=(
            attribute(COMPUTE_CAPABILITY_MAJOR),
            attribute(COMPUTE_CAPABILITY_MINOR),
        ),
        multiprocessors=attribute(MULTIPROCESSOR_COUNT),
        driver=f"CUDA {version.value}{_kernel_module()}",
    )


def _kernel_module() -> str:
    """Tells two drivers of the same CUDA version apart; empty where the system does not."""
    with contextlib.suppress(OSError):
        return f", {KERNEL_MODULE.read_text().partition(chr(10))[0]}"
    return ""
