"""A model's card: what it is, what it was made from, what it reaches; Markdown with a YAML head."""

from __future__ import annotations

from cycleisp.training.raw_denoiser import RawDenoiserSettings
from cycleisp.training.settings import settings_as_yaml
from cycleisp_runtime.bundle import BundleRecord, Reduction

__all__ = ["model_card"]


def model_card(record: BundleRecord, settings: RawDenoiserSettings, parity: float) -> str:
    """The card of a bundle as Markdown, with a head as model hubs read it.

    Args:
        record: what the bundle will say of itself.
        settings: of the run that made the weights.
        parity: largest difference between graph and network, in units of the noise scale.
    """
    provenance, halo = record.provenance, record.halo
    baselines = sorted({name for row in record.quality for name in row.baselines_db})
    header = ["level", "shot", "noisy", *baselines, record.name, "gain"]
    table = [header, ["---"] * len(header)]
    for row in record.quality:
        others = [f"{row.baselines_db[name]:.2f}" for name in baselines]
        gain = row.denoised_db - row.noisy_db
        decibels = [f"{row.noisy_db:.2f}", *others, f"{row.denoised_db:.2f}", f"{gain:+.2f}"]
        table.append([row.level, f"{row.shot:g}", *decibels])
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
    recipe = settings_as_yaml(settings, without=("photographs", "output"))
    threads = "one CPU thread" if settings.threads == 1 else f"{settings.threads} CPU threads"
    return f"""---
license: apache-2.0
library_name: cycleisp
pipeline_tag: image-to-image
tags: [raw, bayer, denoising, edge]
metrics: [psnr]
---
# {record.name}

{record.description}.
{record.kmac_per_sample} kMAC per sensor sample, {record.parameters:,} parameters.

## Input and output

- {record.normalisation}.
- {record.variance}.
- Sides of a tile are multiples of {record.multiple_of} packed samples. Context on each side:
  {halo.for_90_db} for 90 dB agreement with the whole frame, {halo.for_120_db} for 120 dB.
  Nothing beyond {halo.exact} has any influence.
- Trained for {record.noise_range}.

## Quality

Mean PSNR in dB over held-out photographs, linear packed RAW, peak 1, output clipped to [0, 1]:

{quality}

The graph in ONNX Runtime differs from the torch network by at most {parity:.1e} of the noise.

## How it was made

- Data: {provenance.data}. Licence: {provenance.data_license}.
- {provenance.steps} steps in {provenance.hours} hours on {threads}, ended {provenance.date}.
- Weights sha256 `{provenance.weights_sha256}`.

```yaml
{recipe}```

## Limits

Noise is taken as independent from sample to sample, with variance linear in the signal. Row noise,
fixed patterns, and RAW that was already denoised or scaled by the camera are outside of that.
"""


def _losses(reduction: Reduction) -> str:
    kept = ", ".join(f"`{layer}` ({reason})" for layer, reason in reduction.kept.items())
    return reduction.loss_in_words() + (f". Kept at higher precision: {kept}" if kept else "")
