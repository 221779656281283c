"""The C example gives what the Python runtime gives; it needs ONNX Runtime's headers."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from cycleisp_runtime import Area, Denoiser, NoiseModel, Phase, RawFrame, find_bundle
from tests.helpers import ROOT

SOURCE = ROOT / "examples" / "c_api" / "denoise.c"
HEADER = "onnxruntime_c_api.h"
FOLDERS = ("/usr/include/onnxruntime", "/usr/local/include/onnxruntime", "/usr/local/include")
BLACK, WHITE, SHOT, READ = 64, 1023, 1e-3, 1e-5


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example, compiled against the library of the Python wheel."""
    compiler = shutil.which("cc") or pytest.skip("needs a C compiler")
    named = [folder for folder in (os.environ.get("ONNXRUNTIME_INCLUDE"), *FOLDERS) if folder]
    include = next((folder for folder in named if Path(folder, HEADER).is_file()), None)
    if include is None:
        pytest.skip(f"needs {HEADER}; ONNXRUNTIME_INCLUDE may name its folder")
    library = next((Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so*"), None)
    if library is None:
        pytest.skip("this ONNX Runtime has no libonnxruntime.so beside its module")
    folder = tmp_path_factory.mktemp("c_api")
    (folder / "libonnxruntime.so").symlink_to(library)
    (folder / "libonnxruntime.so.1").symlink_to(library)  # the name that the library calls itself
    strict: list[str | Path] = [
        "-std=c11",
        "-O2",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-isystem",
        include,
    ]
    linked: list[str | Path] = ["-L", folder, "-lonnxruntime", "-lm", f"-Wl,-rpath,{folder}"]
    command: list[str | Path] = [compiler, *strict, SOURCE, "-o", folder / "denoise", *linked]
    subprocess.run(command, check=True, timeout=60)
    return folder / "denoise"


def test_it_stays_short() -> None:
    assert len(SOURCE.read_text().splitlines()) < 200


@pytest.mark.parametrize(
    ("phase", "height", "width"),
    [
        (Phase.RGGB, 48, 64),
        (Phase.GRBG, 50, 62),
        (Phase.GBRG, 47, 61),
        (Phase.BGGR, 45, 64),
    ],
)
def test_it_agrees_with_the_runtime(
    program: Path, tmp_path: Path, phase: Phase, height: int, width: int
) -> None:
    random = np.random.default_rng(0)
    samples = random.normal(np.linspace(60, 900, width), 8, (height, width)).clip(0, 1023)
    samples = np.rint(samples).astype("<u2")
    samples.tofile(tmp_path / "in.raw")
    model = find_bundle("edge").folder / "fp32.onnx"
    facts = (width, height, phase.value, BLACK, WHITE, SHOT, READ)
    subprocess.run(
        [program, model, tmp_path / "in.raw", tmp_path / "out.raw"] + [str(each) for each in facts],
        check=True,
        timeout=60,
    )
    written = np.fromfile(tmp_path / "out.raw", "<u2").reshape(height, width)

    frame = RawFrame(samples, phase, (BLACK,) * 4, WHITE, Area(0, 0, height, width))
    with Denoiser.load("edge", backend="onnxruntime", precision="fp32") as denoiser:
        result = denoiser(frame, noise=NoiseModel.uniform(SHOT, READ))
    assert result.level_scale == 64
    noisy = samples * 64.0
    # The runtime mixes a share of the network's output with the input; C writes all of it.
    assert result.strength > 0.5
    network = noisy + (result.frame.samples - noisy) / result.strength
    # Both round; what the runtime rounds off is divided by the share.
    assert np.abs(written - network).max() < 0.5 + 0.5 / result.strength + 0.1
    assert np.abs(written - noisy).mean() > 20  # it did denoise


def test_what_it_cannot_use_is_one_line(program: Path, tmp_path: Path) -> None:
    model = find_bundle("edge").folder / "fp32.onnx"
    facts = ["64", "48", "RGGB", "64", "1023", "1e-3", "1e-5"]
    for changed, problem in (
        ([model, tmp_path / "in.raw", tmp_path / "out.raw", *facts], "cannot be read"),
        ([model, tmp_path / "in.raw", tmp_path / "out.raw", *facts[:2], "RGBG", *facts[3:]], "pha"),
        ([model, ROOT / "setup.cfg", tmp_path / "out.raw", *facts[:5], "nan", "1e-5"], "noise"),
        ([model, ROOT / "setup.cfg", tmp_path / "out.raw", *facts[:3], "-5", "0", "0", "0"], "lev"),
        ([model], "usage"),
    ):
        done = subprocess.run(
            [program, *changed], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 1
        assert done.stderr.startswith("denoise: ")
        assert problem in done.stderr
        assert done.stderr.count("\n") == 1
