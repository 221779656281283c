"""The noise estimated from one frame against the noise that is in it.

Simulated: photographs made linear, red halved and blue divided by 1.6 as under daylight, sampled
as RGGB, with known noise, stored in 16 bits. Enlarged twice they are as soft as full frames of a
camera are (1 MP); halved they have hardly a flat area left (0.06 MP). Given is estimate over truth
of the variance at a mid-tone and in shadows: the median, [10 %, 90 %] of the pictures, and the
worst factor either way. Photographs have grain and steps of 8 bits, which count as noise here: at
shot 2e-5, and at 1e-4 where they are not enlarged, that is most of what reads high.

Then what the estimate costs a denoiser, in dB lost against the true noise; and a real burst whose
noise is known.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from benchmarks.burst import TRUE_NOISE, load_burst
from benchmarks.quality import shipped
from benchmarks.report import options, required, save, table
from cycleisp.evaluation.metrics import psnr
from cycleisp.noise import LEVELS, noisy_samples
from cycleisp_runtime.bayer import Phase, pack
from cycleisp_runtime.frame import Area, RawFrame
from cycleisp_runtime.noise import NoiseModel, read_on_law
from cycleisp_runtime.noise_estimate import NoiseEstimate, estimate_noise

_Mosaic = npt.NDArray[np.float32]

SCALES = (2.0, 1.0, 0.5)
NOISE = {"very low": (2e-5, read_on_law(2e-5)), **LEVELS}
PICTURES = 25
MID_TONE, SHADOW = 0.18, 0.01
CLASSES = ("high", "good", "fair", "low", "poor")

BLACK, WHITE = 4096, 61440
CROP = 400
"""Side of what is denoised, in samples, from the middle of the frame."""
DENOISER = "tiny"


@dataclass(frozen=True)
class Measured:
    """One simulated frame.

    Attributes:
        mid_tone: estimate over truth of the variance at x = 0.18.
        shadow: the same at x = 0.01.
        lost_db: PSNR with the true noise less PSNR with the estimate.
        off_db: PSNR with the true noise less PSNR of the noisy samples.
    """

    picture: str
    scale: float
    level: str
    mid_tone: float
    shadow: float
    flat: float
    confidence: str
    pulled_down: float
    lost_db: float
    off_db: float


def clean_mosaic(picture: Image.Image, scale: float) -> _Mosaic:
    """Clean normalised samples (H, W) float32 of an RGGB sensor that looks at this picture."""
    if scale > 1:
        size = round(picture.width * scale), round(picture.height * scale)
        picture = picture.resize(size, Image.Resampling.BICUBIC)
    codes = np.asarray(picture.convert("RGB"), np.float32) / 255
    # IEC 61966-2-1
    linear = np.where(codes <= 0.04045, codes / 12.92, ((codes + 0.055) / 1.055) ** 2.4)
    side = round(1 / min(scale, 1))
    height, width = (2 * side * (extent // (2 * side)) for extent in linear.shape[:2])
    squares = linear[:height, :width].reshape(height // side, side, width // side, side, 3)
    camera = squares.mean(axis=(1, 3)) / np.array([2, 1, 1.6], np.float32)
    mosaic: _Mosaic = camera[..., 1].astype(np.float32)
    mosaic[0::2, 0::2] = camera[0::2, 0::2, 0]
    mosaic[1::2, 1::2] = camera[1::2, 1::2, 2]
    return mosaic


def simulated_frame(samples: _Mosaic) -> RawFrame:
    """Normalised samples (H, W) as a 16-bit RGGB frame."""
    codes = np.clip(np.rint(samples * (WHITE - BLACK) + BLACK), 0, 65535).astype(np.uint16)
    return RawFrame(codes, Phase.RGGB, (BLACK,) * 4, WHITE, Area(0, 0, *codes.shape))


def over_truth(estimate: NoiseEstimate, true: NoiseModel, signal: float) -> float:
    """Estimate over truth of the variance at this signal."""
    found = estimate.shot * signal + estimate.read
    return found / (true.mean_shot * signal + true.mean_read)


def measure(paths: list[Path]) -> Iterator[Measured]:
    """Every picture at every scale and noise level; every picture has its own seed."""
    denoise = shipped(DENOISER, 1).denoise
    for seed, path in enumerate(paths):
        with Image.open(path) as picture:
            mosaics = {scale: clean_mosaic(picture, scale) for scale in SCALES}
        for scale, clean in mosaics.items():
            for level, (shot, read) in NOISE.items():
                rng = np.random.default_rng(seed)
                # Poisson where there are few electrons; elsewhere it only takes longer.
                noisy = noisy_samples(clean, shot, read, rng, poisson=shot > 1e-3)
                estimate = estimate_noise(simulated_frame(noisy))
                true = NoiseModel.uniform(shot, read)
                truth, planes = _middle(clean), _middle(noisy)
                best = _quality(denoise(planes, shot, read).planes, truth)
                yield Measured(
                    path.stem,
                    scale,
                    level,
                    over_truth(estimate, true, MID_TONE),
                    over_truth(estimate, true, SHADOW),
                    estimate.flat,
                    estimate.confidence,
                    estimate.pulled_down,
                    best - _quality(denoise(planes, estimate.shot, estimate.read).planes, truth),
                    best - _quality(planes, truth),
                )


def _quality(planes: _Mosaic, truth: _Mosaic) -> float:
    return psnr(np.clip(planes, 0, 1), truth)


def _middle(mosaic: _Mosaic) -> _Mosaic:
    """Packed planes (4, h, w) of the middle of the frame."""
    rows, columns = (slice(*_central(extent)) for extent in mosaic.shape)
    return pack(mosaic[rows, columns], Phase.RGGB)


def _central(extent: int) -> tuple[int, int]:
    start = max(extent - CROP, 0) // 4 * 2
    return start, start + min(CROP, extent) // 8 * 8


def spread(ratios: Iterable[float]) -> str:
    """Median, [10 %, 90 %] and the worst factor either way."""
    values = np.fromiter(ratios, float)
    low, high = np.quantile(values, [0.1, 0.9])
    worst = math.exp(np.abs(np.log(values)).max())
    return f"{np.median(values):.2f} [{low:.2f}, {high:.2f}] w{worst:.1f}"


def ratio_table(measured: list[Measured], by: tuple[str, ...]) -> str:
    """Estimate over truth, grouped by these attributes."""
    rows = [
        [
            *(_text(value) for value in key),
            str(len(group)),
            spread(each.mid_tone for each in group),
            spread(each.shadow for each in group),
            f"{statistics.median(each.flat for each in group):.3f}",
            str(sum(each.pulled_down < 1 for each in group)),
        ]
        for key, group in _grouped(measured, lambda each: tuple(getattr(each, k) for k in by))
    ]
    header = [*by[:1], *(f" {name}" for name in by[1:])]
    return table([*header, "frames", " mid-tone", " shadow", "flat", "pulled down"], rows)


def loss_table(measured: list[Measured]) -> str:
    """What the estimate costs, beside what it costs not to denoise: mean and worst picture, dB."""
    rows = [
        [
            *(_text(value) for value in key),
            f"{statistics.mean(each.lost_db for each in group):.2f}",
            f"{max(each.lost_db for each in group):.2f}",
            f"{statistics.mean(each.off_db for each in group):.2f}",
        ]
        for key, group in _grouped(measured, lambda each: (each.scale, each.level))
    ]
    return table(["scale", " level", "lost", "worst", "not denoised"], rows)


_Key = TypeVar("_Key", bound=Hashable)


def _grouped(
    measured: list[Measured], key: Callable[[Measured], _Key]
) -> list[tuple[_Key, list[Measured]]]:
    groups: dict[_Key, list[Measured]] = defaultdict(list)
    for each in measured:
        groups[key(each)].append(each)
    return list(groups.items())


def _text(value: object) -> str:
    return f"x{value:g}" if isinstance(value, float) else str(value)


def burst_ratios(path: Path) -> dict[str, list[float]]:
    """Estimate over truth of every frame of the burst, per signal in DN above black."""
    frames = load_burst(path).frames
    range_dn = frames[0].white - frames[0].black[0]
    estimates = [estimate_noise(frame) for frame in frames]
    return {
        f"{dn} DN": [over_truth(estimate, TRUE_NOISE, dn / range_dn) for estimate in estimates]
        for dn in (5, 20, 50, 300)
    }


def main() -> None:
    """Print the tables."""
    arguments = options(__doc__).parse_args()
    paths = sorted(required(arguments.data / "photos_test").glob("*.webp"))
    paths = paths[:: max(len(paths) // PICTURES, 1)]
    measured = list(measure(paths))
    burst = burst_ratios(required(arguments.data / "pairs" / "rawburst_imx296_a.npz"))

    shots = ", ".join(f"{name} {shot:g}" for name, (shot, _) in NOISE.items())
    print(f"{len(paths)} pictures; shot: {shots}; read on the law of Brooks et al.\n")
    print(ratio_table(measured, ("scale", "level")))
    trusted = [each for each in measured if NOISE[each.level][0] >= 1e-4]
    trusted.sort(key=lambda each: CLASSES.index(each.confidence))
    print("\nby confidence, shot 1e-4 and above\n")
    print(ratio_table(trusted, ("confidence",)))
    print(f"\ndB lost by {DENOISER} with the estimate instead of the true noise\n")
    print(loss_table(measured))
    print("\nestimate over truth of a real burst, 12 frames\n")
    print(table(["signal", " ratio"], [[dn, spread(ratios)] for dn, ratios in burst.items()]))
    save(arguments.json, {"simulated": [asdict(each) for each in measured], "burst": burst})


if __name__ == "__main__":
    main()
