"""TensorRT's runtime for the fake of TensorRT: it computes something simple on a fake GPU.

denoised = noisy - noise_scale * variance
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np

from cycleisp_runtime.cuda import Stream
from tests.runtime.fake_cuda import FakeCuda

__all__ = ["ENGINE", "runtime_class"]

ENGINE = b"engine of "
"""How every engine begins."""

OUTPUT = "denoised"


def runtime_class(
    only_named: Callable[[str], Callable[[type], type]],
    profile: Mapping[str, tuple[tuple[int, ...], ...]],
    cuda: FakeCuda,
    enums: SimpleNamespace,
    fails: Mapping[str, str],
) -> type:
    """The class ``Runtime`` of a release.

    Args:
        only_named: hides what the release does not have.
        profile: least, usual and most shape of every input.
        cuda: the GPU.
        enums: ``DataType``, ``TensorIOMode`` and ``ILogger`` of the release.
        fails: functions that fail, and what is logged then.
    """

    def unless_failing(logger: Any, function: str, result: object) -> Any:  # noqa: ANN401
        """The result, or what TensorRT gives instead where the function is to fail."""
        if function not in fails:
            return result
        logger.log(enums.ILogger.ERROR, fails[function])
        return False if isinstance(result, bool) else None

    @only_named("IExecutionContext")
    class Context:
        def __init__(self, logger: object) -> None:
            self._logger = logger
            self._shapes: dict[str, tuple[int, ...]] = {}
            self._prepared: dict[str, tuple[int, ...]] = {}
            self._addresses: dict[str, int] = {}
            cuda.serve(self)

        def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
            least, _, most = profile[name]
            self._shapes[name] = shape
            fits = all(low <= n <= high for low, n, high in zip(least, shape, most, strict=True))
            return bool(unless_failing(self._logger, "set_input_shape", fits))

        def set_tensor_address(self, name: str, memory: int) -> bool:
            assert name in {*profile, OUTPUT}
            self._addresses[name] = memory
            return bool(unless_failing(self._logger, "set_tensor_address", True))

        def is_stream_capturable(self, stream: int) -> bool:
            assert stream
            return "is_stream_capturable" not in fails

        def execute_async_v3(self, stream_handle: int) -> bool:
            assert self._shapes.keys() == profile.keys(), "a shape was not set"
            assert self._addresses.keys() == {*profile, OUTPUT}, "an address was not set"
            shapes = self._shapes | {OUTPUT: self._shapes["noisy"]}
            assert shapes["noisy"] == shapes["variance"], "the tiles differ"
            sizes = {name: 4 * math.prod(shape) for name, shape in shapes.items()}
            blocks = {name: cuda.block(self._addresses[name], sizes[name]) for name in shapes}
            tensors = {
                name: block[: sizes[name]].view(np.float32).reshape(shapes[name])
                for name, block in blocks.items()
            }

            def kernel() -> None:
                correction = tensors["noise_scale"] * tensors["variance"]
                np.subtract(tensors["noisy"], correction, out=tensors[OUTPUT])

            if cuda.capturing:
                assert self._shapes == self._prepared, "new shapes while a graph is captured"
                if "capture" in fails:
                    return bool(unless_failing(self._logger, "capture", True))
            self._prepared = {**self._shapes}
            cuda.launch(Stream(stream_handle), kernel, *blocks.values())
            return bool(unless_failing(self._logger, "execute_async_v3", True))

    @only_named("ICudaEngine")
    class Engine:
        def __init__(self, logger: object) -> None:
            self._logger = logger
            self.num_io_tensors = len(profile) + 1
            cuda.serve(self)

        def get_tensor_name(self, index: int) -> str:
            return [*profile, OUTPUT][index]

        def get_tensor_dtype(self, name: str) -> object:
            return enums.DataType.HALF if name in fails else enums.DataType.FLOAT

        def get_tensor_mode(self, name: str) -> object:
            return enums.TensorIOMode.OUTPUT if name == OUTPUT else enums.TensorIOMode.INPUT

        def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[tuple[int, ...]]:
            assert profile_index == 0
            return list(profile[name])

        def create_execution_context(self) -> object:
            cuda.check_call("create_execution_context")
            return unless_failing(self._logger, "create_execution_context", Context(self._logger))

    @only_named("Runtime")
    class Runtime:
        def __init__(self, logger: object) -> None:
            self._logger = logger
            cuda.serve(self)

        def deserialize_cuda_engine(self, content: bytes) -> object:
            cuda.check_call("deserialize_cuda_engine")
            assert content.startswith(ENGINE), "that would be run as code"
            return unless_failing(self._logger, "deserialize_cuda_engine", Engine(self._logger))

    return Runtime
