"""The PSNR that a bundle states: of the benchmark, of the run's last validation, or measured."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from cycleisp.evaluation.metrics import psnr
from cycleisp.noise import LEVELS
from cycleisp_export.exportable import Exportable
from cycleisp_export.graph import NOISY
from cycleisp_export.loss import noisy_frame
from cycleisp_export.watch import Watch, nobody
from cycleisp_runtime.bundle import Quality
from cycleisp_runtime.errors import InputError

__all__ = ["benchmark_quality", "last_validation", "measured_quality", "validation_quality"]

SYNTHESISED = "synthesised pairs"
"""What an sRGB denoiser's validation is made of, in place of a level of noise."""

_BASELINES = {"NLM": "vst-nlm"}
"""Methods of the benchmark that a bundle names beside its own figures, and how it names them."""


class _NoiseLevel(msgspec.Struct):
    shot: float
    read: float


class _Benchmark(msgspec.Struct):
    """What a bundle needs of ``benchmarks/quality.py --json``.

    Attributes:
        weights: SHA-256 of every model's weights, by the model's name.
        noise: shot and read of every level, in normalised units.
        psnr_db: dB by level, method and picture; "noisy" is a method, too.
    """

    weights: dict[str, str]
    noise: dict[str, _NoiseLevel]
    psnr_db: dict[str, dict[str, dict[str, float]]]


def benchmark_quality(path: Path, name: str, weights_sha256: str) -> tuple[Quality, ...]:
    """Mean PSNR of this model's network alone per level, beside that of the classical baseline.

    Raises:
        InputError: where the file is not one of the benchmark's, or is of other weights or levels.
    """
    try:
        benchmark = msgspec.json.decode(path.read_bytes(), type=_Benchmark)
    except OSError as error:
        raise InputError("cannot be read", subject=path, met=error.strerror) from error
    except msgspec.DecodeError as error:
        raise InputError(
            f"not the figures that benchmarks/quality.py --json writes: {error}", subject=path
        ) from error
    if benchmark.weights.get(name) != weights_sha256:
        raise InputError(
            f"the figures are not of these weights of {name}",
            subject=path,
            met=benchmark.weights.get(name, "no such model")[:13],
            wanted=weights_sha256[:13],
            hint="export without --quality, run benchmarks/quality.py, export again",
        )
    return tuple(
        _level_quality(benchmark, path, name, level, shot, read)
        for level, (shot, read) in LEVELS.items()
    )


def _level_quality(
    benchmark: _Benchmark, path: Path, name: str, level: str, shot: float, read: float
) -> Quality:
    try:
        noise, by_method = benchmark.noise[level], benchmark.psnr_db[level]
        noisy, denoised, *baselines = (
            statistics.fmean(by_method[method].values())
            for method in ("noisy", f"{name}, network alone", *_BASELINES)
        )
    except (KeyError, statistics.StatisticsError) as error:
        raise InputError("figures are missing", subject=path, met=f"{level} noise") from error
    if not (math.isclose(noise.shot, shot) and math.isclose(noise.read, read)):
        raise InputError(
            "the figures are of other noise",
            subject=path,
            met=f"{level}: shot {noise.shot:g}, read {noise.read:g}",
            wanted=f"shot {shot:g}, read {read:g}",
        )
    return Quality(
        level=level,
        shot=shot,
        noisy_db=round(noisy, 3),
        denoised_db=round(denoised, 3),
        baselines_db={
            named: round(value, 3)
            for named, value in zip(_BASELINES.values(), baselines, strict=True)
        },
    )


def measured_quality(
    model: Exportable, clean: Sequence[npt.NDArray[np.float32]], watch: Watch = nobody
) -> tuple[Quality, ...]:
    """Mean PSNR of the network in torch per level, output clipped to [0, 1].

    Args:
        model: the network.
        clean: tiles that ``loss.judging_tiles`` gives for it.
        watch: called after every tile.
    """
    return tuple(_measured_level(model, clean, level, watch) for level in LEVELS)


def _measured_level(
    model: Exportable, clean: Sequence[npt.NDArray[np.float32]], level: str, watch: Watch
) -> Quality:
    before, after = [], []
    for index, tile in enumerate(clean):
        frame = noisy_frame(model, tile, level, np.random.default_rng(index))
        before.append(psnr(np.clip(frame[NOISY][0], 0, 1), tile))
        after.append(psnr(np.clip(model.denoise(frame)[0], 0, 1), tile))
        watch(f"quality at {level} noise", len(after), len(clean))
    return Quality(
        level=level,
        shot=LEVELS[level][0] if model.task == "raw" else None,
        noisy_db=round(statistics.fmean(before), 3),
        denoised_db=round(statistics.fmean(after), 3),
    )


def last_validation(log: Path, task: Literal["raw", "srgb"]) -> dict[str, float]:
    """The last record of a run's ``log.jsonl``: step, seconds, and dB, for RAW by level.

    Raises:
        InputError: where there is none.
    """
    levels = {*LEVELS, *(f"{level} noisy" for level in LEVELS)}
    wanted = {"step", "seconds", *(levels if task == "raw" else ("noisy", "denoised"))}
    try:
        last = log.read_text("utf-8").splitlines()[-1]
        record = msgspec.json.decode(last, type=dict[str, float])
        missing = wanted - record.keys()
    except (OSError, IndexError, ValueError, msgspec.DecodeError) as error:
        raise _no_validation(log) from error
    if missing:
        raise _no_validation(log)
    return record


def validation_quality(validation: dict[str, float]) -> tuple[Quality, ...]:
    """What a record of the log says, for RAW per level."""
    if "denoised" in validation:
        noisy, denoised = validation["noisy"], validation["denoised"]
        return (Quality(level=SYNTHESISED, shot=None, noisy_db=noisy, denoised_db=denoised),)
    return tuple(
        Quality(
            level=level,
            shot=shot,
            noisy_db=validation[f"{level} noisy"],
            denoised_db=validation[level],
        )
        for level, (shot, _) in LEVELS.items()
    )


def _no_validation(log: Path) -> InputError:
    return InputError(
        "the run has no validation on record", subject=log, hint="let it run to its end"
    )
