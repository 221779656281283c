"""A bundle's network as a model of NVIDIA Triton Inference Server.

The folder is one model of a repository (triton-inference-server/server,
docs/user_guide/model_repository.md); its name is the model's. The network is the bundle's own file,
byte for byte.
"""

from __future__ import annotations

import json
from pathlib import Path

from cycleisp_export.folder import write_folder
from cycleisp_export.wrappers import refuse_pooling
from cycleisp_runtime.backends.onnxruntime import OnnxRuntimeBackend
from cycleisp_runtime.bundle import Bundle
from cycleisp_runtime.errors import OutputError

__all__ = ["triton_config", "write_triton"]

CONFIG = "config.pbtxt"

MAX_BATCH_SIZE = 8
"""Tiles of one size that the server may put together while they wait."""


def triton_config(bundle: Bundle) -> str:
    """``config.pbtxt``, protobuf text of Triton's ModelConfig: tensors, batching, hash.

    The batch axis is not among the dims, as Triton wants it.
    """
    record, names = bundle.record, bundle.record.tensors
    frame = [record.channels, -1, -1]
    inputs = {name: [1, 1, 1] if name == names.noise_scale else frame for name in names.inputs}
    parameters = {"bundle_sha256": bundle.sha256, "license": record.license}
    return "\n".join(
        [
            f"# {json.dumps(record.description)}",
            'backend: "onnxruntime"',
            f"max_batch_size: {MAX_BATCH_SIZE}",
            "dynamic_batching { }",
            *(_tensor("input", name, dims) for name, dims in inputs.items()),
            _tensor("output", names.denoised, frame),
            *(
                f"parameters {{ key: {json.dumps(key)} "
                f"value {{ string_value: {json.dumps(value)} }} }}"
                for key, value in parameters.items()
            ),
            "",
        ]
    )


def write_triton(bundle: Bundle, output: Path, *, force: bool) -> None:
    """Write the model's folder: ``config.pbtxt`` and ``1/model.onnx``.

    Raises:
        BundleError: where the network pools over the frame, or is not what the bundle says.
        OutputError: where ``output`` exists and ``force`` is off or it is not such a folder, or it
            cannot be written.
    """
    if output.exists() and not (output / CONFIG).is_file():
        raise OutputError(
            "this is not a model of Triton", subject=output, hint="name a folder inside of it"
        )
    refuse_pooling(bundle)
    # Checks that the network has the tensors of the record, and no data outside its file.
    OnnxRuntimeBackend(bundle, threads=1).close()
    files = {CONFIG: triton_config(bundle).encode(), "1/model.onnx": bundle.model("fp32")}
    write_folder(output, files, force=force)


def _tensor(kind: str, name: str, dims: list[int]) -> str:
    return f"{kind} {{ name: {json.dumps(name)} data_type: TYPE_FP32 dims: {dims} }}"
