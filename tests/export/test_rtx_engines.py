"""What TensorRT makes of exported networks, shown by TensorRT-RTX, which builds without a GPU.

``make`` does not install it: it is proprietary and of 240 MB. ``pip install 'cycleisp[rtx]'`` makes
these tests run.
"""

from __future__ import annotations

import pytest

from cycleisp.models import create_model
from cycleisp_export.exportable import Exportable, exportable
from cycleisp_export.graph import NumberTypes
from cycleisp_runtime.engines.key import TileShapes
from cycleisp_runtime.engines.layers import layers
from cycleisp_runtime.engines.tensorrt import TensorRT
from tests.training.golden_weights import fill_with_golden_weights

tensorrt_rtx = pytest.importorskip(
    "tensorrt_rtx", reason="needs the extra rtx", exc_type=ImportError
)

SHAPES = TileShapes((64, 64), (128, 128), (256, 256))

SPARED = ("head", "tail")
"""Convolutions that INT8 leaves alone: the one reads variances, the other puts out samples."""

STEP = 0.01
"""Of quantisation; an engine does not depend on it."""

NETWORKS = [
    ("raw_denoiser", "tiny"),
    ("raw_denoiser", "edge"),
    ("srgb_denoiser", "tiny"),
    ("srgb_denoiser", "edge"),
    pytest.param("raw_denoiser", "full", marks=pytest.mark.slow),
    pytest.param("srgb_denoiser", "full", marks=pytest.mark.slow),
]


def model_of(family: str, size: str) -> Exportable:
    network = create_model(family, size)
    fill_with_golden_weights(network, frozenset())
    return exportable(network.eval())


def convolutions(model: Exportable) -> list[str]:
    """Those of the graph, by the names that engines keep."""
    nodes = model.graph({}).graph.node
    return [node.name for node in nodes if node.op_type == "Conv"]


def built(model: Exportable, types: NumberTypes) -> dict[str, str]:
    """What each convolution reads that is a layer of its own in the engine of this graph."""
    plan = TensorRT(tensorrt_rtx).build(
        model.graph({}, types).SerializeToString(),
        tensors={*model.tensors.inputs, model.tensors.denoised},
        shapes=SHAPES,
    )
    alone = [layer for layer in layers(plan.log) if layer.kind == "correlation"]
    return {layer.name.rpartition("_U")[0]: layer.inputs[0] for layer in alone}


@pytest.mark.parametrize(("family", "size"), NETWORKS)
def test_convolutions_compute_in_the_type_of_the_file(family: str, size: str) -> None:
    model = model_of(family, size)
    names = convolutions(model)
    quantised = [name for name in names if name not in SPARED]
    single = built(model, NumberTypes())
    assert set(single.values()) == {"Float"}
    assert single.keys() <= set(names)
    assert len(single) > len(names) / 2, "too few convolutions are layers of their own to tell"

    half = built(model, NumberTypes(half=True))
    # The head of networks with attention reads variances below what FP16 holds.
    assert {name for name, kind in half.items() if kind != "Half"} <= {"head"}

    steps = dict.fromkeys(quantised, STEP)
    eighth = built(model, NumberTypes(half=True, steps=steps))
    assert {name for name, kind in eighth.items() if kind == "Int8"} == eighth.keys() & steps.keys()
    assert len(eighth.keys() & steps.keys()) > len(names) / 2
