"""What is made of a report: figures, files, pages, comparisons."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from xml.etree import ElementTree as ET

import msgspec
import numpy as np
import pytest

from cycleisp_runtime.bench.compare import compare_reports
from cycleisp_runtime.bench.page import report_page
from cycleisp_runtime.bench.peaks import peak
from cycleisp_runtime.bench.record import Configuration, Reading, Report, read_report
from cycleisp_runtime.bench.summary import clock_warnings, drift, summary
from cycleisp_runtime.bench.tables import (
    energy_table,
    latency_table,
    machine_facts,
    notes,
    phase_table,
    samples_csv,
    warnings,
)
from cycleisp_runtime.errors import InputError
from tests.runtime.bench_reports import FRAME, ORIN, a_machine, a_report, samples

TEN = [0.5] * 5 + [0.7] * 5


def test_phases_and_what_lies_between_them_add_up() -> None:
    facts = a_report(TEN).measured[0].summary
    assert set(facts.phases_ms) == {"pre", "compute", "post", "somewhere new", "other"}
    assert sum(facts.phases_ms.values()) == pytest.approx(facts.latency_ms.mean)
    assert facts.phases_ms["other"] == pytest.approx(0.05 * 600)
    assert facts.mp_per_s == pytest.approx(2.0 / 0.6)


def test_operations_are_counted_over_the_network_s_time() -> None:
    facts = a_report(TEN).measured[0].summary
    # 2 MP of 2 kMAC per sample are 8e9 operations, in 0.7 of 0.6 s.
    assert facts.tops == pytest.approx(8e9 / (0.7 * 0.6) / 1e12)
    identity = summary(samples(TEN), [FRAME], Configuration("identity", "fp32"), a_machine(), 2.0)
    assert (identity.tops, identity.peak_tops) == (None, None)


def test_energy_counts_readings_within_frames_only() -> None:
    report = a_report([0.6] * 20)
    (found,) = report.measured[0].energy
    # Readings every quarter of a second: at 0, 0.25 and 0.5 a frame of 0.6 s was running.
    assert (found.readings, found.watts, found.idle_watts) == (60, 10.0, 4.0)
    assert found.joules_per_mp == pytest.approx(10.0 * 0.6 / 2)
    assert energy_table(report).rows[0][5] == "1.800"
    assert a_report([1e-3] * 2).measured[0].energy == ()


def test_a_drift_is_that_of_the_ends() -> None:
    steady = np.full(40, 0.5)
    slower = np.concatenate([steady, 1.1 * steady])
    rng = np.random.default_rng(0)
    found = drift(samples(list(slower)), [FRAME], rng)
    assert found is not None
    assert [found.latency_ratio, found.latency_low] == pytest.approx([1.1, 1.1])
    assert found.p99_ratio == pytest.approx(1.1)
    assert found.memory_mb_per_1000_frames == 0
    pool = [
        msgspec.structs.replace(sample, resident_bytes=min(10**7 * index, 10**8))
        for index, sample in enumerate(samples(list(slower)))
    ]
    settled = drift(pool, [FRAME], rng)
    assert settled is not None
    assert settled.memory_mb_per_1000_frames == 0
    leaky = [
        msgspec.structs.replace(sample, resident_bytes=10**8 + 2000 * index)
        for index, sample in enumerate(samples(list(slower)))
    ]
    rising = drift(leaky, [FRAME], rng)
    assert rising is not None
    assert rising.memory_mb_per_1000_frames == pytest.approx(2.0)
    assert drift(leaky[:24], [FRAME], rng) is None


def test_a_throttled_gpu_is_told() -> None:
    machine = a_machine(gpu_mhz=1020.0)
    slow, full = ([Reading(1.0, {}, {}, {"GPU": mhz})] * 3 for mhz in (612.0, 1010.0))
    assert "612 of 1020 MHz" in clock_warnings(machine, slow)[0]
    assert clock_warnings(machine, full) == []
    assert clock_warnings(a_machine(), slow) == []


def test_peaks_of_gpus() -> None:
    orin = a_machine(gpu=ORIN, gpu_mhz=1300.0)
    h100 = a_machine(gpu=msgspec.structs.replace(ORIN, name="NVIDIA H100 80GB HBM3"))
    for machine, precision, tops in (
        (orin, "int8", 85.2),  # the data sheet's 170 TOPS are sparse
        (orin, "fp16", 42.6),
        (h100, "fp16", 989),
    ):
        found = peak(machine, precision, on_gpu=True, threads=None)  # type: ignore[arg-type]
        assert found is not None
        assert found.tops == pytest.approx(tops, rel=1e-3)
        assert found.source
    assert peak(orin, "fp32", on_gpu=True, threads=None) is None
    assert peak(a_machine(gpu=ORIN), "fp16", on_gpu=True, threads=None) is None
    unknown = msgspec.structs.replace(ORIN, name="RTX 9090", compute_capability=(13, 0))
    assert peak(a_machine(gpu=unknown), "fp16", on_gpu=True, threads=None) is None


@pytest.mark.parametrize(
    ("features", "cpu", "precision", "per_clock"),
    [
        (("avx2", "fma"), "Intel", "fp32", 32),
        (("avx2", "avx512f", "fma"), "Intel Xeon", "fp32", 64),
        (("avx2", "avx512f", "fma"), "AMD EPYC", "fp32", 32),
        (("avx2", "avx512_vnni", "avx512f", "fma"), "Intel Xeon", "int8", 256),
        (("asimd", "asimddp"), "Orin", "int8", 64),
        (("avx2", "fma"), "Intel", "int8", None),
        (("avx2", "fma"), "Intel", "fp16", None),
        ((), "other", "fp32", None),
    ],
)
def test_peaks_of_cpus(
    features: tuple[str, ...], cpu: str, precision: str, per_clock: int | None
) -> None:
    machine = a_machine(cpu=cpu, cpu_features=features)
    found = peak(machine, precision, on_gpu=False, threads=2)  # type: ignore[arg-type]
    tops = None if found is None else found.tops
    assert tops == (None if per_clock is None else pytest.approx(2 * per_clock * 3e9 / 1e12))


def test_a_report_survives_its_file(tmp_path: Path) -> None:
    report = a_report(TEN, TEN[::-1])
    (tmp_path / "a.json").write_bytes(msgspec.json.encode(report))
    assert read_report(tmp_path / "a.json") == report


def altered(**changes: object) -> bytes:
    """A report whose first sample is another."""
    report = msgspec.to_builtins(a_report(TEN))
    report["measured"][0]["samples"][0].update(changes)
    return msgspec.json.encode(report)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"\xff\xfe",
        altered(frame=1),
        altered(frame=-1),
        altered(seconds=0),
        altered(unknown=1),
        msgspec.json.encode(a_report(TEN)).replace(b"bench/1", b"bench/2"),
        msgspec.json.encode(msgspec.structs.replace(a_report(TEN), measured=())),
    ],
)
def test_what_is_no_report_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.json: not a benchmark's report"):
        read_report(tmp_path / "a.json")


def test_a_report_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_report(tmp_path / "a.json")


def test_csv_has_every_sample() -> None:
    report = a_report(TEN, [0.1] * 3)
    rows = list(csv.DictReader(io.StringIO(samples_csv(report))))
    assert len(rows) == 13
    assert [float(row["seconds"]) for row in rows] == [*TEN, 0.1, 0.1, 0.1]
    assert {(row["tile"], row["frame"], row["mp"]) for row in rows} == {
        ("100", "frame", "2.0"),
        ("200", "frame", "2.0"),
    }
    assert float(rows[0]["network_s"]) == pytest.approx(0.35)


def test_tables_have_a_row_per_configuration() -> None:
    report = a_report(TEN, TEN)
    for table in (latency_table(report), phase_table(report)):
        assert [row[0] for row in table.rows] == [
            "onnxruntime fp32 on cpu tile 100",
            "onnxruntime fp32 on cpu tile 200",
        ]
        assert all(len(row) == len(table.headers) for row in table.rows)
    assert "warm-up left out" in notes(report)[0]
    assert machine_facts(report)["frames"] == "frame (2 MP), from memory to memory"
    assert warnings(report) == ["<b>odd</b>"]


def test_notes_tell_of_a_soak() -> None:
    report = a_report([0.5] * 15 + [0.7] * 15)
    found = drift(report.measured[0].samples, [FRAME], np.random.default_rng(0))
    soaked = msgspec.structs.replace(
        report, measured=(msgspec.structs.replace(report.measured[0], drift=found),)
    )
    *_, drifted, hottest = notes(soaked)
    assert "1.400 times that of the first" in drifted
    assert "+0.00 MB per 1,000 frames" in drifted
    assert hottest == "Hottest sensor: 50.0 C at the beginning, 50.0 C at most."


def test_the_page_stands_alone() -> None:
    page = report_page(a_report(TEN, [0.4] * 2000))
    assert "<b>odd</b>" not in page
    assert "&lt;b&gt;odd&lt;/b&gt;" in page
    assert not re.search(r'(src|href)="', page)
    drawings = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(drawings) == 5  # latency, phases, memory, power, temperature
    for drawing in drawings:
        ET.fromstring(drawing)  # noqa: S314  our own text
    assert len(page) < 300_000  # 2,000 samples are thinned


def changes_of(before: Report, after: Report, threshold: float = 0.05) -> list[bool]:
    rng = np.random.default_rng(0)
    found = compare_reports(before, after, threshold=threshold, rng=rng)
    return [change.regression for change in found]


def around(seconds: float, n: int = 30) -> list[float]:
    return list(seconds * np.random.default_rng(n).normal(1, 0.02, n))


def test_a_regression_is_one_where_it_is_sure() -> None:
    before = a_report(around(0.5), around(0.5))
    assert changes_of(before, a_report(around(0.6, 25), around(0.5, 25))) == [True, False]
    assert changes_of(before, a_report(around(0.6, 25)), threshold=0.3) == [False]
    assert changes_of(before, a_report(around(0.4, 25))) == [False]
    assert changes_of(before, before) == [False, False]


def test_an_uncertain_change_is_no_regression() -> None:
    wild = [0.3, 0.9, 0.4, 1.0, 0.35, 0.95]
    assert changes_of(a_report(wild), a_report([1.1 * each for each in wild])) == [False]


@pytest.mark.parametrize(
    ("other", "what"),
    [
        (a_report(TEN, machine=a_machine(cpu="Another CPU")), "CPUs"),
        (a_report(TEN, machine=a_machine(gpu=ORIN)), "GPUs"),
        (a_report(TEN, machine=a_machine(power_mode="15W")), "power modes"),
        (a_report(TEN, sha256="1"), "bundles"),
        (msgspec.structs.replace(a_report(TEN), end_to_end=True), "ways"),
    ],
)
def test_what_is_not_alike_is_not_compared(other: Report, what: str) -> None:
    with pytest.raises(InputError, match=f"different {what}"):
        changes_of(a_report(TEN), other)


def test_nothing_in_common_and_too_little() -> None:
    with pytest.raises(InputError, match="too few samples"):
        changes_of(a_report(TEN), a_report(TEN[:4]))
    other = a_report(TEN, TEN)
    with pytest.raises(InputError, match="no configuration in common"):
        changes_of(a_report(TEN), msgspec.structs.replace(other, measured=other.measured[1:]))
