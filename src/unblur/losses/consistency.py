"""Losses for results that have no single right answer: re-blurred pictures, and clips whose direction is unknown."""

from torch import Tensor

from unblur.losses.pixel import check_same_shape, l1


def cycle(returned: Tensor, original: Tensor) -> Tensor:
    """Return the mean absolute error of pictures that went there and back again (Zhu et al. 2017, equation 2;
    document C, section 2.2.2): blurred ones, restored and blurred again, beside the blurred ones.

    The equation's other half, sharp ones that were blurred and restored, is the same function of those.
    """
    check_same_shape(returned, original, ("what came back", "the original"))
    return l1(returned, original)


def order_invariant(restored: Tensor, sharp: Tensor) -> Tensor:
    """Return how far the symmetric pairs of frames are off, in whichever order (Jin, Meishvili and Favaro 2018).

    Clips are (B, T, 3, H, W), T at least 2. A blurred photo does not tell which way time ran, so for the frames a, b at
    equal distance from the middle, and the true ones x, y: the means of |(a + b) - (x + y)| and of ||a - b| - |x - y||,
    added. Both stay as they are when a and b change places. The middle frame of an odd clip has no partner and does
    not count: compare it by another loss.
    """
    check_same_shape(restored, sharp)
    if restored.ndim != 5 or restored.shape[1] < 2:
        shape = tuple(restored.shape)
        raise ValueError(f"order_invariant compares clips (B, T, 3, H, W) of 2 frames or more, not {shape}.")
    pairs = restored.shape[1] // 2
    a, b = restored[:, :pairs], restored.flip(1)[:, :pairs]  # (B, pairs, 3, H, W)
    x, y = sharp[:, :pairs], sharp.flip(1)[:, :pairs]
    return l1(a + b, x + y) + l1((a - b).abs(), (x - y).abs())
