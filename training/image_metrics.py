"""Image and mouth metrics: PSNR, SSIM, sharpness, boxes around parts of a face, and how well two mouths go together."""

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from scipy.ndimage import uniform_filter
from torch import Tensor

SSIM_WINDOW = 7

BOX_MARGIN = 0.12
"""What a box has around its points on every side, in parts of their width."""


def psnr(
    prediction: UInt8[np.ndarray, "height width 3"], target: UInt8[np.ndarray, "height width 3"]
) -> float:
    """Peak signal-to-noise ratio in dB; 100 for equal pictures."""
    error = np.mean((prediction.astype(np.float32) - target.astype(np.float32)) ** 2)
    return 100.0 if error == 0 else float(10 * np.log10(255.0**2 / error))


def ssim(
    prediction: UInt8[np.ndarray, "height width 3"], target: UInt8[np.ndarray, "height width 3"]
) -> float:
    """Structural similarity, mean over colours (Wang et al. 2004; uniform 7 px window, sample covariance)."""
    x, y = prediction.astype(np.float64), target.astype(np.float64)
    size = (SSIM_WINDOW, SSIM_WINDOW, 1)
    unbiased = SSIM_WINDOW**2 / (SSIM_WINDOW**2 - 1)
    mean_x, mean_y = uniform_filter(x, size), uniform_filter(y, size)
    var_x = unbiased * (uniform_filter(x * x, size) - mean_x**2)
    var_y = unbiased * (uniform_filter(y * y, size) - mean_y**2)
    covariance = unbiased * (uniform_filter(x * y, size) - mean_x * mean_y)
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    similarity = ((2 * mean_x * mean_y + c1) * (2 * covariance + c2)) / (
        (mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2)
    )
    edge = SSIM_WINDOW // 2
    return float(similarity[edge:-edge, edge:-edge].mean())


def gradient_energy(picture: UInt8[np.ndarray, "height width 3"]) -> float:
    """Mean square of the differences of neighbours along a row, plus the same along a column; grey levels squared."""
    x = picture.astype(np.float32)
    return float(np.square(np.diff(x, axis=0)).mean() + np.square(np.diff(x, axis=1)).mean())


def relative_sharpness(
    ours: UInt8[np.ndarray, "height width 3"], real: UInt8[np.ndarray, "height width 3"]
) -> float:
    """Energy of the gradient over the real one's; NaN where that has none."""
    wanted = gradient_energy(real)
    return gradient_energy(ours) / wanted if wanted > 0 else np.nan


def best_lag_correlation(
    ours: Float[np.ndarray, " frame"], theirs: Float[np.ndarray, " frame"], max_lag: int
) -> tuple[float, int | None]:
    """Largest Pearson correlation over shifts, and the shift (positive: ours comes late); None where there is none."""
    best: tuple[float, int | None] = (-1.0, None)
    most = max(0, min(max_lag, len(ours) - 3))
    for lag in range(-most, most + 1):
        a = ours[max(lag, 0) : len(ours) + min(lag, 0)]
        b = theirs[max(-lag, 0) : len(theirs) + min(-lag, 0)]
        if len(a) > 2 and a.std() > 1e-9 and b.std() > 1e-9:
            best = max(best, (float(np.corrcoef(a, b)[0, 1]), lag), key=lambda pair: pair[0])
    return best


def box_around(points: Float[Tensor, "frame point 2"], width: int, height: int) -> Int[np.ndarray, "frame 4"]:
    """The box around points of each frame, with its margin, within the picture."""
    low, high = points.amin(1), points.amax(1)
    margin = BOX_MARGIN * (high - low)[:, :1]
    ends = torch.cat([(low - margin).floor(), (high + margin).ceil()], dim=1)
    return ends.long().clamp_min(0).minimum(torch.tensor([width, height] * 2)).numpy()
