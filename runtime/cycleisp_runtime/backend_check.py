"""Whether a backend runs here, and rightly: a program of its own, because a driver may crash it.

    python -m cycleisp_runtime.backend_check NAME DEVICE

prints one JSON object: what ran, and how far it is from ONNX Runtime on the CPU.
"""

from __future__ import annotations

import sys
import time

import msgspec
import numpy as np

from cycleisp_runtime.backends import Device
from cycleisp_runtime.backends.choice import open_backend
from cycleisp_runtime.bundle import find_bundle
from cycleisp_runtime.errors import BackendError, CycleISPError

__all__ = ["Answer", "check"]

MODEL = "tiny"
SIDE = 64
"""Of the tile, in packed samples."""

MAX_DIFFERENCE = 1e-4
"""From ONNX Runtime at FP32, of samples in 0..1: below a step of 12 bits; backends that sum in
another order were seen to differ by 3e-7."""


class Answer(msgspec.Struct, frozen=True):
    """What became of a check; only ``error`` where it failed.

    Attributes:
        error: why the backend does not work.
        difference: largest one from ONNX Runtime at FP32, of normalised samples.
        seconds: to open the backend, with an engine where it needs one, and to run it once.
    """

    error: str | None = None
    difference: float | None = None
    seconds: float | None = None


def check(name: str, device: Device) -> Answer:
    """The backend on a tile of noise, compared with ONNX Runtime on the CPU.

    Raises:
        CycleISPError: where the backend does not run, or gives something else.
    """
    bundle = find_bundle(MODEL)
    rng = np.random.default_rng(0)
    noisy = rng.random((1, 4, SIDE, SIDE), np.float32)
    inputs = bundle.record.tensors.fill(noisy, 1e-3 * noisy + 1e-5, 0.03)
    start = time.perf_counter()
    with open_backend(bundle, backend=name, precision="fp32", device=device) as backend:
        found = backend.run(inputs).copy()
    seconds = time.perf_counter() - start
    with open_backend(bundle, backend="onnxruntime", precision="fp32", device="cpu") as reference:
        difference = float(np.abs(found - reference.run(inputs)).max())
    if not difference <= MAX_DIFFERENCE:  # NaN is not either
        raise BackendError(
            "gives other samples than ONNX Runtime on the CPU",
            subject=name,
            met=f"a difference of {difference:.2g}",
            wanted=f"at most {MAX_DIFFERENCE:.0e}",
        )
    return Answer(difference=difference, seconds=seconds)


def _main() -> None:
    name, device = sys.argv[1:]
    try:
        answer = check(name, msgspec.convert(device, Device))
    except CycleISPError as error:
        answer = Answer(error=str(error))
    print(msgspec.json.encode(answer).decode())  # noqa: T201  a program's output


if __name__ == "__main__":
    _main()
