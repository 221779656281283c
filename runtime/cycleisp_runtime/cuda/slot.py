"""One tile on its way to the GPU, through a network, and back."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from contextlib import ExitStack

import numpy as np
import numpy.typing as npt

from cycleisp_runtime.cuda import CudaDriver, Event
from cycleisp_runtime.cuda.buffers import SharedBuffer

__all__ = ["Slot"]

FLOAT32 = np.dtype(np.float32)

STEPS = ("upload", "compute", "download")

Tiles = npt.NDArray[np.float32]
Shape = tuple[int, ...]


class Slot:
    """Memory, a stream and events for one tile.

    Args:
        cuda: the driver, its context current.
        largest: shape of every tensor.
        lifetime: frees all of it when it is closed.

    Attributes:
        addresses: where the GPU works on each tensor.
        uploaded: the GPU has the inputs.
        computed: the GPU has the output; the owner of the engine's stream records it.
        shape: of the output.
    """

    def __init__(self, cuda: CudaDriver, largest: Mapping[str, Shape], lifetime: ExitStack) -> None:
        self._cuda = cuda
        self._buffers = {
            name: SharedBuffer(cuda, math.prod(shape) * FLOAT32.itemsize, lifetime)
            for name, shape in largest.items()
        }
        self.addresses = {name: buffer.address for name, buffer in self._buffers.items()}
        self._stream = cuda.create_stream()
        lifetime.callback(cuda.destroy_stream, self._stream)
        self._started, self.uploaded, self.computed, self._downloaded = (
            self._event(lifetime) for _ in range(4)
        )
        lifetime.callback(cuda.synchronize, self._stream)
        self.shape: Shape = ()

    def tensor(self, name: str, shape: Shape) -> Tiles:
        """The host's view of a tensor of this shape."""
        size = math.prod(shape) * FLOAT32.itemsize
        return self._buffers[name].host[:size].view(FLOAT32).reshape(shape)

    def upload(self, inputs: Mapping[str, Tiles]) -> None:
        """Take the inputs, and let the GPU have them."""
        self._cuda.synchronize(self._stream)  # a tile that nobody collected may be on its way
        for name, array in inputs.items():
            self.tensor(name, array.shape)[:] = array
        self._cuda.record(self._started, self._stream)
        for name, array in inputs.items():
            self._buffers[name].upload(array.nbytes, self._stream)
        self._cuda.record(self.uploaded, self._stream)

    def download(self, name: str, shape: Shape) -> None:
        """Let the host have the output once it is computed."""
        self.shape = shape
        self._cuda.wait(self._stream, self.computed)
        self._buffers[name].download(math.prod(shape) * FLOAT32.itemsize, self._stream)
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
