"""pycuda and cuda-bindings as they are, against a libcuda that was made up (``libcuda.c``).

Each of these tests is a process of its own, because a package binds the library once. ``make``
installs cuda-bindings only: pycuda has no wheels, and is compiled where CUDA's headers are.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from textwrap import dedent
from types import SimpleNamespace
from typing import Any

import pytest

from cycleisp_runtime.cuda import PACKAGES, open_driver
from cycleisp_runtime.engines.gpu import find_gpu
from cycleisp_runtime.errors import BackendError

LIBRARY = Path(__file__).with_name("libcuda.c")
TIME_LIMIT_S = 60

PRELUDE = """\
import ctypes, importlib, json, os, sys
# What the made-up library lacks is missed only if it is called.
sys.setdlopenflags(os.RTLD_LAZY | os.RTLD_GLOBAL)
libcuda = ctypes.CDLL("libcuda.so.1", ctypes.RTLD_GLOBAL)
import numpy as np
from cycleisp_runtime.errors import BackendError, OutOfMemoryError

def number(name):
    return ctypes.c_int.in_dll(libcuda, name)

def left():
    return [*(ctypes.c_int * 7).in_dll(libcuda, "live"), libcuda.current_contexts()]

def open_driver():
    return importlib.import_module(sys.argv[1]).Driver()

"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a libcuda.so.1."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    folder = tmp_path_factory.mktemp("libcuda")
    target = folder / "libcuda.so.1"
    flags = ["-shared", "-fPIC", "-Wall", "-Werror"]
    subprocess.run(
        [compiler, *flags, "-o", str(target), str(LIBRARY), "-ldl"],
        check=True,
        timeout=TIME_LIMIT_S,
    )
    return folder


@pytest.fixture(params=sorted(PACKAGES))
def module(request: pytest.FixtureRequest) -> str:
    """The module that calls the driver through a package that is installed."""
    package: str = request.param
    found = {"pycuda": "pycuda", "cuda-bindings": "cuda"}[package]
    if importlib.util.find_spec(found) is None:
        pytest.skip(f"needs {package}")
    return PACKAGES[package]


def answer(library: Path, module: str, program: str) -> Any:  # noqa: ANN401
    """What a program in its own process prints as JSON."""
    search = {"LD_LIBRARY_PATH": str(library), "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + dedent(program), module],
        env=os.environ | search,
        capture_output=True,
        text=True,
        timeout=TIME_LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_round_trip_leaves_nothing(library: Path, module: str) -> None:
    facts = answer(
        library,
        module,
        """
        cuda = open_driver()
        with cuda.current():
            inside = libcuda.current_contexts()
            memory, pinned = cuda.allocate(100), cuda.allocate_pinned(100)
            stream, start, end = cuda.create_stream(), cuda.create_event(), cuda.create_event()
            pinned[:] = range(100)
            cuda.record(start, stream)
            cuda.upload(memory, pinned, stream)
            cuda.wait(stream, start)
            pinned[:] = 0
            cuda.download(pinned[:60], memory, stream)
            cuda.record(end, stream)
            cuda.synchronize(stream)
            came_back = pinned.tolist()
            seconds = cuda.seconds_between(start, end)
            seen = cuda.device_address(pinned) == pinned.ctypes.data
            at_work = left()
            cuda.free(memory)
            cuda.free_pinned(pinned)
            cuda.destroy_event(start)
            cuda.destroy_event(end)
            cuda.destroy_stream(stream)
        after, retained = left(), number("retained").value
        cuda.close()
        print(json.dumps([inside, came_back, seconds, seen, at_work, after, retained,
                          left(), number("retained").value, cuda.integrated, cuda.package]))
        """,
    )
    *facts, package = facts
    came_back = [*range(60), *[0] * 40]
    nothing = [0] * 8
    assert facts == [
        1,
        came_back,
        0.002,
        True,
        [1, 1, 1, 2, 0, 0, 0, 1],
        nothing,
        1,
        nothing,
        0,
        False,
    ]
    assert PACKAGES[package.split()[0]] == module


def test_rows_that_lie_apart_are_copied_and_their_gaps_are_not(library: Path, module: str) -> None:
    came_back, whole, held, error = answer(
        library,
        module,
        """
        cuda = open_driver()
        with cuda.current():
            memory, stream = cuda.allocate(40), cuda.create_stream()
            all_of_it, rows = cuda.allocate_pinned(40), cuda.allocate_pinned(12)
            all_of_it[:] = range(40)
            rows[:] = range(100, 112)
            cuda.upload(memory, all_of_it, stream)
            cuda.upload_rows(memory, 10, rows.reshape(4, 3), stream)
            cuda.download(all_of_it, memory, stream)
            rows[:] = 0
            cuda.download_rows(rows.reshape(3, 4), memory, 10, stream)
            cuda.wait_for_others(stream)
            cuda.wait_for_others(None)
            held = [cuda.holds(memory), cuda.holds(rows.ctypes.data)]
            number("fault").value = 1
            try:
                cuda.wait_for_others(None)
            except BackendError as error:
                print(json.dumps([rows.tolist(), all_of_it.tolist(), held, str(error)]))
        sys.stdout.flush()
        os._exit(0)  # after a fault nothing can be freed
        """,
    )
    expected = list(range(40))
    for row in range(4):
        expected[10 * row : 10 * row + 3] = range(100 + 3 * row, 103 + 3 * row)
    assert whole == expected
    assert came_back == [*expected[:4], *expected[10:14], *expected[20:24]]
    assert held == [True, False]
    assert error == "CUDA fails: cuCtxSynchronize gives error 700"


def test_a_kernel_gets_a_struct_and_pointers(library: Path, module: str) -> None:
    told, after, errors = answer(
        library,
        module,
        """
        def error(call, *arguments):
            try:
                call(*arguments)
            except BackendError as error:
                return str(error)

        cuda = open_driver()
        record = np.zeros((), [("number", np.int32), ("fraction", np.float32)])
        record["number"], record["fraction"] = -7, 0.375
        with cuda.current():
            memory, pinned = cuda.allocate(24), cuda.allocate_pinned(24)
            stream, module = cuda.create_stream(), cuda.load_module(b"kernels")
            kernel = cuda.find_kernel(module, "kernel")
            cuda.launch_kernel(kernel, (3, 4), (32, 8), record, (memory, 0), stream)
            cuda.download(pinned, memory, stream)
            cuda.synchronize(stream)
            told = pinned.view(np.int32).tolist()
            errors = [
                error(cuda.load_module, b"no code"),
                error(cuda.find_kernel, module, "other"),
                error(cuda.launch_kernel, kernel, (1, 1), (1, 1), record, (0, 0), stream),
            ]
            cuda.unload_module(module)
            errors.append(error(cuda.unload_module, module))
            cuda.free(memory)
            cuda.free_pinned(pinned)
            cuda.destroy_stream(stream)
        cuda.close()
        print(json.dumps([told, left(), errors]))
        """,
    )
    assert told == [3, 4, 32, 8, -7, 3]
    assert after == [0] * 8
    assert errors == [
        f"CUDA fails: {function} gives error {status}"
        for function, status in (
            ("cuModuleLoadData", 1),
            ("cuModuleGetFunction", 500),
            ("cuLaunchKernel", 1),
            ("cuModuleUnload", 400),
        )
    ]


def test_what_is_captured_is_done_when_it_is_launched(library: Path, module: str) -> None:
    replayed, at_work, after, error = answer(
        library,
        module,
        """
        cuda = open_driver()
        record = np.zeros((), [("number", np.int32), ("fraction", np.float32)])
        replayed = []
        with cuda.current():
            memory, stream = cuda.allocate(24), cuda.create_stream()
            module = cuda.load_module(b"kernels")
            kernel = cuda.find_kernel(module, "kernel")
            cuda.begin_capture(stream)
            for _ in range(3):
                cuda.launch_kernel(kernel, (1, 1), (1, 1), record, (memory, 0), stream)
            graph = cuda.end_capture(stream)
            for _ in range(2):
                replayed.append(number("replayed").value)
                cuda.launch_graph(graph, stream)
            replayed.append(number("replayed").value)
            at_work = left()
            try:
                cuda.end_capture(stream)
            except BackendError as error:
                told = str(error)
            cuda.destroy_graph(graph)
            cuda.unload_module(module)
            cuda.free(memory)
            cuda.destroy_stream(stream)
        cuda.close()
        print(json.dumps([replayed, at_work, left(), told]))
        """,
    )
    assert replayed == [0, 3, 6]
    assert at_work == [1, 0, 1, 0, 1, 0, 1, 1]
    assert after == [0] * 8
    assert error == "CUDA fails: cuStreamEndCapture gives error 1"


def test_a_context_of_somebody_else_is_current_again(library: Path, module: str) -> None:
    """torch and ONNX Runtime make the primary context current for good."""
    depths = answer(
        library,
        module,
        """
        context = ctypes.c_void_p()
        libcuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0)
        libcuda.cuCtxPushCurrent_v2(context)
        depths = [libcuda.current_contexts()]
        cuda = open_driver()
        for _ in range(3):
            with cuda.current():
                depths.append(libcuda.current_contexts())
            depths.append(libcuda.current_contexts())
        cuda.close()
        print(json.dumps([*depths, libcuda.current_contexts(), number("retained").value]))
        """,
    )
    assert depths == [1, 2, 1, 2, 1, 2, 1, 1, 1]


def test_integrated_gpus_are_known(library: Path, module: str) -> None:
    program = """
        number("integrated").value = 1
        cuda = open_driver()
        cuda.close()
        print(json.dumps(cuda.integrated))
        """
    assert answer(library, module, program) is True


def test_errors_are_ours(library: Path, module: str) -> None:
    told = answer(
        library,
        module,
        """
        def error(call, *arguments):
            try:
                call(*arguments)
            except BackendError as error:
                return [type(error).__name__, str(error)]

        cuda = open_driver()
        with cuda.current():
            stream, memory = cuda.create_stream(), cuda.allocate(10)
            pinned = cuda.allocate_pinned(20)
            told = [
                error(cuda.allocate, 1 << 30),
                error(cuda.allocate_pinned, 1 << 30),
                error(cuda.upload, memory, pinned, stream),
                error(cuda.upload, memory, np.zeros(10, np.uint8), stream),
            ]
            number("fault").value = 1
            told += [
                error(cuda.download, pinned[:10], memory, stream),
                error(cuda.synchronize, stream),
                error(cuda.create_event),
            ]
        print(json.dumps(told))
        sys.stdout.flush()
        os._exit(0)  # after a fault nothing can be freed
        """,
    )
    kinds = [kind for kind, _ in told]
    assert kinds == ["OutOfMemoryError"] * 2 + ["BackendError"] * 5
    assert all("CUDA" in text for _, text in told)


@pytest.mark.parametrize(
    ("broken", "chosen", "warned"),
    [
        ({}, "pycuda", []),
        ({"pycuda": ModuleNotFoundError("No module named 'pycuda'")}, "cuda-bindings", []),
        (
            {"pycuda": ImportError("libcurand.so.10: cannot open shared object file")},
            "cuda-bindings",
            ["pycuda is broken: libcurand.so.10: cannot open shared object file"],
        ),
        (
            {"pycuda": AttributeError("_ARRAY_API not found")},
            "cuda-bindings",
            ["pycuda is broken: _ARRAY_API not found"],
        ),
    ],
)
def test_pycuda_is_preferred_where_it_works(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    broken: dict[str, Exception],
    chosen: str,
    warned: list[str],
) -> None:
    pretend(monkeypatch, broken)
    assert open_driver().package == chosen
    assert caplog.messages == warned


def test_where_neither_works_it_is_told_why(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = {
        "pycuda": ImportError("libcuda.so.1: cannot open shared object file"),
        "cuda-bindings": ModuleNotFoundError("No module named 'cuda'"),
    }
    pretend(monkeypatch, broken)
    with pytest.raises(
        BackendError,
        match=r"pycuda is broken: libcuda\.so\.1.*; No module named 'cuda'; pip install cuda-bind",
    ):
        open_driver()


def pretend(monkeypatch: pytest.MonkeyPatch, broken: Mapping[str, Exception]) -> None:
    """Let importing what calls through these packages fail, and the others work."""

    def load(module: str) -> SimpleNamespace:
        (package,) = (name for name, its_module in PACKAGES.items() if its_module == module)
        if package in broken:
            raise broken[package]
        return SimpleNamespace(Driver=lambda: SimpleNamespace(package=package))

    monkeypatch.setattr(importlib, "import_module", load)


@pytest.mark.skipif(find_gpu() is not None, reason="there is a GPU")
def test_without_a_gpu_cuda_bindings_say_so() -> None:
    pytest.importorskip("cuda.bindings", reason="needs cuda-bindings")
    from cycleisp_runtime.cuda.cuda_bindings_driver import Driver

    with pytest.raises(BackendError, match="CUDA"):
        Driver()
