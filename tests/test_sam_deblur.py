"""SAM-Deblur returns what its authors' code returns, under their keys, and uses masks as the paper says."""

import json

import pytest
import torch
from safetensors import safe_open

from golden import fill
from unblur import models
from unblur.models.local_pooling import with_local_pooling
from unblur.models.sam_deblur import drop_masks, label_plane, mask_average_pool, masks_of_labels
from unblur.weights import num_parameters

TINY = dict(models.find("sam_deblur").tiny)


def our_options(config):
    """Return the authors' configuration in our words."""
    options = {
        "width": config["width"],
        "encoder_blocks": config["enc_blk_nums"],
        "middle_blocks": config["middle_blk_num"],
        "decoder_blocks": config["dec_blk_nums"],
    }
    if config.get("mask"):
        return {"masks": "labels", **options}
    return {"region_planes": config["seg_channel"], "mask_dropout": config["mask_dropout"], **options}


def quarters(height, width):
    """Return masks of the left half and of the upper half, (1, 2, H, W); a quarter of the picture is in neither."""
    masks = torch.zeros(1, 2, height, width)
    masks[:, 0, :, : width // 2] = 1
    masks[:, 1, : height // 2] = 1
    return masks


def test_the_output_is_that_of_the_authors_code(published_root):
    path = published_root / "samdeblur-tiny.safetensors"
    if not path.is_file():
        pytest.skip(f"no golden {path.name}")
    with safe_open(path, framework="pt") as file:
        facts = file.metadata()
        count = sum(key.startswith("output") for key in file.keys())  # noqa: SIM118 (it is no dict)
        cases = [
            (file.get_tensor(f"input{n}.0"), file.get_tensor(f"input{n}.1"), file.get_tensor(f"output{n}"))
            for n in range(count)
        ]
    tolerance = max(2e-5, 10 * max(json.loads(facts["float32_vs_float64_max_abs_diff"]).values()))
    model = fill(models.create("sam_deblur", **our_options(json.loads(facts["config"]))), float(facts["gain"]))
    assert cases
    for blurred, masks, expected in cases:  # the authors' masks are (M, 1, H, W), of one picture
        with torch.no_grad():
            restored = model(blurred, masks.transpose(0, 1))
        torch.testing.assert_close(restored, expected, atol=tolerance, rtol=0)


@pytest.mark.parametrize(
    ("file", "published"),
    [("samdeblur-segnafnet", "SegNAFNet-GoPro"), ("samdeblur-masknafnet", "MaskNAFNet-GoPro")],
)
def test_keys_shapes_and_parameters_are_the_authors(published_root, file, published):
    facts = json.loads((published_root / f"{file}.json").read_text())
    options = models.find("sam_deblur").published[published]
    with torch.device("meta"):
        model = models.create("sam_deblur", **options)
        stated = models.create("sam_deblur", **our_options(facts["config"]))
    assert model.arch_options == stated.arch_options
    assert {key: list(value.shape) for key, value in model.state_dict().items()} == facts["state_dict"]
    assert num_parameters(model) == facts["params"]


@pytest.mark.parametrize("masks", ["averaged", "labels"])
def test_a_fresh_network_returns_its_input(photograph, masks):
    model = models.create("sam_deblur", **TINY, masks=masks)
    picture = photograph[None, :, :50, :71]
    with torch.no_grad():
        assert torch.equal(model(picture, quarters(50, 71)), picture)


@pytest.mark.parametrize("use", ["averaged", "labels"])
def test_masks_change_the_result_and_no_masks_are_the_same_as_empty_ones(use):
    model = fill(models.create("sam_deblur", **TINY, masks=use))
    picture = torch.rand(1, 3, 13, 18, generator=torch.Generator().manual_seed(1))
    masks = quarters(13, 18)
    with torch.no_grad():
        torch.testing.assert_close(model(picture), model(picture, torch.zeros_like(masks)), atol=1e-6, rtol=0)
        assert (model(picture) - model(picture, masks)).abs().max() > 1e-3
        assert torch.equal(model(picture, masks), model(picture, masks.bool()))


def test_pictures_of_a_batch_have_masks_of_their_own():
    model = fill(models.create("sam_deblur", **TINY))
    pictures = torch.rand(2, 3, 13, 18, generator=torch.Generator().manual_seed(1))
    masks = torch.cat([quarters(13, 18), 1 - quarters(13, 18)])
    masks[1, 1] = 0
    with torch.no_grad():
        alone = torch.cat([model(pictures[:1], masks[:1]), model(pictures[1:], masks[1:, :1])])
        torch.testing.assert_close(model(pictures, masks), alone, atol=1e-5, rtol=0)


def test_pooling_paints_each_region_with_its_mean_and_what_no_mask_covers_with_its_own():
    plane = torch.tensor([[1.0, 2.0, 10.0, 20.0], [3.0, 6.0, 30.0, 40.0]])[None, None]
    masks = torch.zeros(1, 2, 2, 4)
    masks[0, 0, :, :2] = 1  # 1 2 3 6: mean 3
    masks[0, 1, 0, 1:3] = 1  # 2 10: mean 6, overlapping the first in one pixel
    pooled = mask_average_pool(plane, masks)[0, 0]  # the rest: 20 30 40, mean 30
    torch.testing.assert_close(pooled, torch.tensor([[3.0, 9.0, 6.0, 30.0], [3.0, 3.0, 30.0, 30.0]]))


def test_pooling_over_regions_that_share_no_pixel_keeps_the_mean_of_the_picture():
    planes = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(4))
    masks = torch.zeros(2, 3, 16, 16)
    masks[:, 0, :5], masks[:, 1, 7:, 3:] = 1, 1
    pooled = mask_average_pool(planes, masks)
    torch.testing.assert_close(pooled.mean(dim=(2, 3)), planes.mean(dim=(2, 3)))
    torch.testing.assert_close(mask_average_pool(pooled, masks), pooled)


def test_mask_dropout_empties_the_share_of_the_filled_masks_at_random():
    masks = torch.ones(3, 9, 2, 2)
    masks[2, 4:] = 0  # four filled ones
    torch.manual_seed(1)
    drawn = [drop_masks(masks, 0.5).flatten(2).any(dim=2) for _ in range(200)]
    assert {tuple(kept.sum(dim=1).tolist()) for kept in drawn} == {(5, 5, 2)}  # int(0.5 * 9) and int(0.5 * 4) are gone
    often = torch.stack(drawn)[:, 0].float().mean(dim=0)
    assert ((often > 0.4) & (often < 0.71)).all()  # 5 of 9, each alike
    assert torch.equal(drop_masks(masks, 0.0), masks)


def test_masks_are_dropped_in_training_only():
    picture, masks = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(1)), quarters(8, 8)
    model = fill(models.create("sam_deblur", **TINY))
    torch.manual_seed(1)
    with torch.no_grad():
        assert len({model(picture, masks).sum().item() for _ in range(10)}) == 1
        assert len({model.train()(picture, masks).sum().item() for _ in range(10)}) == 2  # either mask is left


def test_labels_are_the_numbers_of_the_masks_added_up_to_255():
    assert (label_plane(quarters(2, 2)) * 255).round().int().tolist() == [[[[3, 2], [1, 0]]]]
    assert label_plane(torch.ones(1, 300, 1, 1)).item() == 1


@pytest.mark.parametrize("use", ["averaged", "labels"])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_a_label_picture_says_the_same_as_the_masks_it_is_drawn_from(use, dtype):
    model = fill(models.create("sam_deblur", **TINY, masks=use))
    pictures = torch.rand(2, 3, 13, 18, generator=torch.Generator().manual_seed(1))
    masks = torch.zeros(2, 7, 13, 18)
    masks[0, 0, :, :9], masks[0, 6, 4:, 9:], masks[1, 2, 3:8] = 1, 1, 1  # no overlap; numbers 1, 7 and 3
    labels = (label_plane(masks)[:, 0] * 255).round().to(dtype)
    with torch.no_grad():
        torch.testing.assert_close(model(pictures, labels), model(pictures, masks), atol=1e-5, rtol=0)
        assert (model(pictures, labels) - model(pictures)).abs().max() > 1e-3


def test_each_number_of_label_pictures_becomes_a_mask():
    labels = torch.tensor([[[0, 4], [9, 9]], [[4, 4], [0, 255]]], dtype=torch.uint8)
    masks = masks_of_labels(labels)
    assert masks.shape == (2, 3, 2, 2)  # 4, 9 and 255
    assert masks.sum(dim=(2, 3)).tolist() == [[1, 2, 0], [2, 0, 1]]
    assert masks_of_labels(torch.zeros(1, 2, 2)).shape == (1, 0, 2, 2)


def test_pooling_can_be_made_local(photograph):
    model = fill(models.create("sam_deblur", **TINY))
    local = with_local_pooling(model, train_size_px=32)
    picture, masks = photograph[None], quarters(96, 128)
    with torch.no_grad():
        torch.testing.assert_close(
            local(picture[..., :40, :40], masks[..., :40, :40]), model(picture[..., :40, :40], masks[..., :40, :40])
        )
        assert (local(picture, masks) - model(picture, masks)).abs().max() > 1e-4


@pytest.mark.parametrize("shape", [(4, 4), (1, 4, 5), (1, 2, 4, 5), (2, 2, 4, 4), (2, 4, 4), (1, 1, 1, 4, 4)])
def test_masks_of_another_size_than_the_picture_are_refused(shape):
    model = models.create("sam_deblur", **TINY)
    with pytest.raises(ValueError, match=r"masks have the shape \(1, M, 4, 4\) or \(1, 4, 4\) here, not "):
        model(torch.rand(1, 3, 4, 4), torch.zeros(shape))


def test_another_use_of_masks_and_uneven_levels_are_refused():
    with pytest.raises(ValueError, match="masks is averaged or labels, not 'drawn'"):
        models.create("sam_deblur", **TINY, masks="drawn")
    with pytest.raises(ValueError, match="1 encoder levels need as many in the decoder, not 2"):
        models.create("sam_deblur", **{**TINY, "encoder_blocks": [1]})
