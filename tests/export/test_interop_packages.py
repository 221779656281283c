"""What other programs are given: darktable's package, Triton's folder, and the command."""

from __future__ import annotations

import importlib
import json
import zipfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from click.testing import CliRunner

from cycleisp_export.baked_noise import BakedNoise
from cycleisp_export.darktable import TILE, write_darktable
from cycleisp_export.triton import triton_config, write_triton
from cycleisp_runtime.bundle import Bundle, find_bundle
from cycleisp_runtime.cli import main
from cycleisp_runtime.errors import OutputError, SettingsError
from cycleisp_runtime.noise import NoiseModel
from tests.helpers import ROOT, write_bundle
from tests.networks import residual_network

NOISE = BakedNoise(NoiseModel.uniform(1e-3, 1e-6), "camera of a test, ISO 800")
PROFILE = ROOT / "tests" / "data" / "noise_profiles" / "pmrid_reno10x.json"


@pytest.fixture(name="bundle", params=["tiny", "edge"])
def shipped_bundle(request: pytest.FixtureRequest) -> Bundle:
    return find_bundle(request.param)


@pytest.fixture(name="package")
def darktable_package(bundle: Bundle, tmp_path: Path) -> Path:
    path = tmp_path / "night-iso800.dtmodel"
    write_darktable(bundle, NOISE, path, force=False)
    return path


def test_the_package_is_a_folder_named_by_its_id(package: Path) -> None:
    with zipfile.ZipFile(package) as opened:
        assert opened.testzip() is None
        assert opened.namelist() == ["night-iso800/config.json", "night-iso800/model_bayer.onnx"]
        config = json.loads(opened.read("night-iso800/config.json"))
    assert config["id"] == "night-iso800"


def test_darktable_is_told_what_the_network_needs(package: Path, bundle: Bundle) -> None:
    with zipfile.ZipFile(package) as opened:
        config = json.loads(opened.read("night-iso800/config.json"))
        proto = onnx.load_model_from_string(opened.read("night-iso800/model_bayer.onnx"))
    assert (config["task"], config["backend"], config["num_inputs"]) == ("rawdenoise", "onnx", 1)
    assert config["name"] == f"cycleisp {bundle.record.name}, camera of a test, ISO 800"
    assert {"description", "version"} <= config.keys()

    attributes = config["attributes"]
    assert attributes["input_sizes"] == [TILE]
    wanted = {
        "input_kind": "bayer_v1",
        "bayer_orientation": "force_rggb",
        "edge_pad": "mirror_cropped",
        "wb_norm": "none",
        "output_scale": "absolute",
    }
    assert attributes["model_bayer"] == wanted
    assert attributes["variants"]["bayer"] == {"onnx": "model_bayer.onnx", **wanted}

    card = config["model_card"]
    assert card["license"] == bundle.record.license
    assert card["training_data_license"] == bundle.record.provenance.data_license
    assert bundle.sha256 in card["notes"]

    def fixed(value: onnx.ValueInfoProto) -> list[int]:
        assert value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
        return [each.dim_value for each in value.type.tensor_type.shape.dim]

    assert [fixed(value) for value in proto.graph.input] == [[1, 4, TILE, TILE]]
    assert [fixed(value) for value in proto.graph.output] == [[1, 3, 2 * TILE, 2 * TILE]]


def test_the_packaged_graph_runs_on_a_whole_tile(package: Path) -> None:
    with zipfile.ZipFile(package) as opened:
        graph = opened.read("night-iso800/model_bayer.onnx")
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    tile = np.random.default_rng(0).normal(0.2, 0.02, (1, 4, TILE, TILE)).astype(np.float32)
    (camera_rgb,) = session.run(None, {"noisy": tile})
    assert camera_rgb.shape == (1, 3, 2 * TILE, 2 * TILE)
    assert np.isfinite(camera_rgb).all()


def test_darktables_own_validator_passes_it(
    package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reason = "needs darktable-ai-sdk, darktable's validator"
    validate = pytest.importorskip("dt_ai_sdk.validate", reason=reason)
    config = importlib.import_module("dt_ai_sdk.config")
    with zipfile.ZipFile(package) as opened:
        opened.extractall(tmp_path / "output")
    model = config.ModelConfig(
        id="night-iso800", name="n", description="d", task="rawdenoise", type="multi"
    )
    model.root_dir = tmp_path
    validate.run_validation(model)
    assert "Result: PASS" in capsys.readouterr().out


def test_equal_packages_are_equal_files(bundle: Bundle, package: Path, tmp_path: Path) -> None:
    (tmp_path / "again").mkdir()
    again = tmp_path / "again" / package.name
    write_darktable(bundle, NOISE, again, force=False)
    assert again.read_bytes() == package.read_bytes()
    with zipfile.ZipFile(package) as opened:  # two writings may fall into the same second
        assert {entry.date_time for entry in opened.infolist()} == {(1980, 1, 1, 0, 0, 0)}


@pytest.mark.parametrize("name", ["night.zip", ".dtmodel", "..dtmodel", "a b.dtmodel", "night"])
def test_darktable_ids_are_plain(name: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"no name for a package .*wanted ID\.dtmodel"):
        write_darktable(find_bundle("tiny"), NOISE, tmp_path / name, force=False)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(name="model")
def triton_model(bundle: Bundle, tmp_path: Path) -> Path:
    folder = tmp_path / "denoiser"
    write_triton(bundle, folder, force=False)
    return folder


def test_triton_gets_the_bundles_own_file(bundle: Bundle, model: Path) -> None:
    files = {path.relative_to(model).as_posix() for path in model.rglob("*") if path.is_file()}
    assert files == {"config.pbtxt", "1/model.onnx"}
    assert (model / "1" / "model.onnx").read_bytes() == bundle.model("fp32")
    assert bundle.sha256 in (model / "config.pbtxt").read_text("utf-8")
    assert (model / "config.pbtxt").read_text("utf-8") == triton_config(bundle)


def test_the_config_is_one_by_tritons_own_schema(bundle: Bundle, model: Path) -> None:
    reason = "needs tritonclient[grpc], the schema of Triton"
    schema = pytest.importorskip("tritonclient.grpc.model_config_pb2", reason=reason)
    text_format = importlib.import_module("google.protobuf.text_format")
    text = (model / "config.pbtxt").read_text("utf-8")
    config = text_format.Parse(text, schema.ModelConfig())
    assert config.backend == "onnxruntime"
    assert config.HasField("dynamic_batching")
    assert config.parameters["bundle_sha256"].string_value == bundle.sha256

    def declared(value: onnx.ValueInfoProto) -> list[int]:
        """Sizes of the graph's tensor; -1 where they are dynamic."""
        return [each.dim_value or -1 for each in value.type.tensor_type.shape.dim]

    graph = onnx.load(model / "1" / "model.onnx").graph
    for told, values in ((config.input, graph.input), (config.output, graph.output)):
        assert {each.data_type for each in told} == {schema.TYPE_FP32}
        # The batch axis is Triton's own, of any size up to this.
        assert config.max_batch_size > 0
        assert {each.name: [-1, *each.dims] for each in told} == {
            value.name: declared(value) for value in values
        }
    with pytest.raises(text_format.ParseError):
        text_format.Parse(text.replace("dims", "sizes"), schema.ModelConfig())


def test_a_description_cannot_break_out_of_the_config(tmp_path: Path) -> None:
    network = residual_network().SerializeToString()
    text = 'a "quoted"\nbackend: "python"\n\\'
    folder = write_bundle(tmp_path / "odd.bundle", network, description=text, license=text)
    config = triton_config(Bundle.load(folder))
    assert not any(line.startswith('backend: "python"') for line in config.splitlines())


TARGETS = {
    "darktable": ["night.dtmodel", "--noise", "1e-3,1e-6"],
    "triton": ["night"],
    "one-input": ["night.onnx", "--profile", str(PROFILE), "--iso", "800", "--mosaic", "GBRG"],
}


def convert(folder: Path, target: str, *more: str, bundle: str = "tiny") -> tuple[int, str, str]:
    name, *options = TARGETS[target]
    given = [bundle, "--target", target, "-o", str(folder / name), *options, *more]
    done = CliRunner().invoke(main, ["convert", *given])
    return done.exit_code, done.stdout, done.stderr


@pytest.mark.parametrize("target", TARGETS)
def test_the_command_converts_and_replaces_only_by_force(target: str, tmp_path: Path) -> None:
    output = tmp_path / TARGETS[target][0]
    code, told, complaints = convert(tmp_path, target)
    assert (code, complaints) == (0, "")
    assert told.startswith(f"{output}: tiny for {target}")
    assert list(tmp_path.iterdir()) == [output]
    if target == "triton":
        (output / "of_the_old_one").write_bytes(b"")

    refused = (1, "", f"cycleisp: error: {output}: the output already exists; --force ")
    code, told, complaints = convert(tmp_path, target)
    assert (code, told, complaints.startswith(refused[2])) == (*refused[:2], True)
    assert convert(tmp_path, target, "--force", bundle="edge")[0] == 0
    assert list(tmp_path.iterdir()) == [output]
    assert not (output / "of_the_old_one").exists()


@pytest.mark.parametrize(
    ("target", "options", "problem"),
    [
        ("triton", ["--noise", "1e-3,1e-6"], "triton takes the noise with every request"),
        ("triton", ["--mosaic", "RGGB"], "only one-input takes a mosaic"),
        ("darktable", ["--mosaic", "RGGB"], "only one-input takes a mosaic"),
        ("darktable", ["--iso", "800"], "the noise is not determined"),
        ("one-input", ["--noise", "1e-3,1e-6"], "the noise is not determined"),
        ("one-input", ["--noise", "two"], "'two' is not two numbers"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    target: str, options: list[str], problem: str, tmp_path: Path
) -> None:
    code, told, complaints = convert(tmp_path, target, *options)
    assert (code, told) == (2, "")
    assert problem in complaints
    assert list(tmp_path.iterdir()) == []


def test_unknown_targets_are_refused(tmp_path: Path) -> None:
    given = ["convert", "tiny", "--target", "lightroom", "-o", str(tmp_path / "x")]
    done = CliRunner().invoke(main, given)
    assert done.exit_code == 2
    assert "'lightroom' is not one of 'darktable', 'triton', 'one-input'" in done.stderr


@pytest.mark.parametrize("target", ["darktable", "one-input"])
def test_srgb_networks_are_refused(target: str, tmp_path: Path) -> None:
    network = residual_network().SerializeToString()
    bundle = write_bundle(tmp_path / "photo.bundle", network, task="srgb")
    code, told, complaints = convert(tmp_path, target, bundle=str(bundle))
    assert (code, told) == (1, "")
    assert complaints == (
        f"cycleisp: error: {bundle}: noise is baked into RAW networks only (met srgb, wanted raw)\n"
    )
    assert list(tmp_path.iterdir()) == [bundle]


def test_what_is_no_model_of_triton_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "night" / "other_model").mkdir(parents=True)
    code, _, complaints = convert(tmp_path, "triton", "--force")
    assert (code, "this is not a model of Triton" in complaints) == (1, True)
    assert [path.name for path in (tmp_path / "night").iterdir()] == ["other_model"]


def test_the_network_of_the_bundle_is_never_overwritten(tmp_path: Path) -> None:
    network = residual_network().SerializeToString()
    bundle = write_bundle(tmp_path / "small.bundle", network)
    given = [str(bundle), "--target", "one-input", "-o", str(bundle / "fp32.onnx"), "--force"]
    done = CliRunner().invoke(main, ["convert", *given, "--noise", "1e-3,1e-6"])
    assert (done.exit_code, "would overwrite its input" in done.stderr) == (1, True)
    assert (bundle / "fp32.onnx").read_bytes() == network


def test_noise_outside_of_training_is_said(tmp_path: Path) -> None:
    output = tmp_path / "night.onnx"
    given = ["tiny", "--target", "one-input", "-o", str(output), "--noise", "1e-6,1e-9"]
    done = CliRunner().invoke(main, ["convert", *given])
    assert done.exit_code == 0
    assert done.stderr == (
        "cycleisp: warning: shot noise 1e-06 is outside of the model's training range, "
        "2e-05 to 0.02\n"
    )


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"denoiser: cannot be written \(met No such file"):
        write_triton(find_bundle("tiny"), tmp_path / "nowhere" / "denoiser", force=False)
