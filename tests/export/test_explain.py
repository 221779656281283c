"""Layers against FP32: the one that departs is found and named."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result

from cycleisp.models import create_model
from cycleisp.models.edge import EdgeDenoiser
from cycleisp_export.explain import explain
from cycleisp_export.exportable import Exportable, exportable
from cycleisp_export.graph import NumberTypes
from cycleisp_export.layer_snr import NOT_FINITE, first_below, layer_snr
from cycleisp_runtime.bundle import Bundle, ModelFile, Precision, encode
from cycleisp_runtime.cli import main
from cycleisp_runtime.errors import BackendError, BundleError, SettingsError
from tests.helpers import a_record

STEPS = {"head": 0.032, "group0.conv": 0.38, "group1.block0.conv1": 0.16, "tail": 0.39}
"""Of some layers: the largest magnitude of their input on made-up frames, over 127."""


@pytest.fixture(name="network", scope="module")
def the_shipped_network(trained: EdgeDenoiser) -> Exportable:
    return exportable(trained)


def bundle_of(folder: Path, networks: Mapping[Precision, bytes], task: str = "raw") -> Bundle:
    """A bundle in memory whose files stand in the folder."""
    files: dict[Precision, ModelFile] = {}
    for precision, network in networks.items():
        (folder / f"{precision}.onnx").write_bytes(network)
        files[precision] = ModelFile(
            file=f"{precision}.onnx",
            sha256=hashlib.sha256(network).hexdigest(),
            bytes=len(network),
            opset=17,
            runs_on=("onnxruntime",),
        )
    record = a_record(precisions=files)
    if task == "srgb":
        tensors = exportable(create_model("srgb_denoiser", "tiny")).tensors
        record = a_record(precisions=files, task="srgb", channels=3, tensors=tensors)
    (folder / "bundle.json").write_bytes(encode(record))
    return Bundle.load(folder)


def with_int8(folder: Path, network: Exportable, steps: Mapping[str, float]) -> Bundle:
    types = NumberTypes(half=True, steps=steps)
    return bundle_of(
        folder,
        {"fp32": encoded(network.graph({})), "int8": encoded(network.graph({}, types))},
        network.task,
    )


def encoded(proto: onnx.ModelProto) -> bytes:
    network: bytes = proto.SerializeToString()
    return network


@pytest.mark.parametrize("broken", STEPS)
def test_the_layer_with_a_wrong_step_is_the_one_that_departs(
    network: Exportable, tmp_path: Path, broken: str
) -> None:
    layers = explain(with_int8(tmp_path, network, STEPS | {broken: 50.0}), "int8")
    departs = first_below(layers, 10)
    assert departs is not None
    assert (departs.name, departs.kind, departs.type) == (broken, "Conv", "int8")
    sound = explain(with_int8(tmp_path, network, STEPS), "int8")
    assert first_below(sound, 10) is None
    assert [layer.name for layer in sound] == [layer.name for layer in layers]


def test_snr_is_the_energy_of_the_output_over_that_of_the_difference(network: Exportable) -> None:
    """Weights of the head that are all one per cent larger: 40 dB, if its bias is, too."""
    exact, other = network.graph({}), network.graph({})
    for constant in other.graph.initializer:
        if constant.name in ("head.weight", "head.bias"):
            larger = onnx.numpy_helper.to_array(constant) * np.float32(1.01)
            constant.CopyFrom(onnx.numpy_helper.from_array(larger, constant.name))
    _, tile = next(network.frames(np.random.default_rng(0), 1, 16, 16))
    by_name = {layer.name: layer for layer in layer_snr(exact, other, [tile])}
    assert by_name["cells"].snr_db is None
    assert by_name["head"].snr_db == pytest.approx(40, abs=0.02)  # float32, and two decimals


def test_an_overflow_is_below_every_threshold(network: Exportable) -> None:
    exact, half = network.graph({}), network.graph({}, NumberTypes(half=True))
    for constant in half.graph.initializer:
        if constant.name == "group0.conv.weight":
            huge = np.full(constant.dims, 6e4, np.float16)
            constant.CopyFrom(onnx.numpy_helper.from_array(huge, constant.name))
    _, tile = next(network.frames(np.random.default_rng(0), 1, 16, 16))
    departs = first_below(layer_snr(exact, half, [tile]), -100)
    assert departs is not None
    assert departs.name == "group0.conv"
    assert departs.snr_db == NOT_FINITE


def test_an_srgb_network_is_explained(tmp_path: Path) -> None:
    network = exportable(create_model("srgb_denoiser", "tiny").eval())
    layers = explain(with_int8(tmp_path, network, {"head": 0.01}), "int8")
    assert [layer.name for layer in layers if layer.type == "int8"] == ["head"]


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["export", "explain", *arguments])


def test_the_command_names_the_layer(network: Exportable, tmp_path: Path) -> None:
    with_int8(tmp_path, network, STEPS | {"group0.conv": 50.0})
    shown = run(str(tmp_path))
    assert shown.exit_code == 0, shown.output
    lines = shown.stdout.splitlines()
    assert lines[-1].startswith("first below 5 dB: group0.conv")
    (marked,) = (line for line in lines if line.endswith("<- departs"))
    assert marked.split()[:3] == ["group0.conv", "Conv", "int8"]

    facts = json.loads(run(str(tmp_path), "--json").stdout)
    assert facts["departs"]["name"] == "group0.conv"
    assert facts["layers"][0]["snr_db"] is None  # before anything is rounded
    assert "no layer is below -1000 dB" in run(str(tmp_path), "--below", "-1000").stdout


def test_export_itself_tells_of_explain_and_takes_other_words_as_models() -> None:
    told = CliRunner().invoke(main, ["export", "--help"]).stdout
    assert "[OPTIONS] MODEL" in told
    assert "cycleisp export explain BUNDLE" in told
    other = ["export", "explained", "-o", "x.bundle", "--data", "d", "--data-license", "none"]
    refused = CliRunner().invoke(main, other)
    assert refused.exit_code == 1
    assert refused.stderr.startswith("cycleisp: error: explained")


def test_what_cannot_be_explained_is_refused(network: Exportable, tmp_path: Path) -> None:
    exact = encoded(network.graph({}))
    bundle = bundle_of(tmp_path, {"fp32": exact, "int8": b"\xff no onnx"})
    with pytest.raises(BundleError, match=r"not an ONNX file.*int8\.onnx|int8\.onnx.*not an ONNX"):
        explain(bundle, "int8")
    with pytest.raises(BundleError, match="this precision is not in the bundle"):
        explain(bundle, "fp16")
    with pytest.raises(SettingsError, match="FP32 is what the others are compared with"):
        explain(bundle, "fp32")


def test_a_graph_of_another_family_is_refused(network: Exportable, tmp_path: Path) -> None:
    other = network.graph({})
    del other.graph.node[3].attribute[:]
    other.graph.node[3].op_type = "Cast"
    strange = network.graph({})
    strange.graph.initializer[0].CopyFrom(
        onnx.numpy_helper.from_array(np.ones(7, np.float32), strange.graph.initializer[0].name)
    )
    exact = encoded(network.graph({}))
    for graph in (other, strange):
        bundle = bundle_of(tmp_path, {"fp32": exact, "int8": encoded(graph)})
        with pytest.raises(BackendError):
            explain(bundle, "int8")
