"""What other programs are given: darktable's package, Triton's folder, and the command."""

from __future__ import annotations

import importlib
import json
import zipfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from click.testing import CliRunner

from cycleisp_export.baked_noise import BakedNoise
from cycleisp_export.darktable import PICTURE_TILE, TILE, write_darktable
from cycleisp_export.triton import triton_config, write_triton
from cycleisp_runtime.bundle import Bundle, find_bundle
from cycleisp_runtime.cli import main
from cycleisp_runtime.errors import OutputError, SettingsError
from cycleisp_runtime.noise import NoiseModel
from tests.helpers import ROOT, for_pictures, write_bundle, write_pooling_bundle
from tests.networks import GATES, picture_network, pooling_networks, residual_network

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


def validate(package: Path, task: str, kind: str, folder: Path) -> None:
    """Let darktable's own validator say what it thinks of a package, in ``folder``."""
    reason = "needs darktable-ai-sdk, darktable's validator"
    validator = pytest.importorskip("dt_ai_sdk.validate", reason=reason)
    config = importlib.import_module("dt_ai_sdk.config")
    with zipfile.ZipFile(package) as opened:
        opened.extractall(folder / "output")
    model = config.ModelConfig(id=package.stem, name="n", description="d", task=task, type=kind)
    model.root_dir = folder
    validator.run_validation(model)


def test_darktables_own_validator_passes_it(
    package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    validate(package, "rawdenoise", "multi", tmp_path)
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
    ("target", "options", "problem", "exit_code"),
    [
        ("triton", ["--noise", "1e-3,1e-6"], "triton takes the noise with every request", 1),
        ("triton", ["--mosaic", "RGGB"], "only one-input takes a mosaic", 1),
        ("darktable", ["--mosaic", "RGGB"], "only one-input takes a mosaic", 1),
        ("darktable", ["--iso", "800"], "the noise is not determined", 1),
        ("one-input", ["--noise", "1e-3,1e-6"], "the noise is not determined", 1),
        ("one-input", ["--noise", "two"], "'two' is not two numbers", 2),
    ],
)
def test_options_that_do_not_fit_are_refused(
    target: str, options: list[str], problem: str, exit_code: int, tmp_path: Path
) -> None:
    code, told, complaints = convert(tmp_path, target, *options)
    assert (code, told) == (exit_code, "")
    assert problem in complaints
    assert list(tmp_path.iterdir()) == []


def test_unknown_targets_are_refused(tmp_path: Path) -> None:
    given = ["convert", "tiny", "--target", "lightroom", "-o", str(tmp_path / "x")]
    done = CliRunner().invoke(main, given)
    assert done.exit_code == 2
    assert "'lightroom' is not one of 'darktable', 'triton', 'one-input'" in done.stderr


@pytest.fixture(name="pictures")
def bundle_for_pictures(tmp_path: Path) -> Bundle:
    network = picture_network().SerializeToString()
    return Bundle.load(write_bundle(tmp_path / "photo.bundle", network, **for_pictures()))


def converted(bundle: Bundle, target: str, output: Path, *options: str) -> tuple[int, str]:
    given = ["convert", str(bundle.folder), "--target", target, "-o", str(output), *options]
    done = CliRunner().invoke(main, given)
    return done.exit_code, done.stderr


def test_darktable_gets_srgb_networks_as_they_are(pictures: Bundle, tmp_path: Path) -> None:
    package = tmp_path / "photo.dtmodel"
    assert converted(pictures, "darktable", package) == (0, "")
    with zipfile.ZipFile(package) as opened:
        assert opened.namelist() == ["photo/config.json", "photo/model.onnx"]
        config = json.loads(opened.read("photo/config.json"))
        proto = onnx.load_model_from_string(opened.read("photo/model.onnx"))
    assert (config["task"], config["num_inputs"]) == ("denoise", 1)
    assert config["attributes"] == {"input_sizes": [PICTURE_TILE]}
    original = onnx.load_model_from_string(pictures.model("fp32"))
    assert list(proto.graph.node) == list(original.graph.node)
    for value in (*proto.graph.input, *proto.graph.output):
        sides = [each.dim_value for each in value.type.tensor_type.shape.dim]
        assert sides == [1, 3, PICTURE_TILE, PICTURE_TILE]


def test_darktables_own_validator_passes_srgb(
    pictures: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    package = tmp_path / "photo.dtmodel"
    write_darktable(pictures, None, package, force=False)
    validate(package, "denoise", "single", tmp_path)
    assert "Result: PASS" in capsys.readouterr().out


def test_an_srgb_network_takes_one_input_already(pictures: Bundle, tmp_path: Path) -> None:
    output = tmp_path / "photo.onnx"
    assert converted(pictures, "one-input", output) == (0, "")
    tile = np.random.default_rng(0).uniform(0, 1, (2, 3, 18, 30)).astype(np.float32)

    def run(network: bytes) -> npt.NDArray[np.float32]:
        session = onnxruntime.InferenceSession(network, providers=["CPUExecutionProvider"])
        result: npt.NDArray[np.float32] = session.run(None, {"noisy": tile})[0]
        return result

    np.testing.assert_array_equal(run(output.read_bytes()), run(pictures.model("fp32")))


def test_triton_gets_srgb_networks(pictures: Bundle, tmp_path: Path) -> None:
    assert converted(pictures, "triton", tmp_path / "photo") == (0, "")
    config = (tmp_path / "photo" / "config.pbtxt").read_text("utf-8")
    assert 'input { name: "noisy" data_type: TYPE_FP32 dims: [3, -1, -1] }' in config
    assert (tmp_path / "photo" / "1" / "model.onnx").read_bytes() == pictures.model("fp32")


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--noise", "1e-3,1e-6"], "sRGB has no noise model"),
        (["--mosaic", "RGGB"], "a network for pictures takes no mosaic"),
    ],
)
def test_srgb_networks_have_no_options(
    pictures: Bundle, options: list[str], problem: str, tmp_path: Path
) -> None:
    code, complaints = converted(pictures, "one-input", tmp_path / "photo.onnx", *options)
    assert (code, problem in complaints) == (1, True)
    assert list(tmp_path.iterdir()) == [pictures.folder]


@pytest.mark.parametrize("target", TARGETS)
def test_networks_of_two_graphs_are_refused(target: str, tmp_path: Path) -> None:
    network, statistics = (proto.SerializeToString() for proto in pooling_networks(4))
    folder = write_pooling_bundle(tmp_path / "full.bundle", network, statistics, gates=GATES)
    code, told, complaints = convert(tmp_path, target, bundle=str(folder))
    assert (code, told) == (1, "")
    assert complaints == (
        f"cycleisp: error: {folder}: the network pools over the frame, for which other programs "
        "have no second graph; convert a network of size tiny or edge\n"
    )
    assert list(tmp_path.iterdir()) == [folder]


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
        "shot 2e-05 to 0.02\n"
    )


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"denoiser: cannot be written \(met No such file"):
        write_triton(find_bundle("tiny"), tmp_path / "nowhere" / "denoiser", force=False)
