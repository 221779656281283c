"""Seams: a frame denoised in tiles against the same frame denoised in one piece.

Every tile size from 128 packed samples to the frame, through the denoiser as users run it, at 16
bits per sample. PSNR in dB, peak 65535. A network that pools over the frame is measured in both its
modes: attention from every n-th sample, which is fast, and from the whole frame, which is exact.
"""

from __future__ import annotations

import math
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.report import options, save, table
from cycleisp.evaluation.metrics import psnr
from cycleisp.noise import LEVELS, noisy_samples
from cycleisp_runtime.bayer import Phase, packed_size
from cycleisp_runtime.denoiser import Denoiser
from cycleisp_runtime.frame import Area, RawFrame
from cycleisp_runtime.noise import NoiseModel
from cycleisp_runtime.noise_source import choose_noise
from cycleisp_runtime.readers import read_frame

DEMO_FRAME = Path(__file__).resolve().parents[1] / "examples/demo/bmpcc_gbrg_12b_ljpeg_lintable.dng"
MODELS = ("tiny", "edge")
TILES = (128, 192, 256, 384, 512, 768)
PEAK = 65535.0
LEAST_DB = 90.0


@dataclass(frozen=True)
class Seams:
    """One tile size of one frame and model.

    Attributes:
        mode: where attention comes from; empty for a network that does not pool.
        psnr_db: against the whole frame; infinite where all samples are equal.
        differing: share of the samples that differ.
        largest: largest difference, in steps of the 16-bit output.
    """

    frame: str
    model: str
    mode: str
    tile: int
    psnr_db: float
    differing: float
    largest: int


def synthetic_frame(height: int, width: int) -> RawFrame:
    """A frame (height, width) with edges, waves of all frequencies and shadows; middle noise."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    rings = 0.5 + 0.5 * np.sin((x * x + y * y) * np.float32(math.pi / (2 * width)))
    checks = ((x // 37 + y // 53) % 2) * np.float32(0.7) + np.float32(0.1)
    clean = np.where(y > x * height / width, rings, checks) * (x / width) ** 2
    noisy = noisy_samples(clean, *LEVELS["middle"], np.random.default_rng(0))
    black, white = 256.0, 4095.0
    samples = np.clip(np.rint(black + noisy * (white - black)), 0, white).astype(np.uint16)
    return RawFrame(
        samples=samples,
        cfa=Phase.GBRG,
        black=(black,) * 4,
        white=white,
        area=Area(0, 0, height, width),
    )


def measure(name: str, frame: RawFrame, noise: NoiseModel, denoiser: Denoiser) -> list[Seams]:
    """Every tile size that is smaller than the frame."""
    longest = max(packed_size(frame.area.height, frame.area.width, frame.cfa))
    pools = denoiser.bundle.record.pooling is not None

    def denoised(tile: int, *, exact: bool) -> npt.NDArray[np.int64]:
        out = denoiser(frame, noise=noise, tile=tile, exact=exact).frame
        return out.visible.astype(np.int64)

    whole = denoised(2 * longest, exact=True)
    found = []
    for mode in ("fast", "exact") if pools else ("",):
        for tile in (tile for tile in TILES if tile < longest):
            tiled = denoised(tile, exact=mode == "exact")
            difference = np.abs(tiled - whole)
            found.append(
                Seams(
                    name,
                    denoiser.bundle.record.name,
                    mode,
                    tile,
                    psnr(tiled.astype(np.float64), whole.astype(np.float64), PEAK),
                    float(np.mean(difference > 0)),
                    int(difference.max()),
                )
            )
    return found


def main() -> None:
    """Print the table; exit 1 where a seam could be seen."""
    parser = options(__doc__, data=False)
    parser.add_argument(
        "models", nargs="*", default=MODELS, metavar="BUNDLE", help="tiny and edge by default"
    )
    arguments = parser.parse_args()
    demo = read_frame(DEMO_FRAME)
    frames = {
        "demo": (demo, choose_noise(demo, None).model),
        "synthetic": (synthetic_frame(1501, 1999), NoiseModel.uniform(*LEVELS["middle"])),
    }
    found = []
    for model in arguments.models:
        with Denoiser.load(model) as denoiser:
            for name, (frame, noise) in frames.items():
                found += measure(name, frame, noise, denoiser)
    print(
        table(
            [
                "frame",
                " model",
                " attention",
                "tile",
                "dB",
                "samples that differ",
                "largest difference",
            ],
            [
                [
                    seams.frame,
                    seams.model,
                    seams.mode,
                    str(seams.tile),
                    "identical" if math.isinf(seams.psnr_db) else f"{seams.psnr_db:.1f}",
                    f"{seams.differing:.2%}",
                    str(seams.largest),
                ]
                for seams in found
            ],
        )
    )
    save(arguments.json, [asdict(seams) for seams in found])
    if any(seams.psnr_db < LEAST_DB for seams in found if seams.mode != "fast"):
        sys.exit(f"some tiles are further than {LEAST_DB:.0f} dB from the whole frame")


if __name__ == "__main__":
    main()
