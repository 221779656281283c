"""The curves of training runs, from the log that each leaves: its loss and its validation.

A run is a folder that ``cycleisp train`` wrote, such as zoo/runs/small/raw2rgb.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from cycleisp_runtime.charts import HEIGHT, WIDTH, Series, line_chart
from cycleisp_runtime.errors import InputError

Log = Sequence[Mapping[str, float]]
"""One record per validation: step, seconds, the mean loss since the last one, and what it found."""

_NO_DECIBELS = ("step", "seconds", "loss")


def read_log(run: Path) -> Log:
    """The records of a run.

    Raises:
        InputError: where its log is missing or none.
    """
    path = run / "log.jsonl"
    try:
        return msgspec.json.Decoder(dict[str, float]).decode_lines(path.read_bytes())
    except OSError as error:
        raise InputError("cannot be read", subject=path, met=error.strerror) from error
    except msgspec.DecodeError as error:
        raise InputError(f"not the log of a run: {error}", subject=path) from error


def curves(logs: Mapping[str, Log]) -> str:
    """All losses in one chart, below it the validation of each run in dB, as an SVG document.

    Args:
        logs: by the run's name.
    """
    losses = [Series(name, _points(log, "loss")) for name, log in logs.items()]
    charts = [
        line_chart("Training loss", losses, x_label="step", y_label="loss", log_y=True),
        *(_validation_chart(name, log) for name, log in logs.items()),
    ]
    panels = (
        f'<g transform="translate(0 {row * HEIGHT})">{chart}</g>'
        for row, chart in enumerate(charts)
    )
    size = f'width="{WIDTH}" height="{len(charts) * HEIGHT}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>{"".join(panels)}</svg>\n'


def _validation_chart(name: str, log: Log) -> str:
    figures = dict.fromkeys(key for record in log for key in record if key not in _NO_DECIBELS)
    series = [Series(key, _points(log, key)) for key in figures if "of 255" not in key]
    return line_chart(f"Validation of {name}, PSNR", series, x_label="step", y_label="dB (peak 1)")


def _points(log: Log, key: str) -> list[tuple[float, float]]:
    return [(record["step"], record[key]) for record in log if key in record]


def main() -> None:
    """Write the curves of the runs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="FILE.svg")
    arguments = parser.parse_args()
    logs = {run.name: read_log(run) for run in arguments.runs}
    arguments.output.write_text(curves(logs), "utf-8")


if __name__ == "__main__":
    main()
