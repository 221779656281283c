"""The doctor: what fits together, and backends that crash, hang or answer wrongly."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from msgspec import structs

from cycleisp_runtime import backend_check, doctor
from cycleisp_runtime.backends import Backend
from cycleisp_runtime.backends.choice import open_backend
from cycleisp_runtime.backends.identity import IdentityBackend
from cycleisp_runtime.bench.machine import describe_machine
from cycleisp_runtime.bench.record import Machine
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


@pytest.mark.usefixtures("on_a_cpu")
@pytest.mark.parametrize(
    ("code", "line"),
    [
        ("raise ImportError('libcudart.so.12: no such file')", "libcudart.so.12: no such file"),
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
            ["problem: TensorRT 8.6.2 has no strongly typed networks"],
        ),
        (
            a_machine(l4t="36.4.3", gpu=ORIN, tensorrt="10.3.0"),
            ["problem: TensorRT is installed, but nothing to give it"],
        ),
        (
            a_machine(l4t="36.4.3", gpu=ORIN, tensorrt="10.3.0", cuda_bindings="13.0.1"),
            ["problem: cuda-bindings 13.0.1 are newer than the driver, CUDA 12060"],
        ),
        (a_machine(l4t="99.1.0"), ["advice: L4T 99.1.0 is not known"]),
        (
            structs.replace(a_machine(l4t="39.2.0"), power_mode="15W"),
            ["advice: the power mode is 15W"],
        ),
    ],
)
def test_what_does_not_fit_is_found(machine: Machine, lines: list[str]) -> None:
    found = [f"{each.severity}: {each.line}" for each in findings(machine)]
    assert len(found) == len(lines), found
    for met, wanted in zip(found, lines, strict=True):
        assert re.match(wanted, met), met


def test_other_samples_than_those_of_onnxruntime_are_a_failure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = open_backend

    def identity_for_openvino(bundle: object, *, backend: str, **settings: object) -> Backend:
        if backend == "openvino":
            return IdentityBackend()
        return real(bundle, backend=backend, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(backend_check, "open_backend", identity_for_openvino)
    with pytest.raises(BackendError, match="openvino: gives other samples"):
        backend_check.check("openvino", "cpu")
