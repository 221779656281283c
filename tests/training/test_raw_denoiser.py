"""The stage that trains a small RAW denoiser: it learns, and nothing stops it for good."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from cycleisp.noise import LEVELS
from cycleisp.training.raw_denoiser import (
    Progress,
    RawDenoiserSettings,
    learning_rate_factor,
    train_raw_denoiser,
)
from cycleisp.training.settings import resolve_settings
from cycleisp_runtime.errors import OutputError, SettingsError
from tests.training.pictures import write_photographs


@pytest.fixture(name="photographs", scope="module")
def some_photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photographs(tmp_path_factory.mktemp("data") / "photographs", 4, 72)


@pytest.fixture(name="settings")
def settings_of_a_short_run(photographs: Path, tmp_path: Path) -> RawDenoiserSettings:
    return RawDenoiserSettings(
        photographs,
        tmp_path / "run",
        size="tiny",
        steps=12,
        batch=2,
        patch=16,
        warmup_steps=2,
        held_out=2,
        validation_steps=6,
        checkpoint_steps=4,
    )


def train(settings: RawDenoiserSettings, *, resume: bool = False) -> list[Progress]:
    """Train, and give what was reported."""
    reported: list[Progress] = []
    weights = train_raw_denoiser(settings, resume=resume, report=reported.append)
    assert weights == settings.output / "weights.safetensors"
    return reported


def log(settings: RawDenoiserSettings) -> list[dict[str, float]]:
    lines = (settings.output / "log.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


KILLED_AT_STEP = """
import os, signal, sys
from pathlib import Path
from cycleisp.training.raw_denoiser import RawDenoiserSettings, train_raw_denoiser
from cycleisp.training.settings import resolve_settings

def report(progress):
    if progress.step == int(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)

settings = resolve_settings(RawDenoiserSettings, None, sys.argv[2:])
train_raw_denoiser(settings, resume=False, report=report)
"""


def train_until_killed(settings: RawDenoiserSettings, step: int) -> None:
    """A process of its own trains, and is killed without warning after this step."""
    given = [f"{name}={value}" for name, value in dataclasses.asdict(settings).items()]
    killed = subprocess.run(
        [sys.executable, "-c", KILLED_AT_STEP, str(step), *given],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr


def test_a_killed_run_ends_as_an_unbroken_one(
    settings: RawDenoiserSettings, tmp_path: Path
) -> None:
    train_until_killed(settings, step=7)
    assert not (settings.output / "weights.safetensors").exists()
    resumed = train(settings, resume=True)
    assert [progress.step for progress in resumed] == list(range(5, 13))

    unbroken = dataclasses.replace(settings, output=tmp_path / "unbroken")
    train(unbroken)
    weights, checkpoint = "weights.safetensors", "checkpoint.safetensors"
    assert (settings.output / weights).read_bytes() == (unbroken.output / weights).read_bytes()
    tensors = load_file(settings.output / checkpoint)
    for name, tensor in load_file(unbroken.output / checkpoint).items():
        assert torch.equal(tensors.pop(name), tensor), name
    assert not tensors
    assert {**log(settings)[-1], "seconds": 0} == {**log(unbroken)[-1], "seconds": 0}


def test_more_steps_go_on_where_a_run_ended(settings: RawDenoiserSettings) -> None:
    before = train(settings)[-1].seconds
    after = train(dataclasses.replace(settings, steps=14), resume=True)
    assert [progress.step for progress in after] == [13, 14]
    assert after[0].seconds > before


def test_a_run_is_not_overwritten(settings: RawDenoiserSettings) -> None:
    train(settings)
    before = (settings.output / "checkpoint.safetensors").read_bytes()
    with pytest.raises(SettingsError, match="already holds a run; give --resume"):
        train(settings)
    assert (settings.output / "checkpoint.safetensors").read_bytes() == before


def test_resuming_nothing_starts(settings: RawDenoiserSettings) -> None:
    assert train(settings, resume=True)[0].step == 1


def test_a_run_goes_on_with_its_own_size_only(settings: RawDenoiserSettings) -> None:
    train(settings)
    with pytest.raises(SettingsError, match=r"trains another network \(wanted size edge\)"):
        train(dataclasses.replace(settings, size="edge"), resume=True)


def test_a_run_does_not_go_back(settings: RawDenoiserSettings) -> None:
    train(settings)
    with pytest.raises(SettingsError, match=r"past its last step \(met 12, wanted at most 8\)"):
        train(dataclasses.replace(settings, steps=8), resume=True)


@pytest.mark.parametrize(("size", "wanted"), [("full", "edge or tiny"), ("huge", "tiny")])
def test_other_networks_are_refused(settings: RawDenoiserSettings, size: str, wanted: str) -> None:
    with pytest.raises(SettingsError, match=wanted):
        train(dataclasses.replace(settings, size=size))


def test_too_few_pictures_are_refused(settings: RawDenoiserSettings) -> None:
    with pytest.raises(SettingsError, match=r"too few pictures .*met 4, wanted at least 10"):
        train(dataclasses.replace(settings, held_out=10))


def test_an_output_that_is_no_folder_is_refused(settings: RawDenoiserSettings) -> None:
    settings.output.write_text("a file", encoding="utf-8")
    with pytest.raises(OutputError, match="the run's folder cannot be written"):
        train(settings)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps", 0),
        ("batch", 0),
        ("patch", 15),
        ("patch", 17),
        ("learning_rate", 0.0),
        ("learning_rate", float("nan")),
        ("warmup_steps", -1),
        ("decay", 1.5),
        ("gradient_norm", 0.0),
        ("average", 1.0),
        ("shot_low", 0.0),
        ("shot_low", 0.5),
        ("shot_high", 1.0),
        ("held_out", 1),
        ("validation_steps", 0),
        ("checkpoint_steps", 0),
        ("seed", -1),
        ("threads", 0),
    ],
)
def test_settings_out_of_range_are_named(
    settings: RawDenoiserSettings, name: str, value: float
) -> None:
    given = {**dataclasses.asdict(settings), name: value}
    with pytest.raises(SettingsError) as refusal:
        RawDenoiserSettings(**given)
    assert refusal.value.subject == name


def test_a_run_is_on_record(settings: RawDenoiserSettings) -> None:
    reported = train(settings)
    assert resolve_settings(RawDenoiserSettings, settings.output / "settings.yaml", []) == settings
    pictures = json.loads((settings.output / "pictures.json").read_text("utf-8"))
    assert pictures["held_out"] == ["picture_1.png", "picture_3.png"]
    assert sorted(pictures["trained_on"]) == ["picture_0.png", "picture_2.png"]
    assert [record["step"] for record in log(settings)] == [6, 12]
    levels = {name for level in LEVELS for name in (level, f"{level} noisy")}
    for record in log(settings):
        assert record.keys() == {"step", "loss", "seconds", *levels}
    assert [progress.step for progress in reported if progress.quality] == [6, 12]
    quality = reported[-1].quality
    assert quality is not None
    assert {name: round(value, 3) for name, value in quality.items()}.items() <= record.items()


def test_torch_is_left_as_random_as_before(settings: RawDenoiserSettings) -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    train(dataclasses.replace(settings, steps=1))
    assert torch.equal(torch.get_rng_state(), before)


def test_it_learns_to_take_off_noise(settings: RawDenoiserSettings) -> None:
    high_noise = dataclasses.replace(
        settings,
        steps=120,
        batch=4,
        learning_rate=4e-3,
        warmup_steps=10,
        average=0.9,
        shot_low=5e-3,
        bfloat16=False,
    )
    reported = train(high_noise)
    losses = [progress.loss for progress in reported]
    quality = reported[-1].quality
    assert quality is not None
    # Half of both is ample: this seed gives 0.5 of the loss and 2.6 dB.
    assert np.mean(losses[-30:]) < 0.75 * np.mean(losses[:10])
    assert quality["high"] > quality["high noisy"] + 1.3


def test_the_rate_rises_stays_and_falls(settings: RawDenoiserSettings) -> None:
    settings = dataclasses.replace(settings, steps=1000, warmup_steps=100, decay=0.4)
    factors = np.array([learning_rate_factor(step, settings) for step in range(1000)])
    assert (np.diff(factors[:100]) > 0).all()
    assert factors[0] == pytest.approx(0.01)
    np.testing.assert_array_equal(factors[100:600], 1)
    assert (np.diff(factors[600:]) < 0).all()
    assert factors[-1] == pytest.approx(1 / 400)


def test_more_steps_change_nothing_before_the_fall(settings: RawDenoiserSettings) -> None:
    shorter = dataclasses.replace(settings, steps=1000, decay=0.3)
    longer = dataclasses.replace(settings, steps=5000, decay=0.3)
    assert [learning_rate_factor(step, shorter) for step in range(700)] == [
        learning_rate_factor(step, longer) for step in range(700)
    ]


@pytest.mark.parametrize("warmup_steps", [0, 10])
@pytest.mark.parametrize("decay", [0.0, 1.0])
def test_the_rate_is_always_usable(
    settings: RawDenoiserSettings, warmup_steps: int, decay: float
) -> None:
    settings = dataclasses.replace(settings, steps=20, warmup_steps=warmup_steps, decay=decay)
    assert all(0 < learning_rate_factor(step, settings) <= 1 for step in range(20))
