"""Every stage of the pipeline learns, says what it does not take, and starts where it is told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from cycleisp_runtime.cli import main
from cycleisp_runtime.errors import SettingsError
from tests.training.pictures import write_photographs
from tests.training.short_runs import learn, short_run, write_pipeline


@pytest.fixture(name="photographs", scope="module")
def some_photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photographs(tmp_path_factory.mktemp("data") / "photographs", 4, 72)


@pytest.fixture(name="networks", scope="module")
def untrained_networks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    return write_pipeline(tmp_path_factory.mktemp("networks"))


QUICK: dict[str, object] = {
    "steps": 60,
    "learning_rate": 5e-3,
    "warmup_steps": 5,
    "average": 0.8,
    "validation_steps": 60,
    "bfloat16": False,
}


@pytest.mark.parametrize(
    ("stage", "figure", "margin"),
    [
        ("rgb2raw", "RAW", 5.0),
        ("raw2rgb", "sRGB", 6.0),
        ("joint", "round trip", 3.5),
    ],
)
def test_a_stage_learns_by_half_of_what_this_seed_gives(
    photographs: Path,
    tmp_path: Path,
    networks: dict[str, object],
    stage: str,
    figure: str,
    margin: float,
) -> None:
    changes = {**QUICK, "cameras": "one", **(networks if stage == "joint" else {})}
    before, *steps = learn(stage, short_run(photographs, tmp_path / "run", **changes))
    after = steps[-1]
    assert before.quality is not None
    assert after.quality is not None
    losses = [progress.loss for progress in steps if progress.loss is not None]
    assert np.mean(losses[-10:]) < np.mean(losses[:10])
    assert after.quality[figure] > before.quality[figure] + margin


def test_an_srgb_denoiser_learns_from_what_a_trained_pipeline_renders(
    photographs: Path, tmp_path: Path
) -> None:
    networks: dict[str, object] = {}
    for stage, names in {"rgb2raw": ["rgb2raw"], "raw2rgb": ["color_branch", "raw2rgb"]}.items():
        folder = tmp_path / stage
        learn(stage, short_run(photographs, folder, **QUICK, cameras="one"))
        networks |= {name: str(folder / f"{name}.safetensors") for name in names}
    changes = {**QUICK, **networks, "patch": 32, "noise": "cycleisp-sidd"}
    before, *steps = learn("srgb-denoiser", short_run(photographs, tmp_path / "run", **changes))
    after = steps[-1]
    assert before.quality is not None
    assert after.quality is not None
    # Half of the way that this seed goes from an untrained network, 17.6 dB, to its input's 30.
    assert after.quality["denoised"] > before.quality["denoised"] + 5
    # The pipeline renders noise, as strong as this law's and not what an untrained one makes.
    assert 20 < after.quality["noisy"] < 40


def run(stage: str, settings: dict[str, object]) -> Result:
    given = [f"{name}={value}" for name, value in settings.items()]
    return CliRunner().invoke(main, ["train", stage, *given])


def assert_refused(result: Result, reason: str, output: Path) -> None:
    """One clear line, and nothing written."""
    assert result.exit_code in {1, 2}
    assert result.stdout == ""
    assert result.stderr.startswith("cycleisp: error: ")
    assert reason in result.stderr
    assert result.stderr.count("\n") == 1
    assert not output.exists()


@pytest.mark.parametrize("stage", ["joint", "srgb-denoiser"])
@pytest.mark.parametrize("setting", ["rgb2raw", "color_branch", "raw2rgb"])
def test_the_wrong_network_is_refused(
    photographs: Path, tmp_path: Path, networks: dict[str, object], stage: str, setting: str
) -> None:
    wrong = "raw2rgb" if setting == "rgb2raw" else "rgb2raw"
    changes = {"patch": 32, **networks, setting: networks[wrong]}
    refused = run(stage, short_run(photographs, tmp_path / "run", **changes))
    reason = f"{networks[wrong]}: the wrong network (met {wrong} small, wanted {setting}"
    assert_refused(refused, reason, tmp_path / "run")


def test_networks_of_another_size_are_refused(
    photographs: Path, tmp_path: Path, networks: dict[str, object]
) -> None:
    refused = run("joint", short_run(photographs, tmp_path / "run", size="full", **networks))
    reason = "the wrong network (met rgb2raw small, wanted rgb2raw full)"
    assert_refused(refused, reason, tmp_path / "run")


def test_a_network_that_is_not_there_is_refused(
    photographs: Path, tmp_path: Path, networks: dict[str, object]
) -> None:
    absent = {**networks, "raw2rgb": tmp_path / "absent.safetensors"}
    refused = run("joint", short_run(photographs, tmp_path / "run", **absent))
    reason = "absent.safetensors: not a readable safetensors file"
    assert_refused(refused, reason, tmp_path / "run")


@pytest.mark.parametrize(
    ("folder", "reason"),
    [
        ("absent", "absent: the folder of photographs cannot be read"),
        ("empty", "too few usable pictures to hold some out (met 0, and 0 that cannot be used"),
        ("broken", "too few usable pictures to hold some out (met 0, and 3 that cannot be used"),
        ("small", "too few usable pictures to hold some out (met 0, and 4 that cannot be used"),
    ],
)
@pytest.mark.parametrize("stage", ["rgb2raw", "raw2rgb", "raw-denoiser"])
def test_photographs_that_cannot_be_used_are_refused(
    tmp_path: Path, stage: str, folder: str, reason: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    for index in range(3):
        (tmp_path / "broken" / f"{index}.jpg").write_bytes(b"no picture")
    write_photographs(tmp_path / "small", 4, 24)
    refused = run(stage, short_run(tmp_path / folder, tmp_path / "run", size="small"))
    assert_refused(refused, reason, tmp_path / "run")


def test_a_stage_of_pairs_needs_a_source_of_them(tmp_path: Path) -> None:
    refused = run("rgb2raw", {"output": tmp_path / "run"})
    assert_refused(refused, "nothing to learn from; give photographs=FOLDER", tmp_path / "run")


def test_unknown_cameras_are_refused(photographs: Path, tmp_path: Path) -> None:
    refused = run("rgb2raw", short_run(photographs, tmp_path / "run", cameras="several"))
    assert_refused(refused, "no such cameras (met several", tmp_path / "run")


def test_without_the_colour_branch_raw2rgb_learns_alone(photographs: Path, tmp_path: Path) -> None:
    settings = short_run(photographs, tmp_path / "run", steps=1, color_branch=False)
    learn("raw2rgb", settings)
    assert {path.name for path in (tmp_path / "run").glob("*.safetensors")} == {
        "checkpoint.safetensors",
        "raw2rgb.safetensors",
    }


def test_a_run_of_another_stage_is_not_gone_on_with(photographs: Path, tmp_path: Path) -> None:
    settings = short_run(photographs, tmp_path / "run", steps=1)
    learn("rgb2raw", settings)
    before = (tmp_path / "run" / "checkpoint.safetensors").read_bytes()
    with pytest.raises(SettingsError, match=r"met stage rgb2raw.*wanted stage raw2rgb"):
        learn("raw2rgb", settings, resume=True)
    assert (tmp_path / "run" / "checkpoint.safetensors").read_bytes() == before
