"""ViTDeblur is as large as document C says, sees what its encoder sees, and its first weights can come from a file."""

import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from golden import fill
from unblur import models, weights
from unblur.errors import MissingExtra, UnblurError, WeightsError
from unblur.inference import restore_image
from unblur.models.layers import resized

TINY = dict(models.find("vit_deblur").tiny)


@pytest.fixture
def transformers():
    return pytest.importorskip("transformers", reason="vit_deblur takes its encoder from the package transformers")


def tiny_config(transformers, **changes):
    sizes = {"hidden_size": 48, "image_size": 32, "patch_size": 4, "num_hidden_layers": 1, "num_attention_heads": 2}
    return transformers.ViTConfig(**{**sizes, "intermediate_size": 64, **changes})


def test_the_parameters_are_those_of_the_document(transformers):
    with torch.device("meta"):
        model = models.create("vit_deblur")
    assert weights.num_parameters(model.encoder) == 85_798_656
    assert weights.num_parameters(model) == 86_241_638
    assert weights.num_parameters(model) - 85_798_656 >= 400_000
    assert len(model.upsampling) == 5
    assert [block.scale for block in model.upsampling] == [2, 2, 2, 2, 1]


def test_the_features_are_those_of_the_patches_in_their_order(transformers):
    model = fill(models.create("vit_deblur", **TINY))
    picture = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    seen = {}
    model.upsampling.register_forward_pre_hook(lambda _, inputs: seen.update(features=inputs[0]))
    with torch.no_grad():
        model(picture)
        tokens = model.encoder(2 * picture - 1).last_hidden_state  # (1, 1 + 64, 48)
        row, column = 3, 5
        patch = (2 * picture - 1)[0, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4].flatten()  # colour, y, x
        expected = tokens[0, 1 + 8 * row + column] + patch
    torch.testing.assert_close(seen["features"][0, :, row, column], expected)


def test_mixing_before_enlarging_is_the_same_as_after(transformers):
    block = models.create("vit_deblur", **TINY).upsampling[0]
    x = torch.rand(1, 48, 5, 6, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        documents = block.conv(F.interpolate(x, scale_factor=2, mode="bilinear"))
        torch.testing.assert_close(block(x), documents, atol=1e-6, rtol=0)


def test_the_picture_is_added_at_full_size_and_decoded_by_1x1_convolutions_and_gelu(transformers):
    model = fill(models.create("vit_deblur", **TINY))
    picture = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    *blocks, last = model.decoding
    with torch.no_grad():
        for parameter in model.upsampling[-1].parameters():
            parameter.zero_()  # so that the encoder tells nothing
        x = 2 * picture - 1
        for conv, _ in blocks:
            x = F.gelu(F.conv2d(x, conv.weight, conv.bias))
        expected = (F.conv2d(x, last.weight, last.bias) + 1) / 2
        torch.testing.assert_close(model(picture), expected)


def test_a_picture_of_another_size_is_brought_to_the_encoders_and_back(transformers):
    model = fill(models.create("vit_deblur", **TINY))
    picture = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = resized(model(resized(picture, 32, 32)), 64, 96)
        torch.testing.assert_close(model(picture), expected, atol=1e-6, rtol=0)


def test_photos_are_restored_in_tiles_of_exactly_the_encoders_size(transformers, photograph):
    model = fill(models.create("vit_deblur", **TINY))
    sizes = set()
    model.register_forward_pre_hook(lambda _, inputs: sizes.add(inputs[0].shape[-2:]))
    assert restore_image(model, photograph[:, :70, :50]).shape == (3, 70, 50)
    assert sizes == {(32, 32)}


def test_a_few_steps_lower_its_loss(transformers, photograph):
    torch.manual_seed(0)
    model, sharp = models.create("vit_deblur", **TINY), photograph[None, :, :64, :64]
    blurred = F.avg_pool2d(sharp, 5, stride=1, padding=2)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    losses = []
    for _ in range(15):
        loss = (model(blurred) - sharp).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


# -- First weights -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["ViTModel", "ViTForImageClassification"])
def test_the_encoder_begins_with_the_weights_of_a_folder(transformers, tmp_path, kind, capfd):
    trained = getattr(transformers, kind)(tiny_config(transformers))
    trained.save_pretrained(tmp_path)
    capfd.readouterr()
    model = models.create("vit_deblur", **TINY, pretrained=str(tmp_path))
    assert capfd.readouterr() == ("", "")
    expected = getattr(trained, "vit", trained).state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in model.encoder.state_dict().items())
    assert model.training
    assert all(weight.requires_grad and weight.dtype == torch.float32 for weight in model.parameters())


def test_a_checkpoint_opens_where_its_first_weights_are_gone(transformers, tmp_path):
    transformers.ViTModel(tiny_config(transformers)).save_pretrained(tmp_path / "vit")
    model = models.create("vit_deblur", **TINY, pretrained=str(tmp_path / "vit"))
    weights.save(model, tmp_path / "model.safetensors", {})
    for file in (tmp_path / "vit").iterdir():
        file.unlink()
    loaded = weights.load(tmp_path / "model.safetensors")
    assert models.identity(loaded) == models.identity(model)
    assert loaded.arch_options["pretrained"] is None
    assert all(torch.equal(value, loaded.state_dict()[key]) for key, value in model.state_dict().items())


def test_without_memory_for_weights_none_are_read(transformers):
    with torch.device("meta"):
        model = models.create("vit_deblur", **TINY, pretrained="no/such-model")
    assert all(weight.is_meta for weight in model.parameters())


def test_a_missing_file_is_one_line_with_what_to_do(transformers, tmp_path):
    with pytest.raises(WeightsError, match=r"No ViT could be had from .*google/vit-base-patch16-224") as caught:
        models.create("vit_deblur", **TINY, pretrained=str(tmp_path))
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"num_hidden_layers": 2}, "another size: this one has 1 layers of 48 features"),
        ({"image_size": 64}, "patches of 4 and pictures of 32 pixels"),
        ({"hidden_size": 32}, "another size"),
    ],
)
def test_an_encoder_of_another_size_is_refused(transformers, tmp_path, changes, says):
    transformers.ViTModel(tiny_config(transformers, **changes)).save_pretrained(tmp_path)
    with pytest.raises(WeightsError, match=says):
        models.create("vit_deblur", **TINY, pretrained=str(tmp_path))


def test_a_model_of_another_kind_is_refused_and_not_filled_up_with_random_weights(transformers, tmp_path, capfd):
    sizes = {"hidden_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    transformers.BertModel(transformers.BertConfig(vocab_size=10, **sizes)).save_pretrained(tmp_path)
    capfd.readouterr()
    with pytest.raises(WeightsError, match=r"is no ViT: \d+ of its weights are missing or of another shape, such as "):
        models.create("vit_deblur", **TINY, pretrained=str(tmp_path))
    assert capfd.readouterr() == ("", "")


# -- Without transformers ----------------------------------------------------------------------------------------------


def test_without_transformers_everything_else_works_and_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert models.find("vit_deblur").extra == "transformers"
    assert isinstance(models.create("reduced_deblurnet"), nn.Module)
    with pytest.raises(MissingExtra, match=r"pip install 'unblur\[transformers\]'") as caught:
        models.create("vit_deblur", **TINY)
    assert isinstance(caught.value, UnblurError)


def test_the_networks_are_listed_without_loading_transformers():
    program = "import sys, unblur.models, unblur.masks\nassert 'transformers' not in sys.modules\n"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")


def test_patches_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="patches of 8 pixels must divide 32 pixels, and 2 upsampling blocks need"):
        models.create("vit_deblur", **{**TINY, "patch_px": 8})
