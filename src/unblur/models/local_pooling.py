"""Test-time local pooling: what a network pools over the whole picture is pooled over windows of the training's size.

Chu, Chen, Chen, Lu: "Improving Image Restoration by Revisiting Global Information Aggregation", ECCV 2022
(arXiv 2112.04491), the "test-time local converter". A network that saw crops of 256 pixels in training meets other
statistics in the global mean of a large photograph; the mean of a window of 384 pixels around each pixel is what it
knows. NAFNet's and SAM-Deblur's published figures are measured with it. Equal to the outputs of NAFNet's authors in
a golden (tests/test_local_pooling.py).

Tiles of about the training's size (inference.py) do nearly the same to a network with global pooling.
"""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def with_local_pooling(model: nn.Module, train_size_px: int = 256) -> nn.Module:
    """Return the network with every global mean replaced by that of a window 1.5 times as large as training crops.

    `train_size_px` is the side of the crops. Weights and state dict are those of `model`, which is left as it was:
    both share the same tensors. A picture no larger than the window on either side is restored the same as before.
    Raises `ValueError` for a network that has no global pooling.
    """
    windows = _windows(model, train_size_px)
    if not windows:
        raise ValueError(f"{type(model).__name__} has no global pooling that could be made local")
    local = copy.deepcopy(model, {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())})
    for name, window_px in windows.items():
        local.set_submodule(name, LocalMeanPool(window_px))
    return local


class LocalMeanPool(nn.Module):
    """The mean over a window around each pixel, (B, C, H, W) -> (B, C, H, W).

    Where the window (height, width) covers the whole of `x`, its global mean, (B, C, 1, 1). Windows stay inside of `x`:
    near an edge the mean is that of the nearest whole window.
    """

    def __init__(self, window_px: tuple[int, int]) -> None:
        super().__init__()
        self.window_px = window_px

    def forward(self, x: Tensor) -> Tensor:
        """Return the means, in the dtype of `x`, computed in float32."""
        height, width = (min(pair) for pair in zip(x.shape[-2:], self.window_px, strict=True))
        if (height, width) == tuple(x.shape[-2:]):
            return x.mean(dim=(2, 3), keepdim=True)
        means = _sliding_mean(_sliding_mean(x.float(), height, 2), width, 3)  # (B, C, H-height+1, W-width+1)
        edges = ((width - 1) // 2, width // 2, (height - 1) // 2, height // 2)
        return F.pad(means, edges, mode="replicate").to(x.dtype)


def _sliding_mean(x: Tensor, length: int, dim: int) -> Tensor:
    """Return the means of all runs of `length` along `dim`: differences of running sums, whatever the length."""
    sums = x.cumsum(dim)
    ends = sums.narrow(dim, length - 1, x.shape[dim] - length + 1)
    before = F.pad(sums, (0, 0, 1, 0) if dim == 2 else (1, 0)).narrow(dim, 0, ends.shape[dim])
    return (ends - before) / length


def _windows(model: nn.Module, train_size_px: int) -> dict[str, tuple[int, int]]:
    """Return name and window of every global pooling, from the sizes that a training crop has there.

    The network runs without numbers, on tensors of the device `meta`: that needs neither time nor memory.
    """
    sizes = {id(tensor): tensor.to("meta") for tensor in (*model.parameters(), *model.buffers())}
    probe = copy.deepcopy(model, sizes).eval()
    widened = int(1.5 * train_size_px)
    windows: dict[str, tuple[int, int]] = {}

    def note(name: str, x: Tensor) -> None:
        height, width = x.shape[-2:]
        windows[name] = (height * widened // train_size_px, width * widened // train_size_px)

    for name, module in probe.named_modules():
        if isinstance(module, nn.AdaptiveAvgPool2d) and module.output_size in (1, (1, 1)):
            module.register_forward_pre_hook(lambda _, inputs, name=name: note(name, inputs[0]))
    with torch.no_grad():
        probe(torch.empty(1, 3, train_size_px, train_size_px, device="meta"))
    return windows
