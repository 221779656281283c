"""Kernels from CUDA C to machine code of one GPU, by whichever of NVIDIA's compilers is there.

NVRTC is a library, part of the CUDA toolkit and so of JetPack, and a wheel for other machines. nvcc
is the command of the toolkit; pycuda knows how to call it. Machine code needs no compiler in the
driver, which may be older than the toolkit.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

from cycleisp_runtime.errors import BackendError

__all__ = ["compile_kernels"]

NO_FUSED_MULTIPLY_ADD = "--fmad=false"
"""It rounds once where the passes on the CPU round twice."""


def compile_kernels(source: str, capability: tuple[int, int]) -> bytes:
    """Machine code for GPUs of this compute capability, of kernels that say ``extern "C"``.

    Raises:
        BackendError: where no compiler is there that knows these GPUs, or none accepts the source.
    """
    target = "sm_{}{}".format(*capability)
    problems = []
    for module, compile_with in (("cuda.bindings.nvrtc", _nvrtc), ("pycuda.compiler", _nvcc)):
        try:
            return compile_with(importlib.import_module(module), source, target)
        # Besides its own, whatever a package raises that cannot load its libraries.
        except Exception as error:  # noqa: BLE001, PERF203
            problems.append(f"{module}: {error}")
    raise BackendError(
        f"no compiler of kernels for {target}: {'; '.join(problems)}",
        hint="pip install cuda-bindings, and nvidia-cuda-nvrtc where there is no CUDA toolkit",
    )


def _nvrtc(nvrtc: ModuleType, source: str, target: str) -> bytes:
    def call(function: str, *arguments: object) -> Any:  # noqa: ANN401  of whatever type
        status, *values = getattr(nvrtc, function)(*arguments)
        if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
            raise BackendError(f"{function} gives {status.name}")
        return values[0] if values else None

    options = [f"--gpu-architecture={target}".encode(), NO_FUSED_MULTIPLY_ADD.encode()]
    program = call("nvrtcCreateProgram", source.encode(), b"kernels.cu", 0, [], [])
    try:
        try:
            call("nvrtcCompileProgram", program, len(options), options)
        except BackendError as error:
            log = bytearray(call("nvrtcGetProgramLogSize", program))
            call("nvrtcGetProgramLog", program, log)
            raise BackendError(f"{error}: {log.decode(errors='replace').strip(chr(0))}") from error
        code = bytearray(call("nvrtcGetCUBINSize", program))
        call("nvrtcGetCUBIN", program, code)
        return bytes(code)
    finally:
        call("nvrtcDestroyProgram", program)


def _nvcc(compiler: ModuleType, source: str, target: str) -> bytes:
    code: bytes = compiler.compile(
        source, options=["-O3", NO_FUSED_MULTIPLY_ADD], no_extern_c=True, arch=target
    )
    return code
