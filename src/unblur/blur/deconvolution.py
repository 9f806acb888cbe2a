"""The classical answers to a known blur: what a network has to beat.

With the kernel known, blurred = kernel * sharp + noise can be inverted frequency by frequency, if something keeps
those frequencies small that the kernel has erased. Here that is the gradient of the result (`wiener`), the number of
iterations (`richardson_lucy`) or a noise level that is found from the picture itself (`unsupervised_wiener`); these two
are scikit-image's (extra `classical`). `unsharp_mask` knows no kernel at all.

All take RGB in [0, 1], (B, 3, H, W), and kernels (B, k, k) or (k, k), k odd, summing to 1; the same shape comes back,
clamped to [0, 1]. The blurred picture is continued by reflection, as `kernels.convolve` does it: for a kernel that is
its own mirror image (Gaussian, defocus) the border is then restored as well as the middle.
"""

import importlib
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unblur.blur.kernels import convolve, gaussian_kernel, inside, reflected
from unblur.errors import MissingExtra

GRADIENT_WEIGHT = 2e-4
"""Tuned on photographs blurred by Gaussians and rounded to 8 bit, none of them a test picture."""

BORDER_STEPS = 10
"""Steps of conjugate gradients where the border has to be found as well; on a motion of 9 px 20 gain 0.4 dB more."""


def wiener(blurred: Tensor, kernels: Tensor, *, gradient_weight: float = GRADIENT_WEIGHT) -> Tensor:
    """Return the picture x that minimises |kernel * x - blurred|² + gradient_weight · |gradient of x|².

    A larger `gradient_weight` gives a smoother result; it stands for the noise's variance over that of the
    gradients. For kernels that are their own mirror images this is one division in the frequency domain, the
    Wiener filter of pictures whose gradients are white. For others the mirrored picture would have to be blurred by a
    mirrored kernel, and the contradiction at the border rings through the whole picture: there what lies outside is
    taken as unknown, and that division is the preconditioner of conjugate gradients.
    """
    height, width = blurred.shape[-2:]
    kernels = kernels.to(blurred.device).double()
    mirrored = torch.allclose(kernels, kernels.flip(-1)) and torch.allclose(kernels, kernels.flip(-2))
    margin = 0 if mirrored else 2 * kernels.shape[-1]
    wide = _mirrored(blurred.double()) if mirrored else reflected(blurred.double(), margin)  # (B, 3, rows, columns)
    size = (wide.shape[-2], wide.shape[-1])
    response = _response(kernels, len(blurred), size)  # (B, 1, frequencies)
    slopes = gradient_weight * _slopes(size, blurred.device)

    def filtered(picture: Tensor, factor: Tensor) -> Tensor:
        return torch.fft.irfft2(torch.fft.rfft2(picture) * factor, s=size)

    inverse = 1 / (response.abs().square() + slopes)
    estimate = filtered(wide, response.conj() * inverse)
    if not mirrored:
        seen = torch.zeros(size, dtype=torch.float64, device=blurred.device)
        seen[margin : margin + height, margin : margin + width] = 1

        def normal(picture: Tensor) -> Tensor:
            return filtered(seen * filtered(picture, response), response.conj()) + filtered(picture, slopes)

        goal = filtered(seen * wide, response.conj())
        estimate = _conjugate_gradients(normal, goal, estimate, lambda picture: filtered(picture, inverse))
    restored = estimate[..., margin : margin + height, margin : margin + width]
    return restored.clamp(0, 1).to(blurred)


def richardson_lucy(blurred: Tensor, kernels: Tensor, *, iterations: int = 30) -> Tensor:
    """Return the result of Richardson (1972) and Lucy (1974); more iterations sharpen more, noise too.

    scikit-image's. Raises `MissingExtra` without it.
    """
    skimage = _skimage_restoration("Richardson-Lucy deconvolution")
    margin = 4 * kernels.shape[-1]  # beyond its array scikit-image sees black, which creeps inwards
    continued = reflected(blurred.double(), margin)
    restored = _plane_by_plane(
        continued, kernels, lambda plane, kernel: skimage.richardson_lucy(plane, kernel, iterations)
    )
    return inside(restored, margin).clamp(0, 1).to(blurred)


def unsupervised_wiener(blurred: Tensor, kernels: Tensor, *, seed: int = 0) -> Tensor:
    """Return the result of Orieux, Giovannelli and Rodet (2010), which finds the noise level by itself.

    It draws samples, hence `seed`. scikit-image's. Raises `MissingExtra` without it.
    """
    skimage = _skimage_restoration("unsupervised Wiener deconvolution")
    restored = _plane_by_plane(
        _mirrored(blurred.double()),
        kernels,
        lambda plane, kernel: skimage.unsupervised_wiener(plane, kernel, clip=False, rng=seed)[0],
    )
    return restored[..., : blurred.shape[-2], : blurred.shape[-1]].clamp(0, 1).to(blurred)


def unsharp_mask(blurred: Tensor, *, sigma: float = 1.5, amount: float = 1.0) -> Tensor:
    """Return the picture plus `amount` times what a Gaussian of `sigma` pixels takes away from it.

    What photographs have been sharpened with since the darkroom; it knows nothing of the blur.
    """
    radius = math.ceil(4 * sigma)
    softened = convolve(blurred, gaussian_kernel(sigma, 2 * radius + 1).to(blurred.device))
    return (blurred + amount * (blurred - softened)).clamp(0, 1)


def _mirrored(pictures: Tensor) -> Tensor:
    """Return (B, C, H, W) followed by its mirror image without the edges, so that it goes on periodically."""
    for dim in (-2, -1):
        inner = pictures.narrow(dim, 1, max(pictures.shape[dim] - 2, 0)) if pictures.shape[dim] > 1 else None
        pictures = pictures if inner is None else torch.cat([pictures, inner.flip(dim)], dim)
    return pictures


def _conjugate_gradients(
    normal: Callable[[Tensor], Tensor], goal: Tensor, start: Tensor, precondition: Callable[[Tensor], Tensor]
) -> Tensor:
    """Return the x of normal(x) = goal, nearly; every plane of (B, C, ., .) is a system of its own."""

    def dot(a: Tensor, b: Tensor) -> Tensor:
        return (a * b).sum((-2, -1), keepdim=True)

    x, residual = start, goal - normal(start)
    direction = step = precondition(residual)
    energy = dot(residual, step)
    for _ in range(BORDER_STEPS):
        ahead = normal(direction)
        length = energy / dot(direction, ahead).clamp_min(1e-30)
        x, residual = x + length * direction, residual - length * ahead
        step = precondition(residual)
        energy, before = dot(residual, step), energy
        direction = step + energy / before.clamp_min(1e-30) * direction
    return x


def _response(kernels: Tensor, count: int, size: tuple[int, int]) -> Tensor:
    """Return what the kernels (k, k) or (B, k, k) do to each frequency of a picture of that size, (B, 1, ., .)."""
    kernels = kernels.expand(count, *kernels.shape[-2:])
    radius = kernels.shape[-1] // 2
    centred = kernels.new_zeros(count, *size)
    places = [torch.arange(-radius, radius + 1, device=kernels.device) % length for length in size]
    # A kernel larger than the picture wraps around and meets itself, hence added, not written.
    rows = kernels.new_zeros(count, size[0], kernels.shape[-1]).index_add_(1, places[0], kernels)
    return torch.fft.rfft2(centred.index_add_(2, places[1], rows))[:, None]


def _slopes(size: tuple[int, int], device: torch.device) -> Tensor:
    """Return how much of each frequency differences of neighbours have, squared: |1 - exp(iu)|² + |1 - exp(iv)|²."""
    rows = 2 - 2 * torch.cos(2 * math.pi * torch.fft.fftfreq(size[0], device=device, dtype=torch.float64))
    columns = 2 - 2 * torch.cos(2 * math.pi * torch.fft.rfftfreq(size[1], device=device, dtype=torch.float64))
    return rows[:, None] + columns[None, :] + 1e-12  # so that nothing is divided by 0 where a kernel has a zero


def _plane_by_plane(pictures: Tensor, kernels: Tensor, restore: Callable[[Any, Any], Any]) -> Tensor:
    """Return `restore(plane, kernel)` for each plane of (B, C, H, W) as arrays, float64 on the CPU."""
    planes = pictures.cpu().numpy()
    each = kernels.expand(len(planes), *kernels.shape[-2:]).double().cpu().numpy()
    rows = [[restore(plane, kernel) for plane in picture] for picture, kernel in zip(planes, each, strict=True)]
    return torch.from_numpy(np.array(rows))


def _skimage_restoration(what: str) -> Any:
    try:
        return importlib.import_module("skimage.restoration")
    except ImportError:
        raise MissingExtra(what, "classical") from None
