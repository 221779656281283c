"""Graphs in torch: the same values as ONNX Runtime, but FP16 where the file says FP16."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor

from cycleisp.models.edge import EdgeDenoiser
from cycleisp.noise import LEVELS
from cycleisp_export.edge_graph import edge_graph
from cycleisp_export.exportable import Inputs, exportable
from cycleisp_export.graph import NOISE_SCALE, NumberTypes
from cycleisp_export.typed_graph import TypedGraph
from cycleisp_export.verify import OnnxGraph


@pytest.fixture(name="inputs", params=LEVELS)
def noisy_frames(request: pytest.FixtureRequest, trained: EdgeDenoiser) -> Inputs:
    return dict(exportable(trained).frames(np.random.default_rng(4), 2, 34, 50))[request.param]


def apart(
    one: npt.NDArray[np.float32], other: npt.NDArray[np.float32], inputs: Inputs
) -> npt.NDArray[np.float32]:
    """In units of the noise."""
    difference: npt.NDArray[np.float32] = np.abs(one - other) / inputs[NOISE_SCALE]
    return difference


def test_fp32_is_what_onnx_runtime_computes(trained: EdgeDenoiser, inputs: Inputs) -> None:
    proto = edge_graph(trained, {})
    # Float32 sums in another order.
    assert apart(TypedGraph(proto)(inputs), OnnxGraph(proto)(inputs), inputs).max() < 1e-4


def test_int8_is_what_onnx_runtime_computes(trained: EdgeDenoiser, inputs: Inputs) -> None:
    steps = {"head": 0.1, "group0.block1.conv0": 0.05, "group1.conv": 0.2, "tail": 0.15}
    proto = edge_graph(trained, {}, NumberTypes(steps=steps))
    found = apart(TypedGraph(proto)(inputs), OnnxGraph(proto)(inputs), inputs)
    # A value on the border of two steps may fall on the other side, and spread by the convolutions
    # behind it; INT8 itself moves the output ten times as far.
    assert found.mean() < 2e-3
    unquantised = OnnxGraph(edge_graph(trained, {}))(inputs)
    assert apart(TypedGraph(proto)(inputs), unquantised, inputs).mean() > 10 * found.mean()


def test_fp16_holds_no_finer_values(trained: EdgeDenoiser, inputs: Inputs) -> None:
    types: dict[str, torch.dtype] = {}

    def observe(name: str, tensor: Tensor) -> None:
        types[name] = tensor.dtype

    output = TypedGraph(edge_graph(trained, {}, NumberTypes(half=True)))(inputs, observe=observe)
    single = {name for name, dtype in types.items() if dtype == torch.float32}
    assert single == {
        *("local_mean", "detail", "signal_unit", "units", "signal", "sigma", "deviation", "planes"),
        *("residual_units.fp32", "residual", "denoised"),
    }
    moved = apart(output, OnnxGraph(edge_graph(trained, {}))(inputs), inputs)
    # Features reach 70, where FP16 has steps of 1/16; the residual is of the order of 1.
    assert 1e-4 < moved.mean() < 1e-2


def test_an_overflow_that_onnx_runtime_hides_shows(trained: EdgeDenoiser, inputs: Inputs) -> None:
    proto = edge_graph(trained, {}, NumberTypes(half=True))
    _scale(proto, "group0.block0.conv0", 1e4)
    assert np.isfinite(OnnxGraph(proto)(inputs)).all()
    assert not np.isfinite(TypedGraph(proto)(inputs)).all()


def _scale(proto: onnx.ModelProto, conv: str, factor: float) -> None:
    """Multiply a convolution's weights in an FP16 graph."""
    for tensor in proto.graph.initializer:
        if tensor.name in {f"{conv}.weight", f"{conv}.bias"}:
            value = numpy_helper.to_array(tensor) * np.float16(factor)
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
