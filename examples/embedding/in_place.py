"""The Python API inside another program: from its buffers into its buffers, nothing copied between.

    python examples/embedding/in_place.py IN.raw OUT.raw WIDTH HEIGHT

Both files are mapped, so that the denoiser reads samples where the file has them and writes where
the other file will have them. The same lines serve a ring of camera buffers or shared memory.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from cycleisp_runtime import CycleISPError, Denoiser, NoiseModel


def main() -> None:
    """Every frame of a recording of uint16 samples, at 16 bits."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("input", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("width", type=int)
    parser.add_argument("height", type=int)
    parser.add_argument("--cfa", default="RGGB")
    parser.add_argument("--black", type=float, default=64)
    parser.add_argument("--white", type=float, default=1023)
    parser.add_argument("--noise", type=NoiseModel.parse, default="1e-3,1e-5")
    parser.add_argument("--model", default="tiny")
    options = parser.parse_args()

    shape = (-1, options.height, options.width)
    noisy = np.memmap(options.input, "<u2", "r").reshape(shape)
    with Denoiser.load(options.model) as denoiser:
        options.output.touch(exist_ok=False)  # what is there stays, the input above all
        clean = np.memmap(options.output, "<u2", "w+", shape=noisy.shape)
        for source, target in zip(noisy, clean, strict=True):
            result = denoiser.denoise_into(
                source,
                target,
                cfa=options.cfa,
                black=options.black,
                white=options.white,
                noise=options.noise,
            )
    clean.flush()
    print(f"{len(clean)} frames, levels x{result.level_scale}")


if __name__ == "__main__":
    try:
        main()
    except (CycleISPError, OSError, ValueError) as error:
        sys.exit(f"in_place.py: {error}")
