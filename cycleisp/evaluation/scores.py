"""Scores of single pictures, and their means."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import astuple, dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from cycleisp.evaluation.denoisers import MosaicDenoiser, SrgbDenoiser
from cycleisp.evaluation.metrics import psnr, ssim
from cycleisp.training.distributed import joined_ranks
from cycleisp_runtime.bayer import Phase
from cycleisp_runtime.errors import InputError
from cycleisp_runtime.noise import NoiseModel

__all__ = [
    "Judgement",
    "MeanScore",
    "Report",
    "Score",
    "judged_mosaic",
    "judged_srgb",
    "mean_scores",
]

_MOST_WAITING = 8
"""Denoised pictures in memory that are not measured yet."""


@dataclass(frozen=True)
class Score:
    """One picture before and after, and what the denoiser took.

    Attributes:
        noisy_psnr: of the input against the truth, in dB.
        noisy_ssim: the same in SSIM.
        psnr: of the output, in dB.
        ssim: the same in SSIM.
        seconds_per_mp: wall time per 1e6 samples of a mosaic or pixels of a picture.
    """

    noisy_psnr: float
    noisy_ssim: float
    psnr: float
    ssim: float
    seconds_per_mp: float


@dataclass(frozen=True)
class MeanScore:
    """The mean over the pictures of a group; every picture counts alike.

    Attributes:
        group: its name; "all" for all pictures.
        pictures: how many.
        mean: of each number.
    """

    group: str
    pictures: int
    mean: Score


@dataclass(frozen=True)
class Report:
    """What an evaluation says.

    Attributes:
        means: one per group, and one over all where there are several.
        failed: pictures that could not be read and are in no mean.
    """

    means: tuple[MeanScore, ...]
    failed: int


Judgement = Callable[[], Score]
"""The score of a picture that has been denoised; may be called in another thread."""


def judged_mosaic(
    denoise: MosaicDenoiser,
    noisy: npt.NDArray[np.float32],
    clean: npt.NDArray[np.float32],
    phase: Phase,
    noise: NoiseModel,
) -> Judgement:
    """RAW: (H, W) mosaics in [0, 1], output clipped and not rounded, peak 1, SSIM of the mosaic."""
    start = time.perf_counter()
    denoised = denoise(noisy, phase, noise)
    seconds = time.perf_counter() - start
    return lambda: _score(noisy, denoised, clean, 1, seconds * 1e6 / noisy.size)


def judged_srgb(
    denoise: SrgbDenoiser, noisy: npt.NDArray[np.uint8], clean: npt.NDArray[np.uint8]
) -> Judgement:
    """sRGB: (H, W, 3) codes, output clipped and rounded to 8 bits, peak 255."""
    start = time.perf_counter()
    denoised = denoise(noisy.astype(np.float32) / np.float32(255))
    seconds = time.perf_counter() - start
    codes = np.rint(denoised * np.float32(255)).astype(np.uint8)
    return lambda: _score(noisy, codes, clean, 255, seconds * 3e6 / noisy.size)


def _score(
    noisy: npt.NDArray[Any],
    denoised: npt.NDArray[Any],
    clean: npt.NDArray[Any],
    peak: float,
    seconds_per_mp: float,
) -> Score:
    return Score(
        psnr(noisy, clean, peak),
        ssim(noisy, clean, peak),
        psnr(denoised, clean, peak),
        ssim(denoised, clean, peak),
        seconds_per_mp,
    )


def mean_scores(
    groups: Sequence[str],
    judge: Callable[[int], Judgement],
    *,
    begin: Callable[[int], None] = lambda _index: None,
    failed: Callable[[InputError], None] | None = None,
) -> Report:
    """Means by group over every picture, shared with the other ranks where torchrun started some.

    Args:
        groups: of each picture.
        judge: denoises the picture of this index. Other threads then measure it, for SSIM takes as
            long as a small network.
        begin: called before each.
        failed: called with what cannot be read, and the others are judged all the same; None to
            stop at the first.

    Raises:
        InputError: where none could be judged, or what the first to fail raised.
        TrainingError: where another rank dies.
    """
    table = torch.zeros(len(groups), len(fields(Score)), dtype=torch.float64)
    with joined_ranks(torch.device("cpu")) as ranks:
        with ThreadPoolExecutor() as pool:
            waiting: deque[tuple[int, Future[Score]]] = deque()
            for index in ranks.share(len(groups)):
                begin(index)
                try:
                    waiting.append((index, pool.submit(judge(index))))
                except InputError as error:
                    if failed is None:
                        raise
                    table[index] = torch.nan
                    failed(error)
                if len(waiting) > _MOST_WAITING:
                    _enter(table, waiting.popleft())
            for picture in waiting:
                _enter(table, picture)
        if ranks.count > 1:
            torch.distributed.all_reduce(table)
    return _report(groups, table.numpy())


def _enter(table: torch.Tensor, picture: tuple[int, Future[Score]]) -> None:
    index, score = picture
    table[index] = torch.tensor(astuple(score.result()), dtype=torch.float64)


def _report(groups: Sequence[str], scores: npt.NDArray[np.float64]) -> Report:
    judged = ~np.isnan(scores).any(axis=1)
    if not judged.any():
        raise InputError("no picture could be judged", met=f"{len(groups)} that cannot be read")
    names = np.array(groups, dtype=np.str_)
    parts = [(name, judged & (names == name)) for name in sorted(set(names[judged].tolist()))]
    if len(parts) > 1:
        parts.append(("all", judged))
    means = tuple(
        MeanScore(name, int(part.sum()), Score(*map(float, scores[part].mean(axis=0))))
        for name, part in parts
    )
    return Report(means, failed=len(groups) - int(judged.sum()))
