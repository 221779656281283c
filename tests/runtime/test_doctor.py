"""The doctor: what fits together, and backends that crash, hang or answer wrongly."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner
from msgspec import structs

from cycleisp_runtime import backend_check, doctor
from cycleisp_runtime.backends import Backend, Device
from cycleisp_runtime.backends.choice import open_backend
from cycleisp_runtime.bench.machine import describe_machine
from cycleisp_runtime.bench.record import Machine
from cycleisp_runtime.bundle import Bundle
from cycleisp_runtime.cli import main
from cycleisp_runtime.doctor import examine, findings
from cycleisp_runtime.engines.gpu import Gpu
from cycleisp_runtime.errors import BackendError

ORIN = Gpu("Orin", (8, 7), 16, "CUDA 12060, NVRM version: 540.4.0")


def a_machine(*, l4t: str | None = None, gpu: Gpu | None = None, **versions: str) -> Machine:
    """The machine at hand with other facts; names of packages with _ for -."""
    return structs.replace(
        describe_machine(),
        l4t=l4t,
        gpu=gpu,
        power_mode=None,
        versions={name.replace("_", "-"): version for name, version in versions.items()},
    )


@pytest.fixture
def on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with ONNX Runtime alone; children must find the package."""
    machine = a_machine(onnxruntime="1.32.0")
    monkeypatch.setattr(doctor, "describe_machine", lambda: machine)
    monkeypatch.setattr(doctor, "find_gpu", lambda: None)


def breaking(
    folder: Path, monkeypatch: pytest.MonkeyPatch, code: str, module: str = "onnxruntime"
) -> None:
    """Children import a module of this code."""
    (folder / f"{module}.py").write_text(code)
    path = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))


@pytest.mark.usefixtures("on_a_cpu")
def test_a_machine_with_onnxruntime_alone_is_healthy() -> None:
    tried: list[str] = []
    examination = examine(tried.append)
    assert examination.healthy
    assert [(each.backend, each.device, each.state) for each in examination.backends] == [
        ("onnxruntime", "cpu", "works"),
        ("openvino", "cpu", "absent"),
        ("tensorrt", "cuda", "no GPU"),
        ("onnxruntime", "cuda", "no GPU"),
    ]
    assert len(tried) == len(examination.backends)


def test_without_any_backend_it_is_ill_and_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(doctor, "describe_machine", lambda: a_machine(gpu=ORIN))
    monkeypatch.setattr(doctor, "find_gpu", lambda: ORIN)
    examination = examine()
    assert {each.state for each in examination.backends} == {"absent"}
    assert examination.backends[0].hint == "pip install onnxruntime"
    assert not examination.healthy


@pytest.mark.usefixtures("on_a_cpu")
def test_advice_is_no_illness(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = a_machine(l4t="99.1.0", onnxruntime="1.32.0")
    monkeypatch.setattr(doctor, "describe_machine", lambda: machine)
    examination = examine()
    assert [each.severity for each in examination.findings] == ["advice"]
    assert examination.healthy


@pytest.mark.parametrize(
    ("child", "state", "line"),
    [
        ((0, b'loading\n{"difference":3e-7,"seconds":1.2}\n', b""), "works", "after 1.2 s.*3e-07"),
        ((0, b'{"error":"no such device"}', b""), "fails", "no such device"),
        ((0, b"{}", b""), "fails", "no answer"),
        ((3, b"", b"a warning\nlibcudart is gone\n"), "fails", "status 3: libcudart is gone"),
    ],
)
def test_every_backend_is_asked_in_a_process_of_its_own_and_a_gpu_may_take_longer(
    monkeypatch: pytest.MonkeyPatch, child: tuple[int, bytes, bytes], state: str, line: str
) -> None:
    machine = a_machine(gpu=ORIN, onnxruntime_gpu="1.31.1", tensorrt="10.3.0", pycuda="2024.1")
    monkeypatch.setattr(doctor, "describe_machine", lambda: machine)
    monkeypatch.setattr(doctor, "find_gpu", lambda: ORIN)
    asked: list[tuple[str, str, float]] = []

    def run(command: list[str], *, timeout: float, **_: object) -> object:
        asked.append((command[-2], command[-1], timeout))
        return subprocess.CompletedProcess(command, *child)

    monkeypatch.setattr(subprocess, "run", run)
    met = [each for each in examine().backends if each.state != "absent"]
    assert asked == [
        ("onnxruntime", "cpu", doctor.CPU_SECONDS),
        ("tensorrt", "cuda", doctor.GPU_SECONDS),
        ("onnxruntime", "cuda", doctor.GPU_SECONDS),
    ]
    assert {each.state for each in met} == {state}
    assert all(re.search(line, each.line) for each in met)


@pytest.mark.usefixtures("on_a_cpu")
@pytest.mark.parametrize(
    ("code", "line"),
    [
        (
            "raise ImportError('libcudart.so.12: no such file')",
            "on cpu: ONNX Runtime cannot be imported: libcudart.so.12: no such file; install",
        ),
        ("raise TypeError('built for another NumPy')", "TypeError: built for another NumPy"),
        ("import os; os.abort()", "ended with status -6"),
        ("import sys; sys.exit(0)", "ended with status 0: it said nothing"),
        ("import time; time.sleep(600)", "no answer within 1 s"),
    ],
)
def test_a_backend_that_breaks_does_not_break_the_doctor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, line: str
) -> None:
    breaking(tmp_path, monkeypatch, code)
    if "sleep" in code:
        monkeypatch.setattr(doctor, "CPU_SECONDS", 1.0)
    result = CliRunner().invoke(main, ["doctor"])
    assert result.exit_code == 1, result.output
    assert line in result.stdout
    assert result.stdout.splitlines()[-1] == "not healthy"


def test_one_backend_that_fails_is_enough_to_be_ill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = a_machine(onnxruntime="1.32.0", openvino="2026.4.1")
    monkeypatch.setattr(doctor, "describe_machine", lambda: machine)
    monkeypatch.setattr(doctor, "find_gpu", lambda: None)
    breaking(tmp_path, monkeypatch, "raise ImportError('libopenvino.so is missing')", "openvino")
    examination = examine()
    assert [each.state for each in examination.backends[:2]] == ["works", "fails"]
    assert "libopenvino.so is missing" in examination.backends[1].line
    assert not examination.healthy


@pytest.mark.usefixtures("on_a_cpu")
def test_json_says_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "CHECKS", doctor.CHECKS[:1])
    result = CliRunner().invoke(main, ["doctor", "--json"])
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    assert said["healthy"] is True
    assert said["backends"][0]["state"] == "works"


@pytest.mark.usefixtures("on_a_cpu")
def test_a_driver_that_does_not_work_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise BackendError("the CUDA driver does not work: cuInit gives error 999", hint="restart")

    monkeypatch.setattr(doctor, "find_gpu", broken)
    monkeypatch.setattr(doctor, "CHECKS", doctor.CHECKS[:1])
    examination = examine()
    assert not examination.healthy
    assert [each.line for each in examination.findings] == [
        "the CUDA driver does not work: cuInit gives error 999"
    ]


@pytest.mark.parametrize(
    ("machine", "lines"),
    [
        (a_machine(onnxruntime="1.32.0"), []),
        (a_machine(onnxruntime="1.32.0", onnxruntime_gpu="1.31.1"), ["problem: .*overwrite each"]),
        (a_machine(l4t="36.4.3", gpu=ORIN, tensorrt="10.3.0", pycuda="2024.1"), []),
        (
            a_machine(l4t="36.4.3", gpu=ORIN, tensorrt="11.4.0", pycuda="2024.1"),
            ["advice: TensorRT 11.4.0 is not JetPack 6.1 or 6.2's, which is 10.3"],
        ),
        (
            a_machine(l4t="36.3.0", gpu=ORIN, tensorrt="8.6.2", pycuda="2024.1"),
            ["problem: TensorRT 8.6.2 has no strongly typed networks.*; update JetPack"],
        ),
        (
            a_machine(l4t="36.4.3", gpu=ORIN, tensorrt="10.3.0"),
            ["problem: TensorRT is installed, but nothing to give it"],
        ),
        (
            a_machine(l4t="36.4.3", gpu=ORIN, tensorrt="10.3.0", cuda_bindings="13.0.1"),
            ["problem: cuda-bindings 13.0.1 are newer than the driver, CUDA 12060.*; .*<13'"],
        ),
        (a_machine(l4t="36.4.3", gpu=ORIN, tensorrt="10.3.0", cuda_bindings="12.9.4"), []),
        (
            a_machine(l4t="36.2.0", tensorrt="10.3.0"),
            ["advice: TensorRT 10.3.0 is not JetPack 6.0's, which is 8.6"],
        ),
        (
            a_machine(l4t="38.2.0", tensorrt="10.3.0"),
            ["advice: TensorRT 10.3.0 is not JetPack 7.0 or 7.1's, which is 10.13"],
        ),
        (a_machine(l4t="99.1.0"), ["advice: L4T 99.1.0 is not known"]),
        (
            structs.replace(a_machine(l4t="39.2.0"), power_mode="15W"),
            ["advice: the power mode is 15W"],
        ),
        (structs.replace(a_machine(l4t="39.2.0"), power_mode="MAXN_SUPER"), []),
    ],
)
def test_what_does_not_fit_is_found(machine: Machine, lines: list[str]) -> None:
    found = [f"{each.severity}: {each.line}; {each.hint}" for each in findings(machine)]
    assert len(found) == len(lines), found
    for met, wanted in zip(found, lines, strict=True):
        assert re.match(wanted, met), met


class Off(Backend):
    """ONNX Runtime with one sample too large, in memory that is gone when it is closed."""

    name = "off"
    precision = "fp32"

    def __init__(self, real: Backend, by: float) -> None:
        self.real, self.by = real, by

    def run(self, inputs: Mapping[str, npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
        self.output = self.real.run(inputs).copy()
        self.output[0, 3, 5, 7] += self.by
        return self.output

    def close(self) -> None:
        self.output[:] = 0
        self.real.close()


@pytest.mark.parametrize("by", [0.0, 5e-5, 2e-4, -2e-4, math.nan])
def test_other_samples_than_those_of_onnxruntime_are_a_failure(
    monkeypatch: pytest.MonkeyPatch, by: float
) -> None:
    real = open_backend
    opened: list[tuple[str, str]] = []

    def off_for_tensorrt(bundle: Bundle, *, backend: str, device: Device, **rest: Any) -> Backend:  # noqa: ANN401
        opened.append((backend, device))
        found = real(bundle, backend="onnxruntime", device="cpu", **rest)
        return Off(found, by) if backend == "tensorrt" else found

    monkeypatch.setattr(backend_check, "open_backend", off_for_tensorrt)
    if abs(by) < 1e-4:
        assert backend_check.check("tensorrt", "cuda").difference == pytest.approx(by, abs=1e-7)
    else:
        with pytest.raises(BackendError, match="tensorrt: gives other samples"):
            backend_check.check("tensorrt", "cuda")
    assert opened == [("tensorrt", "cuda"), ("onnxruntime", "cpu")]
