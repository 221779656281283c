"""A stage: which networks learn, from what, and how well they do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from cycleisp.models import create_model
from cycleisp.models.storage import load_network
from cycleisp.training.run_settings import RunSettings

__all__ = ["Stage", "initial_networks"]


class Stage(nn.Module, ABC):
    """A module that turns a batch into its loss.

    It is one module, and not a loss beside networks, so that one loop trains several networks as it
    trains one. Networks that only help, and do not learn, are modules of the stage outside of
    ``networks``.

    Attributes:
        name: what the command calls it.
        networks: those that learn, by the names of ``create_model``.
    """

    name: ClassVar[str]

    def __init__(self, networks: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleDict(networks)

    @property
    def device(self) -> torch.device:
        """Where the networks are, and what they are given has to be."""
        return next(self.networks.parameters()).device

    @abstractmethod
    def draw(self, rng: np.random.Generator) -> dict[str, npt.NDArray[np.float32]]:
        """One sample of a batch: a pure function of the generator's state."""

    @abstractmethod
    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """The scalar loss of a batch, a mean over its samples, in float32.

        Args:
            batch: what ``draw`` gives, with a first axis for the samples.
        """

    @abstractmethod
    def validate(self, networks: nn.ModuleDict) -> dict[str, float]:
        """Figures by name, in dB unless the name says otherwise, on what is never trained on.

        Args:
            networks: such as ``networks``, for instance their running mean.
        """

    @abstractmethod
    def manifest(self) -> dict[str, object]:
        """What is trained on and what is held out, in a form for JSON."""


def initial_networks(names: tuple[str, ...], settings: RunSettings) -> dict[str, nn.Module]:
    """The networks that a run starts from: those of ``initial``, or fresh ones of the seed.

    torch's own generator is left as it was.

    Raises:
        SettingsError: where there is none of this name and size.
        InputError: where a file holds another network or size.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        networks = {name: create_model(name, settings.size) for name in names}
    if settings.initial is not None:
        for name, network in networks.items():
            file = settings.initial / f"{name}.safetensors"
            network.load_state_dict(load_network(file, name, settings.size).state_dict())
    return networks
