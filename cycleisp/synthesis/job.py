"""What ``cycleisp synthesize`` was asked for, checked, and done."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from torch import nn

from cycleisp.models.storage import load_network
from cycleisp.noise import NOISE_LAWS, noise_law
from cycleisp.sensor_profile import read_sensor_profile
from cycleisp.synthesis.contact_sheet import CROP, contact_row, write_contact_sheet
from cycleisp.synthesis.cycle import RawSynthesis, SrgbSynthesis, Target
from cycleisp.synthesis.outputs import Output, PairFiles, Shards, claim_folder
from cycleisp.synthesis.photograph import find_photographs
from cycleisp.synthesis.raw_noise import RawNoise
from cycleisp.synthesis.run import Outcome, Pairing, synthesize
from cycleisp.synthesis.scene import RawOfPhotographs, SrgbOfPhotographs
from cycleisp.synthesis.shards import Skipped
from cycleisp.synthesis.tiles import TILE
from cycleisp.training.distributed import local_device, ranks_of_environment
from cycleisp_runtime.errors import InputError, SettingsError

__all__ = ["SynthesisSettings", "run_synthesis"]

_SHEET_ROWS = 6


@dataclass(frozen=True)
class SynthesisSettings:
    """A synthesis.

    Attributes:
        kind: pairs of RAW, pairs of sRGB, or pairs of sRGB with the noise of SIDD's phones.
        inputs: pictures and folders of pictures; for SIDD folders that hold it.
        output: folder.
        rgb2raw: network.
        color_branch: network, for sRGB.
        raw2rgb: network, for sRGB.
        noise: name of a law or file of a sensor profile; None for SIDD.
        poisson: as ``RawNoise``.
        row_noise: as ``RawNoise``.
        hot: as ``RawNoise``.
        dead: as ``RawNoise``.
        seed: of the noise; with a picture's content it decides it.
        target: clean side of pairs of sRGB.
        file_format: ``tar`` for shards, or one of ``PICTURE_FORMATS``.
        samples_per_shard: inputs in a shard.
        tile: longest side, in pixels, that networks are given at once.
        contact_sheet: file, or None.
    """

    kind: Literal["raw", "srgb", "sidd"]
    inputs: Sequence[Path]
    output: Path
    rgb2raw: Path
    color_branch: Path | None = None
    raw2rgb: Path | None = None
    noise: str | None = None
    poisson: bool = False
    row_noise: float = 0.0
    hot: float = 0.0
    dead: float = 0.0
    seed: int = 0
    target: Target = "residual"
    file_format: str = "tar"
    samples_per_shard: int = 64
    tile: int = TILE
    contact_sheet: Path | None = None


def run_synthesis(
    settings: SynthesisSettings, progress: Callable[[int], Callable[[str], object]]
) -> Outcome:
    """Make this process's share of the pairs, in the output folder.

    Args:
        settings: what to make.
        progress: given the number of inputs, gives what is called with the name of each.

    Raises:
        SettingsError: where settings contradict each other or the folder holds another synthesis.
        InputError: where a network, profile or folder of inputs cannot be used.
        OutputError: where the output cannot be written.
    """
    _check(settings)
    sources, pairing, incomplete = _work(settings)
    output: Output = (
        Shards(settings.output, settings.samples_per_shard)
        if settings.file_format == "tar"
        else PairFiles(settings.output, settings.file_format)
    )
    claim_folder(settings.output, _recipe(settings, [source.name for source in sources]))
    ranks = ranks_of_environment()
    if settings.contact_sheet is not None and ranks.first:
        _write_sheet(settings.contact_sheet, sources, pairing)
    outcome = synthesize(sources, pairing, output, ranks, progress(len(sources)))
    return replace(outcome, skipped=(*incomplete, *outcome.skipped))


def _check(settings: SynthesisSettings) -> None:
    if settings.kind == "sidd" and settings.noise is not None:
        raise SettingsError("SIDD brings its own noise", subject="noise", met=settings.noise)
    if settings.kind != "sidd" and settings.noise is None:
        raise SettingsError(
            "missing", subject="noise", wanted=f"{', '.join(NOISE_LAWS)} or a sensor's profile"
        )
    if settings.kind == "raw" and settings.target != SynthesisSettings.target:
        raise SettingsError("pairs of RAW have one", subject="target", met=settings.target)
    if settings.kind != "raw" and settings.file_format == "dng":
        raise SettingsError("a DNG holds RAW", met="pairs of sRGB", hint="use --as png or npz")


def _work(
    settings: SynthesisSettings,
) -> tuple[Sequence[Any], Pairing[Any, Any], list[Skipped]]:
    """The inputs, how each becomes a pair, and what cannot be an input."""
    device = local_device()

    def network(name: str, path: Path | None) -> nn.Module:
        if path is None:
            raise SettingsError("missing", subject=name, wanted="the file of the trained network")
        return load_network(path, name).to(device)

    to_raw = RawSynthesis(network("rgb2raw", settings.rgb2raw), settings.tile)
    if settings.kind == "raw":
        photographs = find_photographs(settings.inputs)
        return photographs, RawOfPhotographs(_noise(settings), settings.seed, device, to_raw), []
    to_rgb = SrgbSynthesis(
        to_raw,
        network("color_branch", settings.color_branch),
        network("raw2rgb", settings.raw2rgb),
        settings.target,
    )
    if settings.kind == "srgb":
        photographs = find_photographs(settings.inputs)
        return photographs, SrgbOfPhotographs(_noise(settings), settings.seed, device, to_rgb), []
    from cycleisp.data.sidd import find_sidd_pairs  # reads MATLAB's files, which needs more extras
    from cycleisp.synthesis.sidd import SrgbOfSidd

    frames, incomplete = find_sidd_pairs(*settings.inputs)
    skipped = [Skipped(name, "not all files of the frame are there") for name in incomplete]
    return frames, SrgbOfSidd(to_rgb, device), skipped


def _noise(settings: SynthesisSettings) -> RawNoise:
    name = settings.noise or ""
    return RawNoise(
        read_sensor_profile(Path(name)) if name.endswith(".json") else noise_law(name),
        settings.poisson,
        settings.row_noise,
        settings.hot,
        settings.dead,
    )


def _recipe(settings: SynthesisSettings, names: Sequence[str]) -> dict[str, object]:
    """All that the pairs depend on, but for the pictures' contents."""
    noise = settings.noise
    if noise is not None and noise.endswith(".json"):
        noise = f"{Path(noise).stem} {_hash_of(Path(noise))}"
    return {
        "format": "cycleisp-synthesis/1",
        "kind": settings.kind,
        "as": settings.file_format,
        "target": None if settings.kind == "raw" else settings.target,
        "noise": noise,
        "poisson": settings.poisson,
        "row_noise": settings.row_noise,
        "hot": settings.hot,
        "dead": settings.dead,
        "seed": settings.seed,
        "samples_per_shard": settings.samples_per_shard,
        "tile": settings.tile,
        "inputs": len(names),
        "names": hashlib.sha256("\0".join(names).encode("utf-8", "surrogateescape")).hexdigest(),
        "networks": {
            name: _hash_of(path)
            for name, path in (
                ("rgb2raw", settings.rgb2raw),
                ("color_branch", settings.color_branch),
                ("raw2rgb", settings.raw2rgb),
            )
            if path is not None
        },
    }


def _hash_of(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise InputError("cannot be read", subject=path, met=error.strerror) from error


def _write_sheet(path: Path, sources: Sequence[Any], pairing: Pairing[Any, Any]) -> None:
    """Show some pictures from all over the inputs; those that cannot be read are left out."""
    rows = []
    for source in sources[:: -(-len(sources) // _SHEET_ROWS)]:
        try:
            loaded = pairing.load(source)
        except InputError:
            continue
        rows.append(contact_row(pairing.make(pairing.middle(loaded, CROP))))
    if rows:
        write_contact_sheet(path, rows)
