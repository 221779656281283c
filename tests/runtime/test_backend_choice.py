"""The choice of a backend: the best one that works, said in words, and never another than asked."""

from __future__ import annotations

import hashlib
import itertools
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from cycleisp_runtime.backends import Backend, Device, choice
from cycleisp_runtime.backends.choice import BACKENDS, load_on_backend, open_backend
from cycleisp_runtime.backends.identity import IdentityBackend
from cycleisp_runtime.bundle import Bundle, ModelFile, Precision
from cycleisp_runtime.engines.gpu import Gpu
from cycleisp_runtime.errors import BackendError, SettingsError
from tests.helpers import a_bundle, write_bundle
from tests.networks import residual_network

GPU = Gpu("Orin", (8, 7), 16, "CUDA 12060")


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return Bundle.load(
        write_bundle(tmp_path / "net.bundle", residual_network().SerializeToString())
    )


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "find_gpu", lambda: GPU)


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "find_gpu", lambda: None)


def in_three_precisions() -> Bundle:
    file = ModelFile("net.onnx", hashlib.sha256(b"").hexdigest(), 1, 17, ())
    return a_bundle(precisions={"fp32": file, "fp16": file, "int8": file})


def needs_openvino() -> None:
    if find_spec("openvino") is None:  # to import it would be to report to its makers
        pytest.skip("needs openvino")


class OnGpu(IdentityBackend):
    """A network on a GPU that exists on paper; its runs let a clock of ours go on."""

    name = "tensorrt"
    device: Device = "cuda"

    def __init__(self, precision: Precision, tick: Callable[[], object]) -> None:
        super().__init__()
        self.precision = precision
        self._tick = tick
        self.closed = False

    def run(self, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        self._tick()
        return super().run(inputs)

    def close(self) -> None:
        self.closed = True


def with_opener(monkeypatch: pytest.MonkeyPatch, name: str, opener: Callable[..., Backend]) -> None:
    monkeypatch.setitem(BACKENDS, name, BACKENDS[name]._replace(open=opener))


@pytest.mark.usefixtures("no_gpu")
def test_without_a_gpu_auto_is_onnxruntime_on_the_cpu_and_says_why(bundle: Bundle) -> None:
    with open_backend(bundle, threads=1) as backend:
        assert str(backend) == "onnxruntime fp32 on cpu"
        assert backend.reason == "there is no GPU"


@pytest.mark.usefixtures("no_gpu")
def test_a_name_is_that_backend_whatever_the_machine_has(bundle: Bundle) -> None:
    with open_backend(bundle, backend="identity") as backend:
        assert (backend.name, backend.reason) == ("identity", "as asked for")


def test_a_driver_that_does_not_work_is_the_reason(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise BackendError("the CUDA driver does not work")

    monkeypatch.setattr(choice, "find_gpu", broken)
    with open_backend(bundle, threads=1) as backend:
        assert backend.device == "cpu"
        assert backend.reason == "the CUDA driver does not work"


@pytest.mark.usefixtures("gpu")
def test_auto_passes_over_what_does_not_work_and_says_so_in_the_log(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def missing(*_: object) -> Backend:
        raise BackendError("TensorRT is not installed")

    with_opener(monkeypatch, "tensorrt", missing)
    with (
        caplog.at_level(logging.WARNING),
        open_backend(bundle, threads=1) as backend,
    ):
        assert str(backend) == "onnxruntime fp32 on cpu"
    passed_over = backend.reason.split("; not ")
    assert passed_over[0] == "not tensorrt on cuda: TensorRT is not installed"
    assert "cannot run on CUDAExecutionProvider" in passed_over[1]
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]


@pytest.mark.parametrize("name", ["onnxruntime", "onnxruntime-tensorrt"])
def test_a_device_that_was_asked_for_is_never_replaced(bundle: Bundle, name: str) -> None:
    with pytest.raises(BackendError, match=r"cannot run on \w+ExecutionProvider.*onnxruntime-gpu"):
        open_backend(bundle, backend=name, device="cuda")


@pytest.mark.parametrize(
    ("backend", "device", "line"),
    [
        ("directml", None, r"no such backend \(met directml, wanted auto, tensorrt, onnxruntime"),
        ("openvino", "cuda", r"openvino: the backend does not run there \(met cuda, wanted cpu\)"),
        ("auto", "gpu", r"auto: the backend does not run there \(met gpu, wanted cpu or cuda\)"),
        ("tensorrt", "cpu", r"tensorrt: the backend does not run there \(met cpu, wanted cuda\)"),
    ],
)
def test_what_cannot_be_is_refused(
    bundle: Bundle, backend: str, device: Device | None, line: str
) -> None:
    with pytest.raises(SettingsError, match=line):
        open_backend(bundle, backend=backend, device=device)


@pytest.mark.parametrize("threads", [-1, 0, 1025])
def test_a_number_of_threads_that_no_machine_has_use_for_is_refused(
    bundle: Bundle, threads: int
) -> None:
    with pytest.raises(SettingsError, match=rf"threads: out of range \(met {threads}, wanted 1..1"):
        open_backend(bundle, backend="identity", threads=threads)


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize(("int8_ticks", "best"), [(1, "int8"), (5, "fp16"), (3, "fp16")])
def test_int8_is_taken_on_a_gpu_only_where_it_is_measured_to_be_faster(
    monkeypatch: pytest.MonkeyPatch, int8_ticks: int, best: Precision
) -> None:
    clock = itertools.count()
    monkeypatch.setattr(time, "perf_counter", lambda: 1e-3 * next(clock))
    opened: dict[str, OnGpu] = {}

    def opener(_bundle: Bundle, precision: Precision, *_: object) -> Backend:
        ticks = int8_ticks if precision == "int8" else 3
        opened[precision] = OnGpu(precision, lambda: [next(clock) for _ in range(ticks)])
        return opened[precision]

    with_opener(monkeypatch, "tensorrt", opener)
    backend = open_backend(in_three_precisions())
    assert backend.precision == best
    assert backend.reason == (
        f"a tile of 256x256 takes 4.00 ms at fp16, {int8_ticks + 1:.2f} ms at int8"
    )
    assert {precision: each.closed for precision, each in opened.items()} == {
        "fp16": best == "int8",
        "int8": best == "fp16",
    }


@pytest.mark.usefixtures("gpu")
def test_a_precision_that_was_asked_for_is_not_measured_against_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with_opener(
        monkeypatch, "tensorrt", lambda _bundle, precision, *_: OnGpu(precision, lambda: None)
    )
    assert open_backend(in_three_precisions(), precision="int8").reason == "as asked for"


def test_a_denoiser_is_made_of_the_bundle_its_backend_and_bytes(bundle: Bundle) -> None:
    def made(found: Bundle, opened: Backend, memory: int | None) -> tuple[object, ...]:
        return found.sha256, str(opened), opened.batch, opened.threads, memory

    facts = load_on_backend(
        made, bundle.folder, backend="identity", precision=None, device=None, threads=3,
        memory="1MiB", batch=5,
    )  # fmt: skip
    assert facts == (bundle.sha256, "identity fp32 on cpu", 5, 3, 1 << 20)


def test_a_backend_is_closed_where_the_denoiser_refuses_it(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = OnGpu("fp32", lambda: None)
    with_opener(monkeypatch, "identity", lambda *_: backend)

    def refuses(*_: object) -> None:
        assert not backend.closed
        raise SettingsError("no")

    with pytest.raises(SettingsError):
        load_on_backend(
            refuses, bundle.folder, backend="identity", precision=None, device=None, threads=None,
            memory=None,
        )  # fmt: skip
    assert backend.closed


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_backends_report_nothing_to_their_makers(name: str, tmp_path: Path) -> None:
    if name == "openvino":
        needs_openvino()
    # Both packages number their user when they are imported, and keep the number at home.
    settings = {key: value for key, value in os.environ.items() if "TELEMETRY" not in key}
    subprocess.run(
        [sys.executable, "-c", f"import cycleisp_runtime.backends.{name}"],
        env={**settings, "HOME": str(tmp_path), "CI": ""},
        check=True,
        timeout=60,
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_backends_agree_with_each_other(bundle: Bundle, name: str) -> None:
    if name == "openvino":
        needs_openvino()
    rng = np.random.default_rng(0)
    with open_backend(bundle, threads=1, device="cpu") as reference:
        with open_backend(bundle, backend=name, device="cpu", threads=1) as backend:
            for count, rows, columns in [(1, 64, 64), (2, 32, 96), (1, 64, 64)]:
                tile = rng.random((count, 4, rows, columns), np.float32)
                inputs = bundle.record.tensors.fill(tile, 0.01 * tile + 1e-4, 0.1)
                # float32 rounding of values around 1, summed in another order
                np.testing.assert_allclose(
                    backend.run(inputs), reference.run(inputs), rtol=0, atol=1e-5
                )
        with pytest.raises(BackendError, match="closed"):
            backend.run(inputs)


OUT_OF_MEMORY = """
import re, resource, sys
import numpy as np
from cycleisp_runtime.backends.choice import open_backend
from cycleisp_runtime.bundle import find_bundle
from cycleisp_runtime.errors import OutOfMemoryError

bundle = find_bundle("tiny")
backend = open_backend(bundle, backend=sys.argv[1], device="cpu", threads=1)
small, large = (np.full((1, 4, side, side), 0.1, np.float32) for side in (64, 3072))
before = backend.run(bundle.record.tensors.fill(small, small, 1.0)).copy()
taken = int(re.search(r"VmSize:\\s+(\\d+)", open("/proc/self/status").read())[1]) << 10
resource.setrlimit(resource.RLIMIT_AS, (taken + (400 << 20),) * 2)
try:
    backend.run(bundle.record.tensors.fill(large, large, 1.0))
except OutOfMemoryError:
    after = backend.run(bundle.record.tensors.fill(small, small, 1.0))
    print("goes on" if np.array_equal(before, after) else "gives something else")
"""


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_a_backend_goes_on_after_it_ran_out_of_memory(name: str) -> None:
    if name == "openvino":
        needs_openvino()
    if not sys.platform.startswith("linux"):
        pytest.skip("only Linux limits the address space")
    done = subprocess.run(
        [sys.executable, "-c", OUT_OF_MEMORY, name],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout == "goes on\n", done.stderr
