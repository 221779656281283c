"""Peak memory of a frame of 100 MP within a budget, each model in a process of its own.

The peak is the kernel's (VmHWM), everything included: Python, ONNX Runtime, the model. What may be
added to the budget is the frame itself, its samples before and after.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from benchmarks.report import options, save, table
from cycleisp_runtime.bayer import Phase
from cycleisp_runtime.denoiser import Denoiser
from cycleisp_runtime.frame import Area, RawFrame
from cycleisp_runtime.memory import parse_memory
from cycleisp_runtime.noise import LEVELS, NoiseModel

MODELS = ("tiny", "edge")
CHILD = "--child"
LIMIT_S = 1800
MIB = 1 << 20


def peak_bytes() -> int:
    """The most memory that this process has held."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    (kibibytes,) = (line.split()[1] for line in lines if line.startswith("VmHWM:"))
    return int(kibibytes) << 10


def denoise(model: str, memory: int, megapixels: int) -> dict[str, object]:
    """One frame of noise, and what it took."""
    height, width = round((megapixels * 750_000) ** 0.5), round((megapixels * 1e6 * 4 / 3) ** 0.5)
    samples = np.random.default_rng(0).integers(0, 1024, (height, width), np.uint16)
    frame = RawFrame(samples, Phase.RGGB, (64,) * 4, 1023, Area(0, 0, height, width))
    with Denoiser.load(model, memory=memory) as denoiser:
        result = denoiser(frame, noise=NoiseModel.uniform(*LEVELS["middle"]))
    return {
        "frame_bytes": samples.nbytes + result.frame.samples.nbytes,
        "peak_bytes": peak_bytes(),
        "warnings": result.warnings,
    }


def measure(model: str, memory: str, megapixels: int) -> dict[str, object]:
    """The same in a new process."""
    command = [sys.executable, "-m", "benchmarks.memory", CHILD, model, memory, str(megapixels)]
    child = subprocess.run(command, capture_output=True, check=False, text=True, timeout=LIMIT_S)
    if child.returncode != 0:
        sys.exit(f"{model}: {child.stderr}")
    measured: dict[str, object] = json.loads(child.stdout)
    return measured


def main() -> None:
    """Print the table; exit 1 where a peak is above its budget."""
    if sys.argv[1:2] == [CHILD]:
        _, _, model, memory, megapixels = sys.argv
        print(json.dumps(denoise(model, parse_memory(memory), int(megapixels))))
        return
    parser = options(__doc__, data=False)
    parser.add_argument("--memory", default="512MiB", metavar="SIZE")
    parser.add_argument("--megapixels", type=int, default=100, metavar="N")
    arguments = parser.parse_args()
    budget = parse_memory(arguments.memory)
    results = {model: measure(model, arguments.memory, arguments.megapixels) for model in MODELS}
    print(f"{arguments.megapixels} MP, budget {budget / MIB:.0f} MiB")
    rows, above = [], []
    for model, each in results.items():
        frame, peak = (int(str(each[name])) for name in ("frame_bytes", "peak_bytes"))
        rows.append([model, *(f"{size / MIB:.0f}" for size in (peak, frame, peak - frame))])
        if peak > budget + frame:
            above.append(model)
    print(table(["model", "peak MiB", "frame MiB", "rest MiB"], rows))
    save(arguments.json, results)
    if above:
        sys.exit(f"above the budget: {', '.join(above)}")


if __name__ == "__main__":
    main()
