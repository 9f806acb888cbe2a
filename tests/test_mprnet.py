"""MPRNet returns what its authors' code returns at each stage, under their keys."""

import json

import pytest
import torch
from safetensors import safe_open
from torch import nn

from golden import fill
from unblur import models
from unblur.models.mprnet import ChannelAttentionBlock, join, split
from unblur.weights import num_parameters

TINY = models.find("mprnet").tiny


def our_options(config):
    """Return the authors' configuration in our words."""
    return {
        "width": config["n_feat"],
        "level_growth": config["scale_unetfeats"],
        "last_growth": config["scale_orsnetfeats"],
        "blocks": config["num_cab"],
        "reduction": config["reduction"],
    }


def pictures(count, height, width):
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(height * width))


@pytest.mark.parametrize("name", ["mprnet-tiny", pytest.param("mprnet-deblurring", marks=pytest.mark.full)])
def test_every_stage_is_that_of_the_authors_code(published_root, name):
    path = published_root / f"{name}.safetensors"
    if not path.is_file():
        pytest.skip(f"no golden {path.name}")
    with safe_open(path, framework="pt") as file:
        facts = file.metadata()
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (it is no dict)
    floors = json.loads(facts["float32_vs_float64_max_abs_diff"])
    model = fill(models.create("mprnet", **our_options(json.loads(facts["config"]))), float(facts["gain"]))
    (activation,) = (module for module in model.modules() if isinstance(module, nn.PReLU))
    nn.init.constant_(activation.weight, 0.2)  # as the golden says
    compared = 0
    for number in ("0", "1"):
        if f"input{number}" not in tensors:
            continue
        with torch.no_grad():
            stages = model.training_outputs(tensors[f"input{number}"])
        for place, stage in enumerate(("stage3", "stage2", "stage1")):  # the authors' order
            key = f"output{number}.{place}"
            if key in tensors:
                torch.testing.assert_close(stages[stage], tensors[key], atol=max(2e-5, 10 * floors[key]), rtol=0)
                compared += 1
    assert compared


def test_keys_shapes_and_parameters_are_the_authors(published_root):
    facts = json.loads((published_root / "mprnet-deblurring.json").read_text())
    options = models.find("mprnet").published["model_deblurring"]
    assert options == our_options(facts["config"])
    with torch.device("meta"):  # shapes without memory
        model = models.create("mprnet", **options)
    assert {key: list(value.shape) for key, value in model.state_dict().items()} == facts["state_dict"]
    assert num_parameters(model) == facts["params"]


def test_one_activation_weight_is_shared_by_every_block():
    model = models.create("mprnet", **TINY)
    blocks = sum(isinstance(module, ChannelAttentionBlock) for module in model.modules())
    slopes = [value for value in model.state_dict().values() if value.shape == (1,)]
    assert len(slopes) == blocks == 34
    assert len({slope.data_ptr() for slope in slopes}) == 1


@pytest.mark.parametrize(("height", "width"), [(1, 1), (8, 8), (9, 20)])
def test_every_stage_has_the_size_of_the_picture_and_the_last_one_is_the_result(height, width):
    model, blurred = fill(models.create("mprnet", **TINY)), pictures(2, height, width)
    with torch.no_grad():
        stages, restored = model.training_outputs(blurred), model(blurred)
    assert list(stages) == ["stage1", "stage2", "stage3"]
    assert all(stage.shape == blurred.shape for stage in stages.values())
    assert torch.equal(restored, stages["stage3"])


def test_the_first_stage_does_not_look_from_one_half_into_the_other_and_the_second_does():
    model, blurred = fill(models.create("mprnet", **TINY)), pictures(1, 32, 32)
    changed = blurred.clone()
    changed[:, :, 16:] = 1 - changed[:, :, 16:]
    with torch.no_grad():
        before, after = model.training_outputs(blurred), model.training_outputs(changed)
    assert torch.equal(before["stage1"][:, :, :16], after["stage1"][:, :, :16])
    assert not torch.allclose(before["stage2"][:, :, :16], after["stage2"][:, :, :16])


def test_the_first_stage_encodes_each_quarter_alone():
    model, blurred = fill(models.create("mprnet", **TINY)), pictures(1, 16, 24)
    seen = []
    model.stage1_encoder.register_forward_hook(lambda module, inputs, output: seen.append(output[0]))
    with torch.no_grad():
        model(blurred)
        lefts, rights = blurred.chunk(2, dim=3)
        quarters = (*lefts.chunk(2, dim=2), *rights.chunk(2, dim=2))
        alone = [model.stage1_encoder(model.shallow_feat1(quarter))[0] for quarter in quarters]
    torch.testing.assert_close(seen[0], torch.cat(alone), atol=1e-5, rtol=0)


@pytest.mark.parametrize("dim", [2, 3])
def test_halves_are_joined_as_they_were_split(dim):
    x = pictures(3, 8, 12)
    first, second = x.chunk(2, dim)
    assert torch.equal(split(x, dim), torch.cat([first, second]))
    assert torch.equal(join(split(x, dim), dim), x)
