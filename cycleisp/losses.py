"""What training minimises.

The losses of S. W. Zamir et al., "CycleISP: Real Image Restoration via Improved Data Synthesis",
CVPR 2020, and one for denoisers that must serve every noise level. The authors
released no loss code: what the paper leaves open is an argument here. Every |.|_1 is a mean over
all elements, so that a loss does not depend on batch and patch; the paper writes a norm, which
would differ by a constant factor per stage, and in the joint loss by another ``beta``.

No loss clips a prediction: a clipped sample would have no gradient.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import l1_loss

__all__ = [
    "harm_penalty",
    "joint_loss",
    "noise_normalised_loss",
    "raw2rgb_loss",
    "rgb2raw_loss",
]


def rgb2raw_loss(
    predicted: Tensor, true: Tensor, *, eps: float = 1e-3, log_weight: float = 1.0
) -> Tensor:
    """Scalar |p - t|_1 + log_weight * |ln(max(p, eps)) - ln(max(t, eps))|_1 of packed RAW.

    Most samples of a RAW frame are dark and the plain term alone favours highlights; the logarithm
    weighs relative errors. Where p is below eps only the plain term has a gradient.

    Args:
        predicted: packed normalised RAW (N, 4, h, w), not clipped.
        true: the same of the camera.
        eps: where the logarithm is cut. The paper names a small constant without its value; 1e-3
            is our choice.
        log_weight: of the log term. 1 is our reading of the paper; 0 leaves the term out.
    """
    plain = l1_loss(predicted, true)
    logarithmic = l1_loss(predicted.clamp(min=eps).log(), true.clamp(min=eps).log())
    return plain + log_weight * logarithmic


def raw2rgb_loss(predicted: Tensor, true: Tensor) -> Tensor:
    """Scalar |p - t|_1 of sRGB pictures (N, 3, H, W) in [0, 1], the prediction not clipped.

    No log term: histograms of sRGB pictures are balanced.
    """
    return l1_loss(predicted, true)


def joint_loss(*, rgb2raw: Tensor, raw2rgb: Tensor, beta: float = 0.5) -> Tensor:
    """Scalar beta * rgb2raw + (1 - beta) * raw2rgb, for tuning both directions together.

    RAW2RGB is fed by RGB2RAW then, so that the gradient of ``raw2rgb`` reaches both networks.

    Args:
        rgb2raw: ``rgb2raw_loss`` of the first half of the cycle.
        raw2rgb: ``raw2rgb_loss`` at its end.
        beta: share of the first, in [0, 1]. 0.5, and that beta is the share of the first and not
            of the second, is our reading of the paper. Sums instead of means over the elements
            would be beta = 0.25, for there are three times as many sRGB values as RAW samples.
    """
    return beta * rgb2raw + (1 - beta) * raw2rgb


def noise_normalised_loss(output: Tensor, clean: Tensor, noise_scale: Tensor) -> Tensor:
    """Mean square error in units of the frame's noise.

    Without the division the loss is all high noise: after 60 s of training the low level was 1.7 dB
    worse than its noisy input, with it 0.3 dB better. The square is what PSNR measures; the
    absolute error gave 0.1 dB less at the low and middle level.

    Args:
        output: denoised (N, C, h, w), normalised, not clipped.
        clean: the same without noise.
        noise_scale: (N, 1, 1, 1), sqrt of the mean of each frame's variance map.
    """
    return ((output - clean) / noise_scale).square().mean()


def harm_penalty(output: Tensor, noisy: Tensor, clean: Tensor, noise_scale: Tensor) -> Tensor:
    """How much worse patches came out than they went in: mean over all, 0 for those that gained.

    In units of the frame's noise variance. The mean square error is content with a network that
    gains much on sky and loses a little on foliage; who photographs foliage is not.

    Args:
        output: denoised (N, C, h, w), normalised, not clipped.
        noisy: what was denoised.
        clean: the same without noise.
        noise_scale: (N, 1, 1, 1), sqrt of the mean of each frame's variance map.
    """
    errors = [
        ((image - clean) / noise_scale).square().mean(dim=(1, 2, 3)) for image in (output, noisy)
    ]
    return (errors[0] - errors[1]).clamp_min(0).mean()
