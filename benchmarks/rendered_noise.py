"""What rendering makes of a sensor's noise: how strong, how coloured, how correlated it is.

RAW noise of middle level is white: no sample knows its neighbour's. RAW2RGB demosaics and colours
it. Measured on the photographs that the repository holds, by the shipped pipeline; beside it white
Gaussian noise of the same strength added to sRGB, as denoisers are often trained on.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.report import options, save, table
from cycleisp.data.photographs import load_photograph
from cycleisp.models.storage import load_network
from cycleisp.noise import LEVELS, NoiseLaw
from cycleisp.synthesis.cycle import RawSynthesis, SrgbSynthesis
from cycleisp.synthesis.raw_noise import RawNoise

ROOT = Path(__file__).resolve().parents[1]
PICTURES = ROOT / "examples" / "photographs"
NETWORKS = ROOT / "zoo" / "runs" / "small"
SIDE = 320

_Array = npt.NDArray[np.float32]


def synthesised() -> tuple[list[_Array], list[_Array]]:
    """Clean sRGB (3, H, W) of every photograph's middle, and the rendered noise on it."""
    names = ("rgb2raw", "color_branch", "raw2rgb")
    rgb2raw, color_branch, raw2rgb = (
        load_network(NETWORKS / f"{name}.safetensors", name) for name in names
    )
    synthesis = SrgbSynthesis(RawSynthesis(rgb2raw), color_branch, raw2rgb, "round-trip")
    shot, read = LEVELS["middle"]
    law = RawNoise(NoiseLaw(shot, shot, spread=0.0, slope=0.0, intercept=float(np.log(read))))
    clean, noise = [], []
    for index, path in enumerate(sorted(PICTURES.glob("*.jpg"))):
        codes = load_photograph(path)[:SIDE, :SIDE]
        rgb = torch.from_numpy(codes.transpose(2, 0, 1).astype(np.float32) / 255)[None]
        with torch.inference_mode():
            pairs = synthesis.pairs(rgb, law, [np.random.default_rng(index)])
        clean.append(pairs.clean[0].numpy())
        noise.append((pairs.noisy - pairs.clean)[0].numpy())
    return clean, noise


def facts(clean: list[_Array], noise: list[_Array]) -> dict[str, float]:
    """Strength by brightness, in codes of 255, and correlations of the noise."""
    light = np.concatenate([picture.mean(axis=0).ravel() for picture in clean])
    flat = np.concatenate([each.reshape(3, -1) for each in noise], axis=1)
    across = np.concatenate([each[..., :-1].reshape(3, -1) for each in noise], axis=1)
    beside = np.concatenate([each[..., 1:].reshape(3, -1) for each in noise], axis=1)
    dark, middle, bright = (
        flat[:, (light >= low) & (light < high)] for low, high in ((0, 0.2), (0.2, 0.6), (0.6, 0.9))
    )
    return {
        "dark": 255 * float(dark.std()),
        "middle": 255 * float(middle.std()),
        "bright": 255 * float(bright.std()),
        "neighbours": _correlation(across, beside),
        "red-green": _correlation(flat[0], flat[1]),
        "green-blue": _correlation(flat[1], flat[2]),
    }


def _correlation(first: _Array, second: _Array) -> float:
    return float(np.corrcoef(first.ravel(), second.ravel())[0, 1])


def main() -> None:
    """Print the table."""
    arguments = options(__doc__, data=False).parse_args()
    clean, noise = synthesised()
    rng = np.random.default_rng(0)
    deviation = np.concatenate([each.ravel() for each in noise]).std()
    white = [rng.normal(0, deviation, each.shape).astype(np.float32) for each in noise]
    gaussian = [np.clip(c + w, 0, 1) - c for c, w in zip(clean, white, strict=True)]
    results = {"rendered": facts(clean, noise), "Gaussian": facts(clean, gaussian)}
    header = ["noise", *results["rendered"]]
    rows = [
        [name, *(f"{value:.2f}" for value in found.values())] for name, found in results.items()
    ]
    print(table(header, rows))
    save(arguments.json, results)


if __name__ == "__main__":
    main()
