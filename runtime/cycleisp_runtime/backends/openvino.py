"""OpenVINO on the CPU."""

from __future__ import annotations

import sys
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from cycleisp_runtime.backends import Backend
from cycleisp_runtime.bundle import Bundle, Precision
from cycleisp_runtime.cores import physical_cores
from cycleisp_runtime.errors import BackendError, BundleError, OutOfMemoryError

# Its package reports to its makers while it is imported, unless this module cannot be found.
_TELEMETRY = "openvino_telemetry"
_hidden = _TELEMETRY not in sys.modules
if _hidden:
    sys.modules[_TELEMETRY] = None  # type: ignore[assignment]  # Python's way to hide a module
try:
    import openvino
except (ImportError, OSError) as error:
    raise BackendError(
        f"OpenVINO cannot be imported: {error}", hint="pip install 'cycleisp[openvino]'"
    ) from error
finally:
    if _hidden:
        del sys.modules[_TELEMETRY]

__all__ = ["OpenVinoBackend"]

KEPT_SHAPES = 4
"""Compiled networks that are kept; a frame has tiles of two shapes, a batch one more of each."""

_OUT_OF_MEMORY = ("failed to allocate", "bad_alloc", "bad allocation", "out of memory")
"""What its errors say where memory ran out; they have no type of their own."""

_Shapes = tuple[tuple[int, ...], ...]


class OpenVinoBackend(Backend):
    """A bundle's network, compiled for each shape of tiles as it is met.

    A network that is compiled for open shapes takes a quarter more time on tiles of 512x512.

    Args:
        bundle: a checked bundle.
        precision: which of its networks; OpenVINO is kept from computing below FP32 of its own
            accord, as it does where a CPU has BF16.
        threads: None for one per physical core that this process may use.

    Raises:
        BundleError: where ``Bundle.model`` refuses, or the network has other inputs and outputs
            than the bundle says.
        BackendError: where OpenVINO does not accept the network.
    """

    name = "openvino"

    def __init__(
        self, bundle: Bundle, precision: Precision = "fp32", *, threads: int | None = None
    ) -> None:
        self.precision = precision
        self.threads = threads or physical_cores()
        self._tensors = bundle.record.tensors
        self._subject = str(bundle.folder / bundle.record.precisions[precision].file)
        self._settings = {
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": self.threads,
            "ENABLE_CPU_PINNING": False,
        }
        network = bundle.model(precision)
        try:
            self._core = openvino.Core()
            self._model = self._core.read_model(network)
        except Exception as error:  # RuntimeError, and whatever its bindings make of a failure
            raise self._failure("does not accept the network", error) from error
        self._check_names()
        self._requests: dict[_Shapes, openvino.InferRequest] = {}
        self._closed = False

    def run(self, inputs: Mapping[str, npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
        """Denoised tiles (N, C, h, w) float32; overwritten by the next run."""
        if self._closed:
            raise BackendError("the backend was closed", subject=self._subject)
        try:
            request = self._request(inputs)
            for name, array in inputs.items():
                request.set_tensor(name, openvino.Tensor(array, shared_memory=True))
            request.infer()
            output: npt.NDArray[np.float32] = request.get_tensor(self._tensors.denoised).data
        except Exception as error:  # see above
            raise self._failure(
                f"failed on tiles of {inputs[self._tensors.noisy].shape}", error
            ) from error
        return output

    def close(self) -> None:
        """Free the compiled networks."""
        self._closed = True
        self._requests.clear()

    def _request(self, inputs: Mapping[str, npt.NDArray[np.float32]]) -> openvino.InferRequest:
        """The network compiled for inputs of these shapes."""
        shapes = tuple(array.shape for array in inputs.values())
        request = self._requests.get(shapes)
        if request is None:
            if len(self._requests) == KEPT_SHAPES:
                del self._requests[next(iter(self._requests))]
            self._model.reshape({name: list(array.shape) for name, array in inputs.items()})
            compiled = self._core.compile_model(self._model, "CPU", self._settings)
            request = self._requests[shapes] = compiled.create_infer_request()
        return request

    def _check_names(self) -> None:
        names = self._tensors
        met = [tensor.any_name for tensor in (*self._model.inputs, *self._model.outputs)]
        wanted = [*names.inputs, names.denoised]
        if sorted(met) != sorted(wanted):
            raise BundleError(
                "the network is not the one that the bundle describes",
                subject=self._subject,
                met=", ".join(met),
                wanted=", ".join(wanted),
            )

    def _failure(self, problem: str, error: Exception) -> BackendError:
        out_of_memory = any(words in str(error).lower() for words in _OUT_OF_MEMORY)
        return (OutOfMemoryError if out_of_memory else BackendError)(
            f"OpenVINO {openvino.__version__} {problem}: {error}", subject=self._subject
        )
