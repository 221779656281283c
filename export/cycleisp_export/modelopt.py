"""How far apart the values of INT8 are, as NVIDIA ModelOpt finds it on a calibration set.

Only its ranges are taken. Its graph is of opset 19, which older parsers refuse, rounds the residual
branches too and knows no budget; which layers are rounded stays with ``layer_choice``.
"""

from __future__ import annotations

import contextlib
import io
import math
import re
import tempfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from cycleisp_runtime.errors import CalibrationError, SettingsError

__all__ = ["modelopt_steps"]


def modelopt_steps(
    proto: onnx.ModelProto, tensors: Collection[str], tiles: Mapping[str, npt.NDArray[np.float32]]
) -> dict[str, float]:
    """The quantisation step of every tensor, by its name, of ModelOpt's entropy calibration.

    Takes minutes. Depends on the order of the tiles: the first sets the width of ModelOpt's bins.

    Args:
        proto: of FP32.
        tensors: names of those that are to be rounded; each is read by a node.
        tiles: the graph's inputs by name, float32, N tiles in each.

    Raises:
        SettingsError: where ModelOpt is not installed.
        CalibrationError: where it fails, or gives a tensor no step.
    """
    wanted = set(tensors)
    # ModelOpt rounds what a node takes, and matches names as regular expressions.
    readers = [node.name for node in proto.graph.node if wanted & set(node.input)]
    with tempfile.TemporaryDirectory() as folder, _unheard():
        exact, rounded = Path(folder, "fp32.onnx"), Path(folder, "int8.onnx")
        exact.write_bytes(proto.SerializeToString())
        try:
            from modelopt.onnx.quantization import quantize

            quantize(
                str(exact),
                quantize_mode="int8",
                calibration_data=dict(tiles),
                calibration_method="entropy",
                calibration_eps=["cpu"],
                nodes_to_quantize=[f"{re.escape(name)}$" for name in readers],
                target_dla=True,  # every kind of node, and convolutions of few channels
                high_precision_dtype="fp32",
                output_path=str(rounded),
                log_level="ERROR",
            )
            found = _steps(onnx.load(rounded))
        except ImportError as error:
            raise SettingsError(
                "NVIDIA ModelOpt cannot be imported",
                met=error,
                hint="pip install nvidia-modelopt and what its ONNX part needs: "
                "pip install 'cycleisp[modelopt]'",
            ) from error
        except Exception as error:  # it lets every kind of error of its many packages through
            raise CalibrationError(f"NVIDIA ModelOpt failed: {error}") from error
    for name in tensors:
        if not 0 < found.get(name, 0) < math.inf:
            raise CalibrationError(
                "NVIDIA ModelOpt gives no range to a tensor",
                subject=name,
                met=found.get(name),
                hint="choose another --method",
            )
    return {name: found[name] for name in tensors}


def _steps(proto: onnx.ModelProto) -> dict[str, float]:
    """The step of every tensor that is rounded as a whole."""
    constants = {each.name: numpy_helper.to_array(each) for each in proto.graph.initializer}
    return {
        node.input[0]: float(constants[node.input[1]])
        for node in proto.graph.node
        if node.op_type == "QuantizeLinear" and constants[node.input[1]].ndim == 0
    }


@contextlib.contextmanager
def _unheard() -> Iterator[None]:
    """ModelOpt and ONNX Runtime's quantiser print several lines per tile."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield
