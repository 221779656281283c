"""The options that say how a model is run, as every command that runs one has them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cycleisp_runtime.cli import main
from tests.helpers import RAW, write_bundle
from tests.networks import residual_network

FRAME = RAW / "d750_subifd_preview_grbg_ljpeg.dng"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model") / "net.bundle"
    return str(write_bundle(folder, residual_network().SerializeToString()))


def denoise(output: Path, model: str, *options: str) -> Result:
    arguments = ["denoise", str(FRAME), "-o", str(output), "--model", model, *options]
    return CliRunner().invoke(main, arguments)


def test_the_backend_that_was_chosen_is_named_with_the_reason(tmp_path: Path, model: str) -> None:
    result = denoise(tmp_path / "out.dng", model, "--json", "--threads", "1")
    assert result.exit_code == 0
    assert result.stderr.startswith("cycleisp: onnxruntime fp32 on ")
    report = json.loads(result.stdout)
    assert report["backend"].startswith("onnxruntime fp32 on ")
    assert report["backend_reason"]


def test_a_backend_that_was_asked_for_needs_no_explanation(tmp_path: Path, model: str) -> None:
    result = denoise(tmp_path / "out.dng", model, "--json", "--backend", "identity")
    assert json.loads(result.stdout)["backend"] == "identity fp32 on cpu"
    assert "cycleisp: identity" not in result.stderr


@pytest.mark.parametrize(
    ("options", "code", "line"),
    [
        (["--memory", "5x"], 2, "'5x' is not a size such as 512MiB"),
        (["--memory", "1MiB"], 1, "cycleisp: error: memory: too little memory for any tile"),
        (["--backend", "abacus"], 1, "cycleisp: error: backend: no such backend (met abacus"),
        (["--precision", "int8"], 1, "this precision is not in the bundle (met int8"),
        (["--threads", "0"], 2, "0 is not in the range x>=1"),
    ],
)
def test_options_that_cannot_be_met_are_one_line_and_write_nothing(
    tmp_path: Path, model: str, options: list[str], code: int, line: str
) -> None:
    result = denoise(tmp_path / "out.dng", model, *options)
    assert result.exit_code == code
    assert line in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_budget_changes_the_tiles_and_not_the_file(tmp_path: Path, model: str) -> None:
    plain, within = tmp_path / "plain.dng", tmp_path / "within.dng"
    assert denoise(plain, model, "--threads", "1").exit_code == 0
    assert denoise(within, model, "--threads", "1", "--memory", "130MiB").exit_code == 0
    assert plain.read_bytes() == within.read_bytes()
