"""Local pooling returns what NAFNet's authors' code returns, with the weights of the network it was made from."""

import pytest
import torch
import torch.nn.functional as F

from golden import fill, read_golden
from unblur import models, weights
from unblur.cli import main
from unblur.errors import SettingsError
from unblur.images import as_photo
from unblur.inference import restore_image
from unblur.models.local_pooling import LocalMeanPool, with_local_pooling
from unblur.restorer import Restorer, restore

LEVELS_2 = {"width": 8, "encoder_blocks": [1, 1], "middle_blocks": 1, "decoder_blocks": [1, 1]}


def nafnet(**options):
    return fill(models.create("nafnet", **{**LEVELS_2, **options}))


def test_the_output_is_that_of_the_authors_code(published_root):
    path = published_root / "nafnet-local-tiny.safetensors"
    if not path.is_file():
        pytest.skip(f"no golden {path.name}")
    golden = read_golden(path)
    config = golden.config
    model = nafnet(
        width=config["width"],
        encoder_blocks=config["enc_blk_nums"],
        middle_blocks=config["middle_blk_num"],
        decoder_blocks=config["dec_blk_nums"],
    )
    fill(model, golden.gain)
    local = with_local_pooling(model, train_size_px=config["train_size"][-1])
    for blurred, expected in golden.cases:
        with torch.no_grad():
            torch.testing.assert_close(local(blurred), expected, atol=golden.tolerance, rtol=0)
            assert (model(blurred) - expected).abs().max() > golden.tolerance


def test_the_window_is_one_and_a_half_times_the_crop_at_every_level():
    with torch.device("meta"):
        model = models.create("nafnet")
    pools = [module for module in with_local_pooling(model).modules() if isinstance(module, LocalMeanPool)]
    assert sorted({pool.window_px for pool in pools}) == [(px, px) for px in (24, 48, 96, 192, 384)]
    assert len(pools) == 36  # every block of the authors' network


def test_a_picture_of_up_to_the_window_is_restored_as_before_and_a_larger_one_is_not(photograph):
    model = nafnet()
    local = with_local_pooling(model, train_size_px=32)
    with torch.no_grad():
        for height, width in [(48, 48), (5, 7), (1, 1)]:
            picture = photograph[None, :, :height, :width]
            torch.testing.assert_close(local(picture), model(picture), atol=1e-6, rtol=0)
        assert (local(photograph[None]) - model(photograph[None])).abs().max() > 1e-4


def test_the_weights_are_shared_and_the_network_is_left_as_it_was(photograph):
    model = nafnet()
    with torch.no_grad():
        before = model(photograph[None])
        local = with_local_pooling(model, train_size_px=32)
        assert torch.equal(model(photograph[None]), before)
    assert list(local.state_dict()) == list(model.state_dict())
    assert all(local.state_dict()[key].data_ptr() == value.data_ptr() for key, value in model.state_dict().items())
    assert models.identity(local) == models.identity(model)
    assert not local.training


def test_whole_pictures_can_be_restored_with_it(photograph):
    restored = restore_image(with_local_pooling(nafnet(), train_size_px=16), photograph, tile_px=128)
    assert restored.shape == photograph.shape
    assert torch.isfinite(restored).all()


@pytest.mark.parametrize("window", [(3, 3), (4, 7), (1, 2), (20, 6), (5, 99)])
def test_the_mean_is_that_of_the_nearest_whole_window_around_each_pixel(window):
    x = torch.rand(2, 3, 9, 11, generator=torch.Generator().manual_seed(1))
    height, width = min(window[0], 9), min(window[1], 11)
    means = F.avg_pool2d(x, (height, width), stride=1)
    rows = (torch.arange(9) - (height - 1) // 2).clamp(0, means.shape[2] - 1)
    columns = (torch.arange(11) - (width - 1) // 2).clamp(0, means.shape[3] - 1)
    torch.testing.assert_close(LocalMeanPool(window)(x), means[:, :, rows][:, :, :, columns], atol=1e-6, rtol=0)


def test_a_window_over_everything_is_the_global_mean():
    x = torch.rand(2, 3, 9, 11)
    torch.testing.assert_close(LocalMeanPool((9, 20))(x), x.mean(dim=(2, 3), keepdim=True))


def test_large_windows_of_large_pictures_are_exact_in_16_bit_up_to_the_last_rounding():
    x = 1 + 0.01 * torch.rand(1, 1, 400, 500, generator=torch.Generator().manual_seed(1))
    exact = F.avg_pool2d(x.bfloat16().double(), 384, stride=1)
    means = LocalMeanPool((384, 384))(x.bfloat16())
    assert means.dtype == torch.bfloat16
    torch.testing.assert_close(means[..., 191:208, 191:308].double(), exact, atol=4e-3, rtol=0)
    torch.testing.assert_close(
        LocalMeanPool((384, 384))(x.bfloat16().float())[..., 191:208, 191:308].double(), exact, atol=1e-6, rtol=0
    )


def test_a_network_without_global_pooling_is_refused():
    with pytest.raises(ValueError, match="ReducedDeblurNet has no global pooling"):
        with_local_pooling(models.create("reduced_deblurnet"))


# -- For those who restore ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["nafnet", "sam_deblur"])
def test_photos_are_restored_as_the_authors_test_only_where_that_is_asked_for(name):
    model = fill(models.create(name, **models.find(name).tiny))
    assert Restorer(model, device="cpu").network is model
    local = Restorer(model, device="cpu", local_pooling=True).network
    windows = {module.window_px[0] for module in local.modules() if isinstance(module, LocalMeanPool)}
    assert windows == {96, 192, 384}  # 1.5 times the authors' crops of 256, at each level
    assert models.identity(local) == models.identity(model)


def test_a_photo_larger_than_the_window_comes_out_otherwise(photograph):
    model, large = nafnet(), photograph.repeat(1, 5, 4)  # (3, 480, 512)
    plain, local = (
        restore(large, model, device="cpu", tile_px=512, precision="fp32", local_pooling=flag).rgb
        for flag in (False, True)
    )
    with torch.no_grad():
        torch.testing.assert_close(local, with_local_pooling(model)(large[None])[0].clamp(0, 1), atol=1e-5, rtol=0)
    assert (plain - local).abs().max() > 1e-5


@pytest.mark.parametrize("network", ["restormer", None])
def test_a_network_whose_authors_do_not_test_so_is_refused(network):
    model = torch.nn.Identity() if network is None else models.create(network, **models.find(network).tiny)
    with pytest.raises(SettingsError, match=r"whose authors test so \(nafnet, sam_deblur\), not (restormer|Identity)"):
        _ = Restorer(model.eval(), local_pooling=True).network


def test_the_command_takes_it(tmp_path, photograph, capsys):
    weights.save(nafnet(), tmp_path / "nafnet.safetensors", {})
    weights.save(models.create("reduced_deblurnet"), tmp_path / "other.safetensors", {})
    as_photo(photograph).save(tmp_path / "a.png")
    common = ["restore", str(tmp_path / "a.png"), "--local-pooling", "--device", "cpu", "--model"]
    assert main([*common, str(tmp_path / "nafnet.safetensors"), "-o", str(tmp_path / "b.png")]) == 0
    assert main([*common, str(tmp_path / "other.safetensors"), "-o", str(tmp_path / "c.png")]) == 1
    assert "not reduced_deblurnet" in capsys.readouterr().err
