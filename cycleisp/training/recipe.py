"""From settings to stages: one stage, or all of a recipe in order."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cycleisp.training.distributed import joined_ranks, local_device
from cycleisp.training.isp_stages import (
    JointSettings,
    JointStage,
    Raw2RgbSettings,
    Raw2RgbStage,
    Rgb2RawSettings,
    Rgb2RawStage,
)
from cycleisp.training.loop import Progress, train
from cycleisp.training.pair_settings import load_pairs
from cycleisp.training.raw_denoiser import RawDenoiserSettings, RawDenoiserStage
from cycleisp.training.run_settings import RunSettings
from cycleisp.training.settings import read_recipe, resolve_settings, unknown_setting
from cycleisp.training.sidd_stage import SiddSettings, SiddStage
from cycleisp.training.srgb_denoiser import SrgbDenoiserSettings, SrgbDenoiserStage
from cycleisp.training.stage import Stage
from cycleisp_runtime.errors import SettingsError

__all__ = ["STAGES", "describe_settings", "resolve_stages", "train_stage", "train_stages"]

Report = Callable[[Progress], None]


@dataclasses.dataclass(frozen=True)
class StageKind:
    """How a stage comes about.

    Attributes:
        settings: its dataclass.
        build: from settings to stage.
        trains: names of the networks that it leaves.
        uses: settings that are files of networks of earlier stages, by the network's name.
    """

    settings: type[RunSettings]
    build: Callable[[Any], Stage]
    trains: tuple[str, ...]
    uses: tuple[str, ...] = ()

    @property
    def keys(self) -> set[str]:
        """Names of its settings."""
        return {field.name for field in dataclasses.fields(self.settings)}


_PIPELINE = ("rgb2raw", "color_branch", "raw2rgb")

STAGES = {
    "rgb2raw": StageKind(Rgb2RawSettings, lambda s: Rgb2RawStage(s, load_pairs(s)), ("rgb2raw",)),
    "raw2rgb": StageKind(
        Raw2RgbSettings, lambda s: Raw2RgbStage(s, load_pairs(s)), ("color_branch", "raw2rgb")
    ),
    "joint": StageKind(JointSettings, lambda s: JointStage(s, load_pairs(s)), _PIPELINE, _PIPELINE),
    "finetune-sidd": StageKind(SiddSettings, SiddStage, _PIPELINE, _PIPELINE),
    "raw-denoiser": StageKind(RawDenoiserSettings, RawDenoiserStage, ("raw_denoiser",)),
    "srgb-denoiser": StageKind(
        SrgbDenoiserSettings, SrgbDenoiserStage, ("srgb_denoiser",), _PIPELINE
    ),
}
"""Every stage, by the name that commands and recipes give it, in the order they run."""


def train_stage(
    name: str,
    recipe: Mapping[str, Any],
    overrides: Sequence[str],
    *,
    resume: bool,
    report: Report,
) -> list[Path]:
    """The files of the networks that one stage trained.

    Args:
        name: one of ``STAGES``.
        recipe: settings by name.
        overrides: KEY=VALUE each, which win over the recipe.
        resume: go on from the run's checkpoint.
        report: called after every step.

    Raises:
        SettingsError: for settings that are unknown, missing, wrong or contradict the run.
        InputError: where data or networks cannot be read.
        OutputError: where the run's folder cannot be written.
        TrainingError: where training cannot go on.
    """
    kind = STAGES[name]
    settings = resolve_settings(kind.settings, recipe, overrides)
    return train(kind.build(settings), settings, resume=resume, report=report)


def train_stages(
    recipe: Path,
    overrides: Sequence[str],
    *,
    resume: bool,
    report: Callable[[str], Report],
) -> Iterator[Path]:
    """The files of the networks that a recipe's stages trained, stage after stage.

    Args:
        recipe: YAML file.
        overrides: as for ``resolve_stages``.
        resume: pass over stages that are done, and go on where one was stopped.
        report: makes the function that is called after every step of the named stage.

    Raises:
        SettingsError, InputError, OutputError, TrainingError: as ``train_stage``.
    """
    stages = resolve_stages(recipe, overrides)
    with joined_ranks(local_device(stages[0][1].device)):
        for name, settings in stages:
            stage = STAGES[name].build(settings)
            yield from train(stage, settings, resume=resume, report=report(name))


def resolve_stages(recipe: Path, overrides: Sequence[str]) -> list[tuple[str, RunSettings]]:
    """The stages of a recipe and their settings, in order: all are right before one is run.

    A recipe holds ``stages``, a mapping from stage to its own settings, and beside it settings that
    hold for every stage that knows them. Each stage's folder is that of ``output`` with the stage's
    name. Networks that a stage starts from are the latest that earlier stages trained.

    Args:
        recipe: YAML file.
        overrides: KEY=VALUE for every stage that knows the key, STAGE.KEY=VALUE for one; they win
            over the recipe, and the latter over the former.

    Raises:
        SettingsError: for a stage or setting that is unknown, missing or wrong.
    """
    common = read_recipe(recipe)
    stages = _stages_of(recipe, common.pop("stages", None))
    everywhere, own = _split_overrides(overrides, stages)
    _refuse_strangers([*common, *everywhere], stages)
    output = everywhere.pop("output", common.pop("output", None))
    if output is None:
        raise SettingsError("settings without a value", met="output", hint="give output=FOLDER")
    resolved: list[tuple[str, RunSettings]] = []
    networks: dict[str, str] = {}
    for name, given in stages.items():
        kind = STAGES[name]
        values = {key: value for key, value in common.items() if key in kind.keys}
        values["output"] = str(Path(output, name))
        values.update({use: networks[use] for use in kind.uses if use in networks})
        values.update(given)
        shared = [f"{key}={text}" for key, text in everywhere.items() if key in kind.keys]
        settings = resolve_settings(kind.settings, values, [*shared, *own[name]])
        resolved.append((name, settings))
        networks.update(
            {each: str(settings.output / f"{each}.safetensors") for each in kind.trains}
        )
    return resolved


def _stages_of(recipe: Path, stages: object) -> dict[str, dict[str, Any]]:
    """The recipe's stages and their settings."""
    if not isinstance(stages, dict) or not stages:
        raise SettingsError(
            "the recipe names no stages", subject=recipe, wanted=f"stages: {', '.join(STAGES)}"
        )
    for name, given in stages.items():
        if name not in STAGES:
            raise SettingsError(
                "no such stage", subject=recipe, met=name, wanted=f"one of: {', '.join(STAGES)}"
            )
        if not isinstance(given, dict | None):
            raise SettingsError("the settings of a stage are a mapping", subject=name, met=given)
    return {name: dict(given or {}) for name, given in stages.items()}


def _split_overrides(
    overrides: Sequence[str], stages: Mapping[str, object]
) -> tuple[dict[str, str], dict[str, list[str]]]:
    """What holds for every stage, and what for one."""
    everywhere: dict[str, str] = {}
    own: dict[str, list[str]] = {name: [] for name in stages}
    for override in overrides:
        key, equals, text = override.partition("=")
        stage, dot, rest = key.partition(".")
        if not equals:
            raise SettingsError("an override is KEY=VALUE", met=override)
        if not dot:
            everywhere[key] = text
        elif stage in own:
            own[stage].append(f"{rest}={text}")
        else:
            raise SettingsError(
                "the recipe has no such stage", met=stage, wanted=f"one of: {', '.join(stages)}"
            )
    return everywhere, own


def _refuse_strangers(keys: Iterable[str], stages: Mapping[str, object]) -> None:
    """Nothing, where every common setting is known to one of the stages at least."""
    known = set[str]().union(*(STAGES[name].keys for name in stages))
    for key in keys:
        if key not in known:
            raise unknown_setting(key, known)


def describe_settings(name: str) -> str:
    """A stage's settings and their defaults, a line each, as a recipe would give them."""
    lines = []
    for field in dataclasses.fields(STAGES[name].settings):
        default = "needed" if field.default is dataclasses.MISSING else field.default
        lines.append(f"{field.name}: {default}")
    return "\n".join(lines)
