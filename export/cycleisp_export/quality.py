"""The PSNR that a bundle states: from the benchmark, or else from the run's own last validation."""

from __future__ import annotations

import math
import statistics
from pathlib import Path

import msgspec

from cycleisp.noise import LEVELS
from cycleisp_runtime.bundle import Quality
from cycleisp_runtime.errors import InputError

__all__ = ["benchmark_quality", "last_validation", "validation_quality"]

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


def last_validation(log: Path) -> dict[str, float]:
    """The last record of a run's ``log.jsonl``: step, seconds, and dB per level.

    Raises:
        InputError: where there is none.
    """
    wanted = {"step", "seconds", *LEVELS, *(f"{level} noisy" for level in LEVELS)}
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
    """What a record of the log says, per level."""
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
