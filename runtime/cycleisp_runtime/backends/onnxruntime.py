"""ONNX Runtime: on the CPU, and on a GPU where its package brings the provider for it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Literal

import numpy as np
import numpy.typing as npt

from cycleisp_runtime.backends import Backend
from cycleisp_runtime.bundle import Bundle, BundleRecord, Precision
from cycleisp_runtime.cores import physical_cores
from cycleisp_runtime.errors import BackendError, BundleError, OutOfMemoryError

# From 1.32 on it numbers its user and records events as soon as it is imported, unless told not to.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
try:
    import onnxruntime
except ImportError as error:
    raise BackendError(
        f"ONNX Runtime cannot be imported: {error}", hint="install onnxruntime again"
    ) from error

__all__ = ["OnnxGraph", "OnnxRuntimeBackend", "Provider", "session_options"]

Provider = Literal["CPU", "CUDA", "Tensorrt"]
"""ONNX Runtime's execution providers that a network of ours runs on, as it spells them."""

# TensorFloat-32 would leave FP32 with 10 bits of mantissa.
_PROVIDER_OPTIONS = {"CUDA": {"use_tf32": "0"}}

_OUT_OF_MEMORY = ("failed to allocate memory", "bad_alloc", "bad allocation", "out of memory")
"""What its errors say where memory ran out; they have no type of their own."""


class OnnxGraph:
    """A session over one ONNX file.

    Args:
        network: a self-contained ONNX file.
        subject: its name in errors.
        provider: what runs it.
        threads: of one operator; None for one per physical core that this process may use.

    Raises:
        BackendError: where ONNX Runtime lacks the provider or does not accept the network.
    """

    def __init__(
        self,
        network: bytes,
        subject: str,
        *,
        provider: Provider = "CPU",
        threads: int | None = None,
    ) -> None:
        self._subject = subject
        name = f"{provider}ExecutionProvider"
        if name not in onnxruntime.get_available_providers():
            raise _missing_provider(name, "it was built without")
        try:
            session = onnxruntime.InferenceSession(
                network,
                session_options(threads),
                providers=[(name, _PROVIDER_OPTIONS.get(provider, {}))],
            )
        except Exception as error:  # its errors share no other base class
            raise BackendError(
                f"ONNX Runtime {onnxruntime.__version__} does not accept the network: {error}",
                subject=subject,
            ) from error
        if name not in session.get_providers():  # it falls back to the CPU without a word
            raise _missing_provider(name, "its libraries, CUDA's or TensorRT's, cannot be loaded")
        self._session: onnxruntime.InferenceSession | None = session
        self.inputs = _signature(session.get_inputs())
        self.outputs = _signature(session.get_outputs())

    def run(
        self,
        inputs: Mapping[str, npt.NDArray[np.float32]],
        name: str,
        output: npt.NDArray[np.float32],
    ) -> None:
        """Write the output of this name into ``output``; all arrays float32 and C-contiguous.

        Raises:
            OutOfMemoryError: where memory does not suffice; smaller inputs may still be run.
            BackendError: where the session was closed or fails otherwise.
        """
        if self._session is None:
            raise BackendError("the backend was closed", subject=self._subject)
        binding = self._session.io_binding()
        for input_name, array in inputs.items():
            binding.bind_input(input_name, "cpu", 0, np.float32, array.shape, array.ctypes.data)
        binding.bind_output(name, "cpu", 0, np.float32, output.shape, output.ctypes.data)
        try:
            self._session.run_with_iobinding(binding)
        except Exception as error:  # its errors share no other base class
            shapes = ", ".join(str(array.shape) for array in inputs.values())
            if any(words in str(error).lower() for words in _OUT_OF_MEMORY):
                raise OutOfMemoryError(
                    f"ONNX Runtime has not enough memory for inputs of {shapes}",
                    subject=self._subject,
                    hint="a smaller --tile needs less",
                ) from error
            raise BackendError(
                f"ONNX Runtime failed on inputs of {shapes}: {error}", subject=self._subject
            ) from error

    def close(self) -> None:
        """Free the session."""
        self._session = None


class OnnxRuntimeBackend(Backend):
    """One session over a bundle's network; memory for the output is kept from run to run.

    Args:
        bundle: a checked bundle.
        precision: which of its networks.
        provider: what runs it. TensorRT builds an engine for every shape it meets, on first use.
        threads: of one operator; None for one per physical core that this process may use.

    Raises:
        BundleError: where ``Bundle.model`` refuses, or the network has other inputs and outputs
            than the bundle says.
        BackendError: where ONNX Runtime lacks the provider or does not accept the network.
    """

    name = "onnxruntime"

    def __init__(
        self,
        bundle: Bundle,
        precision: Precision = "fp32",
        *,
        provider: Provider = "CPU",
        threads: int | None = None,
    ) -> None:
        self.precision = precision
        self.device = "cpu" if provider == "CPU" else "cuda"
        self.threads = threads or physical_cores()
        self._tensors = bundle.record.tensors
        network = bundle.model(precision)
        subject = str(bundle.folder / bundle.record.precisions[precision].file)
        self._graph = OnnxGraph(network, subject, provider=provider, threads=self.threads)
        _check_signature(self._graph, bundle.record, subject)
        self._output = np.empty((0, 0, 0, 0), np.float32)

    def run(self, inputs: Mapping[str, npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
        """Denoised tiles (N, C, h, w) float32; overwritten by the next run."""
        noisy = inputs[self._tensors.noisy]
        if self._output.shape != noisy.shape:
            self._output = np.empty_like(noisy)
        self._graph.run(inputs, self._tensors.denoised, self._output)
        return self._output

    def close(self) -> None:
        """Free the session and the output's memory."""
        self._graph.close()
        self._output = np.empty((0, 0, 0, 0), np.float32)


def session_options(threads: int | None = None) -> onnxruntime.SessionOptions:
    """Settings that pay on small shared machines, and none that talks to the outside."""
    onnxruntime.disable_telemetry_events()
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.intra_op_num_threads = threads or physical_cores()
    options.inter_op_num_threads = 1
    # Spinning threads cost a third of the speed whenever another process wants the cores.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4  # only what is fatal: failures come back as exceptions
    return options


def _missing_provider(name: str, problem: str) -> BackendError:
    return BackendError(
        f"ONNX Runtime {onnxruntime.__version__} cannot run on {name}: {problem}",
        hint="install onnxruntime-gpu for this CUDA instead of onnxruntime, or run on the CPU",
    )


def _check_signature(graph: OnnxGraph, record: BundleRecord, subject: str) -> None:
    """Compare the graph's inputs and outputs with those that the bundle declares."""
    names = record.tensors
    channels = {names.variance: record.channels, names.noise_scale: 1}
    if record.pooling is not None:
        channels[names.gates] = record.pooling.gates
    wanted_inputs = {
        name: ["tensor(float)", 4, channels.get(name, record.channels)] for name in names.inputs
    }
    planes = ["tensor(float)", 4, record.channels]
    for met, wanted in (
        (graph.inputs, wanted_inputs),
        (graph.outputs, {names.denoised: planes}),
    ):
        if met != wanted:
            raise BundleError(
                "the network is not the one that the bundle describes",
                subject=subject,
                met=met,
                wanted=f"{wanted} (type, rank, channels)",
            )


def _signature(arguments: list[onnxruntime.NodeArg]) -> dict[str, list[object]]:
    """Type, rank and channels of every tensor, by name."""
    return {
        argument.name: [argument.type, len(argument.shape), *argument.shape[1:2]]
        for argument in arguments
    }
