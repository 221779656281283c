"""What pycuda and cuda-bindings do not offer alike, asked of the CUDA driver itself."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from cycleisp_runtime.cuda import Address, Bytes, CudaDriver, Graph, Kernel, Module, Size, Stream
from cycleisp_runtime.errors import BackendError, OutOfMemoryError

__all__ = ["LibCuda"]

# cuda.h of CUDA 12: CUresult, CUmemorytype, CUpointer_attribute and CUstreamCaptureMode.
INVALID_VALUE, OUT_OF_MEMORY = 1, 2
HOST, DEVICE = 1, 2
DEVICE_ORDINAL = 9
CAPTURE_OF_THIS_THREAD = 1


class LibCuda(CudaDriver):
    """The half of a driver that calls ``libcuda.so.1``, where its streams are plain numbers."""

    def upload_rows(self, target: Address, pitch: int, pinned: Bytes, stream: Stream) -> None:
        """As ``upload``, into rows that lie ``pitch`` bytes apart."""
        self._copy_rows(_Rows.of_host(pinned), _Rows.of_gpu(target, pitch), pinned, stream)

    def download_rows(self, pinned: Bytes, source: Address, pitch: int, stream: Stream) -> None:
        """As ``download``, from rows that lie ``pitch`` bytes apart."""
        self._copy_rows(_Rows.of_gpu(source, pitch), _Rows.of_host(pinned), pinned, stream)

    def holds(self, address: Address) -> bool:
        """Whether the GPU's own memory is there, or memory that it shares by moving it."""
        device = ctypes.c_int(-1)
        pointer = ctypes.c_uint64(address)
        status = _library()["cuPointerGetAttribute"](
            ctypes.byref(device), ctypes.c_int(DEVICE_ORDINAL), pointer
        )
        if status == INVALID_VALUE:  # memory that is not CUDA's
            return False
        _check("cuPointerGetAttribute", status)
        return device.value == 0

    def wait_for_others(self, stream: Stream | None) -> None:
        """Wait until all that others asked of this stream has happened; None for all streams."""
        if stream is None:
            _call("cuCtxSynchronize")
        else:
            _call("cuStreamSynchronize", ctypes.c_void_p(stream))

    def load_module(self, code: bytes) -> Module:
        """Let the GPU hold the machine code of kernels."""
        module = ctypes.c_void_p()
        _call("cuModuleLoadData", ctypes.byref(module), code)
        return Module(module.value or 0)

    def unload_module(self, module: Module) -> None:
        """Give back what ``load_module`` gave; none of its kernels may be at work."""
        _call("cuModuleUnload", ctypes.c_void_p(module))

    def find_kernel(self, module: Module, name: str) -> Kernel:
        """The function of this name."""
        kernel = ctypes.c_void_p()
        _call("cuModuleGetFunction", ctypes.byref(kernel), ctypes.c_void_p(module), name.encode())
        return Kernel(kernel.value or 0)

    def launch_kernel(
        self,
        kernel: Kernel,
        grid: Size,
        block: Size,
        record: npt.NDArray[np.void],
        addresses: Sequence[Address],
        stream: Stream,
    ) -> None:
        """Run a kernel once the stream comes to it; the driver copies the arguments now."""
        values = (ctypes.create_string_buffer(record.tobytes()), *map(ctypes.c_uint64, addresses))
        arguments = (ctypes.c_void_p * len(values))(*map(ctypes.addressof, values))
        shared_bytes = 0
        _call(
            "cuLaunchKernel",
            ctypes.c_void_p(kernel),
            *map(ctypes.c_uint, (*grid, 1, *block, 1, shared_bytes)),
            ctypes.c_void_p(stream),
            arguments,
            None,
        )

    def begin_capture(self, stream: Stream) -> None:
        """Let what this thread asks of the stream be noted from now on, and not be done."""
        mode = ctypes.c_int(CAPTURE_OF_THIS_THREAD)
        _call("cuStreamBeginCapture_v2", ctypes.c_void_p(stream), mode)

    def end_capture(self, stream: Stream) -> Graph:
        """What was noted; after a failure nothing is, and the stream does what it is asked."""
        noted, graph = ctypes.c_void_p(), ctypes.c_void_p()
        _call("cuStreamEndCapture", ctypes.c_void_p(stream), ctypes.byref(noted))
        try:
            no_flags = ctypes.c_ulonglong(0)
            _call("cuGraphInstantiateWithFlags", ctypes.byref(graph), noted, no_flags)
        finally:
            _call("cuGraphDestroy", noted)
        return Graph(graph.value or 0)

    def launch_graph(self, graph: Graph, stream: Stream) -> None:
        """Ask the stream for all that was noted."""
        _call("cuGraphLaunch", ctypes.c_void_p(graph), ctypes.c_void_p(stream))

    def destroy_graph(self, graph: Graph) -> None:
        """Give back what ``end_capture`` gave; what was launched of it goes on."""
        _call("cuGraphExecDestroy", ctypes.c_void_p(graph))

    def _copy_rows(self, source: _Rows, target: _Rows, pinned: Bytes, stream: Stream) -> None:
        rows, width = pinned.shape
        what = _Copy2D(source, target, width, rows)
        _call("cuMemcpy2DAsync_v2", ctypes.byref(what), ctypes.c_void_p(stream))


class _Rows(ctypes.Structure):
    """One half of CUDA_MEMCPY2D."""

    _fields_ = (
        ("first_byte", ctypes.c_size_t),
        ("first_row", ctypes.c_size_t),
        ("kind", ctypes.c_uint),
        ("host", ctypes.c_void_p),
        ("device", ctypes.c_uint64),
        ("array", ctypes.c_void_p),
        ("pitch", ctypes.c_size_t),
    )

    @classmethod
    def of_host(cls, rows: Bytes) -> _Rows:
        return cls(kind=HOST, host=rows.ctypes.data, pitch=rows.shape[1])

    @classmethod
    def of_gpu(cls, address: Address, pitch: int) -> _Rows:
        return cls(kind=DEVICE, device=address, pitch=pitch)


class _Copy2D(ctypes.Structure):
    """CUDA_MEMCPY2D."""

    _fields_ = (
        ("source", _Rows),
        ("target", _Rows),
        ("width", ctypes.c_size_t),
        ("height", ctypes.c_size_t),
    )


def _library() -> ctypes.CDLL:
    return ctypes.CDLL("libcuda.so.1")


def _call(function: str, *arguments: object) -> None:
    _check(function, _library()[function](*arguments))


def _check(function: str, status: int) -> None:
    if status == OUT_OF_MEMORY:
        raise OutOfMemoryError(f"CUDA has not enough memory: {function} gives error {status}")
    if status != 0:
        raise BackendError(f"CUDA fails: {function} gives error {status}")
