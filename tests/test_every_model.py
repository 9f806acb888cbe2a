"""What every network keeps to, in its `tiny` options: any size, no surprises, and all of its weights learn."""

import inspect
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from golden import fill
from unblur import models, published, weights
from unblur.engines import export_onnx
from unblur.errors import UnknownName
from unblur.inference import autocast, restore_image, tiles_for
from unblur.models.arch import Arch
from unblur.models.layers import LayerNorm2d, channels_last, pad_to_multiple

EVERY = pytest.mark.parametrize("arch", models.ARCHITECTURES.values(), ids=models.ARCHITECTURES.keys())
OTHER_OPTIONS: dict[str, dict[str, object]] = {
    "blur_to_video": {"frames": 1},
    "caessc": {"half": True, "sigmoid": False},
    "deblurgan": {"convs_per_block": 1, "statistics": "running"},
    "deblurgan_v2": {"backbone": "inception_resnet_v2", "statistics": "running"},
    "mimo_unet": {"dropout": 0.1},
    "nafnet": {"unshuffle": 2, "padding": "reflect"},
    "red_net": {"layers": 20, "planes": 1},
    "reduced_deblurnet": {"residual": True},
    "resunet": {"num_blocks": 3, "levels": 4},
    "restormer": {"norm": "scale-only", "conv_bias": True},
    "sam_deblur": {"masks": "labels"},
    "srn": {"planes": 3, "convlstm": False, "residual": False, "halving": False},
    "srn_deblur_cifar": {"lstm": False},
    "stripformer": {"bottleneck_blocks": 0, "decoder_blocks": 3},
    "uformer": {"shift_middle": False, "window": 8},
}
"""Options beside the tiny ones that change what a network does; each is tried alone."""

VARIANTS = {
    name: {"tiny": arch.tiny}
    | {f"{key}={value}": {**arch.tiny, key: value} for key, value in OTHER_OPTIONS.get(name, {}).items()}
    for name, arch in models.ARCHITECTURES.items()
}
EVERY_VARIANT = pytest.mark.parametrize(
    ("name", "options"),
    [
        pytest.param(name, options, id=f"{name}-{label}")
        for name, all_ in VARIANTS.items()
        for label, options in all_.items()
    ],
)
SIZES = [(1, 1), (5, 7), (33, 18)]


def tiny(name: str, **options: object) -> nn.Module:
    """Return a network in eval mode, all of whose weights do something."""
    return fill(models.create(name, **{**models.find(name).tiny, **options}))


def pictures(count: int, height: int, width: int) -> Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(height * width))


# -- Pictures in, pictures out -----------------------------------------------------------------------------------------


@EVERY_VARIANT
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_a_picture_of_any_size_keeps_its_shape(name, options, height, width):
    with torch.no_grad():
        restored = tiny(name, **options)(pictures(2, height, width))
    assert restored.shape == (2, 3, height, width)
    assert restored.dtype == torch.float32
    assert torch.isfinite(restored).all()


@EVERY_VARIANT
def test_the_same_picture_is_restored_the_same_way(name, options):
    model, picture = tiny(name, **options), pictures(1, 33, 18)
    with torch.no_grad():
        assert torch.equal(model(picture), model(picture))


@EVERY_VARIANT
def test_a_picture_is_restored_without_regard_to_its_batch(name, options):
    model, batch = tiny(name, **options), pictures(3, 20, 18)
    with torch.no_grad():
        together, alone = model(batch), torch.cat([model(picture[None]) for picture in batch])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


@EVERY_VARIANT
def test_memory_in_channels_last_order_changes_nothing(name, options):
    model, batch = tiny(name, **options), pictures(2, 20, 18)
    with torch.no_grad():
        torch.testing.assert_close(
            model(batch.contiguous(memory_format=torch.channels_last)), model(batch), atol=1e-5, rtol=0
        )


@EVERY_VARIANT
def test_the_blurred_picture_is_left_as_it_was(name, options):
    batch = pictures(1, 16, 16)
    with torch.no_grad():
        tiny(name, **options)(batch)
    assert torch.equal(batch, pictures(1, 16, 16))


@EVERY_VARIANT
@pytest.mark.parametrize("value", [0, 1, None], ids=["black", "white", "noise"])
def test_bf16_gives_numbers_for_pictures_of_all_kinds(name, options, value):
    model = tiny(name, **options)
    for height, width in ((1, 1), (20, 18)):
        blurred = pictures(1, height, width) if value is None else torch.full((1, 3, height, width), float(value))
        with torch.no_grad(), autocast(torch.device("cpu"), "bf16"):
            assert torch.isfinite(model(blurred)).all()


@EVERY
def test_tiles_are_close_to_the_whole(arch, photograph):
    if arch.whole_statistics:
        pytest.skip(f"{arch.name} normalises by the whole picture, as its facts say")
    model = fill(models.create(arch.name, **arch.tiny), gain=0.4)  # at the goldens' 0.7 some reach further than trained
    whole = restore_image(model, photograph, precision="fp32")
    tiled = restore_image(model, photograph, tile_px=64, precision="fp32")
    assert (whole - tiled).abs().mean() < 0.03 * whole.std()  # measured: 0.012 at most; 0.25 with whole statistics


@pytest.mark.parametrize("name", [name for name, arch in models.ARCHITECTURES.items() if arch.fixed_size])
@pytest.mark.parametrize(("taller", "wider"), [(-255, -447), (-3, 5), (0, 0), (0, 1), (7, -1), (61, 123)])
def test_a_photo_of_any_size_goes_through_a_network_of_one_size_in_tiles_of_exactly_that(name, taller, wider):
    model, tiles = tiny(name), []
    model.register_forward_pre_hook(lambda module, inputs: tiles.extend(inputs[0]))
    width, height = getattr(model, "fixed_size", models.find(name).fixed_size)
    photo = pictures(1, max(1, height + taller), max(1, width + wider))[0]
    restored = restore_image(model, photo, precision="fp32")
    assert restored.shape == photo.shape
    assert torch.isfinite(restored).all()
    assert {tile.shape for tile in tiles} == {(3, height, width)}
    assert len(tiles) == len(tiles_for(model, *photo.shape[-2:]))
    assert (len(tiles) > 1) == (max(taller, wider) > 0)


@pytest.mark.parametrize("name", [name for name, arch in models.ARCHITECTURES.items() if arch.fixed_size])
def test_the_default_network_does_not_resize_pictures_of_the_size_that_its_facts_state(name, monkeypatch):
    with torch.device("meta"):
        model = models.create(name)
    resize, known = F.interpolate, models.find(name).fixed_size
    resized = []

    def noted(images: Tensor, *how: object, antialias: bool = False, **named: object) -> Tensor:
        resized.append(antialias)  # layers.resized does so, and no network inside
        return resize(images, *how, antialias=antialias, **named)

    monkeypatch.setattr(F, "interpolate", noted)
    assert getattr(model, "fixed_size", known) == known
    for width, there_and_back in ((known[0], 0), (known[0] + 2, 2)):
        resized.clear()
        restored = model(torch.empty(2, 3, known[1], width, device="meta"))
        assert restored.shape == (2, 3, known[1], width)
        assert sum(resized) >= there_and_back
        assert any(resized) == bool(there_and_back)


@EVERY_VARIANT
def test_a_gradient_reaches_every_weight_within_two_steps(name, options):
    torch.manual_seed(1)
    model = models.create(name, **options).eval()  # fresh: last layers and the scales of blocks begin at zero
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    multiple = getattr(model, "size_multiple", models.find(name).size_multiple)
    side = max(16, 2 * multiple)  # a norm over the picture makes nothing of a level with a single pixel
    blurred, sharp = pictures(2, side, side), pictures(2, side, side).flip(0)
    for _ in range(3):
        optimizer.zero_grad()
        outputs = model.training_outputs(blurred).values() if hasattr(model, "training_outputs") else [model(blurred)]
        errors = []
        for output in outputs:
            wanted = F.interpolate(sharp, output.shape[-2:])
            wanted = wanted[:, None] if output.ndim == 5 else wanted  # for every frame of a clip
            errors.append((output - wanted).square().mean())
        torch.stack(errors).sum().backward()
        idle = [
            key
            for key, weight in model.named_parameters()
            if not key.startswith(models.find(name).unused) and (weight.grad is None or not weight.grad.abs().max() > 0)
        ]
        optimizer.step()
    assert not idle


# -- Padding -----------------------------------------------------------------------------------------------------------


@EVERY
def test_a_picture_of_the_stated_multiple_is_not_padded(arch, monkeypatch):
    model, pad = tiny(arch.name), F.pad

    def pad_on_all_sides(images: Tensor, sides: Sequence[int], *how: object, **named: object) -> Tensor:
        left, right, top, bottom = sides
        assert (left, top) == (right, bottom), "padded"  # the same on both sides: a convolution's own border
        return pad(images, sides, *how, **named)

    monkeypatch.setattr(F, "pad", pad_on_all_sides)
    with torch.no_grad():
        model(pictures(1, arch.size_multiple, arch.size_multiple * (1 if arch.padding == "square" else 2)))


@EVERY
def test_a_picture_of_another_size_is_padded_in_the_stated_way(arch):
    model = tiny(arch.name)
    multiple = getattr(model, "size_multiple", arch.size_multiple)  # fewer levels need less
    assert arch.size_multiple % multiple == 0
    assert_padded_as_stated(model, arch, multiple)


@pytest.mark.full
@EVERY
def test_the_default_network_builds_and_pads_in_the_stated_way_to_the_stated_multiple(arch):
    assert_padded_as_stated(fill(models.create(arch.name)), arch, arch.size_multiple)


def assert_padded_as_stated(model: nn.Module, arch: Arch, multiple: int) -> None:
    if arch.padding == "none":
        return
    height, width = 2 * multiple - 3, 3 * multiple - 1
    picture = pictures(1, height, width)
    mode = {"reflect": "reflect", "replicate": "replicate"}.get(arch.padding, "constant")
    top, bottom = ((multiple + 3) // 2, (multiple + 4) // 2) if arch.padding == "square" else (0, 3)
    padded = F.pad(picture, (0, 1, top, bottom), mode=mode, value=0.5 if arch.padding == "grey" else None)
    with torch.no_grad():
        expected = model(padded)[:, :, top : top + height, :width]
        torch.testing.assert_close(model(picture), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("padding", ["zeros", "reflect", "replicate"])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 9), (8, 7), (8, 16)])
def test_padding_continues_a_picture_only_to_the_right_and_below(padding, height, width):
    picture = pictures(1, height, width)
    padded = pad_to_multiple(picture, 8, padding)
    assert [length % 8 for length in padded.shape[-2:]] == [0, 0]
    assert padded.shape[-2] - height < 8
    assert padded.shape[-1] - width < 8
    assert torch.equal(padded[:, :, :height, :width], picture)


def test_padding_by_reflection_does_not_repeat_the_edge_and_replicates_what_is_too_far():
    row = torch.tensor([1.0, 2.0, 3.0]).expand(1, 1, 1, 3)
    assert pad_to_multiple(row, 4, "reflect")[0, 0, 0].tolist() == [1, 2, 3, 2]
    assert pad_to_multiple(row, 8, "reflect")[0, 0, 7].tolist() == [1, 2, 3, 2, 1, 1, 1, 1]


def test_layer_norm_gives_each_pixel_mean_0_and_variance_1_over_its_channels():
    norm, x = LayerNorm2d(12), 5 + 3 * torch.randn(2, 12, 4, 5, generator=torch.Generator().manual_seed(1))
    y = norm(x)
    torch.testing.assert_close(y.mean(dim=1), torch.zeros(2, 4, 5), atol=1e-5, rtol=0)
    torch.testing.assert_close(y.var(dim=1, correction=0), torch.ones(2, 4, 5), atol=1e-5, rtol=0)
    with torch.no_grad():
        norm.weight.fill_(2)
        norm.bias.fill_(7)
    torch.testing.assert_close(norm(x), 2 * y + 7)


# -- Building ----------------------------------------------------------------------------------------------------------


@EVERY
def test_a_network_says_what_it_is(arch):
    model = models.create(arch.name, **arch.tiny)
    assert model.arch_name == arch.name
    assert model.arch_options == {**arch.options, **arch.tiny}
    assert model.training
    assert all(weight.dtype == torch.float32 and weight.device.type == "cpu" for weight in model.parameters())


@EVERY
def test_the_weights_of_every_network_can_lie_in_channels_last_memory(arch):
    model, before = tiny(arch.name), tiny(arch.name).state_dict()
    assert channels_last(model) is model
    weights = [weight for weight in model.parameters() if weight.ndim == 4]
    assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in weights)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@EVERY
def test_weights_saved_and_loaded_restore_the_same_picture(arch, tmp_path):
    model, picture = tiny(arch.name), pictures(1, 17, 12)
    weights.save(model, tmp_path / "model.safetensors", {})
    loaded = weights.load(tmp_path / "model.safetensors")
    assert (loaded.arch_name, loaded.arch_options) == (model.arch_name, model.arch_options)
    assert loaded.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(value, loaded.state_dict()[key]) for key, value in model.state_dict().items())
    channels_last(model)  # as loaded ones are; sums have another order otherwise
    with torch.no_grad():
        assert torch.equal(model(picture), loaded(picture))


@pytest.mark.parametrize("name", published.READERS)
def test_a_state_dict_without_a_word_is_recognised_with_its_options(name, tmp_path):
    unseen = {"stripformer": {"widths": [8, 8, 20], "bottleneck_heads": 5}}  # heads leave no trace: the authors' then
    model = tiny(name, **unseen.get(name, {}))
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    found = published.recognise(tmp_path / "weights.pth")
    assert (found.architecture, found.options) == models.identity(model)
    assert all(torch.equal(value, found.state[key]) for key, value in model.state_dict().items())


@EVERY
def test_fresh_weights_come_from_the_global_generator(arch):
    torch.manual_seed(5)
    first = models.create(arch.name, **arch.tiny).state_dict()
    torch.manual_seed(5)
    second = models.create(arch.name, **arch.tiny).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


@EVERY
def test_building_changes_no_facts_for_the_next_network(arch):
    model = models.create(arch.name, **arch.tiny)
    assert model.arch_options is not arch.options
    model.arch_options["name"] = "changed"
    assert "name" not in arch.options


@EVERY
def test_an_unknown_option_is_answered_with_the_nearest_one(arch):
    if not arch.options:
        pytest.skip(f"{arch.name} has no options")
    option = next(iter(arch.options))
    with pytest.raises(UnknownName, match=f"No option of {arch.name} is called '{option}x'. Did you mean '{option}'"):
        models.create(arch.name, **{f"{option}x": 1})


def test_an_unknown_network_is_answered_with_the_nearest_one():
    with pytest.raises(UnknownName, match=r"No model is called 'nafent'. Did you mean 'nafnet'\?"):
        models.create("nafent")


# -- Export ------------------------------------------------------------------------------------------------------------


@pytest.mark.full
@EVERY
def test_an_exported_network_restores_like_the_network(arch, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime", reason="exporting needs the extra `engines`")
    if arch.onnx == "none":
        pytest.skip(f"{arch.name} cannot be exported, as its facts say")
    model = fill(models.create(arch.name, **arch.tiny), gain=0.4)  # at the goldens' 0.7 some amplify rounding
    taken = export_onnx(model, tmp_path / "model.onnx")
    unit = taken.multiple * -(-24 // taken.multiple)
    sizes = [taken.size[::-1]] if taken.size else [(2 * unit, unit), (unit, 3 * unit)]
    assert (taken.size is None) == (arch.onnx == "any size" and arch.fixed_size is None)
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    for height, width in sizes:
        blurred = pictures(1, height, width)
        with torch.no_grad():
            expected = model(blurred)
        restored = torch.from_numpy(session.run(["restored"], {"blurred": blurred.numpy()})[0])
        torch.testing.assert_close(restored, expected, atol=2e-4, rtol=0)


# -- Facts -------------------------------------------------------------------------------------------------------------


@EVERY
def test_the_facts_name_every_option_of_the_network(arch):
    assert arch.options.keys() == inspect.signature(arch.build).parameters.keys()
    assert arch.tiny.keys() <= arch.options.keys()
    assert all(options.keys() <= arch.options.keys() for options in arch.published.values())


@EVERY
def test_a_network_lives_in_the_file_of_its_name(arch):
    assert Path(inspect.getfile(arch.build)).stem == arch.name


@EVERY
def test_the_facts_give_origin_paper_and_licence(arch):
    assert arch.origin
    assert arch.paper
    assert arch.licence == "Apache-2.0"
    assert arch.overlap_px >= 0


@EVERY
def test_tiny_networks_are_tiny(arch):
    if not arch.options:
        pytest.skip(f"{arch.name} is of one size")
    dense = arch.fixed_size is not None  # layers as large as the picture
    assert weights.num_parameters(models.create(arch.name, **arch.tiny)) < (600_000 if dense else 60_000)
