"""The loss on what a variational network says of a picture before it draws one."""

from torch import Tensor

from unblur.losses.pixel import check_same_shape


def kld(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return the Kullback-Leibler divergence of normal distributions from the standard one, in nats.

    `mean` and `log_variance` are (B, latent). Summed over the latent numbers, averaged over the pictures (Kingma and
    Welling 2014, appendix B; document B writes the general sum). `bce` is a mean over values: for their sum to be the
    bound that a VAE maximises, weigh this one by 1 / (3·H·W), which is 2.9e-6 at 448×256.
    """
    check_same_shape(mean, log_variance, ("mean", "log_variance"))
    return (mean.square() + log_variance.exp() - 1 - log_variance).sum(dim=1).mean() / 2
