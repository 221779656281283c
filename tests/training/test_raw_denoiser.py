"""The stage that trains a RAW denoiser: its settings, what it is judged by, and that it learns."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cycleisp.noise import LEVELS
from cycleisp.training.loop import Progress, train
from cycleisp.training.raw_denoiser import RawDenoiserSettings, RawDenoiserStage
from cycleisp.training.settings import read_recipe, resolve_settings
from cycleisp_runtime.errors import SettingsError
from tests.training.pictures import write_photographs
from tests.training.short_runs import log, short_run, write_pipeline


@pytest.fixture(name="photographs", scope="module")
def some_photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photographs(tmp_path_factory.mktemp("data") / "photographs", 4, 72)


@pytest.fixture(name="settings")
def settings_of_a_short_run(photographs: Path, tmp_path: Path) -> RawDenoiserSettings:
    values = short_run(photographs, tmp_path / "run", size="tiny")
    return resolve_settings(RawDenoiserSettings, values, [])


def learned(settings: RawDenoiserSettings) -> list[Progress]:
    """Train, and give what was reported."""
    reported: list[Progress] = []
    files = train(RawDenoiserStage(settings), settings, resume=False, report=reported.append)
    assert files == [settings.output / "raw_denoiser.safetensors"]
    return reported


@pytest.mark.parametrize("size", ["huge", ""])
def test_networks_that_do_not_exist_are_refused(settings: RawDenoiserSettings, size: str) -> None:
    with pytest.raises(SettingsError, match="raw_denoiser tiny"):
        RawDenoiserStage(replace(settings, size=size))


def test_too_few_pictures_are_refused(settings: RawDenoiserSettings) -> None:
    with pytest.raises(SettingsError, match=r"too few usable .*met 4.* wanted at least 10"):
        RawDenoiserStage(replace(settings, held_out=10))


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
        ("loss", "l2"),
        ("harm", -1.0),
        ("held_out", 1),
        ("validation_steps", 0),
        ("checkpoint_steps", 0),
        ("seed", -1),
        ("threads", 0),
        ("workers", -1),
        ("device", "tpu"),
        ("beta2", 1.0),
    ],
)
def test_settings_out_of_range_are_named(
    settings: RawDenoiserSettings, name: str, value: float | str
) -> None:
    given = {**asdict(settings), name: value}
    with pytest.raises(SettingsError) as refusal:
        RawDenoiserSettings(**given)
    assert refusal.value.subject == name


def test_a_run_is_on_record(settings: RawDenoiserSettings) -> None:
    reported = learned(settings)
    recorded = read_recipe(settings.output / "settings.yaml")
    assert resolve_settings(RawDenoiserSettings, recorded, []) == settings
    pictures = json.loads((settings.output / "data.json").read_text("utf-8"))
    assert pictures["held_out"] == ["picture_1.png", "picture_3.png"]
    assert sorted(pictures["trained_on"]) == ["picture_0.png", "picture_2.png"]
    levels = {name for level in LEVELS for name in (level, f"{level} noisy")}
    before, *records = log(settings.output)
    assert before.keys() == {"step", "seconds", *levels}
    assert [record["step"] for record in records] == [6, 12]
    for record in records:
        assert record.keys() == {"step", "loss", "seconds", *levels}
    quality = reported[-1].quality
    assert quality is not None
    assert {name: round(value, 3) for name, value in quality.items()}.items() <= record.items()


def test_pictures_that_cannot_be_used_are_on_record(
    settings: RawDenoiserSettings, tmp_path: Path
) -> None:
    folder = write_photographs(tmp_path / "photographs", 4, 72)
    (folder / "broken.png").write_bytes(b"no picture")
    learned(replace(settings, photographs=folder, steps=1))
    data = json.loads((settings.output / "data.json").read_text("utf-8"))
    assert data["skipped"] == {"broken.png": "not a readable picture"}


def test_a_network_can_be_trained_further(settings: RawDenoiserSettings, tmp_path: Path) -> None:
    learned(settings)
    again = replace(settings, initial=settings.output, output=tmp_path / "again")
    first, *_ = learned(again)
    assert first.quality is not None
    # What a run ended with, the next begins with; the log rounds to 1e-3.
    end = log(settings.output)[-1]
    assert {name: round(value, 3) for name, value in first.quality.items()}.items() <= end.items()


@pytest.mark.parametrize("size", ["tiny", "small"])
def test_it_learns_to_take_off_noise(settings: RawDenoiserSettings, size: str) -> None:
    high_noise = replace(
        settings,
        size=size,
        steps=120,
        batch=4,
        learning_rate=4e-3,
        warmup_steps=10,
        validation_steps=120,
        average=0.9,
        shot_low=5e-3,
        bfloat16=False,
    )
    reported = learned(high_noise)
    losses = [progress.loss for progress in reported if progress.loss is not None]
    quality = reported[-1].quality
    assert quality is not None
    # Half of both is ample: this seed gives 0.51 and 0.15 of the loss, and 2.5 dB twice.
    assert np.mean(losses[-30:]) < 0.75 * np.mean(losses[:10])
    assert quality["high"] > quality["high noisy"] + 1.25


def test_clean_raw_may_come_from_a_network(settings: RawDenoiserSettings, tmp_path: Path) -> None:
    rgb2raw = Path(str(write_pipeline(tmp_path)["rgb2raw"]))
    stage = RawDenoiserStage(replace(settings, rgb2raw=rgb2raw, loss="l1"))
    samples = [stage.draw(np.random.default_rng(seed)) for seed in range(2)]
    batch = {
        name: torch.from_numpy(np.stack([sample[name] for sample in samples]))
        for name in samples[0]
    }
    loss = stage(batch)
    assert torch.equal(loss, stage(batch))
    loss.backward()
    learning = {name for name, each in stage.named_parameters() if each.grad is not None}
    assert learning == {f"networks.{name}" for name, _ in stage.networks.named_parameters()}
