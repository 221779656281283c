"""Line and bar charts as SVG text, for pages and documents that stand alone.

The same data give the same bytes. Colours follow the light or dark theme of whoever looks; the
lines' own have a contrast of at least 3:1 to both papers, as WCAG 2.1 asks of graphics (1.4.11).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape

__all__ = ["COLORS", "HEIGHT", "PAPERS", "WIDTH", "Series", "bar_chart", "line_chart", "ticks"]

WIDTH, HEIGHT = 760, 340
"""Of a line chart, in pixels; a bar chart is as high as its bars."""

COLORS = ("#3b82c4", "#d9730d", "#2f9e5f", "#d6456b", "#8e6bd1", "#11909c")
PAPERS = ("#ffffff", "#16181d")
"""Light and dark."""

_STYLE = (
    ".chart{font:12px system-ui,sans-serif}"
    f".chart .paper{{fill:{PAPERS[0]}}}.chart text{{fill:#24292f}}"
    ".chart .grid{stroke:#d8dee4}.chart .line{fill:none;stroke-width:2}"
    f"@media(prefers-color-scheme:dark){{.chart .paper{{fill:{PAPERS[1]}}}"
    ".chart text{fill:#dde3ea}.chart .grid{stroke:#3a414b}}"
)

_CHARACTER = 7.0
"""Width of a character in pixels, estimated for a sans-serif of 12 pixels."""

_TOP, _LINE = 30, 18
_BAR = 11


@dataclass(frozen=True)
class Series:
    """A named line through points (x, y); points that are not finite are left out."""

    name: str
    points: Sequence[tuple[float, float]]

    @property
    def finite(self) -> list[tuple[float, float]]:
        """The points that can be drawn."""
        return [point for point in self.points if all(map(math.isfinite, point))]


def line_chart(
    title: str,
    series: Sequence[Series],
    *,
    x_label: str,
    y_label: str,
    log_x: bool = False,
    log_y: bool = False,
    x_names: Sequence[str] = (),
) -> str:
    """Lines with markers over common axes, as an ``<svg>`` element.

    Args:
        title: above the chart.
        series: the lines, named in a legend where there is more than one.
        x_label: below the x axis.
        y_label: beside the y axis.
        log_x: a logarithmic x axis; points with x <= 0 are left out.
        log_y: likewise for y.
        x_names: names of x = 0, 1, 2, ..., written upwards in place of numbers.
    """
    lines = [
        Series(
            each.name,
            [(x, y) for x, y in each.finite if (x > 0 or not log_x) and (y > 0 or not log_y)],
        )
        for each in series
    ]
    points = [point for each in lines for point in each.points]
    legend, top = _legend([each.name for each in lines])
    across = (_log_ticks if log_x else ticks)([x for x, _ in points])
    if x_names:
        across = [0.0, max(1.0, len(x_names) - 1.0)]
    upwards = (_log_ticks if log_y else ticks)([y for _, y in points])
    left = _LINE + 10 + _CHARACTER * max(map(len, _labels(upwards)))
    names_height = _CHARACTER * max(map(len, x_names), default=2)
    height = HEIGHT + (names_height if x_names else 0)
    bottom = height - names_height - 2 * _LINE
    x_at = _scale(across, left, WIDTH - 20, log=log_x)
    y_at = _scale(upwards, bottom, top, log=log_y)

    parts = [*legend]
    for value, label in zip(upwards, _labels(upwards), strict=True):
        parts += [_grid(left, y_at(value), WIDTH - 20, y_at(value))]
        parts += [_text(left - 6, y_at(value) + 4, label, "end")]
    if x_names:
        every = math.ceil(len(x_names) * 13 / (WIDTH - left))
        for index in range(0, len(x_names), every):
            parts.append(_upright(x_at(index) + 4, bottom + 8, x_names[index], "end"))
    else:
        for value, label in zip(across, _labels(across), strict=True):
            parts += [_grid(x_at(value), top, x_at(value), bottom)]
            parts += [_text(x_at(value), bottom + 16, label, "middle")]
    parts.append(_text((left + WIDTH) / 2, height - 6, x_label, "middle"))
    parts.append(_upright(14, (top + bottom) / 2, y_label, "middle"))
    for index, each in enumerate(lines):
        parts += _line(each, [(x_at(x), y_at(y)) for x, y in each.points], index, x_names)
    return _svg(title, height, parts)


def bar_chart(
    title: str, labels: Sequence[str], series: Mapping[str, Sequence[float]], *, x_label: str
) -> str:
    """Groups of horizontal bars from zero, one bar per series and label, as an ``<svg>`` element.

    Args:
        title: above the chart.
        labels: of the groups, from the top.
        series: one value per label, by the name that the legend gives it where there are several;
            values that are not finite are left out.
        x_label: below the axis of values.
    """
    legend, top = _legend(list(series))
    across = ticks([0.0, *(value for values in series.values() for value in values)])
    left = min(WIDTH / 2, 20 + _CHARACTER * max(map(len, labels), default=0))
    group = _BAR * len(series) + 9
    bottom = top + group * len(labels)
    x_at = _scale(across, left, WIDTH - 60)
    parts = [*legend]
    for value, label in zip(across, _labels(across), strict=True):
        parts += [_grid(x_at(value), top, x_at(value), bottom)]
        parts += [_text(x_at(value), bottom + 16, label, "middle")]
    for row, label in enumerate(labels):
        middle = top + group * (row + 0.5)
        parts.append(_text(left - 6, middle + 4, label, "end"))
        for index, (name, values) in enumerate(series.items()):
            value = values[row]
            if not math.isfinite(value):
                continue
            y = middle + _BAR * (index - len(series) / 2)
            start, end = sorted((x_at(0), x_at(value)))
            parts.append(
                f'<rect x="{start:.1f}" y="{y:.1f}" width="{end - start:.1f}" height="{_BAR - 1}" '
                f'fill="{_color(index)}"><title>{escape(f"{name}, {label}: {value:.4g}")}'
                "</title></rect>"
            )
            parts.append(_text(end + 4, y + _BAR - 2, f"{value:.4g}", "start", ' font-size="10px"'))
    parts.append(_text((left + WIDTH - 60) / 2, bottom + 2 * _LINE, x_label, "middle"))
    return _svg(title, bottom + 2 * _LINE + 8, parts)


def ticks(values: Iterable[float], most: int = 7) -> list[float]:
    """At most ``most`` evenly spaced multiples of 1, 2 or 5 times a power of ten around ``values``.

    The finite ones of them lie between the first tick and the last; without any, 0 and 1 do.
    """
    finite = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    low, high = min(finite), max(finite)
    if high - low <= 1e-9 * max(abs(low), abs(high), 1e-30):
        margin = abs(low) / 2 if abs(low) > 1e-30 else 1.0
        low, high = low - margin, high + margin
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    for step in (power * factor for factor in (1, 2, 5, 10, 20, 50)):
        first, last = math.floor(low / step), math.ceil(high / step)
        if last - first < most:
            break
    return [float(f"{index * step:.12g}") for index in range(first, last + 1)]


def _log_ticks(values: Iterable[float]) -> list[float]:
    """Powers of ten around positive values."""
    exponents = [math.log10(value) for value in values] or [0.0]
    low, high = math.floor(min(exponents)), math.ceil(max(exponents))
    return [10.0**exponent for exponent in range(low, max(high, low + 1) + 1)]


def _labels(marks: Sequence[float]) -> list[str]:
    return [
        f"{mark:.12g}" if 1e-3 <= abs(mark) < 1e6 or mark == 0 else f"{mark:g}" for mark in marks
    ]


def _scale(
    marks: Sequence[float], start: float, end: float, *, log: bool = False
) -> Callable[[float], float]:
    """Pixels of a value on an axis with the first mark at ``start`` and the last at ``end``."""
    units = math.log10 if log else float
    first, last = units(marks[0]), units(marks[-1])
    return lambda value: start + (units(value) - first) * (end - start) / (last - first)


def _color(index: int) -> str:
    return COLORS[index % len(COLORS)]


def _legend(names: Sequence[str]) -> tuple[list[str], float]:
    """A row of names, or several, under the title, and where the plot begins below them."""
    parts: list[str] = []
    x, y = 12.0, _TOP + 14.0
    if len(names) < 2:
        return parts, y
    for index, name in enumerate(names):
        width = 30 + _CHARACTER * len(name)
        if x > 12 and x + width > WIDTH:
            x, y = 12.0, y + _LINE
        parts.append(
            f'<rect x="{x:.1f}" y="{y - 9:.1f}" width="10" height="10" fill="{_color(index)}"/>'
        )
        parts.append(_text(x + 15, y, name, "start"))
        x += width
    return parts, y + 16


def _line(
    series: Series, pixels: Sequence[tuple[float, float]], index: int, x_names: Sequence[str]
) -> Iterator[str]:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in pixels)
    yield f'<polyline class="line" stroke="{_color(index)}" points="{path}"/>'
    for (x, y), (at_x, at_y) in zip(series.points, pixels, strict=True):
        where = x_names[int(x)] if x_names else f"{x:g}"
        hint = escape(f"{series.name}, {where}: {y:.4g}")
        yield (
            f'<circle cx="{at_x:.1f}" cy="{at_y:.1f}" r="3" fill="{_color(index)}">'
            f"<title>{hint}</title></circle>"
        )


def _grid(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="grid" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(x: float, y: float, text: str, anchor: str, attributes: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{attributes}>{escape(text)}</text>'


def _upright(x: float, y: float, text: str, anchor: str) -> str:
    """Text that reads from below."""
    return _text(x, y, text, anchor, f' transform="rotate(-90 {x:.1f} {y:.1f})"')


def _svg(title: str, height: float, parts: Iterable[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="chart" role="img" '
        f'viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}" height="{height:.0f}">'
        f"<style>{_STYLE}</style>"
        f'<rect class="paper" width="100%" height="100%"/>'
        + _text(12, 20, title, "start", ' font-size="14px" font-weight="600"')
        + "".join(parts)
        + "</svg>"
    )
