"""Makes metrics.json: PSNR and SSIM of made-up pictures, from the formulas, with NumPy alone.

    python make_fixtures.py

The pictures are those of `MetricsTests.swift`: sample i of the first is (7 i + i^2 div 5) mod 256, of the second that plus
(13 i mod (2 s + 1)) - s, cut to 0...255. SSIM is equation 13 of Wang et al. 2004 with the window of section III-C, summed for
each place directly.
"""
import json
import os

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))


def picture(width, height, strength):
    i = np.arange(width * height * 3, dtype=np.int64)
    first = (7 * i + i * i // 5) % 256
    second = np.clip(first + (13 * i) % (2 * strength + 1) - strength, 0, 255)
    return first.reshape(height, width, 3).astype(float), second.reshape(height, width, 3).astype(float)


def ssim(x, y):
    axis = np.arange(11) - 5
    window = np.exp(-(axis[:, None] ** 2 + axis[None, :] ** 2) / (2 * 1.5**2))
    window /= window.sum()
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    values = []
    for channel in range(3):
        for top in range(x.shape[0] - 10):
            for left in range(x.shape[1] - 10):
                a = x[top : top + 11, left : left + 11, channel]
                b = y[top : top + 11, left : left + 11, channel]
                mean_a, mean_b = (window * a).sum(), (window * b).sum()
                variance_a = (window * (a - mean_a) ** 2).sum()
                variance_b = (window * (b - mean_b) ** 2).sum()
                covariance = (window * (a - mean_a) * (b - mean_b)).sum()
                values.append(
                    (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
                    / ((mean_a**2 + mean_b**2 + c1) * (variance_a + variance_b + c2)))
    return float(np.mean(values))


cases = []
for width, height, strength in [(11, 11, 4), (16, 12, 1), (12, 19, 30), (40, 33, 100)]:
    x, y = picture(width, height, strength)
    cases.append(dict(
        width=width, height=height, strength=strength,
        psnr=float(10 * np.log10(255**2 / np.mean((x - y) ** 2))), ssim=ssim(x, y)))
with open(os.path.join(HERE, "metrics.json"), "w") as file:
    json.dump(cases, file, indent=1)
    file.write("\n")
