"""A bundle's network as a TensorRT engine, on the first GPU that CUDA may use.

Two tiles are on their way at a time, each in memory and a stream of its own:

    stream of tile 1    upload ---------- download        upload ---------- download
    stream of tile 2               upload ---------- download        upload ----------
    stream of engine          compute 1   compute 2           compute 1   compute 2

so that copying and what the caller does with tiles cost no time of the GPU. Where GPU and CPU share
their memory, as on a Jetson, nothing is copied there.

Of a RAW frame the samples themselves travel, two bytes each way instead of eight and four, where
there is a compiler for the kernels that cut and stitch; else the CPU does both, which is logged.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from cycleisp_runtime.backends import Backend
from cycleisp_runtime.backends.checked import no_picture
from cycleisp_runtime.bundle import Bundle, Precision
from cycleisp_runtime.cuda import Address, open_driver
from cycleisp_runtime.cuda.kernels import RESULT, PassKernels, compile_passes, pass_buffers
from cycleisp_runtime.cuda.passes import FramePasses, TilePasses
from cycleisp_runtime.cuda.replay import Replay
from cycleisp_runtime.cuda.slot import Slot
from cycleisp_runtime.engines.build import build_engine
from cycleisp_runtime.engines.cache import Engine, EngineCache
from cycleisp_runtime.engines.execution import Execution, Shape
from cycleisp_runtime.engines.gpu import Gpu, find_gpu
from cycleisp_runtime.engines.key import TileShapes
from cycleisp_runtime.engines.tensorrt import BuildProgress, find_tensorrt
from cycleisp_runtime.errors import BackendError, OutOfMemoryError
from cycleisp_runtime.tiles import Core

__all__ = ["TensorRTBackend"]

_Tiles = npt.NDArray[np.float32]
_Given = TypeVar("_Given")
_Taken = TypeVar("_Taken")

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
        self._record, self._tensors = bundle.record, bundle.record.tensors
        self._subject = f"{bundle.record.name} {precision} on TensorRT"
        self._closed = False
        self._output: _Tiles = np.empty((0, 0, 0, 0), np.float32)
        gpu = _find_gpu()
        engine = _find_engine(bundle, precision, shapes, progress)
        self._resources, self._lifetime = ExitStack(), ExitStack()
        try:
            self._open(engine, _compiled_passes(gpu) if bundle.record.task == "raw" else None)
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

        def submit(slot: Slot, inputs: Mapping[str, _Tiles]) -> Callable[[], _Tiles]:
            shapes = self._checked_shapes(inputs)
            shape = shapes[self._tensors.noisy]
            with self._working():
                slot.upload(inputs)
                self._cuda.wait(self._stream, slot.uploaded)
                self._enqueue(slot, shapes)
                self._cuda.record(slot.computed, self._stream)
                slot.download(self._tensors.denoised, _bytes_of(shape))
            return lambda: self._denoised(slot, shape)

        return self._two_at_a_time(submit, tiles)

    def close(self) -> None:
        """Free everything on the GPU and release it; may be called twice."""
        self._closed = True
        self._output = np.empty((0, 0, 0, 0), np.float32)
        self._lifetime.close()

    def _run_frame(self, passes: FramePasses, inputs: Mapping[str, _Tiles]) -> Iterator[Core]:
        """``run_frame``; raises BackendError where the output is no picture, too."""
        tensors, kernels = self._tensors, self._kernels
        shapes = self._checked_shapes(inputs)
        constant = {
            name: array
            for name, array in inputs.items()
            if name not in (tensors.noisy, tensors.variance)
        }

        def submit(slot: Slot, core: Core) -> Callable[[], Core]:
            tile = passes.tile(core)
            noisy = slot.addresses[tensors.noisy]
            variance = Address(0) if tensors.variance is None else slot.addresses[tensors.variance]
            with self._working():
                slot.upload(constant | kernels.uploads(tile))
                self._cuda.wait(self._stream, slot.uploaded)
                kernels.cut(tile, slot, noisy, variance, self._stream)
                self._enqueue(slot, shapes)
                kernels.stitch(tile, slot, slot.addresses[tensors.denoised], self._stream)
                self._cuda.record(slot.computed, self._stream)
                slot.download(RESULT, kernels.result_bytes(tile))
            return lambda: self._stitched(slot, tile, core)

        return self._two_at_a_time(submit, passes.plan.cores)

    def _two_at_a_time(
        self, submit: Callable[[Slot, _Given], Callable[[], _Taken]], tiles: Iterable[_Given]
    ) -> Iterator[_Taken]:
        """What comes of each tile; the next one is submitted before it is waited for.

        Args:
            submit: has the GPU upload, compute and download as soon as it comes to it; gives what
                collects the tile.
            tiles: one after the other.
        """
        ahead: Callable[[], _Taken] | None = None
        for slot, tile in zip(itertools.cycle(self._slots), tiles):
            collect = submit(slot, tile)
            if ahead is not None:
                yield ahead()
            ahead = collect
        if ahead is not None:
            yield ahead()

    def _checked_shapes(self, inputs: Mapping[str, _Tiles]) -> dict[str, Shape]:
        shapes = {name: array.shape for name, array in inputs.items()}
        self._execution.check(shapes)
        return shapes

    def _enqueue(self, slot: Slot, shapes: Mapping[str, Shape]) -> None:
        names = (*self._tensors.inputs, self._tensors.denoised)
        addresses = {name: slot.addresses[name] for name in names}
        self._replay.run(
            frozenset(shapes.items()),
            frozenset(addresses.items()),
            lambda: self._execution.enqueue(shapes, addresses, self._stream),
        )

    def _denoised(self, slot: Slot, shape: Shape) -> _Tiles:
        """What the GPU makes of the tile, once it has."""
        with self._working():
            self.seconds = slot.finish()
        return slot.view(self._tensors.denoised, shape, np.float32)

    def _stitched(self, slot: Slot, tile: TilePasses, core: Core) -> Core:
        """The core, once it stands in the frame."""
        with self._working():
            self.seconds = slot.finish()
        if not self._kernels.collect(tile, slot):
            raise no_picture(self._record, self.name)
        return core

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

    def _open(self, engine: Engine, passes: bytes | None) -> None:
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
            sizes = {name: _bytes_of(shape) for name, shape in largest.items()}
            if passes is not None:
                self._kernels = PassKernels(self._cuda, passes, self._resources)
                self.run_frame = self._run_frame
                sizes |= pass_buffers(*largest[tensors.noisy][2:])
            self._slots = [Slot(self._cuda, sizes, self._resources) for _ in range(2)]
            self._stream = self._cuda.create_stream()
            self._resources.callback(self._cuda.destroy_stream, self._stream)
            capturable = partial(self._execution.is_capturable, self._stream)
            self._replay = Replay(self._cuda, self._stream, capturable, self._resources)
            self._resources.callback(self._cuda.synchronize, self._stream)

    def _free(self) -> None:
        with self._cuda.current():
            self._resources.close()

    def _close_anyway(self) -> None:
        """Close, although the driver may refuse to free anything after what went wrong."""
        with contextlib.suppress(BackendError):
            self.close()


def _find_gpu() -> Gpu:
    gpu = find_gpu()
    if gpu is None:
        raise BackendError(
            "there is no GPU that CUDA may use",
            hint="see what nvidia-smi says, or run on the CPU with --backend onnxruntime",
        )
    return gpu


def _compiled_passes(gpu: Gpu) -> bytes | None:
    """The kernels that cut and stitch; None where the CPU must do it, which is said."""
    try:
        return compile_passes(gpu.compute_capability)
    except BackendError as error:
        _log.warning("tiles are cut and stitched on the CPU: %s", error)
        return None


def _bytes_of(shape: Shape) -> int:
    return math.prod(shape) * np.dtype(np.float32).itemsize


def _find_engine(
    bundle: Bundle,
    precision: Precision,
    shapes: TileShapes | None,
    progress: BuildProgress | None,
) -> Engine:
    """The engine of this network, which the cache vouches for."""
    outcome = build_engine(bundle, precision, shapes=shapes, progress=progress)
    for warning in outcome.warnings:
        _log.warning("not taken from the cache: %s", warning)
    engine = EngineCache().load(outcome.manifest.key)
    if engine is None:
        raise BackendError("the engine has gone from the cache", subject=outcome.engine)
    return engine
