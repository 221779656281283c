"""The report of a bundle's precisions as one HTML file, to read and to look at."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape

import msgspec
import onnx

from cycleisp_export.loss import JudgedTiles
from cycleisp_export.report import Crop, Report, measure_report
from cycleisp_export.watch import Watch
from cycleisp_runtime.bundle import BundleRecord, Precision
from cycleisp_runtime.charts import Series, line_chart
from cycleisp_runtime.html_page import html_page

__all__ = ["report_documents", "report_page"]

_STYLE = """
.viewer { --border: 50%; max-width: 34rem }
.viewer p { display: flex; justify-content: space-between; flex-wrap: wrap; gap: .5rem 1rem }
.viewer figure { position: relative; aspect-ratio: 1; margin: 0; overflow: hidden }
.viewer figure img { position: absolute; width: 100%; height: 100%; image-rendering: pixelated }
.viewer figure img + img { clip-path: inset(0 calc(100% - var(--border)) 0 0) }
.viewer figure::after { content: ""; position: absolute; left: var(--border); top: 0; bottom: 0;
  border-left: 2px solid #fff; mix-blend-mode: difference }
.viewer input { width: 100%; margin: .5rem 0 }
"""

_SCRIPT = """
const viewer = document.querySelector(".viewer");
const [picture, level, left, right] = viewer.querySelectorAll("select");
const [below, above] = viewer.querySelectorAll("figure img");
const border = viewer.querySelector("input");
function show() {
  const crop = `#crops [data-picture="${picture.value}"][data-level="${level.value}"]`;
  for (const [image, view] of [[above, left], [below, right]]) {
    image.src = document.querySelector(`${crop}[data-view="${view.value}"]`).src;
    image.alt = view.value;
  }
}
function cut() {
  viewer.style.setProperty("--border", `${border.value}%`);
}
for (const choice of viewer.querySelectorAll("select")) choice.addEventListener("change", show);
border.addEventListener("input", cut);
show();
cut();
"""


def report_documents(
    record: BundleRecord,
    protos: Mapping[Precision, onnx.ModelProto],
    tiles: JudgedTiles,
    watch: Watch,
) -> dict[str, bytes]:
    """The report of a bundle, for programs and for people, by file name; arguments as measured."""
    report, crops = measure_report(record, protos, tiles, watch)
    figures = msgspec.json.format(msgspec.json.encode(report), indent=1)
    return {"report.json": figures + b"\n", "report.html": report_page(report, crops).encode()}


def report_page(report: Report, crops: Sequence[Crop]) -> str:
    """The whole page: figures, crops with a slider between two views, every layer's SNR."""
    source = f"{report.photographs} photographs that neither trained nor calibrated the network"
    parts = [
        f'<p class="quiet">{source}; weights {report.weights_sha256[:12]}.</p>',
        "<h2>Files</h2>",
        _table(("precision", "kB", "ONNX opset", "layers in INT8"), _file_rows(report)),
        "<h2>Quality</h2>",
        _table(
            ("noise, precision", "PSNR", "loss", "SSIM", "PSNR to FP32", "SSIM to FP32"),
            _quality_rows(report),
        ),
        '<p class="quiet">dB, peak 1; loss is of the mean PSNR against FP32.</p>',
        "<h2>To look at</h2>",
        _viewer(crops),
        "<h2>Layers</h2>",
        *_layer_parts(report),
    ]
    title = f"{report.model}: what each precision costs"
    return html_page(title, "\n".join(parts), style=_STYLE, script=_SCRIPT)


def _file_rows(report: Report) -> Iterator[tuple[str, ...]]:
    for name, file in report.precisions.items():
        convolutions = [layer for layer in file.layers if layer.kind == "Conv"]
        whole = sum(layer.type == "int8" for layer in convolutions)
        of_all = f"{whole} of {len(convolutions)} convolutions" if whole else "none"
        yield name, f"{file.bytes / 1000:.0f}", str(file.opset), of_all


def _quality_rows(report: Report) -> Iterator[tuple[str, ...]]:
    for level, noisy in report.noisy.items():
        yield (
            f"{level}, noisy input",
            _decibels(noisy.clean.psnr_db),
            "",
            f"{noisy.clean.ssim:.4f}",
            "",
            "",
        )
        exact = report.precisions["fp32"].quality[level].clean.psnr_db
        for name, file in report.precisions.items():
            clean, fp32 = file.quality[level].clean, file.quality[level].fp32
            compared = [_decibels(fp32.psnr_db), f"{fp32.ssim:.5f}"]
            yield (
                f"{level}, {name}",
                _decibels(clean.psnr_db),
                _loss(exact, clean.psnr_db),
                f"{clean.ssim:.4f}",
                *(["", ""] if name == "fp32" else compared),
            )


def _layer_parts(report: Report) -> Iterator[str]:
    lower = {name: file.layers for name, file in report.precisions.items() if file.layers}
    names = [layer.name for layer in next(iter(lower.values()), ())]
    series = [
        Series(
            precision,
            [
                (place, layer.snr_db)
                for place, layer in enumerate(layers)
                if layer.snr_db is not None
            ],
        )
        for precision, layers in lower.items()
    ]
    yield line_chart(
        "Each layer's output against FP32",
        series,
        x_label="layer",
        y_label="SNR in dB",
        x_names=names,
    )
    for precision, layers in lower.items():
        kept = report.precisions[precision].kept
        rows = (
            (layer.name, layer.kind, layer.type, _decibels(layer.snr_db), kept.get(layer.name, ""))
            for layer in layers
        )
        yield (
            f"<details><summary>{escape(precision)}: types, SNR, and why a layer is kept</summary>"
            + _table(("layer", "operator", "type", "SNR", "kept"), rows)
            + "</details>"
        )


def _viewer(crops: Sequence[Crop]) -> str:
    files = "".join(
        f'<img data-picture="{crop.picture}" data-level="{escape(crop.level)}" '
        f'data-view="{escape(view)}" alt="" '
        f'src="data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}">'
        for crop in crops
        for view, jpeg in crop.views.items()
    )
    last = crops[-1]
    views = list(last.views)
    chosen = {
        "picture": _select(dict.fromkeys(str(crop.picture) for crop in crops), str(last.picture)),
        "noise": _select(dict.fromkeys(crop.level for crop in crops), last.level),
        "left": _select(views, views[0]),
        "right": _select(views, views[-2]),
    }
    choices = "".join(f"<label>{name} {select}</label>" for name, select in chosen.items())
    return f"""<div class="viewer">
<p>{choices}</p>
<figure><img alt=""><img alt=""></figure>
<input type="range" min="0" max="100" step="0.5" value="50" aria-label="border between the two">
</div>
<div id="crops" hidden>{files}</div>"""


def _select(values: Iterable[str], chosen: str) -> str:
    options = "".join(
        f"<option{' selected' if value == chosen else ''}>{escape(value)}</option>"
        for value in values
    )
    return f"<select>{options}</select>"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"<tr>{''.join(f'<th>{escape(cell)}</th>' for cell in header)}</tr>"]
    lines += [f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows]
    return "<table>\n" + "\n".join(lines) + "\n</table>"


def _loss(exact: float | None, found: float | None) -> str:
    # + 0.0: no -0.000
    return "" if exact is None or found is None else f"{round(exact - found, 3) + 0.0:.3f}"


def _decibels(value: float | None) -> str:
    return "equal" if value is None else f"{value:.2f}"
