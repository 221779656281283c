"""Quality and cost of the shipped models beside a classical method and a published network.

Photographs become clean RAW planes, noise of three levels is put on them, and every method takes
off the same noise of the same samples. PSNR in dB, peak 1, clipped to [0, 1], of packed linear RAW.
``tiny`` and ``edge`` are what users run: a 16-bit frame through the denoiser, which uses as much of
the network's correction as it expects to help, and says what it expects. Beside them the networks
alone. Times are of a 12 MP frame, all methods in turn.
"""

from __future__ import annotations

import math
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from benchmarks.classical import denoise_nlm
from benchmarks.peers import Pmrid
from benchmarks.report import options, required, save, table
from cycleisp.evaluation.metrics import psnr
from cycleisp.evaluation.validation import validation_planes
from cycleisp.noise import LEVELS, noisy_samples
from cycleisp_runtime.backends.onnxruntime import OnnxRuntimeBackend
from cycleisp_runtime.bayer import Phase, pack, unpack
from cycleisp_runtime.bundle import find_bundle
from cycleisp_runtime.denoiser import Denoised, Denoiser
from cycleisp_runtime.frame import Area, RawFrame
from cycleisp_runtime.noise import NoiseModel

_Planes = npt.NDArray[np.float32]

OURS = ("tiny", "edge")
GROUPS = ("kodim", "mcm", "cc0")
THREADS = (1, 2)
TIMED_RUNS = 3
FRAME_SIDE = 1732
"""Packed; four planes of 1732x1732 are 12 MP."""

BLACK, WHITE = 4096, 45056
"""Of a 16-bit frame: room for -0.1 to 1.5 of the range, and steps far below the lowest noise."""


class Result(NamedTuple):
    """Denoised planes (4, h, w) normalised, and the gain in dB that the method itself expects."""

    planes: _Planes
    expected_gain_db: float | None = None


@dataclass(frozen=True)
class Method:
    """A way to denoise, and what it costs; None where that is not counted.

    Attributes:
        denoise: packed planes (4, h, w), shot and read, all normalised, to denoised planes.
    """

    denoise: Callable[[_Planes, float, float], Result]
    kmac_per_sample: float | None = None
    parameters: int | None = None


def methods(pmrid_weights: Path, threads: int) -> dict[str, Method]:
    """Everything that is compared, by the name in the tables."""
    pmrid = Pmrid(pmrid_weights, threads)
    return {
        "noisy": Method(lambda noisy, _shot, _read: Result(noisy)),
        "NLM": Method(lambda noisy, shot, read: Result(denoise_nlm(noisy, shot, read))),
        "PMRID": Method(
            lambda noisy, shot, read: Result(pmrid.denoise(noisy, shot, read)),
            pmrid.kmac_per_sample,
            pmrid.parameters,
        ),
        **{name: shipped(name, threads) for name in OURS},
        **{f"{name}, network alone": network_alone(name, threads) for name in OURS},
    }


def shipped(name: str, threads: int) -> Method:
    """A model as users run it."""
    denoiser = Denoiser.load(name, threads=threads)

    def denoise(noisy: _Planes, shot: float, read: float) -> Result:
        denoised = denoiser(as_frame(noisy), noise=NoiseModel.uniform(shot, read))
        return Result(as_planes(denoised), denoised.expected_gain_db)

    record = denoiser.bundle.record
    return Method(denoise, record.kmac_per_sample, record.parameters)


def as_frame(planes: _Planes) -> RawFrame:
    """The 16-bit frame of packed planes (4, h, w), normalised."""
    _, rows, columns = planes.shape
    mosaic = unpack(planes, Phase.RGGB, 2 * rows, 2 * columns)
    samples = np.clip(np.rint(BLACK + mosaic * (WHITE - BLACK)), 0, 65535).astype(np.uint16)
    return RawFrame(samples, Phase.RGGB, (BLACK,) * 4, WHITE, Area(0, 0, 2 * rows, 2 * columns))


def as_planes(denoised: Denoised) -> _Planes:
    """Packed planes (4, h, w), normalised, of a denoised ``as_frame``."""
    frame = denoised.frame
    packed = pack(frame.samples, frame.cfa).astype(np.float32)
    return (packed - np.float32(frame.black[0])) / np.float32(frame.white - frame.black[0])


def network_alone(name: str, threads: int) -> Method:
    """A bundle's network, the whole picture as one tile and all of its correction used."""
    bundle = find_bundle(name)
    backend = OnnxRuntimeBackend(bundle, threads=threads)
    tensors = bundle.record.tensors

    def denoise(noisy: _Planes, shot: float, read: float) -> Result:
        variance = NoiseModel.uniform(shot, read).variance(noisy)
        scale = math.sqrt(variance.mean(dtype=np.float64))
        return Result(backend.run(tensors.fill(noisy[None], variance[None], scale))[0])

    return Method(denoise, bundle.record.kmac_per_sample, bundle.record.parameters)


def clean_pictures(folder: Path, limit: int) -> dict[str, _Planes]:
    """Clean packed planes (4, h, w) of at most ``limit`` photographs, spread over the folder."""
    paths = sorted(path for path in folder.iterdir() if path.suffix in {".webp", ".png", ".jpg"})
    return {
        path.stem: validation_planes(np.asarray(Image.open(path).convert("RGB")))
        for path in paths[:: math.ceil(len(paths) / limit)]
    }


def measure_quality(
    compared: dict[str, Method], pictures: dict[str, _Planes], shot: float, read: float
) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, float]]]:
    """PSNR and expected gain in dB per method and picture; every picture has its own seed."""
    found: dict[str, dict[str, float]] = {name: {} for name in compared}
    expected: dict[str, dict[str, float]] = {}
    for index, (picture, clean) in enumerate(pictures.items()):
        noisy = noisy_samples(clean, shot, read, np.random.default_rng(index))
        for name, method in compared.items():
            result = method.denoise(noisy, shot, read)
            found[name][picture] = psnr(np.clip(result.planes, 0, 1), clean)
            if result.expected_gain_db is not None:
                expected.setdefault(name, {})[picture] = result.expected_gain_db
    return found, expected


def measure_times(pmrid_weights: Path, clean: _Planes) -> dict[str, dict[str, list[float]]]:
    """ms per MP of every run, per method and number of threads, after one run to warm up."""
    shot, read = LEVELS["middle"]
    side = [(0, 0), *((0, max(0, FRAME_SIDE - extent)) for extent in clean.shape[1:])]
    frame = np.pad(clean, side, "symmetric")[:, :FRAME_SIDE, :FRAME_SIDE]
    noisy = noisy_samples(frame, shot, read, np.random.default_rng(0))
    timed = {
        (name, str(threads)): method
        for threads in THREADS
        for name, method in methods(pmrid_weights, threads).items()
        if name != "noisy"
    }
    seconds: dict[tuple[str, str], list[float]] = {key: [] for key in timed}
    for _ in range(1 + TIMED_RUNS):
        for key, method in timed.items():
            start = time.perf_counter()
            method.denoise(noisy, shot, read)
            seconds[key].append(time.perf_counter() - start)
    times: dict[str, dict[str, list[float]]] = {}
    for (name, threads), runs in seconds.items():
        times.setdefault(name, {})[threads] = [1e9 * run / noisy.size for run in runs[1:]]
    return times


def gains(
    quality: dict[str, dict[str, float]], name: str, reference: str = "noisy", group: str = ""
) -> dict[str, float]:
    """dB that a method is better than another, per picture of a group."""
    return {
        picture: value - quality[reference][picture]
        for picture, value in quality[name].items()
        if picture.startswith(group)
    }


def quality_table(quality: dict[str, dict[str, float]]) -> str:
    """One noise level: every method beside the others, by group of photographs, and its worst."""
    groups = [group for group in GROUPS if gains(quality, "noisy", group=group)]
    rows = []
    for name, values in quality.items():
        over_noisy = gains(quality, name)
        worst = min(over_noisy, key=lambda picture: over_noisy[picture])
        means = [gains(quality, name, reference) for reference in ("noisy", "NLM", "PMRID")]
        means += [gains(quality, name, group=group) for group in groups]
        rows.append(
            [
                name,
                f"{statistics.mean(values.values()):.2f}",
                *(f"{statistics.mean(mean.values()):+.2f}" for mean in means),
                f"{over_noisy[worst]:+.2f}",
                worst,
                str(sum(gain < 0 for gain in over_noisy.values())),
            ]
        )
    header = ["method", "PSNR dB", "over noisy", "over NLM", "over PMRID", *groups]
    return table([*header, "worst", " picture", "made worse"], rows)


def expected_table(
    quality: dict[str, dict[str, float]], expected: dict[str, dict[str, float]]
) -> str:
    """One noise level: the gain that a method expects, which knows no truth, minus the true one."""
    rows = []
    for name, values in expected.items():
        true = gains(quality, name)
        off = {picture: value - true[picture] for picture, value in values.items()}
        worst = max(off, key=lambda picture: abs(off[picture]))
        mean, spread = statistics.mean(off.values()), statistics.pstdev(off.values())
        rows.append([name, f"{mean:+.2f}", f"{spread:.2f}", f"{off[worst]:+.2f}", worst])
    return table(["expected gain - true gain", "mean dB", "spread", "worst", " picture"], rows)


def cost_table(compared: dict[str, Method], times: dict[str, dict[str, list[float]]]) -> str:
    """What every method costs: arithmetic, weights, and the median time."""
    rows = []
    for name, runs in times.items():
        method = compared[name]
        rows.append(
            [
                name,
                "-" if method.kmac_per_sample is None else f"{method.kmac_per_sample:.2f}",
                "-" if method.parameters is None else f"{method.parameters:,}",
                *(f"{statistics.median(runs[str(threads)]):.0f}" for threads in THREADS),
            ]
        )
    header = ["method", "kMAC/sample", "parameters", "ms/MP 1 thread", "ms/MP 2 threads"]
    return table(header, rows)


def failed_claims(levels: dict[str, dict[str, dict[str, float]]]) -> list[str]:
    """What the shipped models must be and are not: better than all others, never harmful."""
    failed = []
    for level, quality in levels.items():
        for name in OURS:
            failed += [
                f"{name} is not better than {other} at {level} noise"
                for other in ("noisy", "NLM", "PMRID")
                if statistics.mean(gains(quality, name, other).values()) <= 0
            ]
            failed += [
                f"{name} makes {picture} worse at {level} noise"
                for picture, gain in gains(quality, name).items()
                if gain < 0
            ]
    return failed


def main() -> None:
    """Print the tables; exit 1 where a shipped model is not what it is said to be."""
    parser = options(__doc__)
    parser.add_argument(
        "--pictures", type=int, default=50, metavar="N", help="use at most N photographs"
    )
    arguments = parser.parse_args()
    weights = required(arguments.data / "peers" / "pmrid.onnx")
    pictures = clean_pictures(required(arguments.data / "photos_test"), arguments.pictures)

    compared = methods(weights, max(THREADS))
    levels, expected = {}, {}
    for level, (shot, read) in LEVELS.items():
        levels[level], expected[level] = measure_quality(compared, pictures, shot, read)
        print(f"{level} noise, shot {shot:.2g}, read {read:.2g}, {len(pictures)} photographs")
        print(quality_table(levels[level]), end="\n\n")
        print(expected_table(levels[level], expected[level]), end="\n\n", flush=True)
    times = measure_times(weights, next(iter(pictures.values())))
    print(f"a frame of 12 MP, median of {TIMED_RUNS} runs, {_processor()}")
    print(cost_table(compared, times))

    save(
        arguments.json,
        {
            "processor": _processor(),
            "versions": {name: version(name) for name in ("numpy", "onnxruntime", "scikit-image")},
            "bundles": {name: find_bundle(name).sha256 for name in OURS},
            "weights": {name: find_bundle(name).record.provenance.weights_sha256 for name in OURS},
            "noise": {
                level: {"shot": shot, "read": read} for level, (shot, read) in LEVELS.items()
            },
            "psnr_db": levels,
            "expected_gain_db": expected,
            "ms_per_mp": times,
            "kmac_per_sample": {name: each.kmac_per_sample for name, each in compared.items()},
            "parameters": {name: each.parameters for name, each in compared.items()},
        },
    )
    failed = failed_claims(levels)
    if failed:
        print("\n" + "\n".join(failed))
        sys.exit(1)


def _processor() -> str:
    """The processor's name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


if __name__ == "__main__":
    main()
