"""A model's card: what it is, what it was made from, what it reaches; Markdown with a YAML head."""

from __future__ import annotations

import json

from cycleisp.training.run_settings import RunSettings
from cycleisp.training.settings import settings_as_yaml
from cycleisp_export.verify import Parity
from cycleisp_runtime.bundle import BundleRecord, Pooling, Reduction

__all__ = ["model_card"]

_UNITS = {"raw": ("packed samples", "sensor sample"), "srgb": ("pixels", "pixel")}
"""In which sides and costs are counted."""

_PICTURES = {"raw": "linear packed RAW", "srgb": "sRGB"}

_TAGS = {"raw": "raw, bayer, denoising, edge", "srgb": "srgb, denoising, edge"}

_LIMITS = {
    "raw": "Noise is taken as independent from sample to sample, with variance linear in the "
    "signal. Row noise,\nfixed patterns, and RAW that was already denoised or scaled by the camera "
    "are outside of that.",
    "srgb": "The network is not told how strong the noise is. Noise of other cameras and other "
    "processing than that\nof its training pairs, and what compression did to a picture, are "
    "outside of that.",
}

_PLACES = ("photographs", "output", "initial", "shards", "rgb2raw", "color_branch", "raw2rgb")
"""Settings that name folders and files of the machine that trained."""


def model_card(
    record: BundleRecord,
    settings: RunSettings | None,
    parity: Parity,
    photographs: int | None,
) -> str:
    """The card of a bundle as Markdown, with a head as model hubs read it.

    Args:
        record: what the bundle will say of itself.
        settings: of the run that made the weights; None where there is none on record.
        parity: how far graph and network are apart.
        photographs: that the export measured the quality on; None where it was on record.
    """
    judged = "held-out" if photographs is None else f"{photographs} held-out"
    return f"""---
{_license_lines(record.license)}
library_name: cycleisp
pipeline_tag: image-to-image
tags: [{_TAGS[record.task]}]
metrics: [psnr]
---
# {record.name}

{record.description}.
{record.kmac_per_sample} kMAC per {_UNITS[record.task][1]}, {record.parameters:,} parameters.

## Input and output

{_input_and_output(record)}

## Quality

Mean PSNR in dB over {judged} photographs, {_PICTURES[record.task]}, peak 1, output clipped to
[0, 1]:

{_quality(record)}

The graph in ONNX Runtime differs from the torch network by at most {parity}.

## How it was made

{_origin(record, settings)}
## Limits

{_LIMITS[record.task]}
"""


def _license_lines(name: str) -> str:
    """Lines of the head: hubs know some licences by lower case names, any other by its text."""
    if name == "Apache-2.0":
        return "license: apache-2.0"
    return f"license: other\nlicense_name: {json.dumps(name)}"  # JSON is YAML


def _input_and_output(record: BundleRecord) -> str:
    halo, unit = record.halo, _UNITS[record.task][0]
    sides = (
        f"Sides of a tile are multiples of {record.multiple_of} {unit}. Context on each side:\n"
        f"  {halo.for_90_db} for 90 dB agreement with the whole frame, "
        f"{halo.for_120_db} for 120 dB"
    )
    facts = [
        record.normalisation,
        record.variance,
        sides,
        None if halo.exact is None else f"Nothing beyond {halo.exact} has any influence",
        None if record.noise_range is None else f"Trained for {record.noise_range}",
        None if record.pooling is None else _pooling(record.pooling),
    ]
    return "\n".join(f"- {fact}." for fact in facts if fact is not None)


def _pooling(pooling: Pooling) -> str:
    return (
        f"Channel attention pools over the frame: `{pooling.statistics.file}` computes its "
        f"{pooling.gates} gates\n  once per frame, and all tiles share them. From every "
        f"{pooling.decimation}th sample of a row and a column they agree\n  with those of the "
        f"whole frame to {pooling.agreement_db:.1f} dB or better"
    )


def _quality(record: BundleRecord) -> str:
    baselines = sorted({name for row in record.quality for name in row.baselines_db})
    header = ["level", "shot", "noisy", *baselines, record.name, "gain"]
    table = [header, ["---"] * len(header)]
    for row in record.quality:
        others = [f"{row.baselines_db[name]:.2f}" for name in baselines]
        gain = row.denoised_db - row.noisy_db
        decibels = [f"{row.noisy_db:.2f}", *others, f"{row.denoised_db:.2f}", f"{gain:+.2f}"]
        table.append([row.level, "-" if row.shot is None else f"{row.shot:g}", *decibels])
    quality = "\n".join("| " + " | ".join(cells) + " |" for cells in table)
    if "vst-nlm" in baselines:
        quality += (
            "\n\nvst-nlm, the classical baseline: non-local means of all four planes together, "
            "after\nvariance stabilisation."
        )
    precisions = "".join(
        f"\n- {precision}, in `{file.file}`: " + _losses(file.reduction)
        for precision, file in record.precisions.items()
        if file.reduction is not None
    )
    if precisions:
        quality += f"\n\nLost against fp32 at lower precision:\n{precisions}"
    return quality


def _losses(reduction: Reduction) -> str:
    kept = ", ".join(f"`{layer}` ({reason})" for layer, reason in reduction.kept.items())
    return reduction.loss_in_words() + (f". Kept at higher precision: {kept}" if kept else "")


def _origin(record: BundleRecord, settings: RunSettings | None) -> str:
    made = record.provenance
    data = f"- Data: {made.data}. Licence: {made.data_license}.\n"
    weights = f"- Weights sha256 `{made.weights_sha256}`.\n"
    if settings is None:
        return f"{data}- Licence of the weights: {record.license.rstrip('.')}.\n{weights}"
    threads = "one CPU thread" if settings.threads == 1 else f"{settings.threads} CPU threads"
    recipe = settings_as_yaml(settings, without=_PLACES)
    return (
        f"{data}- {made.steps} steps in {made.hours} hours on {threads}, ended {made.date}.\n"
        f"{weights}\n```yaml\n{recipe}```\n\n"
    )
