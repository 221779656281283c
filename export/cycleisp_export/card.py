"""A model's card: what it is, what it was made from, what it reaches; Markdown with a YAML head."""

from __future__ import annotations

from collections.abc import Mapping

from cycleisp_runtime.bundle import BundleRecord

__all__ = ["model_card"]


def model_card(record: BundleRecord, settings: Mapping[str, object], parity: float) -> str:
    """The card of a bundle as Markdown, with a head as model hubs read it."""
    provenance = record.provenance
    baselines = sorted({name for row in record.quality for name in row.baselines_db})
    header = ["level", "shot", "noisy", *baselines, record.name, "gain"]
    table = [header, ["---"] * len(header)]
    for row in record.quality:
        others = [f"{row.baselines_db[name]:.2f}" for name in baselines]
        gain = row.denoised_db - row.noisy_db
        table.append(
            [row.level, f"{row.shot:g}", f"{row.noisy_db:.2f}", *others]
            + [f"{row.denoised_db:.2f}", f"{gain:+.2f}"]
        )
    quality = "\n".join("| " + " | ".join(cells) + " |" for cells in table)
    recipe = "\n".join(
        f"{key}: {value}" for key, value in settings.items() if key not in ("photographs", "output")
    )
    return f"""---
license: apache-2.0
library_name: cycleisp
pipeline_tag: image-to-image
tags: [raw, bayer, denoising, edge]
metrics: [psnr]
---
# {record.name}

{record.description}. {record.kmac_per_sample} kMAC per sensor sample,
{record.parameters} parameters.

## Input and output

- {record.normalisation}.
- {record.variance}.
- Sides of a tile are multiples of {record.multiple_of} packed samples. Context on each side:
  {record.halo.for_90_db} for 90 dB agreement with the whole frame, {record.halo.for_120_db} for
  120 dB, {record.halo.exact} for identical results.
- Trained for shot {record.noise_range.shot_min:g} to {record.noise_range.shot_max:g}.

## Quality

Mean PSNR in dB over held-out photographs, linear packed RAW, peak 1, output clipped to [0, 1]:

{quality}

The graph in ONNX Runtime differs from the torch network by at most {parity:.1e} of the noise.

## How it was made

- Data: {provenance.data}. Licence: {provenance.data_license}.
- {provenance.steps} steps in {provenance.hours} hours on one CPU core, ended {provenance.date}.
- Weights sha256 `{provenance.weights_sha256}`.

```yaml
{recipe}
```

## Limits

Noise is taken as independent from sample to sample, with variance linear in the signal. Row noise,
fixed patterns, and RAW that was already denoised or scaled by the camera are outside of that.
"""
