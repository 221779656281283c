"""The range of INT8 activations: to the largest, to a percentile, to the least divergence."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from torch import Tensor

from cycleisp.models.edge import EdgeDenoiser
from cycleisp_calibration.set_file import CalibrationSet
from cycleisp_export.activation_steps import (
    PERCENTILE,
    CalibrationMethod,
    activation_steps,
    entropy_bins,
    percentile_bins,
)
from cycleisp_export.edge_graph import edge_graph
from cycleisp_export.typed_graph import TypedGraph

METHODS: tuple[CalibrationMethod, ...] = ("minmax", "entropy", "percentile")


def taken_by_convolutions(proto: onnx.ModelProto) -> list[str]:
    return [node.input[0] for node in proto.graph.node if node.op_type == "Conv"]


def test_methods_give_a_step_to_every_tensor(
    trained: EdgeDenoiser, calibration: CalibrationSet
) -> None:
    proto = edge_graph(trained, {})
    tensors = taken_by_convolutions(proto)
    steps = {
        method: activation_steps(TypedGraph(proto), tensors, calibration.arrays, method)
        for method in METHODS
    }
    for method in METHODS:
        assert list(steps[method]) == tensors
    for name in tensors:
        assert 0 < steps["percentile"][name] <= steps["minmax"][name]
        assert 0 < steps["entropy"][name] <= steps["minmax"][name]
    # The signal is clipped at 4 noise scales, which is no rare value; features have long tails.
    assert steps["percentile"]["cells"] == pytest.approx(4 / 127, rel=1e-3)
    assert steps["percentile"]["group1.block0"] < 0.8 * steps["minmax"]["group1.block0"]


def test_the_tile_that_reaches_furthest_decides_the_percentile(
    trained: EdgeDenoiser, calibration: CalibrationSet
) -> None:
    proto = edge_graph(trained, {})
    graph, tiles = TypedGraph(proto), calibration.arrays
    magnitudes: list[npt.NDArray[np.float32]] = []

    def observe(name: str, tensor: Tensor) -> None:
        if name == "body":
            magnitudes.extend(tensor.abs().flatten(1).numpy())

    graph(tiles, observe=observe)

    def percentile(values: npt.NDArray[np.float32]) -> float:
        return float(np.percentile(values, PERCENTILE, method="inverted_cdf"))

    of_tiles = [percentile(values) for values in magnitudes]
    steps = activation_steps(graph, ["body"], tiles, "percentile")
    # To one of 2048 bins.
    bin_width = max(float(values.max()) for values in magnitudes) / 2048
    assert steps["body"] * 127 == pytest.approx(max(of_tiles), abs=1.01 * bin_width)
    assert max(of_tiles) - percentile(np.concatenate(magnitudes)) > 3 * bin_width


def test_the_percentile_is_counted_in_values() -> None:
    counts = np.zeros(2048)
    counts[99], counts[1999] = PERCENTILE, 100 - PERCENTILE
    assert percentile_bins(counts) == 100
    counts[1999] *= 2
    assert percentile_bins(counts) == 2000


def test_entropy_clips_what_is_rare_and_far() -> None:
    magnitudes = np.abs(np.random.default_rng(0).normal(0, 100, 200_000))
    counts, _ = np.histogram(magnitudes, 2048, (0, 2048))
    with_an_outlier = counts.astype(float)
    with_an_outlier[-1] += 1
    # Four standard deviations of 100 hold nearly all of it.
    assert 250 < entropy_bins(with_an_outlier) < 1000


def test_entropy_keeps_what_is_even() -> None:
    assert entropy_bins(np.full(2048, 100.0)) == pytest.approx(2048, abs=32)
