"""DeblurGAN-v2 returns what its authors' code returns, under their keys."""

import json

import pytest
import torch
from safetensors import safe_open
from torch import nn

from golden import fill, read_golden
from unblur import models
from unblur.models.deblurgan_v2 import DepthwiseSeparable, MultiScaleCritic, full_critic, patch_critic
from unblur.models.layers import ImageNorm2d
from unblur.weights import num_parameters

BACKBONES = {
    "mobilenet_v2": {"backbone": "mobilenet_v2", "backbone_width": 1 / 16},
    "mobilenet_dsc": {"backbone": "mobilenet_dsc", "backbone_width": 1 / 16},
    "inception_resnet_v2": {"backbone": "inception_resnet_v2", "backbone_width": 1 / 32},
}


def small(backbone, **options):
    options = {"channels": 8, **BACKBONES[backbone], **options}
    return fill(models.create("deblurgan_v2", **options))


# -- The authors' ------------------------------------------------------------------------------------------------------


@pytest.mark.full
@pytest.mark.parametrize("name", ["inception", "mobilenet"])
@pytest.mark.parametrize(("mode", "statistics"), [("train", "image"), ("eval", "running")])
def test_the_output_is_that_of_the_authors_code(published_root, name, mode, statistics):
    path = published_root / f"deblurganv2-fpn-{name}-{mode}mode.safetensors"
    if not path.is_file():
        pytest.skip(f"no golden {path.name}")
    golden = read_golden(path)
    options = models.find("deblurgan_v2").published[f"fpn_{name}"]
    model = fill(models.create("deblurgan_v2", **options, statistics=statistics), golden.gain)
    for blurred, expected in golden.cases:  # in [-1, 1]
        with torch.no_grad():
            restored = 2 * model((blurred + 1) / 2) - 1
        torch.testing.assert_close(restored, expected, atol=golden.tolerance, rtol=0)


@pytest.mark.parametrize(("name", "build"), [("patch", patch_critic), ("full", full_critic)])
def test_the_verdicts_of_the_critics_are_those_of_the_authors_code(published_root, name, build):
    golden = read_golden(published_root / f"deblurganv2-disc-{name}.safetensors")
    critic = fill(build(), golden.gain)
    for pictures, expected in golden.cases:
        with torch.no_grad():
            torch.testing.assert_close(critic((pictures + 1) / 2), expected, atol=golden.tolerance, rtol=0)


def test_the_verdicts_of_the_critic_of_three_scales_are_those_of_the_authors_code(published_root):
    with safe_open(published_root / "deblurganv2-disc-multiscale.safetensors", framework="pt") as file:
        pictures = file.get_tensor("input0")
        expected = [file.get_tensor(f"output0.{scale}") for scale in range(3)]
        gain = float(file.metadata()["gain"])
        floor = max(json.loads(file.metadata()["float32_vs_float64_max_abs_diff"]).values())
    critic = fill(MultiScaleCritic(), gain)
    with torch.no_grad():
        verdicts = critic((pictures + 1) / 2)
    torch.testing.assert_close(verdicts, expected, atol=max(2e-5, 10 * floor), rtol=0)


@pytest.mark.parametrize("statistics", ["image", "running"])
@pytest.mark.parametrize("name", ["inception", "mobilenet"])
def test_keys_shapes_and_parameters_are_the_authors(published_root, name, statistics):
    facts = json.loads((published_root / f"deblurganv2-fpn-{name}.json").read_text())
    options = models.find("deblurgan_v2").published[f"fpn_{name}"]
    with torch.device("meta"):  # shapes without memory
        model = models.create("deblurgan_v2", **options, statistics=statistics)
    assert {key: list(value.shape) for key, value in model.state_dict().items()} == facts["state_dict"]
    assert num_parameters(model) == facts["params"]


@pytest.mark.parametrize(
    ("name", "build"), [("patch", patch_critic), ("full", full_critic), ("multiscale", MultiScaleCritic)]
)
def test_keys_shapes_and_parameters_of_the_critics_are_the_authors(published_root, name, build):
    facts = json.loads((published_root / f"deblurganv2-disc-{name}.json").read_text())
    with torch.device("meta"):
        critic = build()
    assert {key: list(value.shape) for key, value in critic.state_dict().items()} == facts["state_dict"]
    assert num_parameters(critic) == facts["params"]


@pytest.mark.parametrize("name", ["inception", "mobilenet"])
def test_multiplications_are_as_many_as_the_authors_network_needs(published_root, name):
    """Tell wrong strides and levels, which keys and shapes do not show."""
    expected = json.loads((published_root / "macs.json").read_text())[f"deblurganv2-fpn-{name}"]
    with torch.device("meta"):
        model = models.create("deblurgan_v2", **models.find("deblurgan_v2").published[f"fpn_{name}"])
        assert giga_macs(model, torch.empty(expected["input"])) == pytest.approx(expected["gmacs"], abs=5e-4)


def giga_macs(model: nn.Module, pictures: torch.Tensor) -> float:
    """Return the multiplications of all convolutions, in thousand millions."""
    counts = []

    def count(conv: nn.Conv2d, inputs: tuple, output: torch.Tensor) -> None:
        counts.append(output.numel() * conv.weight[0].numel())

    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(count)
    model(pictures)
    return sum(counts) / 1e9


# -- Whose statistics --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backbone", BACKBONES)
def test_with_the_statistics_of_the_image_training_mode_changes_nothing(photograph, backbone):
    model = small(backbone)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with torch.no_grad():
        resting, training = model(photograph[None]), model.train()(photograph[None])
    assert torch.equal(resting, training)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_statistics_of_the_image_are_those_of_a_batch_of_one_in_torchs_training_mode(photograph, backbone):
    """Compare with torch's own norms in the mode in which the authors restore."""
    ours, torchs = small(backbone), small(backbone, statistics="running").train()
    pictures = torch.stack([photograph, photograph.flip(1)])
    with torch.no_grad():
        expected = torch.cat([torchs(picture[None]) for picture in pictures])
        torch.testing.assert_close(ours(pictures), expected, atol=2e-4, rtol=0)


def test_only_running_statistics_depend_on_what_was_seen(photograph):
    model = small("mobilenet_v2", statistics="running")
    with torch.no_grad():
        before = model(photograph[None])
        model.train()(photograph[None])
        assert not torch.equal(model.eval()(photograph[None]), before)


# -- Sizes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("backbone", "size", "padded"),
    [
        ("mobilenet_v2", (33, 64), (64, 64)),
        ("mobilenet_v2", (1, 1), (32, 32)),
        ("inception_resnet_v2", (1, 150), (128, 160)),
        ("inception_resnet_v2", (128, 160), (128, 160)),
    ],
)
def test_pictures_are_continued_in_middle_grey_to_what_the_backbone_takes(backbone, size, padded):
    model, seen = small(backbone), []
    model.fpn.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    with torch.no_grad():
        restored = model(torch.ones(1, 3, *size))
    assert restored.shape == (1, 3, *size)
    assert seen[0].shape == (1, 3, *padded)
    assert torch.equal(
        seen[0] == 1,
        torch.nn.functional.pad(torch.ones(1, 3, *size), (0, padded[1] - size[1], 0, padded[0] - size[0])) == 1,
    )
    assert set(seen[0].unique().tolist()) <= {0.0, 1.0}


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_levels_of_the_pyramid_are_halves_quarters_and_so_on(backbone):
    model = small(backbone)
    with torch.no_grad():
        maps = model.fpn(torch.zeros(1, 3, 128, 160))
    assert [tuple(level.shape[1:]) for level in maps] == [
        (8, 64, 80),
        (16, 32, 40),
        (16, 16, 20),
        (16, 8, 10),
        (16, 4, 5),
    ]


# -- Parts -------------------------------------------------------------------------------------------------------------


def test_the_separable_variant_has_no_ordinary_convolution_wider_than_a_pixel():
    with torch.device("meta"):
        model = models.create("deblurgan_v2", **models.find("deblurgan_v2").published["fpn_mobilenet_dsc"])
    wide = [module for module in model.modules() if isinstance(module, nn.Conv2d) and module.kernel_size != (1, 1)]
    assert wide
    assert all(conv.groups == conv.in_channels for conv in wide)


def test_a_separable_convolution_is_an_ordinary_one_with_a_kernel_of_rank_one_a_channel():
    separable, x = fill(DepthwiseSeparable(4, 6, stride=2)), torch.randn(2, 4, 9, 8)
    kernel = separable.pointwise.weight * separable.depthwise.weight[:, 0]  # (6, 4, 3, 3)
    expected = nn.functional.conv2d(x, kernel, separable.pointwise.bias, stride=2, padding=1)
    torch.testing.assert_close(separable(x), expected, atol=1e-6, rtol=1e-5)


def test_both_names_of_the_backbone_are_one_module():
    model = small("inception_resnet_v2")
    assert model.fpn.enc0 is model.fpn.inception.conv2d_1a
    assert model.fpn.enc4[0] is model.fpn.inception.repeat_1
    model = small("mobilenet_v2")
    assert model.fpn.enc2[0] is model.fpn.features[4]


@pytest.mark.parametrize("backbone", BACKBONES)
def test_no_output_depends_on_the_layers_that_are_named_unused(photograph, backbone):
    model = small(backbone)
    with torch.no_grad():
        before = model(photograph[None])
        for key, weight in model.named_parameters():
            if key.startswith(models.find("deblurgan_v2").unused):
                weight.add_(1)
        assert torch.equal(model(photograph[None]), before)


def test_the_full_critic_sees_286_pixels_and_the_other_70():
    for build, expected in ((patch_critic, 70), (full_critic, 286)):
        reach, step = 1, 1
        for conv in (module for module in build().modules() if isinstance(module, nn.Conv2d)):
            reach += (conv.kernel_size[0] - 1) * step
            step *= conv.stride[0]
        assert reach == expected


def test_every_norm_of_the_critics_goes_by_the_picture_itself():
    for critic in (patch_critic(), full_critic(), MultiScaleCritic()):
        assert any(isinstance(module, ImageNorm2d) for module in critic.modules())
        assert not any(isinstance(module, nn.BatchNorm2d | nn.InstanceNorm2d) for module in critic.modules())


def test_backbones_and_widths_that_do_not_exist_are_refused():
    with pytest.raises(ValueError, match="the backbone is inception_resnet_v2, mobilenet_v2 or mobilenet_dsc, not 'v'"):
        models.create("deblurgan_v2", backbone="v")
    with pytest.raises(ValueError, match=r"a multiple of 1/32, not 0\.1"):
        models.create("deblurgan_v2", backbone_width=0.1)
