"""Seams: a frame denoised in tiles against the same frame denoised in one piece.

Every tile size from 128 packed samples to the frame, at 16 bits per sample, all of the network's
correction used: what would not be trusted on a frame cannot hide a seam. PSNR in dB, peak 65535. A
network that pools over the frame is measured in both its modes: attention from every n-th sample,
which is fast and beside which stands what the bundle states, and from the whole frame, which is
exact.
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.report import options, save, table
from cycleisp.evaluation.metrics import psnr
from cycleisp.noise import LEVELS, noisy_samples
from cycleisp_runtime.attention import Attention, frame_gates
from cycleisp_runtime.backends import Backend
from cycleisp_runtime.backends.checked import run_checked
from cycleisp_runtime.backends.onnxruntime import OnnxRuntimeBackend
from cycleisp_runtime.bayer import Phase, packed_size
from cycleisp_runtime.bundle import Bundle, find_bundle
from cycleisp_runtime.frame import Area, RawFrame
from cycleisp_runtime.levels import choose_level_scale
from cycleisp_runtime.noise import NoiseModel
from cycleisp_runtime.noise_source import choose_noise
from cycleisp_runtime.plane_threads import PlaneThreads
from cycleisp_runtime.readers import read_frame
from cycleisp_runtime.stopwatch import Stopwatch
from cycleisp_runtime.tile_runner import TileRunner
from cycleisp_runtime.tiles import MosaicTiles, TilePlan

DEMO_FRAME = Path(__file__).resolve().parents[1] / "examples/demo/bmpcc_gbrg_12b_ljpeg_lintable.dng"
MODELS = ("tiny", "edge")
TILES = (128, 192, 256, 384, 512, 768)
PEAK = 65535.0
LEAST_DB = 120.0
"""Of all but the fast mode."""

FULL_FRAME = (399, 451)
"""Height and width of the frame for a network of size full, which takes 20 s per MP on a core."""

_Samples = npt.NDArray[np.int64]
_Gates = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Seams:
    """One tile size of one frame and model.

    Attributes:
        mode: where attention comes from; empty for a network that does not pool.
        psnr_db: against the whole frame; infinite where all samples are equal.
        stated_db: what the bundle states of the fast mode; None otherwise.
        differing: share of the samples that differ.
        largest: largest difference, in steps of the 16-bit output.
    """

    frame: str
    model: str
    mode: str
    tile: int
    psnr_db: float
    stated_db: float | None
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


class NetworkAlone:
    """A bundle's network over the tiles of frames."""

    def __init__(self, bundle: Bundle, backend: Backend | None = None) -> None:
        self.record = bundle.record
        self._backend = backend or OnnxRuntimeBackend(bundle)
        self._runner = TileRunner(self.record, batch=1, memory=None, planes=PlaneThreads())
        self._attention = (
            None
            if self.record.pooling is None
            else Attention(bundle, threads=self._backend.threads)
        )

    def gates(self, frame: RawFrame, noise: NoiseModel, *, exact: bool) -> _Gates | None:
        """Of a frame, for a network that pools."""
        if self._attention is None:
            return None
        return frame_gates(self._attention, frame, noise, 1.0, exact=exact)[0]

    def denoised(
        self, frame: RawFrame, noise: NoiseModel, gates: _Gates | None, tile: int
    ) -> _Samples:
        """Samples (H, W) of the picture at 16 bits."""
        whole = MosaicTiles(frame, noise, TilePlan((), 0, 0, 0))
        noise_scale = whole.noise_scale(*np.empty((2, 4, 64, 512), np.float32))

        def network(
            noisy: npt.NDArray[np.float32], variance: npt.NDArray[np.float32]
        ) -> npt.NDArray[np.float32]:
            inputs = self.record.tensors.fill(noisy, variance, noise_scale, gates)
            return run_checked(self._backend, self.record, inputs)

        target = np.empty(frame.visible.shape, np.uint16)
        level_scale, _ = choose_level_scale(frame)
        self._runner.run(
            frame,
            noise,
            network,
            target,
            side=tile,
            strength=1.0,
            level_scale=level_scale,
            watch=Stopwatch(),
            progress=None,
        )
        return target.astype(np.int64)


def measure(name: str, frame: RawFrame, noise: NoiseModel, network: NetworkAlone) -> list[Seams]:
    """Every tile size that is smaller than the frame."""
    longest = max(packed_size(frame.area.height, frame.area.width, frame.cfa))
    pooling = network.record.pooling
    exact = network.gates(frame, noise, exact=True)
    gates = {"": exact}
    if pooling is not None:
        gates = {"fast": network.gates(frame, noise, exact=False), "exact": exact}
    whole = network.denoised(frame, noise, exact, 2 * longest)
    found = []
    for mode in gates:
        for tile in (tile for tile in TILES if tile < longest):
            tiled = network.denoised(frame, noise, gates[mode], tile)
            difference = np.abs(tiled - whole)
            found.append(
                Seams(
                    name,
                    network.record.name,
                    mode,
                    tile,
                    psnr(tiled.astype(np.float64), whole.astype(np.float64), PEAK),
                    pooling.agreement_db if pooling is not None and mode == "fast" else None,
                    float(np.mean(difference > 0)),
                    int(difference.max()),
                )
            )
    return found


def random_full(folder: Path) -> Bundle:
    """The RAW denoiser of size full, with random weights and made-up quality, exported."""
    import torch

    from cycleisp.models import create_model
    from cycleisp.models.storage import save_network
    from cycleisp_export.package import Origin, export_model

    torch.manual_seed(0)
    weights, figures = folder / "full.safetensors", folder / "quality.json"
    save_network(weights, create_model("raw_denoiser", "full"), "raw_denoiser", "full")
    methods = {name: {"none": 0.0} for name in ("noisy", "full, network alone", "NLM")}
    quality = {
        "weights": {"full": hashlib.sha256(weights.read_bytes()).hexdigest()},
        "noise": {level: {"shot": shot, "read": read} for level, (shot, read) in LEVELS.items()},
        "psnr_db": dict.fromkeys(LEVELS, methods),
    }
    figures.write_text(json.dumps(quality))
    return export_model(
        weights,
        folder / "full.bundle",
        origin=Origin(data="random numbers", data_license="none"),
        quality=figures,
        photographs=None,
        force=False,
    ).bundle


def main() -> None:
    """Print the table; exit 1 where a seam could be seen."""
    parser = options(__doc__, data=False)
    parser.add_argument(
        "models", nargs="*", default=MODELS, metavar="BUNDLE", help="tiny and edge by default"
    )
    parser.add_argument(
        "--full",
        action="store_true",
        help="instead the RAW denoiser of size full with random weights, exported first, in "
        "4 minutes, on a small frame",
    )
    arguments = parser.parse_args()
    demo, middle = read_frame(DEMO_FRAME), NoiseModel.uniform(*LEVELS["middle"])
    if arguments.full:
        with tempfile.TemporaryDirectory() as folder:
            frames = {"synthetic": (synthetic_frame(*FULL_FRAME), middle)}
            networks = [NetworkAlone(random_full(Path(folder)))]
    else:
        frames = {
            "demo": (demo, choose_noise(demo, None).model),
            "synthetic": (synthetic_frame(1501, 1999), middle),
        }
        networks = [NetworkAlone(find_bundle(model)) for model in arguments.models]
    found = [
        each
        for network in networks
        for name, (frame, noise) in frames.items()
        for each in measure(name, frame, noise, network)
    ]
    print(
        table(
            [
                "frame",
                " model",
                " attention",
                "tile",
                "dB",
                "stated",
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
                    "" if seams.stated_db is None else f"{seams.stated_db:.1f}",
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
