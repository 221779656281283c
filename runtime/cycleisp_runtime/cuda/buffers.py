"""Memory that the host and the GPU hand to each other."""

from __future__ import annotations

from contextlib import ExitStack

from cycleisp_runtime.cuda import Address, CudaDriver, Stream

__all__ = ["SharedBuffer"]


class SharedBuffer:
    """A pinned buffer and its double on the GPU; one and the same where they share memory.

    Args:
        cuda: the driver, its context current.
        size: in bytes.
        lifetime: frees the memory when it is closed.

    Attributes:
        host: (size) uint8.
        address: where the GPU works on it.
    """

    def __init__(self, cuda: CudaDriver, size: int, lifetime: ExitStack) -> None:
        self._cuda = cuda
        self.host = cuda.allocate_pinned(size)
        lifetime.callback(cuda.free_pinned, self.host)
        self.address: Address
        if cuda.integrated:
            self.address = cuda.device_address(self.host)
        else:
            self.address = cuda.allocate(size)
            lifetime.callback(cuda.free, self.address)

    def upload(self, size: int, stream: Stream) -> None:
        """Let the GPU see the first ``size`` bytes as the host has them."""
        if not self._cuda.integrated:
            self._cuda.upload(self.address, self.host[:size], stream)

    def download(self, size: int, stream: Stream) -> None:
        """Let the host see the first ``size`` bytes as the GPU has them."""
        if not self._cuda.integrated:
            self._cuda.download(self.host[:size], self.address, stream)
