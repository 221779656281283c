"""Two processes share a batch: the same run as one, and none waits for one that is gone."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from subprocess import Popen

import pytest
import torch
from safetensors.torch import load_file

from cycleisp.training.distributed import Ranks, joined_ranks, ranks_of_environment
from cycleisp_runtime.errors import SettingsError
from tests.training.pictures import write_photographs
from tests.training.short_runs import learn, log, short_run, start, write_pipeline

_SECONDS = 120
"""For what would otherwise hang; two processes on a busy machine need a fifth of it."""


@pytest.fixture(name="photographs", scope="module")
def some_photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photographs(tmp_path_factory.mktemp("data") / "photographs", 4, 72)


def environments_of_two() -> tuple[dict[str, str], dict[str, str]]:
    """What torchrun tells each of two processes by their environments."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = str(listener.getsockname()[1])
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
    first, second = ({**meeting, "RANK": rank, "LOCAL_RANK": rank} for rank in ("0", "1"))
    return first, second


def start_two(stage: str, settings: Mapping[str, object]) -> tuple[Popen[str], Popen[str]]:
    first, second = (start(stage, settings, **rank) for rank in environments_of_two())
    return first, second


def learn_by_two(stage: str, settings: Mapping[str, object]) -> None:
    printed = []
    for process in start_two(stage, settings):
        with process:
            _, progress = process.communicate(timeout=_SECONDS)
            assert process.returncode == 0, progress
            printed.append(progress)
    first, second = printed
    assert "step" in first
    assert not second


EXACT = {"bfloat16": False, "learning_rate": 1e-4}
"""Adam divides a gradient by its size, so that a last bit can become a whole step: at the rate of
2e-3, RGB2RAW's loss differs by 0.2 % after 12 steps where one process merely sums the same batch in
another order. At 1e-4 that order is not to be seen in losses, and changes weights by 6e-8."""


def assert_nearly_same_run(one: Path, other: Path) -> None:
    """Two shares of a batch are summed in another order than the whole, in float32."""
    for mine, theirs in zip(log(one), log(other), strict=True):
        # Figures are in dB, rounded to 1e-3; losses are rounded to 1e-6.
        assert mine == pytest.approx(theirs, rel=1e-5, abs=2e-3)
        assert mine.get("loss", 0) == pytest.approx(theirs.get("loss", 0), rel=1e-5, abs=2e-6)
    for path in one.glob("*.safetensors"):
        tensors = load_file(other / path.name)
        for name, tensor in load_file(path).items():
            # A tenth of one step.
            torch.testing.assert_close(tensor, tensors[name], rtol=1e-4, atol=1e-5, msg=name)


def test_a_run_goes_on_with_another_number_of_ranks(photographs: Path, tmp_path: Path) -> None:
    constant = {**EXACT, "validation_steps": 4, "decay": 0.0}
    whole = short_run(photographs, tmp_path / "one", **constant)
    learn("raw2rgb", whole)
    mixed = {**whole, "output": str(tmp_path / "mixed")}
    learn("raw2rgb", {**mixed, "steps": 4})
    learn_by_two("raw2rgb", {**mixed, "steps": 8})
    learn("raw2rgb", mixed, resume=True)
    assert [record["step"] for record in log(tmp_path / "mixed")] == [0, 4, 8, 12]
    assert_nearly_same_run(tmp_path / "one", tmp_path / "mixed")


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["rgb2raw", "raw2rgb", "joint", "raw-denoiser", "srgb-denoiser"])
def test_two_ranks_learn_what_one_learns(photographs: Path, tmp_path: Path, stage: str) -> None:
    networks = write_pipeline(tmp_path) if stage in {"joint", "srgb-denoiser"} else {}
    changes = {"size": "small", "patch": 32, "batch": 4, **EXACT, **networks}
    settings = short_run(photographs, tmp_path / "two", **changes)
    learn_by_two(stage, settings)
    learn(stage, {**settings, "output": str(tmp_path / "one")})
    assert_nearly_same_run(tmp_path / "one", tmp_path / "two")


@pytest.mark.parametrize("killed", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_a_rank_that_dies_ends_the_run_of_the_other(
    photographs: Path, tmp_path: Path, killed: int
) -> None:
    changes = {"steps": 100_000, "validation_steps": 1, "workers": 1}
    ranks = start_two("raw2rgb", short_run(photographs, tmp_path / "run", **changes))
    progress = ranks[0].stderr
    assert progress is not None
    for _ in range(4):
        assert "step" in progress.readline()
    ranks[killed].kill()
    outputs = [rank.communicate(timeout=_SECONDS)[1] for rank in ranks]
    survivor = 1 - killed
    assert ranks[survivor].returncode == 1
    *_, last = outputs[survivor].splitlines()
    assert last.startswith(
        f"cycleisp: error: rank {survivor} of 2: the connection to another rank is lost (met "
    )
    assert last.endswith("see which rank stopped first and why; then start again with --resume")
    assert "Traceback" not in outputs[survivor]


def test_a_batch_that_ranks_cannot_share_is_refused_by_all(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    settings = short_run(photographs, tmp_path / "run", batch=3)
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        with pytest.raises(SettingsError, match=r"batch: .* \(met 3, wanted a multiple of 2\)"):
            learn("raw2rgb", settings)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_ranks_share_all_and_nothing_twice(count: int) -> None:
    shares = [Ranks(rank, count).share(30) for rank in range(count)]
    assert sorted(index for share in shares for index in share) == list(range(30))
    assert {len(share) for share in shares} == {30 // count}


def test_a_process_that_torchrun_did_not_start_is_the_only_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with joined_ranks(torch.device("cpu")) as ranks:
        assert ranks == Ranks(0, 1)
        assert ranks.first
        assert ranks.mean(torch.tensor(3.0)) == 3


@pytest.mark.parametrize(("rank", "count"), [("2", "2"), ("-1", "2"), ("0", "0"), ("one", "2")])
def test_ranks_that_cannot_be_are_refused(
    monkeypatch: pytest.MonkeyPatch, rank: str, count: str
) -> None:
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", count)
    with pytest.raises(SettingsError, match="RANK"):
        ranks_of_environment()


_AVERAGES = """
import os, torch
from cycleisp.training.distributed import joined_ranks
from torch import nn

used, unused = nn.Parameter(torch.ones(2, 3)), nn.Parameter(torch.ones(1))
with joined_ranks(torch.device("cpu")) as ranks:
    (used.T * (1 + 2 * ranks.rank)).sum().backward()
    ranks.average_gradients([unused, used])
assert torch.equal(used.grad, torch.full((2, 3), 2.0)) and unused.grad is None
tasks = "/proc/self/task"
if os.path.isdir(tasks):
    threads = [open(f"{tasks}/{task}/comm").read().strip() for task in os.listdir(tasks)]
    assert not [name for name in threads if "gloo" in name], threads
"""


def test_gradients_are_averaged_and_no_thread_of_the_connection_is_left() -> None:
    """A thread that runs while the interpreter ends aborts the process now and then."""
    processes = [
        Popen(
            [sys.executable, "-c", _AVERAGES],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **rank},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in environments_of_two()
    ]
    for process in processes:
        _, errors = process.communicate(timeout=_SECONDS)
        assert process.returncode == 0, errors


def test_torchrun_runs_a_whole_recipe(photographs: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"photographs: {photographs}\noutput: {tmp_path / 'run'}\npatch: 16\nbatch: 2\n"
        "held_out: 2\nworkers: 0\nstages:\n  rgb2raw: {steps: 2}\n  raw2rgb: {steps: 2}\n"
    )
    command = "from cycleisp_runtime.cli import main; main()"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *("--nproc-per-node", "2", "--no-python", sys.executable, "-c", command),
            *("train", "all", "--recipe", str(recipe)),
        ],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    # Ranks meet once: each stage that met anew would wait for the others forever.
    assert done.returncode == 0, done.stderr
    names = [Path(line).name for line in done.stdout.splitlines()]
    assert names == [f"{each}.safetensors" for each in ("rgb2raw", "color_branch", "raw2rgb")]
