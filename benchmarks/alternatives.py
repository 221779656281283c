"""What a user would run instead of the shipped model on ONNX Runtime, side by side.

The same noisy planes through every network, each the whole picture as one tile and all of its
correction used. Times are of one tile, all methods in turn in one process; memory is the peak of a
process of its own that has loaded the method and run that tile once, so it holds Python and, for
torch, torch itself. PSNR in dB, peak 1, clipped to [0, 1], of packed linear RAW.
"""

from __future__ import annotations

import math
import multiprocessing
import statistics
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.peers import Pmrid
from benchmarks.report import options, required, save, table
from cycleisp.evaluation.metrics import psnr
from cycleisp.noise import LEVELS, noisy_samples
from cycleisp_runtime.backends.choice import open_backend
from cycleisp_runtime.bundle import Precision, find_bundle
from cycleisp_runtime.cores import physical_cores
from cycleisp_runtime.noise import NoiseModel
from cycleisp_runtime.tile_runner import DEFAULT_TILE

_Planes = npt.NDArray[np.float32]
_Denoise = Callable[[_Planes, float, float], _Planes]
"""Packed planes (4, h, w), shot and read, all normalised, to denoised planes."""

WEIGHTS = Path(__file__).resolve().parents[1] / "zoo" / "runs" / "edge"
TIMED_RUNS = 5


def methods(pmrid: Path, threads: int) -> dict[str, Callable[[], _Denoise]]:
    """What is compared, by the name in the table: functions that load a method."""
    found: dict[str, Callable[[], _Denoise]] = {
        "edge, ONNX Runtime FP32": lambda: _network("edge", "onnxruntime", "fp32", threads),
        "edge, ONNX Runtime INT8": lambda: _network("edge", "onnxruntime", "int8-cpu", threads),
        "tiny, ONNX Runtime FP32": lambda: _network("tiny", "onnxruntime", "fp32", threads),
        "tiny, ONNX Runtime INT8": lambda: _network("tiny", "onnxruntime", "int8-cpu", threads),
    }
    if find_spec("openvino") is not None:
        found["edge, OpenVINO FP32"] = lambda: _network("edge", "openvino", "fp32", threads)
    found["edge, torch eager FP32"] = lambda: _in_torch(threads)
    found["PMRID, ONNX Runtime FP32"] = lambda: Pmrid(pmrid, threads).denoise
    return found


def _network(bundle_name: str, backend_name: str, precision: Precision, threads: int) -> _Denoise:
    bundle = find_bundle(bundle_name)
    backend = open_backend(
        bundle, backend=backend_name, precision=precision, device="cpu", threads=threads
    )

    def denoise(noisy: _Planes, shot: float, read: float) -> _Planes:
        variance, scale = _conditions(noisy, shot, read)
        denoised = backend.run(bundle.record.tensors.fill(noisy[None], variance[None], scale))
        planes: _Planes = denoised[0]
        return planes

    return denoise


def _in_torch(threads: int) -> _Denoise:
    """The network from its checkpoint, as somebody would run it who has no runtime."""
    import torch

    from cycleisp.models.storage import load_network

    torch.set_num_threads(threads)
    network = load_network(WEIGHTS / "raw_denoiser.safetensors", "raw_denoiser")
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def denoise(noisy: _Planes, shot: float, read: float) -> _Planes:
        variance, scale = _conditions(noisy, shot, read)
        with torch.inference_mode():
            planes: _Planes = network(
                torch.from_numpy(noisy[None]),
                torch.from_numpy(variance[None]),
                torch.full((1, 1, 1, 1), scale),
            )[0].numpy()
        return planes

    return denoise


def _conditions(noisy: _Planes, shot: float, read: float) -> tuple[_Planes, float]:
    """The variance map and the noise scale."""
    variance = NoiseModel.uniform(shot, read).variance(noisy)
    return variance, math.sqrt(variance.mean(dtype=np.float64))


def _tile() -> _Planes:
    return np.random.default_rng(0).random((4, DEFAULT_TILE, DEFAULT_TILE), np.float32)


def peak_mib(name: str, pmrid: Path, threads: int) -> float:
    """Peak memory of this process, once the method has run; for a process of its own."""
    methods(pmrid, threads)[name]()(_tile(), *LEVELS["middle"])
    # Not ru_maxrss, which begins with that of the process that this one was forked from.
    status = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    (kibibytes,) = (line.split()[1] for line in status if line.startswith("VmHWM:"))
    return int(kibibytes) / 1024


def measure_quality(
    loaded: dict[str, _Denoise], pictures: dict[str, _Planes]
) -> dict[str, dict[str, float]]:
    """Mean PSNR by method and noise level; every picture has its own seed."""
    found: dict[str, dict[str, float]] = {"noisy": {}, **{name: {} for name in loaded}}
    for level, (shot, read) in LEVELS.items():
        values: dict[str, list[float]] = {name: [] for name in found}
        for index, clean in enumerate(pictures.values()):
            noisy = noisy_samples(clean, shot, read, np.random.default_rng(index))
            values["noisy"].append(psnr(np.clip(noisy, 0, 1), clean))
            for name, denoise in loaded.items():
                values[name].append(psnr(np.clip(denoise(noisy, shot, read), 0, 1), clean))
        for name, each in values.items():
            found[name][level] = statistics.mean(each)
    return found


def measure_times(loaded: dict[str, _Denoise]) -> dict[str, list[float]]:
    """ms per MP of every run by method, after one to warm up."""
    tile = _tile()
    runs: dict[str, list[float]] = {name: [] for name in loaded}
    for _ in range(1 + TIMED_RUNS):
        for name, denoise in loaded.items():
            start = time.perf_counter()
            denoise(tile, *LEVELS["middle"])
            runs[name].append(1e9 * (time.perf_counter() - start) / tile.size)
    return {name: each[1:] for name, each in runs.items()}


def main() -> None:
    """Print the table."""
    from benchmarks.quality import clean_pictures  # not above: it brings torch into all processes

    parser = options(__doc__)
    parser.add_argument("--pictures", type=int, default=8, metavar="N", help="%(default)s")
    parser.add_argument(
        "--threads", type=int, default=physical_cores(), metavar="N", help="%(default)s"
    )
    arguments = parser.parse_args()
    pmrid = required(arguments.data / "peers" / "pmrid.onnx")
    pictures = clean_pictures(required(arguments.data / "photos_test"), arguments.pictures)

    chosen = (pmrid, arguments.threads)
    spawn = multiprocessing.get_context("spawn")
    memory = {}
    for name in methods(*chosen):
        with spawn.Pool(1) as alone:
            memory[name] = alone.apply(peak_mib, (name, *chosen))
    loaded = {name: load() for name, load in methods(*chosen).items()}
    quality, times = measure_quality(loaded, pictures), measure_times(loaded)

    print(f"{len(pictures)} photographs, {arguments.threads} threads")
    rows = []
    for name, by_level in quality.items():
        cost = ["-", "-"]
        if name in times:
            cost = [f"{statistics.median(times[name]):.0f}", f"{memory[name]:.0f}"]
        rows.append([name, *cost, *(f"{value:.2f}" for value in by_level.values())])
    print(table(["method", "ms/MP", "peak MiB", *(f"{level} dB" for level in LEVELS)], rows))
    save(arguments.json, {"psnr_db": quality, "ms_per_mp": times, "peak_mib": memory})


if __name__ == "__main__":
    main()
