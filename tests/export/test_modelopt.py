"""INT8 ranges of NVIDIA ModelOpt: asked for what is rounded, and taken as it gives them."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from click.testing import CliRunner
from onnx import helper, numpy_helper

from cycleisp.models.edge import EdgeDenoiser
from cycleisp_calibration.set_file import CalibrationSet, save_calibration_set
from cycleisp_export.activation_steps import activation_steps
from cycleisp_export.cpu_int8 import rounded_tensors
from cycleisp_export.exportable import exportable
from cycleisp_export.modelopt import modelopt_steps
from cycleisp_export.precisions import Reducer
from cycleisp_export.typed_graph import TypedGraph
from cycleisp_runtime.cli import main
from cycleisp_runtime.errors import CalibrationError, SettingsError
from tests.helpers import ROOT

RUN = ROOT / "zoo" / "runs" / "tiny"

PHOTOGRAPHS = ROOT / "examples" / "photographs"


class StandIn:
    """ModelOpt's quantiser, with steps that are given.

    Args:
        steps: by tensor; what has none is not rounded.
    """

    def __init__(self, steps: Mapping[str, float]) -> None:
        self._steps = steps
        self.tiles: Mapping[str, npt.NDArray[np.float32]] = {}
        self.read: set[str] = set()

    def quantize(
        self,
        onnx_path: str,
        *,
        calibration_data: Mapping[str, npt.NDArray[np.float32]],
        nodes_to_quantize: list[str],
        output_path: str,
        **_options: object,
    ) -> None:
        sys.stdout.write("Collecting tensor data")
        sys.stderr.write("100%")
        self.tiles = calibration_data
        proto = onnx.load(onnx_path)
        weights = {each.name for each in proto.graph.initializer}
        for node in list(proto.graph.node):
            if not any(re.match(pattern, node.name) for pattern in nodes_to_quantize):
                continue
            for tensor in set(node.input) - self.read:
                self.read.add(tensor)
                if tensor in weights:
                    self._round(proto.graph, tensor, np.ones(4, np.float32))
                elif tensor in self._steps:
                    self._round(proto.graph, tensor, np.array(self._steps[tensor], np.float32))
        onnx.save(proto, output_path)

    def _round(self, graph: onnx.GraphProto, tensor: str, step: npt.NDArray[np.float32]) -> None:
        zero = np.zeros(step.shape, np.int8)
        for name, value in (("_scale", step), ("_zero_point", zero)):
            graph.initializer.append(numpy_helper.from_array(value, tensor + name))
        inputs = [tensor, f"{tensor}_scale", f"{tensor}_zero_point"]
        graph.node.append(helper.make_node("QuantizeLinear", inputs, [f"{tensor}_rounded"]))


def install(monkeypatch: pytest.MonkeyPatch, quantize: object) -> None:
    module = ModuleType("modelopt.onnx.quantization")
    module.quantize = quantize  # type: ignore[attr-defined]
    for name in ("modelopt", "modelopt.onnx"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, "modelopt.onnx.quantization", module)


@pytest.fixture(name="proto", scope="module")
def graph_of_the_trained(trained: EdgeDenoiser) -> onnx.ModelProto:
    return exportable(trained).graph({})


@pytest.fixture(name="tensors", scope="module")
def all_that_int8_rounds(proto: onnx.ModelProto) -> list[str]:
    return sorted({tensor for pair in rounded_tensors(proto).values() for tensor in pair})


def test_every_tensor_has_the_step_that_modelopt_gives_it(
    proto: onnx.ModelProto,
    tensors: list[str],
    calibration: CalibrationSet,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    given = {tensor: 0.01 * (1 + index) for index, tensor in enumerate(tensors)}
    stand_in = StandIn({**given, "group1": 7.0, "noisy": 7.0})
    install(monkeypatch, stand_in.quantize)
    assert modelopt_steps(proto, tensors, calibration.arrays) == pytest.approx(given, rel=1e-6)
    assert stand_in.tiles == calibration.arrays
    # What no layer that INT8 rounds takes is not calibrated: that takes time.
    assert "noisy" not in stand_in.read
    assert capfd.readouterr() == ("", "")


def test_only_what_is_asked_for_is_calibrated(
    proto: onnx.ModelProto, calibration: CalibrationSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in = StandIn({"group0": 0.5})
    install(monkeypatch, stand_in.quantize)
    assert modelopt_steps(proto, ["group0"], calibration.arrays) == {"group0": 0.5}
    readers = [node for node in proto.graph.node if "group0" in node.input]
    assert stand_in.read == {name for node in readers for name in node.input}


@pytest.mark.parametrize("step", [0.0, np.inf, np.nan, None])
def test_a_tensor_without_a_range_is_refused(
    proto: onnx.ModelProto,
    tensors: list[str],
    calibration: CalibrationSet,
    monkeypatch: pytest.MonkeyPatch,
    step: float | None,
) -> None:
    steps = dict.fromkeys(tensors, 0.1)
    del steps["tail"]
    install(monkeypatch, StandIn(steps if step is None else {**steps, "tail": step}).quantize)
    with pytest.raises(CalibrationError, match="tail: NVIDIA ModelOpt gives no range to a tensor"):
        modelopt_steps(proto, tensors, calibration.arrays)


def test_a_failure_of_modelopt_is_one_error(
    proto: onnx.ModelProto, calibration: CalibrationSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def quantize(*_paths: str, **_options: object) -> None:
        message = "Model input count and calibration data\ndoesn't match."
        raise AssertionError(message)

    install(monkeypatch, quantize)
    with pytest.raises(
        CalibrationError, match=r"ModelOpt failed: Model input count .* match"
    ) as no:
        modelopt_steps(proto, ["group0"], calibration.arrays)
    assert isinstance(no.value.__cause__, AssertionError)
    assert "\n" not in str(no.value)


def test_a_missing_part_of_modelopt_is_named(
    proto: onnx.ModelProto, calibration: CalibrationSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, None)
    monkeypatch.delattr(sys.modules["modelopt.onnx.quantization"], "quantize")
    with pytest.raises(SettingsError, match=r"cannot be imported .*pip install nvidia-modelopt"):
        modelopt_steps(proto, ["group0"], calibration.arrays)


def test_int8_is_chosen_and_judged_as_with_other_methods(
    trained: EdgeDenoiser,
    proto: onnx.ModelProto,
    tensors: list[str],
    clean: list[npt.NDArray[np.float32]],
    calibration: CalibrationSet,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ours = activation_steps(TypedGraph(proto), tensors, calibration.arrays, "percentile")
    install(monkeypatch, StandIn(ours).quantize)
    reducer = Reducer(exportable(trained), {}, None, clean[:2])
    calibrated = reducer.calibrated(calibration, "modelopt")
    assert calibrated.steps == pytest.approx(ours, rel=1e-6)
    reduction = reducer.cpu_int8(calibrated, 3.0, lambda _sentence: None).reduction
    assert reduction.calibration == f"modelopt, set {calibration.record.sha256}"
    assert 0 < max(reduction.loss_db.values()) <= 3.0


def test_the_command_says_how_to_install_it(
    calibration: CalibrationSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "modelopt", None)
    save_calibration_set(calibration, tmp_path / "set.npz", force=False)
    output = tmp_path / "night.bundle"
    options = {
        "-o": output,
        "--data": "d",
        "--data-license": "CC0-1.0",
        "--precision": "int8",
        "--method": "modelopt",
        "--photographs": PHOTOGRAPHS,
        "--calibration": tmp_path / "set.npz",
    }
    words = [str(word) for option in options.items() for word in option]
    refused = CliRunner().invoke(main, ["export", str(RUN), *words])
    assert refused.exit_code == 1
    assert not output.exists()
    assert "NVIDIA ModelOpt calibrates, which takes minutes" in refused.stderr
    error = refused.stderr.splitlines()[-1]
    assert error.startswith("cycleisp: error: NVIDIA ModelOpt cannot be imported")
    assert "pip install nvidia-modelopt" in error


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("modelopt") is None, reason="NVIDIA ModelOpt is not installed"
)
@pytest.mark.filterwarnings("default")  # its packages warn of each other
def test_modelopt_clips_what_is_rare_and_far(
    proto: onnx.ModelProto, calibration: CalibrationSet
) -> None:
    tensors = ["cells", "group0", "group0.block0.relu"]  # of all of them it takes minutes
    tiles = {name: array[:, :, :32, :32] for name, array in calibration.arrays.items()}
    steps = modelopt_steps(proto, tensors, tiles)
    largest = activation_steps(TypedGraph(proto), tensors, tiles, "minmax")
    # The signal is clipped at 4 noise scales, which is no rare value; features have long tails.
    assert steps["cells"] == pytest.approx(largest["cells"], rel=0.01)  # to the width of a bin
    assert 0.01 * largest["group0"] < steps["group0"] < 0.9 * largest["group0"]
