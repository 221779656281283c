"""The loop: nothing stops a run for good, and nothing that goes wrong leaves a mess."""

from __future__ import annotations

import hashlib
import json
import os
import random
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import date, datetime, timezone
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from safetensors import safe_open
from torch import Tensor

from cycleisp.training import isp_stages
from cycleisp.training.loop import Progress, learning_rate_factor, train
from cycleisp.training.run_settings import RunSettings
from cycleisp_runtime.cli import main
from cycleisp_runtime.errors import CycleISPError, OutputError, SettingsError, TrainingError
from tests.training.pictures import write_photographs
from tests.training.short_runs import (
    LineStage,
    assert_same_run,
    learn,
    log,
    short_run,
    train_until_killed,
    write_pipeline,
)
from tests.training.tensors import disk_is_full

Report = Callable[[Progress], None]


@pytest.fixture(name="settings")
def settings_of_a_line(tmp_path: Path) -> RunSettings:
    return RunSettings(
        output=tmp_path / "run",
        steps=12,
        batch=4,
        learning_rate=0.1,
        warmup_steps=2,
        average=0.9,
        validation_steps=6,
        checkpoint_steps=4,
        workers=0,
        device="cpu",
        bfloat16=False,
    )


def line(
    settings: RunSettings, *, resume: bool = False, report: Report | None = None
) -> list[Progress]:
    """Learn a line, and give what was reported."""
    reported: list[Progress] = []
    train(LineStage(settings), settings, resume=resume, report=report or reported.append)
    return reported


class _PowerCut(BaseException):
    pass


def cut_after(step: int) -> Report:
    def report(progress: Progress) -> None:
        if progress.step == step:
            raise _PowerCut

    return report


def test_it_learns(settings: RunSettings) -> None:
    settings = replace(settings, steps=100)
    reported = line(settings)
    assert reported[-1].quality is not None
    # 3 * 1 + 1, seen through noise of 0.1 in 100 batches of 16 points.
    assert reported[-1].quality["at 1"] == pytest.approx(4, abs=0.1)


def test_every_step_is_reported_and_validation_is_logged(settings: RunSettings) -> None:
    reported = line(settings)
    assert [progress.step for progress in reported] == list(range(13))
    assert [progress.step for progress in reported if progress.quality] == [0, 6, 12]
    assert [record["step"] for record in log(settings.output)] == [0, 6, 12]
    assert log(settings.output)[0].keys() == {"step", "seconds", "at 1"}
    assert log(settings.output)[1].keys() == {"step", "seconds", "loss", "at 1"}


@pytest.mark.parametrize("step", range(13))
def test_a_run_that_is_cut_anywhere_ends_as_an_unbroken_one(
    settings: RunSettings, tmp_path: Path, step: int
) -> None:
    with pytest.raises(_PowerCut):
        line(settings, report=cut_after(step))
    resumed = line(settings, resume=True)
    assert [progress.step for progress in resumed if progress.step] == list(
        range(step // 4 * 4 + 1, 13)
    )
    unbroken = replace(settings, output=tmp_path / "unbroken")
    line(unbroken)
    assert_same_run(settings.output, unbroken.output)


def test_a_log_line_that_was_cut_short_is_no_part_of_the_log(
    settings: RunSettings, tmp_path: Path
) -> None:
    with pytest.raises(_PowerCut):
        line(settings, report=cut_after(6))
    with (settings.output / "log.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"step": 6, "los')
    line(settings, resume=True)
    unbroken = replace(settings, output=tmp_path / "unbroken")
    line(unbroken)
    assert_same_run(settings.output, unbroken.output)


@pytest.fixture(name="photographs", scope="module")
def some_photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photographs(tmp_path_factory.mktemp("data") / "photographs", 4, 72)


EVERY_STEP = {"validation_steps": 1}
"""So that a run that is watched can be killed at a step."""


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # workers share photographs by it
@pytest.mark.parametrize(("stage", "workers"), [("joint", 0), ("raw2rgb", 1)])
def test_a_killed_run_ends_as_an_unbroken_one(
    photographs: Path, tmp_path: Path, stage: str, workers: int
) -> None:
    networks = write_pipeline(tmp_path) if stage == "joint" else {}
    changes = {**EVERY_STEP, "workers": workers, **networks}
    settings = short_run(photographs, tmp_path / "run", **changes)
    train_until_killed(stage, settings, validations=8)
    assert learn(stage, settings, resume=True)[-1].step == 12
    learn(stage, {**settings, "output": str(tmp_path / "unbroken"), "workers": 0})
    assert_same_run(tmp_path / "run", tmp_path / "unbroken")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # as above
@pytest.mark.parametrize(("stage", "workers"), [("joint", 0), ("raw2rgb", 1)])
def test_a_run_killed_at_twenty_random_points_ends_as_an_unbroken_one(
    photographs: Path, tmp_path: Path, stage: str, workers: int
) -> None:
    networks = write_pipeline(tmp_path) if stage == "joint" else {}
    changes = {**EVERY_STEP, "steps": 200, "checkpoint_steps": 3, "workers": workers, **networks}
    settings = short_run(photographs, tmp_path / "run", **changes)
    chance = random.Random(0)  # noqa: S311  no secret
    for _ in range(20):
        # Within a step, a validation or the writing of a checkpoint.
        train_until_killed(stage, settings, chance.randint(1, 8), chance.uniform(0, 0.1))
    assert learn(stage, settings, resume=True)[-1].step == 200
    learn(stage, {**settings, "output": str(tmp_path / "unbroken"), "workers": 0})
    assert_same_run(tmp_path / "run", tmp_path / "unbroken")


def test_more_steps_go_on_where_a_run_ended(settings: RunSettings) -> None:
    before = line(settings)[-1].seconds
    after = line(replace(settings, steps=14), resume=True)
    assert [progress.step for progress in after] == [13, 14]
    assert after[0].seconds > before


def test_resuming_nothing_starts(settings: RunSettings) -> None:
    assert line(settings, resume=True)[0].step == 0


def test_resuming_what_is_done_changes_nothing(settings: RunSettings, tmp_path: Path) -> None:
    line(settings)
    kept = tmp_path / "kept"
    settings.output.rename(kept)
    line(settings)
    provenance = settings.output / "provenance.json"
    provenance.write_text("of the version that trained it", encoding="utf-8")
    assert line(settings, resume=True) == []
    assert_same_run(settings.output, kept)
    assert provenance.read_text("utf-8") == "of the version that trained it"


def test_a_run_is_not_overwritten(settings: RunSettings) -> None:
    line(settings)
    before = (settings.output / "checkpoint.safetensors").read_bytes()
    with pytest.raises(SettingsError, match="already holds a run; give --resume"):
        line(settings)
    assert (settings.output / "checkpoint.safetensors").read_bytes() == before


def test_a_run_does_not_go_back(settings: RunSettings) -> None:
    line(settings)
    with pytest.raises(SettingsError, match=r"past its last step \(met 12, wanted at most 8\)"):
        line(replace(settings, steps=8), resume=True)


def test_a_run_goes_on_with_its_own_size_only(settings: RunSettings) -> None:
    line(settings)
    larger = LineStage(settings, outputs=2)
    with pytest.raises(SettingsError, match=r"another network \(met .* networks of another size"):
        train(larger, settings, resume=True, report=lambda _: None)


class _Curve(LineStage):
    name = "curve"


def test_a_run_goes_on_with_its_own_stage_only(settings: RunSettings) -> None:
    line(settings)
    with pytest.raises(SettingsError, match=r"met stage line, wanted stage curve"):
        train(_Curve(settings), settings, resume=True, report=lambda _: None)


def test_a_damaged_checkpoint_is_refused(settings: RunSettings) -> None:
    line(settings)
    path = settings.output / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CycleISPError, match=r"checkpoint.safetensors: not a readable"):
        line(settings, resume=True)


def test_torch_is_left_as_random_as_before(settings: RunSettings) -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    line(settings)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_seed_decides_a_run(settings: RunSettings, tmp_path: Path) -> None:
    line(settings)
    other = replace(settings, output=tmp_path / "other", seed=1)
    line(other)
    assert log(settings.output)[-1]["loss"] != log(other.output)[-1]["loss"]


class _Unlucky(LineStage):
    """Its loss is no number for one sample in sixteen."""

    def draw(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        sample = super().draw(rng)
        if rng.random() < 1 / 16:
            sample["y"][0] = np.nan
        return sample


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_its_batch(settings: RunSettings) -> None:
    reported: list[Progress] = []
    stage = _Unlucky(settings)
    with pytest.raises(TrainingError, match=r"step \d+: the loss is no number \(met nan\)") as stop:
        train(stage, settings, resume=False, report=reported.append)
    step = reported[-1].step
    path = settings.output / "failed_batch.safetensors"
    assert str(path) in str(stop.value)
    with safe_open(path, framework="np") as file:
        assert file.metadata()["step"] == str(step)
        batch = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  no mapping
    for index in range(settings.batch):
        sample = stage.draw(np.random.default_rng([settings.seed, step, index]))
        for name, array in sample.items():
            np.testing.assert_array_equal(batch[name][index], array)
    assert np.isnan(batch["y"]).any()


def test_the_command_says_so_in_one_line(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = iter(range(12))

    def loss(predicted: Tensor, _true: Tensor, **_settings: float) -> Tensor:
        return predicted.mean() * (float("nan") if next(steps) == 5 else 1.0)

    monkeypatch.setattr(isp_stages, "rgb2raw_loss", loss)
    failed = command(photographs, tmp_path / "run")
    assert failed.exit_code == 1
    *_progress, last = failed.stderr.splitlines()
    assert last == (
        "cycleisp: error: step 5: the loss is no number (met nan); look at the batch in "
        f"{tmp_path / 'run' / 'failed_batch.safetensors'}; then resume with a lower learning_rate"
    )
    assert failed.stdout == ""


def command(photographs: Path, output: Path, *more: str) -> Result:
    given = [f"{name}={value}" for name, value in short_run(photographs, output).items()]
    return CliRunner().invoke(main, ["train", "rgb2raw", *given, *more])


@contextmanager
def files_no_longer_than(size: int) -> Iterator[None]:
    """The operating system refuses to write more, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("size", [0, 100, 2000, 20_000])
def test_a_disk_that_gets_full_leaves_nothing_half_written(
    photographs: Path, tmp_path: Path, size: int
) -> None:
    with files_no_longer_than(size):
        failed = command(photographs, tmp_path / "run")
    assert failed.exit_code == 1
    assert failed.stderr.splitlines()[-1].startswith(f"cycleisp: error: {tmp_path / 'run'}")
    assert "cannot be written" in failed.stderr
    assert "Traceback" not in failed.output
    for path in (tmp_path / "run").iterdir():
        assert path.suffix in {".yaml", ".json", ".jsonl"}
        assert path.read_text("utf-8").endswith("\n")
    assert command(photographs, tmp_path / "run", "--resume").exit_code == 0


def test_a_checkpoint_survives_a_disk_that_gets_full(
    settings: RunSettings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fill(progress: Progress) -> None:
        if progress.step == 6:
            monkeypatch.setattr(os, "fsync", disk_is_full)

    with pytest.raises(OutputError, match=r"checkpoint.safetensors: .*no space left"):
        line(settings, report=fill)
    monkeypatch.undo()
    assert line(settings, resume=True)[0].step == 5
    unbroken = replace(settings, output=tmp_path / "unbroken")
    line(unbroken)
    assert_same_run(settings.output, unbroken.output)


def test_an_output_that_is_no_folder_is_refused(settings: RunSettings) -> None:
    settings.output.write_text("a file", encoding="utf-8")
    for output in (settings.output, settings.output / "run"):
        with pytest.raises(OutputError, match="the run's folder cannot be written"):
            line(replace(settings, output=output))
    assert settings.output.read_text("utf-8") == "a file"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_refused(settings: RunSettings) -> None:
    settings.output.parent.chmod(0o500)
    with pytest.raises(OutputError, match="the run's folder cannot be written"):
        line(settings)


def test_the_settings_of_a_run_are_on_record(settings: RunSettings) -> None:
    line(settings)
    provenance = json.loads((settings.output / "provenance.json").read_text("utf-8"))
    data = (settings.output / "data.json").read_bytes()
    assert json.loads(data) == {"points": "random"}
    assert (provenance["stage"], provenance["seed"]) == ("line", settings.seed)
    assert provenance["data_sha256"] == hashlib.sha256(data).hexdigest()
    assert {"git", "torch", "cycleisp"} <= provenance.keys()
    assert date.fromisoformat(provenance["ended"]) <= datetime.now(timezone.utc).date()


def test_the_rate_rises_stays_and_falls(settings: RunSettings) -> None:
    settings = replace(settings, steps=1000, warmup_steps=100, decay=0.4)
    factors = np.array([learning_rate_factor(step, settings) for step in range(1000)])
    assert (np.diff(factors[:100]) > 0).all()
    assert factors[0] == pytest.approx(0.01)
    np.testing.assert_array_equal(factors[100:600], 1)
    assert (np.diff(factors[600:]) < 0).all()
    assert factors[-1] == pytest.approx(1 / 400)


def test_more_steps_change_nothing_before_the_fall(settings: RunSettings) -> None:
    shorter = replace(settings, steps=1000, decay=0.3)
    longer = replace(settings, steps=5000, decay=0.3)
    assert [learning_rate_factor(step, shorter) for step in range(700)] == [
        learning_rate_factor(step, longer) for step in range(700)
    ]


@pytest.mark.parametrize("warmup_steps", [0, 10])
@pytest.mark.parametrize("decay", [0.0, 1.0])
def test_the_rate_is_always_usable(settings: RunSettings, warmup_steps: int, decay: float) -> None:
    settings = replace(settings, steps=20, warmup_steps=warmup_steps, decay=decay)
    assert all(0 < learning_rate_factor(step, settings) <= 1 for step in range(20))
