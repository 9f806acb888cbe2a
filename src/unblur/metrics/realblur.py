"""The protocol of RealBlur and RSBlur: intensity matched, aligned by a homography, scored where the pictures overlap.

A really captured pair was taken by two cameras behind one lens: exposure and viewpoint differ a little, and a score
pixel by pixel would measure that. So the restored picture is multiplied by the number that fits it best to the sharp
one, warped by the homography that ECC finds (Evangelidis and Psarakis 2008; 100 iterations, no threshold, start at
the identity, both smoothed by a Gaussian of 5 px), and errors are counted where the warped picture has pixels of its
own. The alignment is OpenCV's, and its result depends on the version of OpenCV (opencv/opencv#29774), which every table
names.

A pair for which ECC finds nothing (a flat picture, for one) is scored as it lies.
"""

import cv2
import numpy as np
import torch
from torch import Tensor

from unblur.metrics.fidelity import IDENTICAL_DB, decibels, gaussian_window, separable, ssim_map
from unblur.metrics.pictures import Picture, scores

ITERATIONS = 100
SMOOTHING_PX = 5


def psnr_realblur(restored: Picture, sharp: Picture, *, data_range: float = 1.0) -> float | Tensor:
    """Return the PSNR in dB of the aligned pictures over the pixels that both have; values are not rounded."""
    return scores(_psnr, restored, sharp, data_range)


def ssim_realblur(restored: Picture, sharp: Picture, *, data_range: float = 1.0) -> float | Tensor:
    """Return the SSIM (map as in `ssim_wang`) of the aligned pictures, averaged over the pixels that both have.

    Pictures must be 11 px wide and high at least, otherwise a `ValueError`.
    """
    return scores(_ssim, restored, sharp, data_range)


def realblur_scores(restored: Picture, sharp: Picture, *, data_range: float = 1.0) -> dict[str, float]:
    """Return both scores of one picture by name, for one search of the alignment, which costs most."""
    found: dict[str, float] = {}

    def both(restored: Tensor, sharp: Tensor, white: float) -> float:
        pair = _aligned(restored, sharp, white)
        found.update({"psnr-realblur": _masked_psnr(*pair), "ssim-realblur": _masked_ssim(*pair)})
        return 0.0

    scores(both, restored, sharp, data_range)
    return found


def _psnr(restored: Tensor, sharp: Tensor, white: float) -> float:
    return _masked_psnr(*_aligned(restored, sharp, white))


def _ssim(restored: Tensor, sharp: Tensor, white: float) -> float:
    return _masked_ssim(*_aligned(restored, sharp, white))


def _aligned(restored: Tensor, sharp: Tensor, white: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return (restored, sharp, mask), float64 in [0, 1], (C, H, W) and (H, W), the restored one moved onto the sharp.

    Outside the mask, which is 1 where the restored picture reaches and 0 elsewhere, both pictures are 0.
    """
    x, z = (np.ascontiguousarray((p.double() / white).permute(1, 2, 0).numpy()) for p in (sharp, restored))
    energy = float(np.sum(z * z))
    matched = (z * (np.sum(x * z) / energy) if energy else z).astype(np.float32)
    height, width = matched.shape[:2]
    homography = _homography(_grey(x.astype(np.float32)), _grey(matched))

    def warp(picture: np.ndarray, how: int, border: int) -> np.ndarray:
        return cv2.warpPerspective(
            picture, homography, (width, height), flags=how | cv2.WARP_INVERSE_MAP, borderMode=border
        )

    moved = warp(matched, cv2.INTER_CUBIC, cv2.BORDER_REFLECT).reshape(x.shape)
    mask = warp(np.ones((height, width), np.float32), cv2.INTER_NEAREST, cv2.BORDER_CONSTANT)
    inside = torch.from_numpy(mask).double()
    first, second = (torch.from_numpy(p.astype(np.float64)).permute(2, 0, 1) * inside for p in (moved, x))
    return first, second, inside


def _homography(sharp: np.ndarray, restored: np.ndarray) -> np.ndarray:
    """Return the 3x3 map from a place in the sharp picture to the one in the restored picture, both (H, W) float32."""
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, ITERATIONS, 0)
    start, everywhere = np.eye(3, dtype=np.float32), np.ones(sharp.shape, np.uint8)
    try:
        _, found = cv2.findTransformECC(
            sharp, restored, start, cv2.MOTION_HOMOGRAPHY, criteria, everywhere, SMOOTHING_PX
        )
    except cv2.error:  # no correlation, or no longer any overlap
        return np.eye(3, dtype=np.float32)
    return found if np.isfinite(found).all() else np.eye(3, dtype=np.float32)


def _grey(picture: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) if picture.shape[2] == 3 else np.ascontiguousarray(picture[..., 0])


def _masked_psnr(restored: Tensor, sharp: Tensor, mask: Tensor) -> float:
    counted = float(mask.sum()) * len(restored)
    if not counted:
        return 0.0
    return min(IDENTICAL_DB, decibels(float((restored - sharp).square().sum()) / counted))  # the warp rounds at 158 dB


def _masked_ssim(restored: Tensor, sharp: Tensor, mask: Tensor) -> float:
    if min(mask.shape) < 11:
        raise ValueError(f"the SSIM of RealBlur needs pictures of at least 11x11, not {mask.shape[1]}x{mask.shape[0]}")
    window = gaussian_window(11)
    inside = mask[5:-5, 5:-5]
    total = sum(
        float((ssim_map(x, y, lambda maps: separable(maps, window)) * inside).sum())
        for x, y in zip(restored, sharp, strict=True)
    )
    counted = float(inside.sum()) * len(restored)
    return total / counted if counted else 0.0
