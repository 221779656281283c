"""TensorRT's runtime: an engine that was deserialised, and tiles through it.

Every call gives False or None where it fails, and the reason stands in the log.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import Any

from cycleisp_runtime.cuda import Address, Stream
from cycleisp_runtime.engines.cache import Engine
from cycleisp_runtime.engines.tensorrt import TensorRT
from cycleisp_runtime.errors import BackendError

__all__ = ["Execution", "Shape"]

Shape = tuple[int, ...]


class Execution:
    """An engine with the memory for its largest tile, for one tile after the other.

    CUDA's context is current whenever one of its methods is called, ``close`` among them.

    Args:
        tensorrt: of the package and version that built the engine.
        engine: as the cache gives it.
        tensors: names of all its inputs and outputs.

    Attributes:
        shapes: the smallest and the largest shape of every input.

    Raises:
        OutOfMemoryError: where the GPU has no memory for it.
        BackendError: where TensorRT refuses it, or its tensors have other names or types.
    """

    def __init__(self, tensorrt: TensorRT, engine: Engine, tensors: AbstractSet[str]) -> None:
        self._tensorrt = tensorrt
        self._runtime: Any = None
        self._engine: Any = None
        self._context: Any = None
        self.shapes: dict[str, tuple[Shape, Shape]] = {}
        try:
            with self._translated("cannot load the engine"):
                self._load(engine, tensors)
        except BackendError:
            self.close()
            raise

    def check(self, shapes: Mapping[str, Shape]) -> None:
        """Nothing, where the engine takes inputs of these shapes.

        Raises:
            BackendError: where it does not.
        """
        if shapes.keys() != self.shapes.keys():
            raise BackendError(
                "the engine has other inputs",
                met=", ".join(shapes),
                wanted=", ".join(self.shapes),
            )
        for name, shape in shapes.items():
            least, most = self.shapes[name]
            fits = len(shape) == len(most) and all(
                low <= size <= high for low, size, high in zip(least, shape, most, strict=True)
            )
            if not fits:
                raise BackendError(
                    f"the engine was built for other tiles (input {name})",
                    met=shape,
                    wanted=f"{least} to {most}",
                    hint="use a smaller --tile, or build an engine for these: cycleisp build "
                    "--shapes MIN,OPT,MAX",
                )

    def enqueue(
        self, shapes: Mapping[str, Shape], addresses: Mapping[str, Address], stream: Stream
    ) -> None:
        """Ask the stream to run the network.

        Args:
            shapes: of every input; ``check`` accepts them.
            addresses: of every input and output, float32 and C-contiguous.
            stream: the one that all tiles are run in.

        Raises:
            OutOfMemoryError: where TensorRT says so.
            BackendError: where it refuses otherwise.
        """
        with self._translated("cannot run the engine"):
            for name, shape in shapes.items():
                accepted = self._context.set_input_shape(name, shape)
                self._demand(accepted, f"does not accept {name} of {shape}")
            for name, address in addresses.items():
                accepted = self._context.set_tensor_address(name, address)
                self._demand(accepted, f"does not accept the memory of {name}")
            self._demand(self._context.execute_async_v3(stream), "does not run the engine")

    def is_capturable(self, stream: Stream) -> bool:
        """Whether ``enqueue`` with the last shapes may be captured as a CUDA graph.

        TensorRT-RTX compiles kernels while others run, and tells; TensorRT is ready at once.
        """
        with self._translated("cannot tell whether the engine can be captured"):
            asked = getattr(self._context, "is_stream_capturable", None)
            return asked is None or bool(asked(stream))

    def close(self) -> None:
        """Free the engine and its memory."""
        # Each refers to the one below without keeping it alive.
        self._context = None
        self._engine = None
        self._runtime = None

    def _load(self, cached: Engine, tensors: AbstractSet[str]) -> None:
        # No local name refers to the engine: an exception would keep it alive after close().
        trt = self._tensorrt.module
        rebuild = f"remove {cached.path}, so that it is built again"
        self._runtime = trt.Runtime(self._tensorrt.log)
        self._engine = self._runtime.deserialize_cuda_engine(cached.content)
        self._demand(self._engine is not None, "does not accept the engine", rebuild)
        count = self._engine.num_io_tensors
        names = [self._engine.get_tensor_name(index) for index in range(count)]
        self._demand(set(names) == tensors, f"finds tensors {', '.join(names)}", rebuild)
        for name in names:
            kind = self._engine.get_tensor_dtype(name)
            self._demand(kind == trt.DataType.FLOAT, f"finds {name} as {kind}", rebuild)
            if self._engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT:
                least, _, most = self._engine.get_tensor_profile_shape(name, 0)
                self.shapes[name] = (tuple(least), tuple(most))
        self._context = self._engine.create_execution_context()
        self._demand(self._context is not None, "cannot make room for the engine's largest tile")

    def _demand(self, success: object, problem: str, hint: str | None = None) -> None:
        if not success:
            raise self._tensorrt.failure(problem, hint)

    @contextlib.contextmanager
    def _translated(self, problem: str) -> Iterator[None]:
        self._tensorrt.log.messages.clear()
        try:
            yield
        except BackendError:
            raise
        except Exception as error:  # its bindings raise whatever pybind11 makes of a failure
            raise self._tensorrt.failure(f"{problem}: {error}") from error
