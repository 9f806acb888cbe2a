"""ViTDeblur of document C: a Vision Transformer sees the blurred picture, a decoder of 1×1 convolutions restores it.

The encoder is ViT-B/16 (Dosovitskiy et al.: "An Image is Worth 16x16 Words", ICLR 2021, arXiv 2010.11929) as the
package transformers has it, without its pooler: 85,798,656 parameters. Its 768 features of each patch of 16×16 pixels
match the 16·16·3 colours of the patch and are added to them. Five upsampling blocks bring the sum to full size, the
blurred picture is added again, and decoding blocks make it the restored one.

The document says neither how wide the blocks are nor how the last one ends; ours: widths halve (384 to 48), the fifth
block does not enlarge, the last layer has no activation, and pictures lie in [-1, 1] inside, as with the encoder's
authors. 86,241,638 parameters; the document's two runs had 86,250,900 and 87,156,316.

It knows pictures of 224×224 only: `forward` brings any other to that size and back, and restoring cuts tiles of
exactly that size. The decoder sees single pixels; whatever looks further is the encoder.
"""

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from unblur.errors import MissingExtra, WeightsError
from unblur.huggingface import load_pretrained
from unblur.models.arch import Arch
from unblur.models.layers import resized


class ViTDeblur(nn.Module):
    """Restores (B, 3, H, W) in [0, 1] to the same shape; sizes other than the encoder's are resized to it and back.

    `image_px` is the side of the encoder's picture, `patch_px` that of its patches, a power of two; `layers`, `heads`
    and `feedforward` are the encoder's. `upsampling` are the channels that the upsampling blocks but the last return,
    one for each doubling; `decoding` those of the decoding blocks. `pretrained`, a name on the Hugging Face hub or a
    folder of such a model, gives the encoder's first weights, else they are random. The output is not clamped.
    """

    def __init__(
        self,
        image_px: int,
        patch_px: int,
        layers: int,
        heads: int,
        feedforward: int,
        upsampling: Sequence[int],
        decoding: Sequence[int],
        pretrained: str | None,
    ) -> None:
        super().__init__()
        if image_px % patch_px or patch_px != 2 ** len(upsampling):
            raise ValueError(
                f"patches of {patch_px} pixels must divide {image_px} pixels, and {len(upsampling)} upsampling blocks "
                f"need patches of {2 ** len(upsampling)}"
            )
        self.patch_px = patch_px
        self.fixed_size = (image_px, image_px)
        features = 3 * patch_px**2
        self.encoder = _encoder(
            hidden_size=features,
            image_size=image_px,
            patch_size=patch_px,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            intermediate_size=feedforward,
        )
        self.upsampling = nn.Sequential(
            *(UpsamplingBlock(c, d, 2) for c, d in zip((features, *upsampling), upsampling, strict=False)),
            UpsamplingBlock(upsampling[-1], 3, 1),
        )
        self.decoding = nn.Sequential(
            *(nn.Sequential(nn.Conv2d(c, d, 1), nn.GELU()) for c, d in zip((3, *decoding), decoding, strict=False)),
            nn.Conv2d(decoding[-1], 3, 1),
        )
        if pretrained is not None and not next(self.parameters()).is_meta:
            _give_weights(self.encoder, pretrained)

    def forward(self, blurred: Tensor) -> Tensor:
        """Return the restored pictures, (B, 3, H, W)."""
        width, height = self.fixed_size
        picture = 2 * resized(blurred, height, width) - 1
        patches = F.pixel_unshuffle(picture, self.patch_px)  # (B, 3*p*p, H/p, W/p)
        tokens = self.encoder(picture).last_hidden_state[:, 1:]  # (B, H/p * W/p, 3*p*p); the first is of no patch
        features = tokens.transpose(1, 2).unflatten(2, patches.shape[-2:])  # (B, 3*p*p, H/p, W/p)
        restored = self.decoding(self.upsampling(features + patches) + picture)  # (B, 3, H, W)
        return resized(restored / 2 + 0.5, *blurred.shape[-2:])


class UpsamplingBlock(nn.Module):
    """Enlarges bilinearly and mixes the channels, (B, C, H, W) -> (B, D, scale*H, scale*W).

    The document's order is the other one. The results are equal, as both are linear, but here the convolution has
    only a quarter of the pixels.
    """

    def __init__(self, inputs: int, outputs: int, scale: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 1)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        """Return the enlarged features."""
        mixed = self.conv(x)
        return mixed if self.scale == 1 else F.interpolate(mixed, scale_factor=self.scale, mode="bilinear")


def _encoder(**config: Any) -> nn.Module:
    """Return a Vision Transformer with random weights. Raises `MissingExtra` without the package transformers."""
    try:
        from transformers import ViTConfig, ViTModel
    except ImportError:
        raise MissingExtra("vit_deblur", "transformers") from None
    return ViTModel(ViTConfig(**config), add_pooling_layer=False)


def _give_weights(encoder: Any, name_or_folder: str) -> None:
    """Give the encoder the weights of that model. Raises `WeightsError` where they are missing or do not fit."""
    example = "google/vit-base-patch16-224"
    found = load_pretrained(type(encoder), name_or_folder, what="ViT", example=example, add_pooling_layer=False)
    try:
        encoder.load_state_dict(found.state_dict())
    except RuntimeError:
        size = encoder.config
        raise WeightsError(
            f"'{name_or_folder}' is a ViT of another size: this one has {size.num_hidden_layers} layers of "
            f"{size.hidden_size} features, patches of {size.patch_size} and pictures of {size.image_size} pixels."
        ) from None


ARCH = Arch(
    name="vit_deblur",
    build=ViTDeblur,
    options={
        "image_px": 224,
        "patch_px": 16,
        "layers": 12,
        "heads": 12,
        "feedforward": 3072,
        "upsampling": [384, 192, 96, 48],
        "decoding": [128, 128, 128, 128],
        "pretrained": None,
    },
    tiny={
        "image_px": 32,
        "patch_px": 4,
        "layers": 1,
        "heads": 2,
        "feedforward": 64,
        "upsampling": [16, 8],
        "decoding": [8, 8],
    },
    size_multiple=1,
    padding="none",
    overlap_px=32,
    fixed_size=(224, 224),
    extra="transformers",
    first_weights=("pretrained",),
    origin="document C (a dissertation); the encoder: A. Dosovitskiy and others",
    paper="ViTDeblur, dissertation on image deblurring with a pre-trained Vision Transformer",
)
