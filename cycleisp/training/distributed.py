"""One process among those that torchrun started, or the only one."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn

from cycleisp_runtime.errors import SettingsError, TrainingError

__all__ = ["Ranks", "joined_ranks", "local_device", "ranks_of_environment"]


@dataclass(frozen=True)
class Ranks:
    """Which of how many processes this one is.

    Attributes:
        rank: from 0; rank 0 alone writes what is written once.
        count: processes in all.
    """

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes what is written once."""
        return self.rank == 0

    def share(self, items: int) -> range:
        """Indices, out of ``items``, that are this process's."""
        return range(self.rank, items, self.count)

    def wait(self) -> None:
        """Return once every process has come here."""
        if self.count > 1:
            distributed.barrier()

    def mean(self, value: Tensor) -> float:
        """The mean over all processes of each one's scalar."""
        total = value.detach().clone()
        if self.count > 1:
            distributed.all_reduce(total)
        return float(total) / self.count

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Put the mean over all processes in the place of every gradient.

        One message when the backward pass is over. ``DistributedDataParallel`` sends while it runs,
        which networks of a few million parameters do not need, but leaves the connection's threads
        running after ``destroy_process_group`` (torch 2.13); the process then may abort as it ends.
        """
        if self.count == 1:
            return
        gradients = [each.grad for each in parameters if each.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        distributed.all_reduce(flat)
        flat /= self.count
        parts = torch.split(flat, [gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))


def ranks_of_environment() -> Ranks:
    """What torchrun told this process by ``RANK`` and ``WORLD_SIZE``; one process without it.

    Raises:
        SettingsError: where they are no such numbers.
    """
    rank, count = (os.environ.get(name, default) for name, default in _DEFAULTS)
    try:
        ranks = Ranks(int(rank), int(count))
    except ValueError as error:
        raise SettingsError(
            "not numbers", subject="RANK, WORLD_SIZE", met=f"{rank}, {count}"
        ) from error
    if not 0 <= ranks.rank < ranks.count:
        raise SettingsError(
            "not one of the ranks",
            subject="RANK",
            met=ranks.rank,
            wanted=f"0 to {ranks.count - 1}",
            hint="start it by torchrun",
        )
    return ranks


_DEFAULTS = (("RANK", "0"), ("WORLD_SIZE", "1"))


def local_device(wanted: str = "auto") -> torch.device:
    """The device of this process: its GPU among those of the machine, or the CPU.

    Args:
        wanted: ``cpu``, ``cuda``, or ``auto`` for CUDA where torch sees a GPU.

    Raises:
        SettingsError: where CUDA is wanted and there is none.
    """
    seen = torch.cuda.is_available()
    if wanted == "cpu" or (wanted == "auto" and not seen):
        return torch.device("cpu")
    if not seen:
        raise SettingsError("torch sees no GPU", subject="device", met=wanted, wanted="cpu or auto")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


@contextmanager
def joined_ranks(device: torch.device) -> Iterator[Ranks]:
    """The ranks, this process connected to them while the block runs.

    Inside of another such block it is the other's connection: torchrun's processes can meet once.

    Raises:
        TrainingError: where another rank does not come, or dies.
        SettingsError: as ``ranks_of_environment``.
    """
    ranks = ranks_of_environment()
    if ranks.count == 1 or distributed.is_initialized():
        yield ranks
        return
    try:
        if device.type == "cuda":
            torch.cuda.set_device(device)
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
        yield ranks
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:  # torch.distributed has no narrower one for a lost connection
        raise TrainingError(
            "the connection to another rank is lost",
            subject=f"rank {ranks.rank} of {ranks.count}",
            met=re.sub(r"^\[\S*\] ", "", str(error).partition("\n")[0])[:120],
            hint="see which rank stopped first and why; then start again with --resume",
        ) from error
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()
