"""What a machine has to run models with, whether it fits together, and whether it works.

Nothing of what is examined is imported here: versions come from the packages' metadata, and every
backend is tried in a process of its own (``backend_check.py``), which may crash or hang.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

import msgspec

from cycleisp_runtime.backend_check import Answer
from cycleisp_runtime.backends import Device
from cycleisp_runtime.bench.machine import describe_machine
from cycleisp_runtime.bench.record import Machine
from cycleisp_runtime.engines.gpu import find_gpu
from cycleisp_runtime.errors import BackendError

__all__ = ["BackendFacts", "Examination", "Finding", "examine", "findings"]


class Jetpack(NamedTuple):
    """What belongs together on a Jetson.

    Attributes:
        l4t: beginning of the version in /etc/nv_tegra_release.
        cuda: CUDA's version.
        tensorrt: TensorRT's, major and minor.
    """

    name: str
    l4t: str
    cuda: str
    tensorrt: str


JETPACKS = (
    Jetpack("JetPack 5", "35.", "11.4", "8.5"),
    Jetpack("JetPack 6.0", "36.2", "12.2", "8.6"),
    Jetpack("JetPack 6.0", "36.3", "12.2", "8.6"),
    Jetpack("JetPack 6.1 or 6.2", "36.", "12.6", "10.3"),
    Jetpack("JetPack 7.0 or 7.1", "38.", "13.0", "10.13"),
    Jetpack("JetPack 7.2", "39.", "13.2", "10.16"),
)
"""The first row whose ``l4t`` fits. NVIDIA, "JetPack SDK" release notes and archive; for 7.x also
roboflow/inference #1935 and #2478."""

OLDEST_TENSORRT = (10, 3)
"""The first one with strongly typed networks that JetPack has."""

CPU_SECONDS = 60.0
GPU_SECONDS = 600.0
"""An engine may have to be built, which takes minutes on a small Jetson."""


class _Check(NamedTuple):
    """A backend to be tried: one of ``packages`` must be installed, ``hint`` says how."""

    backend: str
    device: Device
    packages: tuple[str, ...]
    hint: str


CHECKS = (
    _Check("onnxruntime", "cpu", ("onnxruntime", "onnxruntime-gpu"), "pip install onnxruntime"),
    _Check("openvino", "cpu", ("openvino",), "pip install 'cycleisp[openvino]'"),
    _Check(
        "tensorrt",
        "cuda",
        ("tensorrt", "tensorrt-rtx"),
        "on a Jetson use JetPack's in a virtual environment with --system-site-packages; elsewhere "
        "pip install 'cycleisp[rtx]' or 'cycleisp[tensorrt]'",
    ),
    _Check(
        "onnxruntime",
        "cuda",
        ("onnxruntime-gpu",),
        "pip uninstall onnxruntime, then pip install onnxruntime-gpu; PyPI has none for JetPack 6",
    ),
)


class Finding(msgspec.Struct, frozen=True):
    """Something that does not fit, or could be better.

    Attributes:
        severity: "problem" where something installed cannot work; "advice" for the rest.
        line: what it is.
        hint: what to do.
    """

    severity: Literal["problem", "advice"]
    line: str
    hint: str


class BackendFacts(msgspec.Struct, frozen=True):
    """One backend on one device.

    Attributes:
        state: "works"; "absent" where its package is not installed; "no GPU"; or "fails".
        line: how it works, or why not.
        hint: how to get it; None where there is nothing to do.
    """

    backend: str
    device: Device
    state: Literal["works", "absent", "no GPU", "fails"]
    line: str
    hint: str | None = None


class Examination(msgspec.Struct, frozen=True):
    """What ``cycleisp doctor`` prints.

    Attributes:
        healthy: nothing that is installed fails, and one backend works at least.
        jetpack: by the version of L4T; None off a Jetson, or where that one is not known.
    """

    healthy: bool
    machine: Machine
    jetpack: str | None
    backends: tuple[BackendFacts, ...]
    findings: tuple[Finding, ...]


def examine(begin: Callable[[str], object] = lambda _backend: None) -> Examination:
    """The machine examined and every backend tried, which may take minutes on a GPU.

    Args:
        begin: called with the name of each backend before it is tried.
    """
    machine = describe_machine()
    found = list(findings(machine))
    try:
        find_gpu()
    except BackendError as error:
        found.append(Finding("problem", error.problem, error.hint or "install the driver again"))
    backends = []
    for each in CHECKS:
        begin(f"{each.backend} on {each.device}")
        backends.append(_try(each, machine))
    states = {each.state for each in backends}
    problems = [each for each in found if each.severity == "problem"]
    jetpack = _jetpack(machine)
    return Examination(
        healthy="works" in states and "fails" not in states and not problems,
        machine=machine,
        jetpack=None if jetpack is None else jetpack.name,
        backends=tuple(backends),
        findings=tuple(found),
    )


def findings(machine: Machine) -> Iterator[Finding]:
    """What of the machine's versions does not fit, or is missing for its GPU."""
    versions, jetpack = machine.versions, _jetpack(machine)
    if {"onnxruntime", "onnxruntime-gpu"} <= versions.keys():
        yield Finding(
            "problem",
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other's files",
            "pip uninstall both, then install one of them",
        )
    tensorrt = versions.get("tensorrt")
    if tensorrt is not None and _numbers(tensorrt) < OLDEST_TENSORRT:
        yield Finding(
            "problem",
            f"TensorRT {tensorrt} has no strongly typed networks, which engines are built from",
            "update JetPack to 6.1 or later" if jetpack else "install TensorRT 10.3 or later",
        )
    if machine.l4t is not None:
        yield from _findings_on_jetson(machine, jetpack)
    if machine.gpu is None:
        return
    driver = re.match(r"CUDA (\d+)", machine.gpu.driver)
    bindings = versions.get("cuda-bindings")
    if driver and bindings and _numbers(bindings)[0] > int(driver[1]) // 1000:
        yield Finding(
            "problem",
            f"cuda-bindings {bindings} are newer than the driver, {machine.gpu.driver}",
            f"pip install 'cuda-bindings<{int(driver[1]) // 1000 + 1}'",
        )
    if {"tensorrt", "tensorrt-rtx"} & versions.keys() and not (
        {"pycuda", "cuda-bindings"} & versions.keys()
    ):
        yield Finding(
            "problem",
            "TensorRT is installed, but nothing to give it the GPU's memory",
            "pip install pycuda, or cuda-bindings of the driver's CUDA version",
        )


def _findings_on_jetson(machine: Machine, jetpack: Jetpack | None) -> Iterator[Finding]:
    tensorrt = machine.versions.get("tensorrt")
    if jetpack is None:
        yield Finding(
            "advice",
            f"L4T {machine.l4t} is not known to this version of cycleisp",
            "trust what works below",
        )
    elif tensorrt is not None and _numbers(tensorrt) != _numbers(jetpack.tensorrt):
        yield Finding(
            "advice",
            f"TensorRT {tensorrt} is not {jetpack.name}'s, which is {jetpack.tensorrt}",
            "uninstall it and use JetPack's, in a virtual environment with --system-site-packages",
        )
    if machine.power_mode is not None and not machine.power_mode.startswith("MAXN"):
        yield Finding(
            "advice",
            f"the power mode is {machine.power_mode}",
            "sudo nvpmodel -m of the mode MAXN, then sudo jetson_clocks, where speed matters",
        )


def _try(check: _Check, machine: Machine) -> BackendFacts:
    """What became of the backend in a process of its own."""
    if check.device == "cuda" and machine.gpu is None:
        return BackendFacts(check.backend, check.device, "no GPU", "CUDA finds no GPU")
    if not any(package in machine.versions for package in check.packages):
        return BackendFacts(
            check.backend,
            check.device,
            "absent",
            f"{' or '.join(check.packages)} is not installed",
            check.hint,
        )
    answer = _ask(check, CPU_SECONDS if check.device == "cpu" else GPU_SECONDS)
    if answer.error is not None or answer.difference is None or answer.seconds is None:
        return BackendFacts(check.backend, check.device, "fails", answer.error or "no answer")
    return BackendFacts(
        check.backend,
        check.device,
        "works",
        f"first result after {answer.seconds:.1f} s, within {answer.difference:.1g} of ONNX "
        "Runtime on the CPU",
    )


def _ask(check: _Check, seconds: float) -> Answer:
    """The answer of the backend's process, whatever becomes of it."""
    command = [sys.executable, "-m", "cycleisp_runtime.backend_check", check.backend, check.device]
    try:
        child = subprocess.run(command, capture_output=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        return Answer(error=f"no answer within {seconds:.0f} s")
    last_line = (child.stdout.strip().splitlines() or [b""])[-1]
    try:
        return msgspec.json.decode(last_line, type=Answer)
    except msgspec.DecodeError:
        said = child.stderr.decode(errors="replace").strip().splitlines() or ["it said nothing"]
        return Answer(error=f"its process ended with status {child.returncode}: {said[-1]}")


def _jetpack(machine: Machine) -> Jetpack | None:
    if machine.l4t is None:
        return None
    return next((each for each in JETPACKS if machine.l4t.startswith(each.l4t)), None)


def _numbers(version: str) -> tuple[int, ...]:
    """Major and minor."""
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])
