"""What the runtime costs beyond the network: on a frame of 12 MP, and on a file of 24 MP.

All take turns in one process, medians; run it on an otherwise idle machine.

- end to end: a 12 MP frame into an array that is there, over ONNX Runtime's bare time for the tiles
  of that frame, cut beforehand. The crops that tell how far the correction is trusted are no tiles:
  they count as overhead.
- own passes: what of it is spent outside ONNX Runtime, over the time inside.
- rest: of a 24 MP DNG denoised to a DNG, what is neither ONNX Runtime nor rawpy's own decoding.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import rawpy

from benchmarks.report import options, save, table
from benchmarks.seams import synthetic_frame
from cycleisp_runtime.backends import Backend
from cycleisp_runtime.backends.choice import open_backend
from cycleisp_runtime.batch import BatchSettings, denoise_file
from cycleisp_runtime.bayer import packed_size
from cycleisp_runtime.bundle import Bundle, find_bundle
from cycleisp_runtime.denoiser import DEFAULT_TILE, Denoiser
from cycleisp_runtime.frame import RawFrame
from cycleisp_runtime.jobs import Job
from cycleisp_runtime.noise import LEVELS, NoiseModel
from cycleisp_runtime.tiles import MosaicTiles, plan_tiles
from cycleisp_runtime.writers import write_frame

MODELS = ("tiny", "edge")
NOISE = NoiseModel.uniform(*LEVELS["middle"])
MOST_END_TO_END, MOST_OWN, MOST_REST_S = 1.10, 0.05, 1.0
"""Own passes are held against the edge model."""

_Inputs = Mapping[str, npt.NDArray[np.float32]]


class Clocked(Backend):
    """Another backend, and the seconds spent in it since ``spent`` was set to 0."""

    def __init__(self, backend: Backend) -> None:
        self.name, self.precision = backend.name, backend.precision
        self.device, self.reason = backend.device, backend.reason
        self.threads = backend.threads
        self.spent = 0.0
        self._backend = backend

    def run(self, inputs: _Inputs) -> npt.NDArray[np.float32]:
        """What the other backend puts out."""
        start = time.perf_counter()
        denoised = self._backend.run(inputs)
        self.spent += time.perf_counter() - start
        return denoised


def seconds(work: Callable[[], object]) -> float:
    """Of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def tile_inputs(frame: RawFrame, bundle: Bundle) -> list[_Inputs]:
    """The network's inputs for every tile of the frame, as the denoiser cuts them."""
    record = bundle.record
    rows, columns = packed_size(frame.area.height, frame.area.width, frame.cfa)
    plan = plan_tiles(
        rows,
        columns,
        side=DEFAULT_TILE,
        halo=record.halo.for_120_db,
        multiple_of=record.multiple_of,
    )
    tiles = MosaicTiles(frame, NOISE, plan)
    buffers = np.empty((len(plan.cores), 2, 1, 4, plan.height, plan.width), np.float32)
    noise_scale = tiles.noise_scale(*buffers[0, :, 0])
    for core, (noisy, variance) in zip(plan.cores, buffers, strict=True):
        tiles.cut(core, noisy[0], variance[0])
    return [record.tensors.fill(noisy, variance, noise_scale) for noisy, variance in buffers]


def frame_overhead(model: str, frame: RawFrame, turns: int) -> dict[str, float]:
    """End to end, bare and inside, in seconds: medians, and the medians of their ratios."""
    bundle = find_bundle(model)
    target = np.empty_like(frame.samples)
    with open_backend(bundle, backend="onnxruntime", device="cpu") as backend:
        clocked, inputs = Clocked(backend), tile_inputs(frame, bundle)
        denoiser = Denoiser(bundle, clocked)
        times = []
        for turn in range(1 + turns):
            clocked.spent = 0.0
            whole = seconds(lambda: denoiser.denoise_into(frame, target, noise=NOISE))
            bare = seconds(lambda: [backend.run(tile) for tile in inputs])
            if turn > 0:  # the first one warms up
                times.append((whole, bare, clocked.spent))
    return {
        "whole_s": statistics.median(whole for whole, _, _ in times),
        "bare_s": statistics.median(bare for _, bare, _ in times),
        "end_to_end": statistics.median(whole / bare for whole, bare, _ in times),
        "own": statistics.median((whole - inside) / inside for whole, _, inside in times),
    }


def file_overhead(model: str, frame: RawFrame, turns: int) -> dict[str, float]:
    """Of a file denoised to a file, in seconds: all of it, rawpy's share, the rest; medians."""
    bundle = find_bundle(model)
    with (
        tempfile.TemporaryDirectory() as name,
        open_backend(bundle, backend="onnxruntime", device="cpu") as backend,
    ):
        source, output = Path(name) / "in.dng", Path(name) / "out.dng"
        write_frame(
            frame, source, level_scale=1, noise_reduction=0.0, residual_noise=None, force=False
        )
        clocked, times = Clocked(backend), []
        denoiser, settings = Denoiser(bundle, clocked), BatchSettings(force=True)

        def decode() -> object:
            with rawpy.imread(str(source)) as raw:
                return raw.raw_image.copy()

        def denoise() -> None:
            outcome = denoise_file(Job(source, output), denoiser, settings)
            if outcome.error is not None:
                sys.exit(outcome.error)

        for _ in range(turns):
            clocked.spent = 0.0
            whole, decoded = seconds(denoise), seconds(decode)
            times.append((whole, decoded, whole - decoded - clocked.spent))
    return {
        "whole_s": statistics.median(whole for whole, _, _ in times),
        "decode_s": statistics.median(decoded for _, decoded, _ in times),
        "rest_s": statistics.median(rest for _, _, rest in times),
    }


def main() -> None:
    """Print the tables; exit 1 where something takes more than it may."""
    parser = options(__doc__, data=False)
    parser.add_argument(
        "--turns", type=int, default=7, metavar="N", help="%(default)s unless given"
    )
    arguments = parser.parse_args()
    frame = synthetic_frame(3000, 4000)
    frames = {model: frame_overhead(model, frame, arguments.turns) for model in MODELS}
    print(
        table(
            ["12 MP", "end to end s", "bare s", "end to end / bare", "own passes / inference"],
            [
                [
                    model,
                    f"{each['whole_s']:.2f}",
                    f"{each['bare_s']:.2f}",
                    f"{each['end_to_end']:.3f}",
                    f"{each['own']:.1%}",
                ]
                for model, each in frames.items()
            ],
        )
    )
    file = file_overhead("edge", synthetic_frame(4000, 6000), max(arguments.turns // 2, 1))
    print()
    print(
        table(
            ["24 MP file", "whole s", "rawpy's decoding s", "rest s"],
            [["edge", *(f"{file[name]:.2f}" for name in ("whole_s", "decode_s", "rest_s"))]],
        )
    )
    save(arguments.json, {"frame": frames, "file": file})
    missed = [
        f"end to end of {model} is {each['end_to_end']:.3f} times the bare time"
        for model, each in frames.items()
        if each["end_to_end"] > MOST_END_TO_END
    ]
    if frames["edge"]["own"] > MOST_OWN:
        missed.append(f"own passes take {frames['edge']['own']:.1%} of the edge model's inference")
    if file["rest_s"] > MOST_REST_S:
        missed.append(f"the rest of a 24 MP file takes {file['rest_s']:.2f} s")
    if missed:
        sys.exit("; ".join(missed))


if __name__ == "__main__":
    main()
