"""The kernels of passes.cu compiled for the host, called as CUDA would call them."""

from __future__ import annotations

import atexit
import ctypes
import functools
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt

from cycleisp_runtime import cuda
from cycleisp_runtime.errors import BackendError

__all__ = ["HostKernels", "host_code"]

SOURCE = Path(__file__).with_name("host_kernels.cpp")
TIME_LIMIT_S = 60


class _Place(ctypes.Structure):
    _fields_ = (("x", ctypes.c_uint), ("y", ctypes.c_uint))


@functools.cache
def host_code() -> bytes:
    """The path of a library of the kernels, which stands for their machine code.

    No multiply-add is fused, as the GPU's compiler is told.

    Raises:
        BackendError: where there is no compiler.
    """
    compiler = shutil.which("c++")
    if compiler is None:
        raise BackendError("needs a C++ compiler")
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder)
    library = folder / "kernels.so"
    flags = ["-std=c++17", "-shared", "-fPIC", "-O1", "-ffp-contract=off", "-Wall", "-Werror"]
    where = f"-I{Path(cuda.__file__).parent}"
    subprocess.run(
        [compiler, *flags, where, "-o", str(library), str(SOURCE)], check=True, timeout=TIME_LIMIT_S
    )
    return str(library).encode()


class HostKernels:
    """Calls the kernels of ``host_code``."""

    def __init__(self, code: bytes) -> None:
        self._library = ctypes.CDLL(code.decode())

    def launch(
        self,
        name: str,
        grid: tuple[int, int],
        block: tuple[int, int],
        record: npt.NDArray[Any],
        arrays: Sequence[npt.NDArray[Any] | None],
    ) -> None:
        """Run ``name`` on a record by value and arrays by address."""
        held = ctypes.create_string_buffer(record.tobytes())
        pointers = [
            ctypes.c_void_p(None if array is None else array.ctypes.data) for array in arrays
        ]
        arguments = [ctypes.addressof(each) for each in (held, *pointers)]
        self._library[f"launch_{name}"](
            _Place(*grid), _Place(*block), (ctypes.c_void_p * len(arguments))(*arguments)
        )
