"""Point-spread functions, and the convolution that applies them.

A blurred picture is modelled as `blurred = kernel * sharp`: every point of the scene becomes the kernel. All kernels
here sum to 1 (no light is lost), are centred (nothing is shifted) and come in batches: a parameter may be a number or
a tensor of shape (B,), and the kernel then has shape (size, size) or (B, size, size), on the parameter's device.
`size` is odd and is the side of the square the kernel lies in; a kernel larger than that is cut off.
"""

import cmath
import math

import cv2
import torch
import torch.nn.functional as F
from torch import Tensor

Number = float | Tensor

SHAKE_FREQUENCIES = 8
"""Number of frequencies in a hand-shake path; the k-th makes k/2 turns during the exposure."""

TRAJECTORY_STEPS = 96
"""Number of points of a random trajectory."""


def gaussian_kernel(sigma: Number, size: Number, canvas: int | None = None) -> Tensor:
    """Return the Gaussian exp(-r²/2σ²), sampled at pixel centres within a square of side `size`, summing to 1.

    A larger `sigma` (pixels) blurs more; 0 does not blur. `canvas` is the side of the returned square where it is to be
    larger than `size` (a batch of several sizes); the rest is zero. This is the kernel of OpenCV's and
    torchvision's Gaussian blur.
    """
    sigma = torch.as_tensor(sigma, dtype=torch.float32)
    side = torch.as_tensor(size, device=sigma.device)
    x = _offsets(canvas or int(side.max()), sigma.device)
    inside = x.abs() <= (side[..., None] - 1) / 2
    line = torch.exp(-(x**2) / (2 * sigma[..., None] ** 2).clamp_min(1e-12)) * inside
    return _normalised(line[..., :, None] * line[..., None, :])


def defocus_kernel(radius_px: Number, size: int) -> Tensor:
    """Return a disc of even light, the circle of confusion of an ideal lens out of focus, with a soft edge.

    Each pixel holds the share of its area that the disc covers (estimated on 8×8 points); a radius below half a
    pixel hardly blurs.
    """
    radius = torch.as_tensor(radius_px, dtype=torch.float32)[..., None, None]
    points = 8
    fine = (torch.arange(size * points, device=radius.device) + 0.5) / points - size / 2
    covered = (fine[:, None] ** 2 + fine[None, :] ** 2 <= radius.clamp_min(0.1) ** 2).float()
    shape = (*covered.shape[:-2], size, points, size, points)
    return _normalised(covered.reshape(shape).mean(dim=(-3, -1)))


def motion_kernel(length_px: Number, angle_deg: Number, size: int) -> Tensor:
    """Return the kernel of a straight, even motion.

    A longer `length_px` blurs more; at angle 0 an odd whole length is a row of that many equal pixels, and 1 pixel
    does not blur (at other angles it hardly does). The angle turns anti-clockwise from the x axis.
    """
    length = torch.as_tensor(length_px, dtype=torch.float32)[..., None, None]
    angle = torch.deg2rad(torch.as_tensor(angle_deg, dtype=torch.float32, device=length.device))[..., None, None]
    x = _offsets(size, length.device)
    x, y = x[None, :], -x[:, None]  # y points up
    along, across = x * angle.cos() + y * angle.sin(), y * angle.cos() - x * angle.sin()
    on_segment = (length.clamp_min(1) / 2 + 0.5 - along.abs()).clamp(0, 1)
    return _normalised(on_segment * (1 - across.abs()).clamp_min(0))


def draw_shake(generator: torch.Generator) -> Tensor:
    """Draw the random numbers of one hand-shake, shape (2, 2, SHAKE_FREQUENCIES): axis, cosine or sine, frequency."""
    return torch.randn(2, 2, SHAKE_FREQUENCIES, generator=generator)


def shake_kernel(extent_px: Number, smoothness: Number, draws: Tensor, size: int, steps: int = 192) -> Tensor:
    """Return the kernel of a random hand-shake during the exposure.

    The camera follows `shake_path`, with `draws` (2, 2, F) or (B, 2, 2, F) from `draw_shake`; light is even in time, so
    slow parts of the path are bright. `extent_px` is the longer side of the path's bounding box. The kernel's centre of
    mass is its middle.
    """
    return drawn_path(fitted_path(shake_path(smoothness, draws, steps), extent_px), size)


def shake_path(smoothness: Number, draws: Tensor, steps: int) -> Tensor:
    """Return the path x(t) = Σ_k (a_k cos πkt + b_k sin πkt) / k^smoothness for t in [0, 1], shape (..., steps, axes).

    `draws` (..., axes, 2, F) holds a and b, standard normal; a higher `smoothness` (1 to 3) makes the path calmer and
    straighter. Its mean is 0, its length arbitrary.
    """
    power = torch.as_tensor(smoothness, dtype=torch.float32, device=draws.device)[..., None, None, None]
    k = torch.arange(1, SHAKE_FREQUENCIES + 1, device=draws.device)
    turns = math.pi * k * torch.linspace(0, 1, steps, device=draws.device)[:, None]  # (T, F)
    waves = torch.stack([turns.cos(), turns.sin()])  # (2, T, F)
    path = torch.einsum("...acf,ctf->...ta", draws / k**power, waves)  # (..., T, axes)
    return path - path.mean(dim=-2, keepdim=True)


def draw_trajectory(anxiety: float, generator: torch.Generator) -> Tensor:
    """Draw the path of a nervous hand, shape (TRAJECTORY_STEPS, 2), its length 1, its mean 0.

    DeblurGAN's random trajectories (Kupyn et al., CVPR 2018, section 4; after Boracchi and Foi, 2012): a Markov process
    whose point keeps its speed and, in each step, changes its direction by a Gaussian perturbation, by a pull back to
    where it started (the "inertia" of the paper), and sometimes by a sudden turn about. Shares of the three
    are drawn evenly up to 10, 0.7 and 0.2 for each path. `anxiety` scales all of them and means what p_s means in the
    paper, where it is 0.001: the change in each of 2,000 steps of a path of 60 pixels. We make fewer, longer steps and
    scale the changes so that their effect over the whole path is the same. The paper prints the pull as a factor of the
    perturbation, which would leave a path without either at its start; here they are added.
    """
    longer = 2000 / TRAJECTORY_STEPS
    angle, *shares = torch.rand(4, generator=generator).tolist()
    perturbed, pulled, turned = 10 * shares[0], 0.7 * shares[1], 0.2 * shares[2]
    chances = torch.rand(2, TRAJECTORY_STEPS, generator=generator).tolist()
    normals = torch.randn(2, TRAJECTORY_STEPS, generator=generator).tolist()
    speed = cmath.rect(1 / TRAJECTORY_STEPS, 2 * math.pi * angle)
    place, places = 0j, []
    for chance, turn, along_x, along_y in zip(*chances, *normals, strict=True):
        change = anxiety * math.sqrt(longer) * perturbed * complex(along_x, along_y)
        change -= anxiety * longer * pulled * 60 * place
        following = speed + change / TRAJECTORY_STEPS
        if chance < anxiety * longer * turned:
            following += 2 * speed * cmath.exp(1j * (math.pi + turn - 0.5))
        speed = following / (abs(following) * TRAJECTORY_STEPS)
        place += speed
        places.append((place.real, place.imag))
    path = torch.tensor(places)
    return path - path.mean(dim=0)


def fitted_path(path: Tensor, extent_px: Number) -> Tensor:
    """Return the path (..., T, 2), scaled so that the longer side of its bounding box is `extent_px`."""
    extent = torch.as_tensor(extent_px, dtype=torch.float32, device=path.device)[..., None, None]
    box = path.amax(dim=-2, keepdim=True) - path.amin(dim=-2, keepdim=True)
    return path * extent / box.amax(dim=-1, keepdim=True).clamp_min(1e-6)


def drawn_path(path: Tensor, size: int) -> Tensor:
    """Return the kernel of a path (..., T, 2), x to the right and y down from the middle: every point gets an even
    share of the light, spread over its four pixels.
    """
    batch = path.shape[:-2]
    points = path.reshape(-1, *path.shape[-2:]) + (size - 1) / 2  # (B, T, 2)
    corner = points.floor()
    share = points - corner
    kernel = torch.zeros(points.shape[0], size * size, device=path.device)
    for dx in (0, 1):
        for dy in (0, 1):
            x, y = corner[..., 0] + dx, corner[..., 1] + dy
            weight = (share[..., 0] - (1 - dx)).abs() * (share[..., 1] - (1 - dy)).abs()
            weight = weight * ((x >= 0) & (x < size) & (y >= 0) & (y < size))
            index = (y.clamp(0, size - 1) * size + x.clamp(0, size - 1)).long()
            kernel.scatter_add_(1, index, weight)
    return _normalised(kernel.reshape(*batch, size, size))


def convolve(images: Tensor, kernels: Tensor, margin_px: int = 0) -> Tensor:
    """Return each image convolved with its kernel; borders are reflected without repeating the edge.

    `images` (B, C, H, W), any size from 1×1; `kernels` (B, k, k) or (k, k), k odd. `margin_px` pixels on each side only
    give their light: the result is without them. By FFT, so that the cost does not depend on k; equal to a direct
    convolution to about 1e-6. On a CPU each image is blurred by as much of its kernel as is not 0; one that is blurred
    alike along every row and along every column, by a Gaussian say, in two passes instead, five times as fast.
    """
    kernels = kernels.expand(images.shape[0], *kernels.shape[-2:])
    if images.device.type != "cpu" or images.dtype != torch.float32:
        return _by_fourier(images, kernels, margin_px).contiguous()
    blurred = torch.empty_like(inside(images, margin_px), memory_format=torch.channels_last)
    for index, kernel in enumerate(kernels):
        image, into, kernel = images[index, None], blurred[index, None], _without_zeros(kernel)
        along_x, along_y = kernel.sum(dim=0), kernel.sum(dim=1)  # (k,); the kernel itself where both are all of it
        along_y = along_y / along_y.sum()
        if float((along_y[:, None] * along_x - kernel).abs().max()) < 1e-7:
            into.copy_(_in_two_passes(image, along_x, along_y, margin_px))
        else:
            into.copy_(_by_fourier(image, kernel[None], margin_px))
    return blurred


def inside(images: Tensor, margin_px: int) -> Tensor:
    """Return a view of images (..., H, W) without `margin_px` pixels on each side."""
    height, width = images.shape[-2:]
    return images[..., margin_px : height - margin_px, margin_px : width - margin_px]


def reflected(images: Tensor, margin_px: int) -> Tensor:
    """Return the images continued by `margin_px` on all sides: ...2 1 | 0 1 2 ... n-1 | n-2..., however often."""
    if margin_px < min(images.shape[-2:]):
        return F.pad(images, (margin_px,) * 4, mode="reflect")
    rows, columns = (_mirrored_places(length, margin_px, images.device) for length in images.shape[-2:])
    return images[:, :, rows][:, :, :, columns]


def _by_fourier(images: Tensor, kernels: Tensor, margin_px: int) -> Tensor:
    """Return images (B, C, H, W), convolved with kernels (B, k, k); transforms have lengths without large factors."""
    radius = kernels.shape[-1] // 2
    images, margin_px = _near(images, radius, margin_px)
    padded = reflected(images, radius - margin_px)
    size = torch.Size(_fast_length(n) for n in padded.shape[-2:])
    spectrum = torch.fft.rfft2(padded, s=size) * torch.fft.rfft2(kernels.to(images.dtype), s=size)[:, None]
    full = torch.fft.irfft2(spectrum, s=size)
    height, width = inside(images, margin_px).shape[-2:]
    return full[:, :, 2 * radius : 2 * radius + height, 2 * radius : 2 * radius + width]


def _in_two_passes(image: Tensor, along_x: Tensor, along_y: Tensor, margin_px: int) -> Tensor:
    """Return an image (1, C, H, W), convolved with a row and a column of weights, (k,) each."""
    image, margin_px = _near(image, len(along_x) // 2, margin_px)
    pixels = image[0].permute(1, 2, 0).contiguous().numpy()  # a view where the batch is channels-last
    row, column = (weights.flip(0).numpy() for weights in (along_x, along_y))
    blurred = cv2.sepFilter2D(pixels, -1, row, column, borderType=cv2.BORDER_REFLECT_101).reshape(pixels.shape)
    return inside(torch.from_numpy(blurred).permute(2, 0, 1)[None], margin_px)


def _near(images: Tensor, radius: int, margin_px: int) -> tuple[Tensor, int]:
    """Return the images without what lies farther than `radius` from the result, and the margin that is left."""
    return inside(images, max(0, margin_px - radius)), min(margin_px, radius)


def _without_zeros(kernel: Tensor) -> Tensor:
    """Return the middle square (odd) of a kernel that holds all that is not 0."""
    middle = len(kernel) // 2
    reach = int((kernel.nonzero() - middle).abs().max())
    return inside(kernel, middle - reach)


def _offsets(size: int, device: torch.device) -> Tensor:
    """Return the distances of pixel centres from the middle of a row of `size`."""
    return torch.arange(size, device=device, dtype=torch.float32) - (size - 1) / 2


def _normalised(kernel: Tensor) -> Tensor:
    return kernel / kernel.sum(dim=(-2, -1), keepdim=True)


def _fast_length(length: int) -> int:
    """Return the next even length whose only prime factors are 2, 3 and 5."""
    length += length % 2
    rest = length
    for factor in (2, 3, 5):
        while rest % factor == 0:
            rest //= factor
    return length if rest == 1 else _fast_length(length + 2)


def _mirrored_places(length: int, radius: int, device: torch.device) -> Tensor:
    index = torch.arange(-radius, length + radius, device=device)
    period = max(2 * (length - 1), 1)
    index = index.remainder(period)
    return torch.where(index >= length, period - index, index) if length > 1 else torch.zeros_like(index)
