"""Real noise, real truth: the shipped models on a burst of a static scene.

Twelve frames of a 10-bit sensor and the mean of 52 others, which is the truth to a seventh of one
frame's noise. Every frame is denoised with the sensor's own noise, measured by photon transfer over
the whole burst, and with the noise that is estimated from that frame alone. PSNR in dB, peak 963 DN
(white minus black); errors in DN.
"""

from __future__ import annotations

import statistics
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.report import options, required, save, table
from cycleisp.evaluation.metrics import psnr
from cycleisp_runtime.bayer import Phase
from cycleisp_runtime.denoiser import Denoiser
from cycleisp_runtime.frame import Area, RawFrame
from cycleisp_runtime.noise import NoiseModel
from cycleisp_runtime.noise_estimate import estimate_noise

MODELS = ("tiny", "edge")

TRUE_NOISE = NoiseModel.uniform(9.3e-5, 2.7e-7)
"""Photon transfer over the 64 frames of the burst: variance 0.090 x + 0.25 DN^2, x in DN above
black; divided by 963 and 963^2."""

LARGEST_DIFFERENCE_DB = 0.3
"""That the estimated noise may make."""


@dataclass(frozen=True)
class Burst:
    """Frames of one scene (H, W) and their truth (H, W) in DN."""

    frames: list[RawFrame]
    truth: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Result:
    """One way to denoise the burst.

    Attributes:
        model: name of the bundle; "none" for the noisy frames.
        noise: where shot and read came from.
        levels: of the output, "16 bits" or "kept".
        psnr_db: of every frame.
        mean_error_dn: over all samples of all frames.
        worst_plane_dn: mean error of the colour plane where it is largest.
        expected_db: mean gain that the denoiser expected without the truth; None for noisy frames.
    """

    model: str
    noise: str
    levels: str
    psnr_db: list[float]
    mean_error_dn: float
    worst_plane_dn: float
    expected_db: float | None


def load_burst(path: Path) -> Burst:
    """The burst in a NumPy archive: noisy (N, H, W) uint16, clean_x64 (H, W), levels and phase."""
    with np.load(path, allow_pickle=False) as stored:
        phase = Phase(str(stored["cfa"]))
        black, white = float(stored["black"]), float(stored["white"])
        truth = stored["clean_x64"] / 64
        frames = [
            RawFrame(
                samples=samples,
                cfa=phase,
                black=(black,) * 4,
                white=white,
                area=Area(0, 0, *samples.shape),
            )
            for samples in stored["noisy"]
        ]
    return Burst(frames, truth)


def measure(
    burst: Burst, denoiser: Denoiser, noise: list[NoiseModel], name: str, *, keep_levels: bool
) -> Result:
    """What one model does to every frame, each with its own noise."""
    outputs, expected = [], []
    for frame, model in zip(burst.frames, noise, strict=True):
        denoised = denoiser(frame, noise=model, keep_levels=keep_levels)
        outputs.append(denoised.frame.samples / denoised.level_scale)
        expected.append(denoised.expected_gain_db or 0.0)
    levels = "kept" if keep_levels else "16 bits"
    gain = statistics.mean(expected)
    return compare(burst, outputs, denoiser.bundle.record.name, name, levels, gain)


def compare(
    burst: Burst,
    outputs: list[npt.NDArray[np.float64]],
    model: str,
    noise: str,
    levels: str,
    expected_db: float | None = None,
) -> Result:
    """Outputs (H, W) in the burst's DN against its truth."""
    first = burst.frames[0]
    peak = first.white - first.black[0]
    error = np.mean(outputs, axis=0) - burst.truth
    planes = [float(error[row::2, column::2].mean()) for row in (0, 1) for column in (0, 1)]
    return Result(
        model,
        noise,
        levels,
        [psnr(output, burst.truth, peak) for output in outputs],
        float(error.mean()),
        max(planes, key=abs),
        expected_db,
    )


def burst_table(results: list[Result]) -> str:
    """Every result beside the first one, which is that of the noisy frames."""
    before = statistics.mean(results[0].psnr_db)
    return table(
        [
            "model",
            " noise",
            " levels",
            "PSNR dB",
            "gain",
            "expected",
            "mean error DN",
            "worst plane DN",
        ],
        [
            [
                result.model,
                result.noise,
                result.levels,
                f"{statistics.mean(result.psnr_db):.2f}",
                f"{statistics.mean(result.psnr_db) - before:+.2f}",
                "-" if result.expected_db is None else f"{result.expected_db:+.2f}",
                f"{result.mean_error_dn:+.3f}",
                f"{result.worst_plane_dn:+.3f}",
            ]
            for result in results
        ],
    )


def estimate_differences(results: list[Result], model: str) -> list[float]:
    """dB per frame that a model's output at 16 bits gains from the estimated noise."""
    found = {
        each.noise: each.psnr_db
        for each in results
        if (each.model, each.levels) == (model, "16 bits")
    }
    return [after - before for before, after in zip(found["true"], found["estimated"], strict=True)]


def main() -> None:
    """Print the table, and by how much the estimated noise changes the result."""
    parser = options(__doc__)
    arguments = parser.parse_args()
    burst = load_burst(required(arguments.data / "pairs" / "rawburst_imx296_a.npz"))
    estimated = [estimate_noise(frame).model for frame in burst.frames]
    noises = {"true": [TRUE_NOISE] * len(burst.frames), "estimated": estimated}

    noisy = [frame.samples.astype(np.float64) for frame in burst.frames]
    results = [compare(burst, noisy, "none", "-", "-")]
    for model in MODELS:
        with Denoiser.load(model) as denoiser:
            results += [
                measure(burst, denoiser, models, noise, keep_levels=keep_levels)
                for noise, models in noises.items()
                for keep_levels in (False, True)
            ]
    print(burst_table(results), end="\n\n")
    shots, reads = [each.mean_shot for each in estimated], [each.mean_read for each in estimated]
    print(f"true noise       shot {TRUE_NOISE.mean_shot:.2g}, read {TRUE_NOISE.mean_read:.2g}")
    print(
        f"estimated noise  shot {min(shots):.2g} to {max(shots):.2g}, "
        f"read {min(reads):.2g} to {max(reads):.2g}"
    )
    differences = {model: estimate_differences(results, model) for model in MODELS}
    for model, per_frame in differences.items():
        print(
            f"{model}: {statistics.mean(per_frame):+.2f} dB by estimating the noise, "
            f"{min(per_frame):+.2f} to {max(per_frame):+.2f} from frame to frame"
        )
    save(
        arguments.json,
        {
            "results": [asdict(result) for result in results],
            "estimated": [
                {"shot": shot, "read": read} for shot, read in zip(shots, reads, strict=True)
            ],
            "estimate_difference_db": differences,
        },
    )
    if any(abs(statistics.mean(each)) > LARGEST_DIFFERENCE_DB for each in differences.values()):
        sys.exit(f"the estimate costs more than {LARGEST_DIFFERENCE_DB} dB")


if __name__ == "__main__":
    main()
