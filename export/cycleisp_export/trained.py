"""What there is to export: a denoiser's weights, and what is known of how they came about."""

from __future__ import annotations

import datetime as dt
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec
from torch import nn

from cycleisp.models.storage import load_network, read_network
from cycleisp.noise import CYCLEISP_DND
from cycleisp.training.raw_denoiser import RawDenoiserSettings
from cycleisp.training.run_settings import RunSettings
from cycleisp.training.settings import read_recipe, resolve_settings
from cycleisp.training.srgb_denoiser import SrgbDenoiserSettings
from cycleisp_export.quality import last_validation, validation_quality
from cycleisp_runtime.bundle import NoiseRange, Quality
from cycleisp_runtime.errors import InputError

__all__ = ["Run", "Trained", "load_trained"]

_SETTINGS: dict[str, type[RawDenoiserSettings | SrgbDenoiserSettings]] = {
    "raw_denoiser": RawDenoiserSettings,
    "srgb_denoiser": SrgbDenoiserSettings,
}
"""Of the stage that trains a denoiser, by its name."""

_MOST_FACTS_BYTES = 1 << 16

_Facts = TypeVar("_Facts", bound=msgspec.Struct)


@dataclass(frozen=True)
class Run:
    """The training run that made the weights.

    Attributes:
        settings: of it.
        steps: optimiser steps.
        hours: of wall time.
        quality: of its last validation.
    """

    settings: RunSettings
    steps: int
    hours: float
    quality: tuple[Quality, ...]


@dataclass(frozen=True)
class Trained:
    """A denoiser and its origin.

    Attributes:
        network: float32 weights on the CPU, ready to be applied.
        weights_sha256: of the file of weights.
        date: the day their run ended, YYYY-MM-DD; where none is on record, the file's.
        noise_range: that training covered; None for sRGB. Weights that come without a run are taken
            to be trained as in the paper.
        run: None for a file of weights alone.
        terms: licence of weights that were imported, as the import wrote it; None for others.
    """

    network: nn.Module
    weights_sha256: str
    date: str
    noise_range: NoiseRange | None
    run: Run | None
    terms: str | None


class _Imported(msgspec.Struct):
    """What is needed of NAME.json, which ``cycleisp weights import`` writes beside the weights."""

    terms: str


class _Provenance(msgspec.Struct):
    """What is needed of ``provenance.json``, which ``cycleisp train`` writes into its folder."""

    ended: dt.date | None = None


def load_trained(source: Path) -> Trained:
    """The denoiser of a run's folder, or of a file of weights.

    Args:
        source: folder that ``cycleisp train`` wrote, with one denoiser in it, or a file
            NAME.safetensors of a run or of ``cycleisp weights import``.

    Raises:
        InputError: where a file is missing or damaged, holds another network, or the folder holds
            no denoiser or two.
        SettingsError: where the run's settings are not those of a denoiser.
    """
    weights = _weights_of_run(source) if source.is_dir() else source
    name, _, _ = read_network(weights)
    if name not in _SETTINGS:
        raise InputError(
            "only denoisers are exported", subject=weights, met=name, wanted=" or ".join(_SETTINGS)
        )
    run = _run(source, name) if source.is_dir() else None
    noise_range = None
    if name == "raw_denoiser":
        low, high = CYCLEISP_DND.low, CYCLEISP_DND.high
        if run is not None and isinstance(run.settings, RawDenoiserSettings):
            low, high = run.settings.shot_low, run.settings.shot_high
        noise_range = NoiseRange(shot_min=low, shot_max=high)
    imported = None if source.is_dir() else _beside(weights.with_suffix(".json"), _Imported)
    return Trained(
        network=load_network(weights, name),
        weights_sha256=hashlib.sha256(weights.read_bytes()).hexdigest(),
        date=_date(weights).isoformat(),
        noise_range=noise_range,
        run=run,
        terms=None if imported is None else imported.terms,
    )


def _weights_of_run(folder: Path) -> Path:
    files = [folder / f"{name}.safetensors" for name in _SETTINGS]
    present = [file for file in files if file.exists()]
    if len(present) != 1:
        raise InputError(
            "not a finished run of one denoiser",
            subject=folder,
            met=" and ".join(file.name for file in present) or "no denoiser",
            wanted=" or ".join(file.name for file in files),
            hint="let it run to its end, or give the file of weights",
        )
    return present[0]


def _run(folder: Path, name: str) -> Run:
    settings = resolve_settings(_SETTINGS[name], read_recipe(folder / "settings.yaml"), ())
    validation = last_validation(folder / "log.jsonl", "raw" if name == "raw_denoiser" else "srgb")
    return Run(
        settings=settings,
        steps=int(validation["step"]),
        hours=round(validation["seconds"] / 3600, 2),
        quality=validation_quality(validation),
    )


def _date(weights: Path) -> dt.date:
    provenance = _beside(weights.with_name("provenance.json"), _Provenance)
    if provenance is not None and provenance.ended is not None:
        return provenance.ended
    written = weights.stat().st_mtime
    return dt.datetime.fromtimestamp(written, dt.timezone.utc).date()


def _beside(path: Path, kind: type[_Facts]) -> _Facts | None:
    """The facts in a file beside weights; None where there is no such file."""
    try:
        with path.open("rb") as file:
            return msgspec.json.decode(file.read(_MOST_FACTS_BYTES), type=kind)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise InputError(
            "not what cycleisp writes beside weights",
            subject=path,
            hint="import the weights again, or take the file away",
        ) from error
