"""What the shipped models do when they are told the wrong noise: half and twice the true variance.

The photographs and levels of ``benchmarks.quality``. For every model, what users get beside the
network alone: the PSNR gained in dB, the share of the network's correction that was used, and the
gain that was expected without the truth.
"""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from benchmarks.quality import OURS, as_frame, as_planes, clean_pictures, network_alone
from benchmarks.report import options, required, save, table
from cycleisp.evaluation.metrics import psnr
from cycleisp.noise import LEVELS, noisy_samples
from cycleisp_runtime.denoiser import Denoiser
from cycleisp_runtime.noise import NoiseModel

FACTORS = (0.5, 1.0, 2.0)


@dataclass(frozen=True)
class Outcome:
    """One picture at one level; ``factor`` is the variance that was told over the true one.

    Attributes:
        alone_db: gained by the network alone.
        gain_db: gained by the denoiser.
        expected_db: what it expected.
        trust: share of the network's correction that was used.
    """

    model: str
    level: str
    factor: float
    alone_db: float
    gain_db: float
    expected_db: float
    trust: float


def measure(pictures: dict[str, npt.NDArray[np.float32]], model: str, level: str) -> list[Outcome]:
    """Every picture with every factor; the same noise as in ``benchmarks.quality``."""
    alone = network_alone(model, 2)
    found = []
    with Denoiser.load(model, threads=2) as denoiser:
        for index, clean in enumerate(pictures.values()):
            noisy = noisy_samples(clean, *LEVELS[level], np.random.default_rng(index))
            before = psnr(np.clip(noisy, 0, 1), clean)
            for factor in FACTORS:
                shot, read = (factor * value for value in LEVELS[level])
                result = denoiser(as_frame(noisy), noise=NoiseModel.uniform(shot, read))
                outputs = (alone.denoise(noisy, shot, read).planes, as_planes(result))
                alone_db, gain_db = (psnr(np.clip(x, 0, 1), clean) - before for x in outputs)
                expected = result.expected_gain_db or 0.0
                found.append(
                    Outcome(model, level, factor, alone_db, gain_db, expected, result.trust)
                )
    return found


def outcome_table(outcomes: list[Outcome]) -> str:
    """Means over the pictures, and the worst picture."""
    rows = []
    for key in dict.fromkeys((each.model, each.level, each.factor) for each in outcomes):
        these = [each for each in outcomes if (each.model, each.level, each.factor) == key]
        model, level, factor = key
        row = [model, level, f"x{factor:g}"]
        for gained in ([each.alone_db for each in these], [each.gain_db for each in these]):
            worse = sum(gain < 0 for gain in gained)
            row += [f"{statistics.mean(gained):+.2f}", f"{min(gained):+.2f}", str(worse)]
        trust = [each.trust for each in these]
        expected = statistics.mean(each.expected_db for each in these)
        rows.append(
            [*row, f"{statistics.mean(trust):.2f}", f"{min(trust):.2f}", f"{expected:+.2f}"]
        )
    header = ["model", " noise", "told", "network alone", "worst", "made worse"]
    header += ["with trust", "worst", "made worse", "trust", "least", "expected"]
    return table(header, rows)


def main() -> None:
    """Print the table."""
    parser = options(__doc__)
    parser.add_argument(
        "--pictures", type=int, default=50, metavar="N", help="use at most N photographs"
    )
    arguments = parser.parse_args()
    pictures = clean_pictures(required(arguments.data / "photos_test"), arguments.pictures)
    outcomes = [
        outcome for model in OURS for level in LEVELS for outcome in measure(pictures, model, level)
    ]
    print(outcome_table(outcomes))
    save(arguments.json, [asdict(outcome) for outcome in outcomes])


if __name__ == "__main__":
    main()
