"""DeblurGAN returns what its authors' code returns, under their keys."""

import json

import pytest
import torch

from golden import fill, read_golden
from unblur import models
from unblur.models.deblurgan import PatchCritic
from unblur.models.layers import ImageNorm2d, reflect
from unblur.weights import num_parameters


@pytest.mark.parametrize("name", ["deblurgan-2conv", "deblurgan-head"])
@pytest.mark.parametrize(("file", "statistics"), [("instancestats", "image"), ("runningstats", "running")])
def test_the_output_is_that_of_the_authors_code(published_root, name, file, statistics):
    path = published_root / f"{name}-{file}.safetensors"
    if not path.is_file():
        pytest.skip(f"no golden {path.name}")
    golden = read_golden(path)
    options = models.find("deblurgan").published[name]
    model = fill(models.create("deblurgan", **options, statistics=statistics), golden.gain)
    for blurred, expected in golden.cases:  # in [-1, 1]
        with torch.no_grad():
            restored = 2 * model((blurred + 1) / 2) - 1
        torch.testing.assert_close(restored, expected, atol=golden.tolerance, rtol=0)


def test_the_verdicts_of_the_critic_are_those_of_the_authors_code(published_root):
    golden = read_golden(published_root / "deblurgan-discriminator.safetensors")
    critic = fill(PatchCritic(), golden.gain)
    for pictures, expected in golden.cases:
        with torch.no_grad():
            torch.testing.assert_close(critic((pictures + 1) / 2), expected, atol=golden.tolerance, rtol=0)


@pytest.mark.parametrize("name", ["deblurgan-2conv", "deblurgan-head"])
@pytest.mark.parametrize("statistics", ["image", "running"])
def test_keys_shapes_and_parameters_are_the_authors(published_root, name, statistics):
    facts = json.loads((published_root / f"{name}.json").read_text())
    with torch.device("meta"):  # shapes without memory
        model = models.create("deblurgan", **models.find("deblurgan").published[name], statistics=statistics)
    assert {key: list(value.shape) for key, value in model.state_dict().items()} == facts["state_dict"]
    assert num_parameters(model) == facts["params"]


def test_keys_shapes_and_parameters_of_the_critic_are_the_authors(published_root):
    facts = json.loads((published_root / "deblurgan-discriminator.json").read_text())
    with torch.device("meta"):
        critic = PatchCritic()
    assert {key: list(value.shape) for key, value in critic.state_dict().items()} == facts["state_dict"]
    assert num_parameters(critic) == facts["params"]


def tiny(**options):
    return fill(models.create("deblurgan", **{**models.find("deblurgan").tiny, **options}))


def test_the_restored_picture_keeps_to_the_range_of_pictures(photograph):
    model = tiny()
    with torch.no_grad():
        model.model[-2].weight.mul_(100)
        restored = model(photograph[None])
    assert (restored.min(), restored.max()) == (0, 1)


def test_features_are_dropped_in_training_only(photograph):
    model, picture = tiny(statistics="image"), photograph[None, :, :32, :32]
    with torch.no_grad():
        resting = model(picture)
        model.train()
        torch.manual_seed(1)
        first, second = model(picture), model(picture)
        for block in model.modules():
            if isinstance(block, torch.nn.Dropout):
                block.p = 0.0
        assert torch.equal(model(picture), resting)
    assert not torch.equal(first, second)


def test_running_statistics_are_used_and_gathered_only_where_asked_for(photograph):
    picture = photograph[None, :, :32, :32]
    for statistics in ("image", "running"):
        model = tiny(statistics=statistics)
        with torch.no_grad():
            before = model(picture)
            model.train()(picture)
            changed = {key for key, value in model.state_dict().items() if not torch.equal(value, fill_of(key, model))}
            after = model.eval()(picture)
        if statistics == "image":
            assert not changed
            assert torch.equal(before, after)
        else:
            assert all("running" in key or "tracked" in key for key in changed)
            assert "model.2.running_mean" in changed
            assert not torch.equal(before, after)


def fill_of(key, model):
    """Return what the tensor was before: filled by the rule, or freshly made."""
    other = fill(models.create("deblurgan", **model.arch_options))
    return other.state_dict()[key]


def test_statistics_and_convolutions_that_do_not_exist_are_refused():
    with pytest.raises(ValueError, match="statistics are image or running, not 'batch'"):
        tiny(statistics="batch")
    with pytest.raises(ValueError, match="a block has 1 convolution or 2, not 3"):
        tiny(convs_per_block=3)


def test_a_verdict_of_the_critic_sees_70_pixels():
    critic = PatchCritic(channels=4)
    pictures = torch.rand(1, 3, 160, 160, requires_grad=True)
    for norm in [module for module in critic.modules() if isinstance(module, ImageNorm2d)]:
        norm.forward = lambda x: x  # the norm alone would let every verdict see the whole picture
    verdicts = critic(pictures)
    verdicts[0, 0, 10, 10].backward()
    rows = pictures.grad.abs().sum(dim=(0, 1, 3)).nonzero().flatten()
    assert rows.max() - rows.min() + 1 == 70


# -- The layers that DeblurGAN shares with its successor ---------------------------------------------------------------


@pytest.mark.parametrize("affine", [False, True])
def test_a_picture_is_normalised_by_itself_as_torch_does_in_training_with_a_batch_of_one(affine):
    pictures = 3 + 2 * torch.randn(3, 4, 5, 6, generator=torch.Generator().manual_seed(1))
    torchs = torch.nn.BatchNorm2d(4, eps=1e-3) if affine else torch.nn.InstanceNorm2d(4, 1e-3, track_running_stats=True)
    ours = ImageNorm2d(4, affine, eps=1e-3)
    fill(torchs)
    assert ours.state_dict().keys() == torchs.state_dict().keys()
    ours.load_state_dict(torchs.state_dict())
    expected = torch.cat([torchs.train()(picture[None]) for picture in pictures])
    for mode in (True, False):
        torch.testing.assert_close(ours.train(mode)(pictures), expected, atol=1e-6, rtol=1e-6)


def test_a_single_pixel_is_normalised_to_nothing():
    norm, x = ImageNorm2d(2, affine=True), torch.full((3, 2, 1, 1), 7.0)
    with torch.no_grad():
        norm.bias.copy_(torch.tensor([1.0, 2.0]))
    assert norm(x)[:, :, 0, 0].tolist() == [[1, 2]] * 3
    assert not ImageNorm2d(2, affine=False)(x).any()


def test_mirroring_goes_as_far_as_it_can():
    row = torch.tensor([1.0, 2.0, 3.0]).expand(1, 1, 1, 3)
    assert reflect(row, 2, 1, 0, 0)[0, 0].tolist() == [[3, 2, 1, 2, 3, 2]]
    assert reflect(row, 3, 0, 1, 0)[0, 0].tolist() == [[3, 3, 2, 1, 2, 3]] * 2
