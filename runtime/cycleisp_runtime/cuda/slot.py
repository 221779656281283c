"""One tile on its way to the GPU, through a network, and back."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import numpy as np
import numpy.typing as npt

from cycleisp_runtime.cuda import CudaDriver, Event
from cycleisp_runtime.cuda.buffers import SharedBuffer

__all__ = ["Slot"]

STEPS = ("upload", "compute", "download")


class Slot:
    """Memory, a stream and events for one tile.

    Args:
        cuda: the driver, its context current.
        sizes: bytes of every array, by name.
        lifetime: frees all of it when it is closed.

    Attributes:
        addresses: where the GPU works on each array.
        uploaded: the GPU has the inputs.
        computed: the GPU has the output; the owner of the engine's stream records it.
    """

    def __init__(self, cuda: CudaDriver, sizes: Mapping[str, int], lifetime: ExitStack) -> None:
        self._cuda = cuda
        self._buffers = {name: SharedBuffer(cuda, size, lifetime) for name, size in sizes.items()}
        self.addresses = {name: buffer.address for name, buffer in self._buffers.items()}
        self._stream = cuda.create_stream()
        lifetime.callback(cuda.destroy_stream, self._stream)
        self._started, self.uploaded, self.computed, self._downloaded = (
            self._event(lifetime) for _ in range(4)
        )
        lifetime.callback(cuda.synchronize, self._stream)

    def view(self, name: str, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """The host's view of an array of this shape and type."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        return self._buffers[name].host[:size].view(dtype).reshape(shape)

    def upload(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Take the arrays, of any strides, and let the GPU have them C-contiguous."""
        self._cuda.synchronize(self._stream)  # a tile that nobody collected may be on its way
        for name, array in arrays.items():
            self.view(name, array.shape, array.dtype)[:] = array
        self._cuda.record(self._started, self._stream)
        for name, array in arrays.items():
            self._buffers[name].upload(array.nbytes, self._stream)
        self._cuda.record(self.uploaded, self._stream)

    def download(self, name: str, size: int) -> None:
        """Let the host have the first ``size`` bytes of the output once it is computed."""
        self._cuda.wait(self._stream, self.computed)
        self._buffers[name].download(size, self._stream)
        self._cuda.record(self._downloaded, self._stream)

    def finish(self) -> dict[str, float]:
        """Seconds by step, once the host has the output."""
        self._cuda.synchronize(self._stream)
        events = (self._started, self.uploaded, self.computed, self._downloaded)
        return {
            step: self._cuda.seconds_between(start, end)
            for step, (start, end) in zip(STEPS, itertools.pairwise(events), strict=True)
        }

    def _event(self, lifetime: ExitStack) -> Event:
        event = self._cuda.create_event()
        lifetime.callback(self._cuda.destroy_event, event)
        return event
