"""A bundle's network as a TensorRT engine, on the first GPU that CUDA may use.

Two tiles are on their way at a time, each in memory and a stream of its own:

    stream of tile 1    upload ---------- download        upload ---------- download
    stream of tile 2               upload ---------- download        upload ----------
    stream of engine          compute 1   compute 2           compute 1   compute 2

so that copying and what the caller does with tiles cost no time of the GPU. Where GPU and CPU share
their memory, as on a Jetson, nothing is copied there.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack

import numpy as np
import numpy.typing as npt

from cycleisp_runtime.backends import Backend
from cycleisp_runtime.bundle import Bundle, Precision
from cycleisp_runtime.cuda import open_driver
from cycleisp_runtime.cuda.slot import Slot
from cycleisp_runtime.engines.build import build_engine
from cycleisp_runtime.engines.cache import Engine, EngineCache
from cycleisp_runtime.engines.execution import Execution
from cycleisp_runtime.engines.gpu import find_gpu
from cycleisp_runtime.engines.key import TileShapes
from cycleisp_runtime.engines.tensorrt import BuildProgress, find_tensorrt
from cycleisp_runtime.errors import BackendError, OutOfMemoryError

__all__ = ["TensorRTBackend"]

_Tiles = npt.NDArray[np.float32]

_log = logging.getLogger(__name__)


class TensorRTBackend(Backend):
    """An engine from the cache, or built into it now, which takes minutes and is logged.

    One thread at a time may use it, whichever; ``close`` belongs to the thread that opened it.

    Args:
        bundle: a checked bundle.
        precision: which of its networks.
        shapes: of tiles, if an engine must be built; None for all up to the denoiser's default.
        progress: called after every step of a build.

    Raises:
        BundleError: where the bundle lacks the precision or its network must not be trusted.
        SettingsError: where the network accepts no such tiles.
        OutOfMemoryError: where the GPU has no memory for the largest tile.
        BackendError: where TensorRT, the driver or the GPU is missing or fails, or the cache is not
            private.
        OutputError: where the cache cannot be written.

    Attributes:
        seconds: that the GPU took for the last tile, by step; with more than one on their way they
            hold the waiting for each other.
    """

    name = "tensorrt"
    device = "cuda"
    batch = 4  # the more tiles in a run, the more of their copying costs no time

    def __init__(
        self,
        bundle: Bundle,
        precision: Precision = "fp16",
        *,
        shapes: TileShapes | None = None,
        progress: BuildProgress | None = None,
    ) -> None:
        self.precision = precision
        self.seconds: Mapping[str, float] = {}
        self._tensors = bundle.record.tensors
        self._subject = f"{bundle.record.name} {precision} on TensorRT"
        self._closed = False
        self._output: _Tiles = np.empty((0, 0, 0, 0), np.float32)
        engine = _find_engine(bundle, precision, shapes, progress)
        self._resources, self._lifetime = ExitStack(), ExitStack()
        try:
            self._open(engine)
        except BaseException:
            self._close_anyway()
            raise

    def run(self, inputs: Mapping[str, _Tiles]) -> _Tiles:
        """Denoised tiles (N, C, h, w) float32, until the next run or ``close``.

        Raises:
            OutOfMemoryError: where TensorRT lacks memory; the backend can still be used.
            BackendError: where the engine was built for other tiles; or where the GPU fails, and
                then the backend is closed.
        """
        noisy = inputs[self._tensors.noisy]
        if len(noisy) == 1:
            return next(self.run_each([inputs]))
        if self._output.shape != noisy.shape:
            self._output = np.empty_like(noisy)
        tiles = (
            {name: array[index : index + 1] for name, array in inputs.items()}
            for index in range(len(noisy))
        )
        for index, denoised in enumerate(self.run_each(tiles)):
            self._output[index] = denoised[0]
        return self._output

    def run_each(self, tiles: Iterable[Mapping[str, _Tiles]]) -> Iterator[_Tiles]:
        """Denoised tiles (1, C, h, w) float32, each until the next one is asked for.

        While the GPU works on a tile, the inputs of the next one are asked for; those that were
        given before may be overwritten by then.

        Args:
            tiles: the graph's inputs of one tile after the other.

        Raises:
            OutOfMemoryError: as ``run``.
            BackendError: as ``run``.
        """
        ahead: Slot | None = None
        for slot, inputs in zip(itertools.cycle(self._slots), tiles):
            self._submit(slot, inputs)
            if ahead is not None:
                yield self._collect(ahead)
            ahead = slot
        if ahead is not None:
            yield self._collect(ahead)

    def close(self) -> None:
        """Free everything on the GPU and release it; may be called twice."""
        self._closed = True
        self._output = np.empty((0, 0, 0, 0), np.float32)
        self._lifetime.close()

    def _submit(self, slot: Slot, inputs: Mapping[str, _Tiles]) -> None:
        """Have the GPU upload, compute and download as soon as it comes to it."""
        shapes = {name: array.shape for name, array in inputs.items()}
        self._execution.check(shapes)
        with self._working():
            slot.upload(inputs)
            self._cuda.wait(self._stream, slot.uploaded)
            self._execution.enqueue(shapes, slot.addresses, self._stream)
            self._cuda.record(slot.computed, self._stream)
            slot.download(self._tensors.denoised, shapes[self._tensors.noisy])

    def _collect(self, slot: Slot) -> _Tiles:
        """What the GPU makes of the tile, once it has."""
        with self._working():
            self.seconds = slot.finish()
        return slot.tensor(self._tensors.denoised, slot.shape)

    @contextlib.contextmanager
    def _working(self) -> Iterator[None]:
        """The GPU is ours for a while; after a fault of it this backend is closed."""
        if self._closed:
            raise BackendError("the backend was closed", subject=self._subject)
        try:
            with self._cuda.current():
                yield
        except OutOfMemoryError:
            raise
        except BackendError:
            self._close_anyway()
            raise

    def _open(self, engine: Engine) -> None:
        """Take from the GPU what tiles need; ``close`` gives back as much as was taken."""
        self._cuda = open_driver()
        self._lifetime.callback(self._cuda.close)
        self._lifetime.callback(self._free)
        tensors = self._tensors
        with self._cuda.current():
            names = {*tensors.inputs, tensors.denoised}
            self._execution = Execution(find_tensorrt(), engine, names)
            self._resources.callback(self._execution.close)
            largest = {name: most for name, (_, most) in self._execution.shapes.items()}
            largest[tensors.denoised] = largest[tensors.noisy]
            self._slots = [Slot(self._cuda, largest, self._resources) for _ in range(2)]
            self._stream = self._cuda.create_stream()
            self._resources.callback(self._cuda.destroy_stream, self._stream)
            self._resources.callback(self._cuda.synchronize, self._stream)

    def _free(self) -> None:
        with self._cuda.current():
            self._resources.close()

    def _close_anyway(self) -> None:
        """Close, although the driver may refuse to free anything after what went wrong."""
        with contextlib.suppress(BackendError):
            self.close()


def _find_engine(
    bundle: Bundle,
    precision: Precision,
    shapes: TileShapes | None,
    progress: BuildProgress | None,
) -> Engine:
    """The engine of this network, which the cache vouches for."""
    if find_gpu() is None:
        raise BackendError(
            "there is no GPU that CUDA may use",
            hint="see what nvidia-smi says, or run on the CPU with --backend onnxruntime",
        )
    outcome = build_engine(bundle, precision, shapes=shapes, progress=progress)
    for warning in outcome.warnings:
        _log.warning("not taken from the cache: %s", warning)
    engine = EngineCache().load(outcome.manifest.key)
    if engine is None:
        raise BackendError("the engine has gone from the cache", subject=outcome.engine)
    return engine
