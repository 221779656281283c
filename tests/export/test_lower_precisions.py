"""FP16 and INT8 by the command: a bundle that runs at each, or one line that says why not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from cycleisp.noise import LEVELS, variance_map
from cycleisp_calibration.set_file import CalibrationSet, save_calibration_set
from cycleisp_calibration.sets import build_calibration_set
from cycleisp_calibration.survey import SetSettings
from cycleisp_export import package
from cycleisp_export.graph import TENSORS
from cycleisp_runtime.backends.onnxruntime import OnnxRuntimeBackend
from cycleisp_runtime.bundle import Bundle, Precision
from cycleisp_runtime.cli import main
from cycleisp_runtime.denoiser import Denoiser
from tests.helpers import ROOT

RUN = ROOT / "zoo" / "runs" / "tiny"
EXAMPLES = sorted((ROOT / "examples" / "photographs").glob("*.jpg"))


@pytest.fixture(name="set_file", scope="module")
def calibration_file(calibration: CalibrationSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("set") / "set.npz"
    save_calibration_set(calibration, path, force=False)
    return path


@pytest.fixture(name="photographs", scope="module")
def small_photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photographs")
    for path in EXAMPLES[-5:-1]:
        with Image.open(path) as picture:
            left, top = (side // 2 - 128 for side in picture.size)
            middle = picture.crop((left, top, left + 256, top + 256))
            middle.save(folder / f"{path.stem}.png")
    return folder


def export(output: Path, *options: str | Path) -> Result:
    given = ["export", str(RUN), "-o", str(output), "--data", "d", "--data-license", "CC0-1.0"]
    return CliRunner().invoke(main, [*given, *map(str, options)])


@pytest.fixture(name="bundle", scope="module")
def bundle_of_all(
    set_file: Path, photographs: Path, tmp_path_factory: pytest.TempPathFactory
) -> Bundle:
    folder = tmp_path_factory.mktemp("all") / "night.bundle"
    done = export(
        folder,
        *("--precision", "fp32,fp16,int8,int8-cpu", "--photographs", photographs),
        *("--calibration", set_file, "--max-loss-db", "0.2"),
    )
    assert done.exit_code == 0, done.output
    assert "12 of 12 layers in INT8 lose" in done.stderr
    assert "fp16 loses 0.000 dB at low" in done.stdout
    return Bundle.load(folder)


def test_the_record_says_what_each_precision_costs(bundle: Bundle) -> None:
    files = bundle.record.precisions
    assert list(files) == ["fp32", "fp16", "int8", "int8-cpu"]
    assert files["fp32"].bytes > files["fp16"].bytes > files["int8"].bytes
    assert files["fp32"].reduction is None
    half, int8 = files["fp16"].reduction, files["int8"].reduction
    assert half is not None
    assert int8 is not None
    assert max(half.loss_db.values()) <= 0.02
    assert max(int8.loss_db.values()) <= 0.2
    assert 0 < len(int8.kept) < 12

    shown = CliRunner().invoke(main, ["info", str(bundle.folder)]).stdout
    assert f"int8 loses      {int8.loss_in_words()}" in shown
    for layer in int8.kept:
        assert f"int8 keeps      {layer} at fp16: alone in INT8 it loses" in shown
    card = (bundle.folder / "card.md").read_text("utf-8")
    assert f"- int8, in `int8.onnx`: {int8.loss_in_words()}. Kept at higher precision: `" in card


def test_the_runtime_runs_every_precision(bundle: Bundle) -> None:
    rng = np.random.default_rng(0)
    noisy = rng.normal(0.2, 0.1, (1, 4, 24, 36)).astype(np.float32)
    variance = variance_map(noisy, *LEVELS["high"])
    scale = float(np.sqrt(variance.mean()))
    with OnnxRuntimeBackend(bundle, threads=1) as backend:
        exact = backend.run(TENSORS.fill(noisy, variance, scale)).copy()
    most_apart: dict[Precision, float] = {"fp16": 0.02, "int8": 0.5, "int8-cpu": 0.5}
    for precision, most in most_apart.items():
        with Denoiser.load(bundle.folder, precision=precision, threads=1) as denoiser:
            assert denoiser.backend.precision == precision
            apart = (
                np.abs(denoiser.backend.run(TENSORS.fill(noisy, variance, scale)) - exact) / scale
            )
        # In units of the noise; another file than that of FP32, and no other picture.
        assert 0 < apart.mean() < apart.max() < most


def test_equal_exports_are_equal(
    bundle: Bundle, set_file: Path, photographs: Path, tmp_path: Path
) -> None:
    again = tmp_path / "night.bundle"
    export(
        again,
        *("--precision", "int8-cpu,int8,fp16", "--photographs", photographs),
        *("--calibration", set_file, "--max-loss-db", "0.2"),
    )
    assert Bundle.load(again).sha256 == bundle.sha256


def test_no_file_says_where_it_was_made(bundle: Bundle, photographs: Path) -> None:
    for path in bundle.folder.iterdir():
        content = path.read_bytes()
        assert str(ROOT).encode() not in content
        assert str(photographs).encode() not in content
        assert str(Path.home()).encode() + b"/" not in content


def refusal(result: Result, output: Path) -> str:
    assert result.exit_code == 1
    assert not output.exists()
    error = result.stderr.splitlines()[-1]
    assert error.startswith("cycleisp: error: ")
    return error


@pytest.fixture(name="nothing_built")
def no_graph_may_be_built(monkeypatch: pytest.MonkeyPatch) -> None:
    def build(*_arguments: object) -> None:
        pytest.fail("a graph was built before its calibration set was looked at")

    monkeypatch.setattr(package, "_exact", build)


@pytest.mark.usefixtures("nothing_built")
def test_what_is_missing_is_named(tmp_path: Path, photographs: Path) -> None:
    folder = tmp_path / "night.bundle"
    half = export(folder, "--precision", "fp16")
    assert "give a folder of clean ones with --photographs" in refusal(half, folder)
    int8 = export(folder, "--precision", "int8", "--photographs", photographs)
    assert "INT8 needs a calibration set; make one by cycleisp" in refusal(int8, folder)


@pytest.mark.usefixtures("nothing_built")
def test_a_set_for_other_networks_is_refused(tmp_path: Path, photographs: Path) -> None:
    srgb = build_calibration_set(EXAMPLES[:2], SetSettings(task="srgb", tiles=4, side=128))
    save_calibration_set(srgb.calibration, tmp_path / "srgb.npz", force=False)
    folder = tmp_path / "night.bundle"
    refused = export(
        folder,
        *("--precision", "int8", "--photographs", photographs),
        *("--calibration", tmp_path / "srgb.npz"),
    )
    assert "a calibration set for other networks (met task srgb" in refusal(refused, folder)


@pytest.mark.usefixtures("nothing_built")
def test_a_set_of_other_channels_is_refused(
    tmp_path: Path, photographs: Path, set_file: Path
) -> None:
    path = tmp_path / "bayer_of_three.npz"
    path.write_bytes(set_file.read_bytes())
    manifest = json.loads(set_file.with_suffix(".json").read_text("utf-8"))
    path.with_suffix(".json").write_text(json.dumps({**manifest, "channels": 3}), "utf-8")
    folder = tmp_path / "night.bundle"
    refused = export(
        folder, *("--precision", "int8", "--photographs", photographs), "--calibration", path
    )
    assert refusal(refused, folder) == (
        f"cycleisp: error: {path}: a calibration set for other networks (met task raw, 3 channels, "
        "wanted task raw, 4 channels); make one by cycleisp calibrate set --task raw"
    )


def test_a_budget_that_cannot_be_met_is_refused(
    tmp_path: Path, set_file: Path, photographs: Path
) -> None:
    folder = tmp_path / "night.bundle"
    refused = export(
        folder,
        *("--precision", "int8", "--photographs", photographs),
        *("--calibration", set_file, "--max-loss-db", "0.0001"),
    )
    assert "in INT8 loses too much" in refusal(refused, folder)


def test_unknown_precisions_are_a_mistake_of_usage(tmp_path: Path) -> None:
    refused = export(tmp_path / "night.bundle", "--precision", "fp32,fp8")
    assert refused.exit_code == 2
    assert "fp8: not fp32, fp16, int8 or int8-cpu" in refused.stderr
