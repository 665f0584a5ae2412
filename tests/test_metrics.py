"""Metrics against hand-computed values and independent formulas."""

import numpy as np
import pytest

from training.metrics import best_lag_correlation, psnr, ssim


def test_psnr_by_hand() -> None:
    black = np.zeros((4, 4, 3), np.uint8)
    assert psnr(black, black) == 100
    assert psnr(black + 16, black) == pytest.approx(10 * np.log10(255**2 / 256))


def test_ssim_is_one_for_equal_and_near_zero_for_unrelated_pictures() -> None:
    random = np.random.default_rng(0)
    a, b = (random.integers(0, 255, (64, 64, 3), dtype=np.uint8) for _ in range(2))
    assert ssim(a, a) == pytest.approx(1) and abs(ssim(a, b)) < 0.1


def test_ssim_of_one_window_by_hand() -> None:
    random = np.random.default_rng(1)
    x, y = (random.integers(0, 255, (7, 7, 3)).astype(np.uint8) for _ in range(2))
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    values = []
    for channel in range(3):
        a, b = x[..., channel].astype(float).ravel(), y[..., channel].astype(float).ravel()
        cov = np.cov(a, b)
        luminance = (2 * a.mean() * b.mean() + c1) / (a.mean() ** 2 + b.mean() ** 2 + c1)
        values.append(luminance * (2 * cov[0, 1] + c2) / (cov[0, 0] + cov[1, 1] + c2))
    assert ssim(x, y) == pytest.approx(np.mean(values))


def test_the_lag_of_a_shifted_signal_is_found() -> None:
    signal = np.random.default_rng(2).standard_normal(100)
    correlation, lag = best_lag_correlation(np.roll(signal, 3)[3:], signal[3:], 6)
    assert lag == 3 and correlation > 0.99


def test_a_still_mouth_correlates_with_nothing() -> None:
    assert best_lag_correlation(np.zeros(50), np.random.default_rng(0).standard_normal(50), 6)[0] == -1
