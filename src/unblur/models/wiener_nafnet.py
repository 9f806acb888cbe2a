"""A network that estimates the blur, undoes it by Wiener's filter, and refines what comes out, from coarse to fine.

Ours. Wiener: "Extrapolation, Interpolation, and Smoothing of Stationary Time Series", 1949; Slepian: "Linear
least-squares filtering of distorted images", J. Opt. Soc. Am. 57(7), 1967. The refining part is made of the blocks of
Chen et al.: "Simple Baselines for Image Restoration", ECCV 2022 (arXiv 2204.04676), see nafnet.py.

The estimate is a probability for each kernel of a fixed list. Where the kernel is random, the best linear filter is
Slepian's: in each frequency the mean of the kernels' responses over the mean of their squares, plus noise to signal. So
doubt alone keeps the filter careful, and as everything is differentiable, the estimate is learnt from sharp pictures
without being told a kernel. One kernel is assumed for the whole picture, or tile; what differs from it is the refining
part's.

The same network works on the picture reduced to a quarter and to half of its size first, with shared weights as in
Tao et al.: "Scale-recurrent Network for Deep Image Deblurring", CVPR 2018 (arXiv 1802.01770). There a long motion is a
short one and costs a sixteenth; what the network changes there is offered to the next finer scale.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unblur.blur.kernels import defocus_kernel, gaussian_kernel, motion_kernel
from unblur.models.arch import Arch
from unblur.models.layers import pad_to_multiple, without_autocast
from unblur.models.nafnet import NAFBlock

KERNEL_PX = 27
"""Side of the square that every kernel of the list fits in."""

CELL_PX = 8
"""Side of the squares over which the estimator gathers how strong each band of frequencies is, and over which detail is
compared.
"""

TAIL_PX = 48
"""How far a picture is continued until it begins anew, as what a Fourier transform sees goes on periodically."""

REDUCED = ("half", "quarter")
"""Names of the smaller scales' restored pictures, among the network's training outputs."""

GRAIN = 6e-5
"""Energy of differences that counts as none: two of 255 grey levels."""

LOST = 0.5
"""Share of the blurred picture's detail at which, and below, nothing is restored."""

LEAST, MOST = 1e-6, 0.1
"""Bounds of the noise's variance over that of the gradients. With 3e-5 as the least a training stayed there."""


class WienerNAFNet(nn.Module):
    """Restores (B, 3, H, W) in [0, 1] to the same shape, any size; the output is not clamped.

    `scales` of the picture are restored, each half of the next. `width` channels at half of a scale's size, doubled at
    each halving; `encoder_blocks` and `decoder_blocks` number the blocks of each level, outermost first in the encoder,
    innermost first in the decoder. The estimator measures `bands` bands of frequencies at each of three sizes and
    thinks about them in `estimator_width` channels.

    `finest_width`, where it is not 0, makes a quicker network: the finest of several scales then is not deconvolved and
    has a small refining part of its own, `finest_blocks` blocks of so many channels at a quarter of the size. A large
    picture is to be restored in tiles of at most `tile_px`: in small ones the estimate is that of the place, large ones
    are quicker.
    """

    def __init__(
        self,
        scales: int,
        width: int,
        encoder_blocks: Sequence[int],
        middle_blocks: int,
        decoder_blocks: Sequence[int],
        finest_width: int,
        finest_blocks: int,
        bands: int,
        estimator_width: int,
        tile_px: int,
    ) -> None:
        super().__init__()
        if not 1 <= scales <= len(REDUCED) + 1:
            raise ValueError(f"scales is 1 to {len(REDUCED) + 1}, not {scales}")
        if finest_width and scales == 1:
            raise ValueError("with one scale there is no finest one; finest_width is 0 then")
        self.scales = scales
        self.tile_px = tile_px
        kernels = listed_kernels()
        self.estimator = BlurEstimator(len(kernels), bands, estimator_width)
        self.wiener = RandomBlurWiener(kernels)
        self.refiner = Refiner(2, width, encoder_blocks, middle_blocks, decoder_blocks)
        self.finest = Refiner(4, finest_width, [], finest_blocks, [], deconvolves=False) if finest_width else None
        self.size_multiple = max(CELL_PX, self.refiner.size_multiple) << (scales - 1)

    def forward(self, blurred: Tensor) -> Tensor:
        """Return the restored pictures, (B, 3, H, W), which are the blurred ones where they have more detail."""
        return without_loss_of_detail(blurred, self.training_outputs(blurred)["restored"])

    def training_outputs(self, blurred: Tensor) -> dict[str, Tensor]:
        """Return what Wiener's filter makes of the largest scale that it works on, what the network makes of the
        smaller scales, and the result, (B, 3, H, W).

        "quarter" and "half" belong to the means of squares of pixels; sizes that do not divide are rounded up.
        """
        height, width = blurred.shape[-2:]
        picture = pad_to_multiple(blurred, self.size_multiple, "reflect").float()
        pictures = [picture]
        for _ in range(self.scales - 1):
            pictures.append(F.avg_pool2d(pictures[-1], 2))
        outputs: dict[str, Tensor] = {}
        change = torch.zeros_like(pictures[-1])  # of the next coarser scale, enlarged
        for scale in reversed(range(self.scales)):
            picture = pictures[scale]  # (B, 3, H/s, W/s)
            part = slice(-(-height // 2**scale)), slice(-(-width // 2**scale))  # without the padding
            if scale == 0 and self.finest is not None:
                restored = self.finest(picture, change)
            else:
                deconvolved = self.wiener(picture, *self.estimator(picture))
                outputs["deconvolved"] = deconvolved[0][:, :, *part]
                restored = self.refiner(picture, change, deconvolved)
            outputs["restored" if scale == 0 else REDUCED[scale - 1]] = restored[:, :, *part]
            if scale:
                change = F.interpolate(restored - picture, scale_factor=2.0, mode="bilinear", align_corners=False)
        return outputs

    def estimated_kernel(self, blurred: Tensor) -> Tensor:
        """Return the mean of the kernels that blurred pictures (B, 3, H, W) may have, (B, KERNEL_PX, KERNEL_PX)."""
        padded = pad_to_multiple(blurred, self.size_multiple, "reflect").float()
        return self.wiener.mean_kernel(self.estimator(padded)[0])


class BlurEstimator(nn.Module):
    """Tells from a picture which of `num_kernels` kernels has blurred it, the first being none, and how noisy it is.

    Blur lies in how much weaker fine detail is than coarse detail, and along which direction. Learned filters measure
    the energy in bands of frequencies, at full, half and quarter size, in cells of 8×8 pixels; of their logarithms a
    change of contrast adds the same to all.
    """

    def __init__(self, num_kernels: int, bands: int, width: int) -> None:
        super().__init__()
        self.filters = nn.ModuleList(nn.Conv2d(2, bands, 7, padding=3, bias=False) for _ in range(3))
        self.cells = nn.Sequential(
            nn.Conv2d(3 * bands, width, 1),
            nn.GELU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(width, width, 1),
        )
        self.attention = nn.Conv2d(width, width, 1, bias=False)
        self.hidden = nn.Linear(2 * width, 2 * width)
        self.out = nn.Linear(2 * width, num_kernels + 2)
        with torch.no_grad():  # a fresh network finds "not blurred" as likely as all else together
            self.out.weight.zero_()
            self.out.bias.zero_()
            self.out.bias[0] = math.log(num_kernels - 1)
            self.out.bias[-2:] = torch.tensor([0.0, -0.5])  # 3e-4 and 8e-5

    def forward(self, blurred: Tensor) -> tuple[Tensor, Tensor]:
        """Return the probability of each kernel, (B, K), and two ratios of noise to signal, (B, 2).

        `blurred` (B, 3, H, W) in multiples of CELL_PX.
        """
        energies = self.log_energies(blurred)
        with without_autocast(blurred.device):
            cells = self.cells(energies).flatten(2)  # (B, C, cells)
            weights = self.attention(cells[..., None])[..., 0].softmax(dim=-1)
            mean = (weights * cells).sum(dim=-1)  # (B, C)
            spread = (weights * (cells - mean[..., None]).square()).sum(dim=-1)
            pooled = torch.cat([mean, (spread + 1e-6).sqrt()], dim=1)  # (B, 2C)
            found = self.out(F.gelu(self.hidden(pooled)))  # (B, K+2)
            noise = LEAST * (MOST / LEAST) ** found[:, -2:].sigmoid()
            return found[:, :-2].softmax(dim=1), noise

    def log_energies(self, blurred: Tensor) -> Tensor:
        """Return how strong each band is in each cell, as a logarithm, (B, 3 * bands, H/8, W/8)."""
        grey = blurred.mean(dim=1, keepdim=True)
        energies = []
        for scale, filters in enumerate(self.filters):
            # Differences are taken in float32: in bf16 a picture has no more than eight bits, and detail drowns.
            band = filters(_differences(grey)).float()  # (B, bands, H/s, W/s)
            energies.append(F.avg_pool2d(band.square(), CELL_PX >> scale))
            grey = F.avg_pool2d(grey, 2)
        energy = torch.cat(energies, dim=1)
        return ((energy + 1e-6).log() + 7) / 3  # about standard normal for photographs


class RandomBlurWiener(nn.Module):
    """Undoes a blur of which only the probabilities of `kernels` are known.

    Kernels are (K, k, k), each its own image when turned by 180 degrees.
    """

    kernels: Tensor
    correlations: Tensor

    def __init__(self, kernels: Tensor) -> None:
        super().__init__()
        side = 2 * kernels.shape[-1] - 1
        squared = torch.fft.irfft2(torch.fft.rfft2(kernels, s=(side, side)).abs().square(), s=(side, side))
        self.register_buffer("kernels", kernels, persistent=False)
        self.register_buffer("correlations", torch.fft.fftshift(squared, dim=(-2, -1)), persistent=False)

    def forward(self, blurred: Tensor, probabilities: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Return two estimates of the sharp pictures, each (B, 3, H, W), one for each ratio of noise to signal.

        `blurred` (B, 3, H, W) float32, `probabilities` (B, K) summing to 1, `noise` (B, 2): the variance of the noise
        over that of the gradients; a larger one gives a smoother picture.
        """
        height, width = blurred.shape[-2:]
        with without_autocast(blurred.device):
            wide = periodic(periodic(blurred, -2), -1)
            size = (wide.shape[-2], wide.shape[-1])
            mean = response(self.mean_kernel(probabilities), size)  # (B, rows, columns)
            square = response(_mixed(probabilities, self.correlations), size)
            floor = noise[:, :, None, None] * _slopes(size, blurred.device)  # (B, 2, rows, columns)
            filters = mean[:, None] / (square[:, None] + floor)  # (B, 2, rows, columns)
            # Both results are real, so that one transform carries both, as its real and its imaginary part. (Transforms
            # of real pictures have half as many frequencies, but ONNX Runtime fails at their inverse.)
            both = torch.fft.ifft2(torch.fft.fft2(wide) * torch.complex(filters[:, :1], filters[:, 1:]))
            return both.real[..., :height, :width], both.imag[..., :height, :width]

    def mean_kernel(self, probabilities: Tensor) -> Tensor:
        """Return the mean kernel, (B, k, k), of probabilities (B, K)."""
        return _mixed(probabilities, self.kernels)


class Refiner(nn.Module):
    """Decides at each pixel how far to follow the deconvolved picture and the coarser scale, and mends what is left: a
    U-Net of NAFBlocks.

    It works on squares of `unshuffle` pixels folded into channels. Without `deconvolves` there is no deconvolved
    picture.
    """

    def __init__(
        self,
        unshuffle: int,
        width: int,
        encoder_blocks: Sequence[int],
        middle_blocks: int,
        decoder_blocks: Sequence[int],
        *,
        deconvolves: bool = True,
    ) -> None:
        super().__init__()
        if len(encoder_blocks) != len(decoder_blocks):
            raise ValueError(
                f"{len(encoder_blocks)} encoder levels need as many in the decoder, not {len(decoder_blocks)}"
            )
        self.unshuffle = unshuffle
        self.size_multiple = unshuffle * 2 ** len(encoder_blocks)
        self.intro = nn.Conv2d(unshuffle**2 * (12 if deconvolves else 6), width, 3, padding=1)
        widths = [width << level for level in range(len(encoder_blocks) + 1)]
        self.encoders = nn.ModuleList(_blocks(w, n) for w, n in zip(widths[:-1], encoder_blocks, strict=True))
        self.downs = nn.ModuleList(nn.Conv2d(w, 2 * w, 2, stride=2) for w in widths[:-1])
        self.middle = _blocks(widths[-1], middle_blocks)
        inwards = widths[-2::-1]
        self.ups = nn.ModuleList(
            nn.Sequential(nn.Conv2d(2 * w, 4 * w, 1, bias=False), nn.PixelShuffle(2)) for w in inwards
        )
        self.decoders = nn.ModuleList(_blocks(w, n) for w, n in zip(inwards, decoder_blocks, strict=True))
        self.ending = nn.Conv2d(width, unshuffle**2 * (5 if deconvolves else 4), 3, padding=1)
        for parameter in self.ending.parameters():  # a fresh one goes halfway to what it is offered
            nn.init.zeros_(parameter)

    def forward(self, blurred: Tensor, change: Tensor, deconvolved: Sequence[Tensor] = ()) -> Tensor:
        """Return the restored pictures from pictures of the same shape, (B, 3, H, W), multiples of `size_multiple`.

        `change` is what a coarser scale would add to the blurred ones, `deconvolved` the two that Wiener's filter makes
        of them.
        """
        added = [picture - blurred for picture in deconvolved]  # differences are seen, as bf16 has but eight bits
        seen = _as_computed(torch.cat([blurred, *added, change], dim=1))
        x = self.intro(F.pixel_unshuffle(seen, self.unshuffle))  # (B, C, H/u, W/u)
        skips = []
        for encoder, down in zip(self.encoders, self.downs, strict=True):
            x = encoder(x)
            skips.append(x)
            x = down(x)
        x = self.middle(x)
        for up, decoder, skip in zip(self.ups, self.decoders, reversed(skips), strict=True):
            x = decoder(up(x) + skip)
        decided = F.pixel_shuffle(self.ending(x), self.unshuffle).float()  # (B, 5 or 4, H, W)
        trust, mended = decided[:, :-3].sigmoid(), decided[:, -3:]
        restored = blurred + trust[:, -1:] * change + mended
        return restored + trust[:, :1] * added[0] if added else restored


def listed_kernels() -> Tensor:
    """Return the kernels that are reckoned with, (K, KERNEL_PX, KERNEL_PX); the first one does not blur.

    Gaussians, discs, and straight motions in 16 directions. Each is its own image when turned by 180 degrees.
    """
    sigmas = torch.cat([torch.zeros(1), torch.arange(3, 31) / 10])
    gaussians = gaussian_kernel(sigmas, KERNEL_PX, KERNEL_PX)
    discs = defocus_kernel(torch.arange(3, 19) / 4, KERNEL_PX)
    lengths = torch.tensor([3.0, 4, 5, 6, 7, 9, 11, 13, 15, 18, 21, 25])
    angles = torch.arange(16) * (180 / 16)
    lines = motion_kernel(lengths.repeat_interleave(16), angles.repeat(len(lengths)), KERNEL_PX)
    return torch.cat([gaussians, discs, lines])


def response(kernels: Tensor, size: tuple[int, int]) -> Tensor:
    """Return what kernels (B, k, k) do to each frequency of a picture of `size`, (B, rows, columns).

    Real, as the kernels are their own images when turned by 180 degrees: a sum of cosines.
    """
    places = torch.arange(kernels.shape[-1], device=kernels.device) - kernels.shape[-1] // 2
    rows, columns = (2 * math.pi * _frequencies(length, kernels.device)[:, None] * places for length in size)
    return rows.cos() @ kernels @ columns.cos().mT - rows.sin() @ kernels @ columns.sin().mT


def without_loss_of_detail(blurred: Tensor, restored: Tensor) -> Tensor:
    """Return the restored pictures, (B, 3, H, W), faded into the blurred ones where these have more detail.

    After a long, crooked shake single positions leave faint sharp copies, in which letters can still be read. The mean
    of all that may have been is soft, and the least error; for somebody who looks it is a loss. So what counts is how
    much of the energy of differences between neighbours is left in the surroundings, some 24 pixels wide.
    """
    height, width = blurred.shape[-2:]
    padded = [pad_to_multiple(picture, CELL_PX, "replicate").float() for picture in (blurred, restored)]
    before, after = (_detail(picture) for picture in padded)  # (B, 1, H/8, W/8)
    kept = ((after + GRAIN) / (before + GRAIN) - LOST) / (1 - LOST)
    share = F.interpolate(kept.clamp(0, 1), scale_factor=float(CELL_PX), mode="bilinear", align_corners=False)
    return blurred + share[..., :height, :width] * (restored - blurred)


def periodic(pictures: Tensor, dim: int) -> Tensor:
    """Return the pictures, continued at the end of `dim` by TAIL_PX that lead back to their beginning.

    Their mirror image at the end fades into their mirror image before the beginning.
    """
    length = pictures.shape[dim]
    steps = torch.arange(TAIL_PX, device=pictures.device)
    after, before = (
        pictures.index_select(dim, _mirrored(places, length)) for places in (length + steps, steps - TAIL_PX)
    )
    share = (1 + torch.cos(math.pi * (steps + 0.5) / TAIL_PX)) / 2  # from 1 to 0
    share = share.reshape([-1 if axis == dim else 1 for axis in (-4, -3, -2, -1)])
    return torch.cat([pictures, share * after + (1 - share) * before], dim)


def _as_computed(pictures: Tensor) -> Tensor:
    """Return pictures in autocast's precision, where it is on, and laid out channels-last: folding them then costs
    half.
    """
    kind = pictures.device.type
    if kind == "meta" or not torch.is_autocast_enabled(kind):
        return pictures
    return pictures.to(torch.get_autocast_dtype(kind), memory_format=torch.channels_last)


def _detail(pictures: Tensor) -> Tensor:
    """Return the energy of differences between neighbours, (B, 1, H/8, W/8), each a mean over 3×3 cells."""
    differences = _differences(pictures.mean(dim=1, keepdim=True))
    cells = F.avg_pool2d(differences.square().sum(dim=1, keepdim=True), CELL_PX)
    return F.avg_pool2d(cells, 3, stride=1, padding=1, count_include_pad=False)


def _differences(grey: Tensor) -> Tensor:
    """Return the differences of neighbours across and down, (B, 2, H, W), of pictures (B, 1, H, W)."""
    across = torch.diff(grey, dim=-1, append=grey[..., -1:])
    down = torch.diff(grey, dim=-2, append=grey[..., -1:, :])
    return torch.cat([across, down], dim=1)


def _mixed(probabilities: Tensor, kernels: Tensor) -> Tensor:
    """Return the sums of kernels (K, k, k) weighted by probabilities (B, K), (B, k, k)."""
    return torch.einsum("bk,kxy->bxy", probabilities, kernels)


def _mirrored(places: Tensor, length: int) -> Tensor:
    """Return places within a row of `length`, at least 2, for places beyond it, mirrored about the outermost ones."""
    period = torch.full_like(places, 2 * length - 2)  # a tensor: ONNX knows no remainder of a size
    within = places.remainder(period)
    return torch.minimum(within, period - within)


def _slopes(size: tuple[int, int], device: torch.device) -> Tensor:
    """Return how much of each frequency differences of neighbours have, squared, (rows, columns)."""
    rows, columns = (2 - 2 * torch.cos(2 * math.pi * _frequencies(length, device)) for length in size)
    return rows[:, None] + columns


def _frequencies(length: int, device: torch.device) -> Tensor:
    """Return the frequencies of a transform, in turns a pixel; those above a half stand for negative ones."""
    return torch.arange(length, device=device) / length


def _blocks(channels: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(NAFBlock(channels) for _ in range(count)))


ARCH = Arch(
    name="wiener_nafnet",
    build=WienerNAFNet,
    options={
        "scales": 3,
        "width": 32,
        "encoder_blocks": [1, 2, 4],
        "middle_blocks": 4,
        "decoder_blocks": [1, 1, 1],
        "finest_width": 0,
        "finest_blocks": 3,
        "bands": 24,
        "estimator_width": 64,
        "tile_px": 512,
    },
    tiny={
        "width": 8,
        "encoder_blocks": [1, 1],
        "middle_blocks": 1,
        "decoder_blocks": [1, 1],
        "bands": 4,
        "estimator_width": 16,
    },
    size_multiple=64,
    padding="reflect",
    overlap_px=32,
    origin="the unblur project",
    paper="Wiener 1949; Slepian 1967; blocks of NAFNet, ECCV 2022, arXiv 2204.04676",
    stages=4,
)
