"""Published networks of others behind our own interface; their weights are not ours to ship.

PMRID: Y. Wang et al., "Practical Deep Raw Image Denoising on Mobile Devices", ECCV 2020. The
network knows one noise level, that of its phone at one ISO; the k-sigma transform moves any other
noise there.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

__all__ = ["Pmrid"]

_Planes = npt.NDArray[np.float32]

# From here to _MULTIPLE_OF: the authors' code (MegEngine/PMRID, run_benchmark.py; Apache-2.0).
_WHITE_DN = 959.0
_ANCHOR_ISO = 1600.0
_ANCHOR_SHOT = 0.0005995267 * _ANCHOR_ISO + 0.00868861
_ANCHOR_READ = 7.11772e-7 * _ANCHOR_ISO**2 + 6.514934e-4 * _ANCHOR_ISO + 0.11492713
_INPUT_SCALE = 256.0
_MULTIPLE_OF = 16


class Pmrid:
    """PMRID's network on ONNX Runtime, with the session settings of our own backend.

    Args:
        path: its weights as ONNX: input and output (1, 4, h, w), h and w multiples of 16.
        threads: of one operator.
    """

    kmac_per_sample = 3.743
    parameters = 1_031_908

    def __init__(self, path: Path, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(
            path, options, providers=["CPUExecutionProvider"]
        )

    def denoise(self, noisy: _Planes, shot: float, read: float) -> _Planes:
        """Denoised packed planes (4, h, w) of noisy ones, both normalised R, Gr, Gb, B.

        Args:
            noisy: planes with noise of variance shot * x + read.
            shot: in normalised units.
            read: in normalised units.
        """
        gain, offset = k_sigma(shot, read)
        height, width = noisy.shape[1:]
        padding = [(0, 0), *((0, -side % _MULTIPLE_OF) for side in (height, width))]
        anchored = np.pad(noisy * np.float32(gain) + np.float32(offset), padding, "reflect")
        (output,) = self._session.run(None, {"input": anchored[None]})
        denoised: _Planes = output[0, :, :height, :width]
        return (denoised - np.float32(offset)) / np.float32(gain)


def k_sigma(shot: float, read: float) -> tuple[float, float]:
    """Gain and offset that turn normalised samples of this noise into the network's input.

    Samples in DN have variance k x + s, with k = shot * white and s = read * white^2. Then
    x k_a / k + (s / k^2 - s_a / k_a^2) k_a has the variance of the anchor, k_a x + s_a.
    """
    k, s = shot * _WHITE_DN, read * _WHITE_DN**2
    offset_dn = (s / k**2 - _ANCHOR_READ / _ANCHOR_SHOT**2) * _ANCHOR_SHOT
    scale = _INPUT_SCALE / _WHITE_DN
    return _ANCHOR_SHOT / k * _WHITE_DN * scale, offset_dn * scale
