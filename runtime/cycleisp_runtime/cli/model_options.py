"""How a model is run: the options that every command has which runs one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

import click

from cycleisp_runtime.errors import CycleISPError
from cycleisp_runtime.text import printable

if TYPE_CHECKING:
    import os

    from cycleisp_runtime.bundle import Precision
    from cycleisp_runtime.denoiser import Denoiser
    from cycleisp_runtime.pictures import PictureDenoiser

__all__ = ["ModelOptions", "model_options"]

_P = ParamSpec("_P")
_R = TypeVar("_R")
_Kind = TypeVar("_Kind", "Denoiser", "PictureDenoiser")


@dataclass(frozen=True)
class ModelOptions:
    """What ``Denoiser.load`` is told on the command line.

    Attributes:
        backend: its name, or "auto".
        precision: None for the best one that the backend runs.
        memory: bytes for everything but the frames; None for the default tile.
        threads: of the network on a CPU; None for one per physical core.
    """

    backend: str
    precision: Precision | None
    memory: int | None
    threads: int | None

    def load(self, bundle: str | os.PathLike[str]) -> Denoiser:
        """The denoiser that the options ask for; raises what ``Denoiser.load`` raises.

        A backend that was not asked for by name is named on stderr, and why it was taken.
        """
        from cycleisp_runtime.denoiser import Denoiser

        return self._load(Denoiser, bundle)

    def load_for_pictures(self, bundle: str | os.PathLike[str]) -> PictureDenoiser:
        """The same for rendered pictures."""
        from cycleisp_runtime.pictures import PictureDenoiser

        return self._load(PictureDenoiser, bundle)

    def _load(self, kind: type[_Kind], bundle: str | os.PathLike[str]) -> _Kind:
        denoiser = kind.load(
            bundle,
            backend=self.backend,
            precision=self.precision,
            memory=self.memory,
            threads=self.threads,
        )
        if self.backend == "auto":
            backend = denoiser.backend
            click.echo(f"cycleisp: {backend}: {printable(backend.reason)}", err=True)
        return denoiser


def _memory(_ctx: click.Context, _param: click.Parameter, value: str | None) -> int | None:
    """A size as bytes: a callback of click."""
    if value is None:
        return None
    from cycleisp_runtime.memory import parse_memory

    try:
        return parse_memory(value)
    except CycleISPError as error:
        raise click.BadParameter(error.reason) from error


def model_options(command: Callable[Concatenate[ModelOptions, _P], _R]) -> Callable[..., _R]:
    """The options --backend, --precision, --memory, --threads; the command's first argument."""

    @click.option(
        "--backend",
        default="auto",
        show_default=True,
        metavar="NAME",
        help="What runs the network: onnxruntime, openvino, tensorrt; auto takes the best here and "
        "says why.",
    )
    @click.option(
        "--precision",
        type=click.Choice(["fp32", "fp16", "int8", "int8-cpu"]),
        help="Which of the model's networks; the best that the backend runs by default.",
    )
    @click.option(
        "--memory",
        metavar="SIZE",
        callback=_memory,
        help="Memory for everything but the frames, such as 512MiB: it chooses the tile.",
    )
    @click.option(
        "--threads",
        type=click.IntRange(min=1),
        metavar="N",
        help="Threads of the network; one per physical core by default.",
    )
    @wraps(command)
    def with_options(
        backend: str,
        precision: Precision | None,
        memory: int | None,
        threads: int | None,
        *args: _P.args,
        **kwargs: _P.kwargs,
    ) -> _R:
        return command(ModelOptions(backend, precision, memory, threads), *args, **kwargs)

    return with_options
