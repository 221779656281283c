"""Checkpoints and weights: whole or not at all, and only our own."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from cycleisp.training.checkpoint import (
    Checkpoint,
    adam_state,
    load_checkpoint,
    load_weights,
    restore_adam_state,
    save_checkpoint,
    save_weights,
)
from cycleisp_runtime.errors import InputError, OutputError


def a_checkpoint(step: int) -> Checkpoint:
    named = {"head.weight": torch.full((2, 3), float(step))}
    return Checkpoint(
        step, 1.5, named, {"head.weight": torch.zeros(2, 3)}, {"0.step": torch.ones(())}
    )


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(
        torch.equal(first[name], second[name]) for name in first
    )


def test_a_checkpoint_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    saved = a_checkpoint(7)
    save_checkpoint(path, saved)
    loaded = load_checkpoint(path)
    assert (loaded.step, loaded.seconds) == (7, 1.5)
    assert equal(loaded.model, saved.model)
    assert equal(loaded.average, saved.average)
    assert equal(loaded.optimizer, saved.optimizer)


def test_weights_come_back_with_their_network(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    model = nn.Linear(3, 2)
    save_weights(path, model, "raw_denoiser", "tiny")
    name, size, tensors = load_weights(path)
    assert (name, size) == ("raw_denoiser", "tiny")
    assert equal(tensors, model.state_dict())


def test_a_parameter_that_a_network_shares_is_written_under_all_its_names(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    activation = nn.PReLU(4)
    model = nn.Sequential(nn.Linear(3, 4), activation, nn.Linear(4, 4), activation)
    save_weights(path, model, "raw_denoiser", "full")
    assert equal(load_weights(path)[2], model.state_dict())


def test_equal_contents_make_equal_files(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    contents = set()
    for _ in range(16):
        save_checkpoint(path, a_checkpoint(7))
        contents.add(path.read_bytes())
    assert len(contents) == 1


def test_a_failure_while_writing_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "checkpoint.safetensors"
    save_checkpoint(path, a_checkpoint(1))

    def full(_file: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match=r"checkpoint.safetensors: .*no space left"):
        save_checkpoint(path, a_checkpoint(2))
    assert load_checkpoint(path).step == 1
    assert list(tmp_path.iterdir()) == [path]


Load = Callable[[Path], object]
LOADERS = pytest.mark.parametrize("load", [load_checkpoint, load_weights])


@LOADERS
def test_a_file_of_another_format_is_refused(tmp_path: Path, load: Load) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"a": torch.zeros(2)}, path, {"format": "pt"})
    with pytest.raises(InputError, match=r"met pt, wanted cycleisp-(checkpoint|weights)/1"):
        load(path)
    save_file({"a": torch.zeros(2)}, path)
    with pytest.raises(InputError, match="met no format"):
        load(path)


def test_one_is_not_taken_for_the_other(tmp_path: Path) -> None:
    checkpoint, weights = tmp_path / "checkpoint.safetensors", tmp_path / "weights.safetensors"
    save_checkpoint(checkpoint, a_checkpoint(1))
    save_weights(weights, nn.Linear(3, 2), "raw_denoiser", "tiny")
    with pytest.raises(InputError, match=r"weights.safetensors"):
        load_weights(checkpoint)
    with pytest.raises(InputError, match="wanted cycleisp-checkpoint/1"):
        load_checkpoint(weights)


@LOADERS
@pytest.mark.parametrize("length", [0, 4, 40, -1])
def test_a_truncated_file_is_refused(tmp_path: Path, load: Load, length: int) -> None:
    path = tmp_path / "checkpoint.safetensors"
    save_checkpoint(path, a_checkpoint(1))
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(InputError, match="not a readable safetensors file"):
        load(path)


@LOADERS
def test_a_missing_file_is_refused(tmp_path: Path, load: Load) -> None:
    with pytest.raises(InputError, match="absent: not a readable safetensors file"):
        load(tmp_path / "absent")


@pytest.mark.parametrize(
    ("tensor", "facts"),
    [
        ("model/a", {"step": "many", "seconds": "1"}),
        ("model/a", {"step": "1"}),
        ("step/a", {"step": "1", "seconds": "1"}),
        ("a", {"step": "1", "seconds": "1"}),
    ],
)
def test_a_damaged_checkpoint_is_refused(
    tmp_path: Path, tensor: str, facts: dict[str, str]
) -> None:
    path = tmp_path / "checkpoint.safetensors"
    save_file({tensor: torch.zeros(2)}, path, {"format": "cycleisp-checkpoint/1", **facts})
    with pytest.raises(InputError, match="its description is damaged"):
        load_checkpoint(path)


@pytest.mark.parametrize("facts", [{}, {"description": "{"}, {"description": "[]"}])
def test_damaged_weights_are_refused(tmp_path: Path, facts: dict[str, str]) -> None:
    path = tmp_path / "weights.safetensors"
    save_file({"a": torch.zeros(2)}, path, {"format": "cycleisp-weights/1", **facts})
    with pytest.raises(InputError, match="its description is damaged"):
        load_weights(path)


def _step(model: nn.Linear, optimizer: torch.optim.Optimizer, seed: int) -> None:
    optimizer.zero_grad()
    inputs = torch.randn(5, 3, generator=torch.Generator().manual_seed(seed))
    model(inputs).square().mean().backward()
    optimizer.step()


def test_adam_goes_on_as_if_never_stopped(tmp_path: Path) -> None:
    model = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    for seed in range(3):
        _step(model, optimizer, seed)
    path = tmp_path / "checkpoint.safetensors"
    save_checkpoint(path, Checkpoint(3, 0.0, model.state_dict(), {}, adam_state(optimizer)))

    resumed = nn.Linear(3, 2)
    resumed_optimizer = torch.optim.AdamW(resumed.parameters(), 1e-2)
    checkpoint = load_checkpoint(path)
    resumed.load_state_dict(checkpoint.model)
    restore_adam_state(resumed_optimizer, checkpoint.optimizer)
    for seed in range(3, 6):
        _step(model, optimizer, seed)
        _step(resumed, resumed_optimizer, seed)
    assert equal(model.state_dict(), resumed.state_dict())
