"""ONNX Runtime on the CPU."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cycleisp_runtime.backends import Backend
from cycleisp_runtime.bundle import Bundle, BundleRecord, Precision
from cycleisp_runtime.errors import BackendError, BundleError

try:
    import onnxruntime
except ImportError as error:
    raise BackendError(
        f"ONNX Runtime cannot be imported: {error}", hint="install onnxruntime again"
    ) from error

__all__ = ["OnnxRuntimeBackend", "physical_cores"]


class OnnxRuntimeBackend(Backend):
    """One session over a bundle's network; memory for the output is kept from run to run.

    Args:
        bundle: a checked bundle.
        precision: which of its networks.
        threads: of one operator; None for one per physical core that this process may use.

    Raises:
        BundleError: where ``Bundle.model`` refuses, or the network has other inputs and outputs
            than the bundle says.
        BackendError: where ONNX Runtime does not accept the network.
    """

    name = "onnxruntime"

    def __init__(
        self, bundle: Bundle, precision: Precision = "fp32", *, threads: int | None = None
    ) -> None:
        self.precision = precision
        self._tensors = bundle.record.tensors
        network = bundle.model(precision)
        self._subject = str(bundle.folder / bundle.record.precisions[precision].file)
        try:
            self._session: onnxruntime.InferenceSession | None = onnxruntime.InferenceSession(
                network, _options(threads), providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its errors share no other base class
            raise BackendError(
                f"ONNX Runtime {onnxruntime.__version__} does not accept the network: {error}",
                subject=self._subject,
            ) from error
        self._check_signature(self._session, bundle.record)
        self._output = np.empty((0, 0, 0, 0), np.float32)

    def run(self, inputs: Mapping[str, npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
        """Denoised tiles (N, C, h, w) float32; overwritten by the next run."""
        if self._session is None:
            raise BackendError("the backend was closed", subject=self._subject)
        noisy = inputs[self._tensors.noisy]
        if self._output.shape != noisy.shape:
            self._output = np.empty_like(noisy)
        binding = self._session.io_binding()
        for name, array in inputs.items():
            binding.bind_input(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)
        output = self._output
        binding.bind_output(
            self._tensors.denoised, "cpu", 0, np.float32, output.shape, output.ctypes.data
        )
        try:
            self._session.run_with_iobinding(binding)
        except Exception as error:  # its errors share no other base class
            raise BackendError(
                f"ONNX Runtime failed on a tile of {noisy.shape}: {error}",
                subject=self._subject,
                hint="a smaller --tile needs less memory",
            ) from error
        return output

    def close(self) -> None:
        """Free the session and the output's memory."""
        self._session = None
        self._output = np.empty((0, 0, 0, 0), np.float32)

    def _check_signature(self, session: onnxruntime.InferenceSession, record: BundleRecord) -> None:
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
            (_signature(session.get_inputs()), wanted_inputs),
            (_signature(session.get_outputs()), {names.denoised: planes}),
        ):
            if met != wanted:
                raise BundleError(
                    "the network is not the one that the bundle describes",
                    subject=self._subject,
                    met=met,
                    wanted=f"{wanted} (type, rank, channels)",
                )


def physical_cores() -> int:
    """Physical cores that this process may use; logical ones where the system does not tell."""
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    cores = set()
    for cpu in os.sched_getaffinity(0):
        siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        try:
            cores.add(siblings.read_text())
        except OSError:
            cores.add(str(cpu))
    return len(cores)


def _signature(arguments: list[onnxruntime.NodeArg]) -> dict[str, list[object]]:
    """Type, rank and channels of every tensor, by name."""
    return {
        argument.name: [argument.type, len(argument.shape), *argument.shape[1:2]]
        for argument in arguments
    }


def _options(threads: int | None) -> onnxruntime.SessionOptions:
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
