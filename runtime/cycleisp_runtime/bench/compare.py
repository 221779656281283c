"""Two reports side by side: what became slower, and how sure that is."""

from __future__ import annotations

import msgspec
import numpy as np

from cycleisp_runtime.bench.record import Configuration, Report
from cycleisp_runtime.bench.statistics import LEAST_SAMPLES, MedianRatio, ratio_of_medians
from cycleisp_runtime.bench.summary import seconds_per_mp
from cycleisp_runtime.errors import InputError

__all__ = ["CONFIDENCE", "Change", "compare_reports"]

CONFIDENCE = 0.95
"""From which a change counts as one."""


class Change(msgspec.Struct, frozen=True):
    """How one configuration changed from report A to report B.

    Attributes:
        configuration: the same in both.
        before_ms_per_mp: median of A.
        after_ms_per_mp: median of B.
        ratio: after over before.
        low: lower end of its 95 % interval.
        high: upper end.
        confidence: share of bootstrap resamples that exceed the threshold.
        regression: whether that is at least ``CONFIDENCE``.
    """

    configuration: Configuration
    before_ms_per_mp: float
    after_ms_per_mp: float
    ratio: float
    low: float
    high: float
    confidence: float
    regression: bool


def compare_reports(
    before: Report, after: Report, *, threshold: float, rng: np.random.Generator
) -> list[Change]:
    """Every configuration that both reports have.

    Args:
        before: report A.
        after: report B.
        threshold: how much slower counts as a regression, such as 0.05.
        rng: of the bootstrap.

    Raises:
        InputError: where the reports are of different machines, power modes, models or frames,
            have no configuration in common, or too few samples.
    """
    _check_alike(before, after)
    earlier = {each.configuration: each for each in before.measured}
    changes = []
    for each in after.measured:
        if each.configuration not in earlier:
            continue
        old = seconds_per_mp(earlier[each.configuration].samples, before.frames)
        new = seconds_per_mp(each.samples, after.frames)
        if min(len(old), len(new)) < LEAST_SAMPLES:
            raise InputError(
                "too few samples to compare",
                subject=str(each.configuration),
                met=min(len(old), len(new)),
                wanted=f"at least {LEAST_SAMPLES}",
                hint="measure with a higher --runs",
            )
        found: MedianRatio = ratio_of_medians(old, new, limit=1 + threshold, rng=rng)
        changes.append(
            Change(
                configuration=each.configuration,
                before_ms_per_mp=float(np.median(old)) * 1e3,
                after_ms_per_mp=float(np.median(new)) * 1e3,
                ratio=found.ratio,
                low=found.low,
                high=found.high,
                confidence=found.confidence,
                regression=found.confidence >= CONFIDENCE,
            )
        )
    if not changes:
        raise InputError(
            "the reports have no configuration in common",
            met="; ".join(str(each.configuration) for each in after.measured),
            wanted="; ".join(map(str, earlier)),
        )
    return changes


def _check_alike(before: Report, after: Report) -> None:
    """Refuse what no ratio of times could mean anything for."""
    for what, met, wanted in (
        ("boards", after.machine.board, before.machine.board),
        ("CPUs", _cpu(after), _cpu(before)),
        ("GPUs", after.machine.gpu, before.machine.gpu),
        ("power modes", after.machine.power_mode, before.machine.power_mode),
        ("bundles", after.model.sha256, before.model.sha256),
        ("frames", after.frames, before.frames),
        ("ways, in memory or file to file", after.end_to_end, before.end_to_end),
    ):
        if met != wanted:
            raise InputError(
                f"the reports are of different {what} and cannot be compared",
                met=met,
                wanted=wanted,
                hint="measure both on the same machine, in the same way",
            )


def _cpu(report: Report) -> tuple[str, int]:
    return report.machine.cpu, report.machine.cores
