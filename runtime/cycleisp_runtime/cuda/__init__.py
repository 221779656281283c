"""What running an engine takes of the CUDA driver: one small protocol, one file per package.

Memory, streams and events live in the primary context of the GPU, which CUDA's runtime uses too.
So torch and ONNX Runtime can stand beside us in one process, and what one of them allocates, the
others can address.
"""

from __future__ import annotations

import importlib
import logging
from abc import abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import NewType, Protocol

import numpy as np
import numpy.typing as npt

from cycleisp_runtime.errors import BackendError

__all__ = [
    "Address",
    "Bytes",
    "CudaDriver",
    "Event",
    "Graph",
    "Kernel",
    "Module",
    "Size",
    "Stream",
    "open_driver",
]

PACKAGES = {
    "pycuda": "cycleisp_runtime.cuda.pycuda_driver",
    "cuda-bindings": "cycleisp_runtime.cuda.cuda_bindings_driver",
}
"""Packages in the order of preference, and the modules that call the driver through them."""

_log = logging.getLogger(__name__)

Address = NewType("Address", int)
"""Of memory, as the GPU sees it."""

Stream = NewType("Stream", int)
"""What is asked of the GPU in one stream happens in that order; TensorRT takes its number."""

Event = NewType("Event", int)
"""A place in a stream."""

Module = NewType("Module", int)
"""Machine code that the GPU holds."""

Kernel = NewType("Kernel", int)
"""A function in it; it lives as long as its module."""

Graph = NewType("Graph", int)
"""What was asked of a stream, to be asked again by one call."""

Size = tuple[int, int]
"""Columns and rows, of threads or of blocks of them."""

Bytes = npt.NDArray[np.uint8]
"""uint8, C-contiguous, one-dimensional unless it is said to hold rows."""


class CudaDriver(Protocol):
    """The first GPU that CUDA may use (CUDA_VISIBLE_DEVICES says which), until ``close``.

    All but ``close`` is called inside ``current``. Every method raises OutOfMemoryError where the
    driver lacks memory and BackendError where it refuses otherwise. A fault of the GPU shows in
    whatever is called next, and after it everything is refused.

    Attributes:
        package: the Python package that calls the driver, and its version.
        integrated: GPU and CPU share their memory, so that copying between them is a waste.
    """

    package: str
    integrated: bool

    @abstractmethod
    def current(self) -> AbstractContextManager[None]:
        """Makes the GPU's primary context that of this thread, and then what it was before."""

    @abstractmethod
    def close(self) -> None:
        """Release the primary context, in the thread that opened the driver; once."""

    @abstractmethod
    def allocate(self, size: int) -> Address:
        """Memory of the GPU, ``size`` bytes of it."""

    @abstractmethod
    def free(self, address: Address) -> None:
        """Give back what ``allocate`` gave."""

    @abstractmethod
    def allocate_pinned(self, size: int) -> Bytes:
        """Memory of the host that the GPU reaches while the host goes on; contents undefined."""

    @abstractmethod
    def device_address(self, pinned: Bytes) -> Address:
        """Where the GPU sees what ``allocate_pinned`` gave."""

    @abstractmethod
    def free_pinned(self, pinned: Bytes) -> None:
        """Give back what ``allocate_pinned`` gave; no view of it may be used afterwards."""

    @abstractmethod
    def upload(self, target: Address, pinned: Bytes, stream: Stream) -> None:
        """Copy to the GPU once the stream comes to it; ``pinned`` must not change until then."""

    @abstractmethod
    def download(self, pinned: Bytes, source: Address, stream: Stream) -> None:
        """Copy from the GPU once the stream comes to it; ``pinned`` must not be read until then."""

    @abstractmethod
    def upload_rows(self, target: Address, pitch: int, pinned: Bytes, stream: Stream) -> None:
        """As ``upload``, of ``pinned`` (rows, bytes) into rows that lie ``pitch`` bytes apart."""

    @abstractmethod
    def download_rows(self, pinned: Bytes, source: Address, pitch: int, stream: Stream) -> None:
        """As ``download``, of rows that lie ``pitch`` bytes apart into ``pinned`` (rows, bytes)."""

    @abstractmethod
    def holds(self, address: Address) -> bool:
        """Whether memory of this GPU is there, whoever allocated it, or managed memory."""

    @abstractmethod
    def create_stream(self) -> Stream:
        """A stream that does not wait for the default stream."""

    @abstractmethod
    def destroy_stream(self, stream: Stream) -> None:
        """Give back what ``create_stream`` gave."""

    @abstractmethod
    def synchronize(self, stream: Stream) -> None:
        """Wait until everything that was asked of the stream has happened."""

    @abstractmethod
    def wait_for_others(self, stream: Stream | None) -> None:
        """Wait until all that others asked of their stream has happened; None for all streams."""

    @abstractmethod
    def create_event(self) -> Event:
        """An event that keeps the time."""

    @abstractmethod
    def destroy_event(self, event: Event) -> None:
        """Give back what ``create_event`` gave."""

    @abstractmethod
    def record(self, event: Event, stream: Stream) -> None:
        """Let the event be here, after all that was asked of the stream so far."""

    @abstractmethod
    def wait(self, stream: Stream, event: Event) -> None:
        """Let what is asked of the stream from now on wait for the event."""

    @abstractmethod
    def seconds_between(self, start: Event, end: Event) -> float:
        """Time between two events that have happened."""

    @abstractmethod
    def load_module(self, code: bytes) -> Module:
        """Let the GPU hold the machine code of kernels."""

    @abstractmethod
    def unload_module(self, module: Module) -> None:
        """Give back what ``load_module`` gave; none of its kernels may be at work."""

    @abstractmethod
    def find_kernel(self, module: Module, name: str) -> Kernel:
        """The function of this name."""

    @abstractmethod
    def launch_kernel(
        self,
        kernel: Kernel,
        grid: Size,
        block: Size,
        record: npt.NDArray[np.void],
        addresses: Sequence[Address],
        stream: Stream,
    ) -> None:
        """Run a kernel once the stream comes to it.

        Args:
            kernel: takes a struct by value and then as many pointers as there are addresses.
            grid: how many blocks.
            block: of how many threads each.
            record: the struct.
            addresses: what the pointers point to; 0 for nothing.
            stream: the kernel comes after what was asked of it before.
        """

    @abstractmethod
    def begin_capture(self, stream: Stream) -> None:
        """Let what this thread asks of the stream be noted from now on, and not be done."""

    @abstractmethod
    def end_capture(self, stream: Stream) -> Graph:
        """What was noted; after a failure nothing is, and the stream does what it is asked."""

    @abstractmethod
    def launch_graph(self, graph: Graph, stream: Stream) -> None:
        """Ask the stream for all that was noted."""

    @abstractmethod
    def destroy_graph(self, graph: Graph) -> None:
        """Give back what ``end_capture`` gave; what was launched of it goes on."""


def open_driver() -> CudaDriver:
    """The driver through pycuda, or else through cuda-bindings.

    Raises:
        BackendError: where neither can be imported, or the driver does not work.
    """
    problems = []
    for package, module in PACKAGES.items():
        try:
            driver: type[CudaDriver] = importlib.import_module(module).Driver
        except ModuleNotFoundError as error:  # noqa: PERF203  two rounds
            problems.append(str(error))
        except (ImportError, OSError, RuntimeError, AttributeError) as error:
            problems.append(f"{package} is broken: {error}")
            _log.warning("%s", problems[-1])
        else:
            return driver()
    raise BackendError(
        f"no package that calls the CUDA driver: {'; '.join(problems)}",
        hint="pip install cuda-bindings of the driver's CUDA version (12 on JetPack 6, 13 on "
        "JetPack 7), or pycuda where the CUDA toolkit is installed",
    )
