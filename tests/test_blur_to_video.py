"""One blurred photo becomes the clip that the authors' four networks make of it, and pairs of frames are learnt."""

import json

import pytest
import torch
from safetensors import safe_open

from golden import fill
from unblur import models
from unblur.losses.consistency import order_invariant
from unblur.losses.pixel import mse
from unblur.models.blur_to_video import ResidualBlock
from unblur.weights import num_parameters

ARCH = models.find("blur_to_video")
NUMBERS = range(1, 8)
FILES = {1: ("center",), 3: ("center", "f35"), 5: ("center", "f35", "f26"), 7: ("center", "f35", "f26", "f17")}
"""The authors' files that a clip of so many frames needs."""


def tiny(**options):
    return fill(models.create("blur_to_video", **{**ARCH.tiny, **options}))


def picture(height, width, count=1):
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(height * width))


# -- The authors' networks ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [pytest.param(0, marks=pytest.mark.full), 1])
def test_all_frames_are_those_of_the_authors_code(published_root, number):
    path = published_root / "jin2018-chain.safetensors"
    if not path.is_file():
        pytest.skip(f"no golden {path.name}")
    with safe_open(path, framework="pt") as file:
        facts = file.metadata()
        blurred = file.get_tensor(f"input{number}")
        expected = [file.get_tensor(f"output{number}.frame{frame}") for frame in NUMBERS]
    floors = json.loads(facts["float32_vs_float64_max_abs_diff"])
    model = fill(models.create("blur_to_video"), float(facts["gain"]))
    with torch.no_grad():
        clip = model.clip(blurred)
    assert clip.shape == (1, 7, *blurred.shape[1:])
    for frame, restored, wanted in zip(NUMBERS, clip[0], expected, strict=True):
        tolerance = max(2e-5, 10 * floors[f"output{number}.frame{frame}"])
        torch.testing.assert_close(restored[None], wanted, atol=tolerance, rtol=0)


@pytest.mark.parametrize("frames", FILES)
def test_keys_shapes_and_parameters_are_those_of_the_authors_files_together(published_root, frames):
    facts = [json.loads((published_root / f"jin2018-{file}.json").read_text()) for file in FILES[frames]]
    with torch.device("meta"):
        model = models.create("blur_to_video", frames=frames)
    state = {key: list(value.shape) for key, value in model.state_dict().items()}
    assert state == {key: shape for file in facts for key, shape in file["state_dict"].items()}
    assert len(state) == sum(len(file["state_dict"]) for file in facts)
    assert num_parameters(model) == sum(file["params"] for file in facts)


# -- Frames ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("frames", FILES)
@pytest.mark.parametrize(("height", "width"), [(1, 1), (20, 40), (33, 18)])
def test_a_clip_of_any_size_has_the_restored_picture_in_the_middle(frames, height, width):
    model, blurred = tiny(frames=frames), picture(height, width, count=2)
    with torch.no_grad():
        clip, restored, outputs = model.clip(blurred), model(blurred), model.training_outputs(blurred)
    assert clip.shape == (2, frames, 3, height, width)
    assert torch.isfinite(clip).all()
    assert torch.equal(clip[:, frames // 2], restored)
    assert list(outputs) == ["clip", "middle"]
    assert torch.equal(outputs["clip"], clip)
    assert torch.equal(outputs["middle"], restored)


def test_a_shorter_clip_is_the_middle_of_a_longer_one():
    blurred = picture(40, 20)
    with torch.no_grad():
        whole = tiny().clip(blurred)
        for frames in (1, 3, 5):
            beyond = (7 - frames) // 2
            assert torch.equal(tiny(frames=frames).clip(blurred), whole[:, beyond : 7 - beyond])


def test_every_clip_of_a_batch_is_its_own():
    model, batch = tiny(), picture(20, 21, count=3)
    with torch.no_grad():
        alone = torch.cat([model.clip(blurred[None]) for blurred in batch])
        torch.testing.assert_close(model.clip(batch), alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("network", "changed"),
    [
        ("generateFrame1_7", [1, 7]),
        ("generateFrame2_6", [1, 2, 6, 7]),
        ("generateFrame5", [5, 6, 7]),
        ("generateFrame3", [1, 2, 3, 5, 6, 7]),  # the fifth is made in sight of the third
    ],
)
def test_a_network_decides_on_its_frames_and_those_beyond(network, changed):
    model, blurred = tiny(), picture(20, 20)
    with torch.no_grad():
        before = model.clip(blurred)[0]
        model.get_submodule(network).conv3.weight.zero_()
        after = model.clip(blurred)[0]
    differ = [frame for frame in NUMBERS if not torch.equal(before[frame - 1], after[frame - 1])]
    assert differ == changed


def test_a_frame_begins_as_its_neighbour_and_the_middle_one_as_the_blurred_picture():
    model, blurred = tiny(), picture(20, 20)
    with torch.no_grad():
        for network in (model, *(child for name, child in model.named_children() if name.startswith("generate"))):
            network.conv3.weight.zero_()
        assert all(torch.equal(frame, blurred[0]) for frame in model.clip(blurred)[0])


def test_the_colours_do_not_meet_before_the_last_layers():
    model, blurred = tiny(), picture(20, 20)
    with torch.no_grad():
        for weight, colours in ((model.conv2.weight, 1), (model.conv3.weight, 0)):  # there they meet: treat all alike
            weight.copy_(weight.mean(dim=colours, keepdim=True).expand_as(weight))
        torch.testing.assert_close(model(blurred.flip(1)), model(blurred).flip(1), atol=1e-5, rtol=0)


def test_a_block_sees_as_far_as_its_dilations():
    block = fill(ResidualBlock(2, (2, 4)))
    for norm in (block.norm1, block.norm2, block.norm4):
        norm.forward = lambda x: x  # a norm over the picture sees all of it
    x = torch.zeros(1, 2, 31, 31)
    x[:, :, 15, 15] = 1
    with torch.no_grad():
        changed = (block(x) != 0).any(dim=1)[0].nonzero()
    assert {int(offset) - 15 for offset in changed.flatten()} == {-6, -4, -2, 0, 2, 4, 6}


# -- Learning ----------------------------------------------------------------------------------------------------------


def test_steps_lower_the_loss_of_pairs_and_that_of_the_middle():
    torch.manual_seed(1)
    model = models.create("blur_to_video", **ARCH.tiny)
    sharp = 0.2 * picture(20, 20)[:, None].repeat(1, 7, 1, 1, 1)
    for frame in range(7):
        sharp[:, frame, :, 5:15, 2 * frame : 2 * frame + 6] += 0.8  # a bar that moves
    blurred = sharp.mean(dim=1)  # (1, 3, 20, 20)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    values = []
    for _ in range(8):
        outputs = model.training_outputs(blurred)
        of_pairs, of_middle = order_invariant(outputs["clip"], sharp), mse(outputs["middle"], sharp[:, 3])
        optimizer.zero_grad()
        (of_pairs + of_middle).backward()
        optimizer.step()
        values.append((float(of_pairs.detach()), float(of_middle.detach())))
    assert values[-1][0] < 0.8 * values[0][0]
    assert values[-1][1] < 0.8 * values[0][1]


# -- Options -----------------------------------------------------------------------------------------------------------


def test_another_number_of_frames_or_a_width_that_cannot_be_parted_is_refused():
    with pytest.raises(ValueError, match="frames is 1, 3, 5 or 7, not 4"):
        models.create("blur_to_video", frames=4)
    with pytest.raises(ValueError, match="neighbour_width is a multiple of 4, not 6"):
        models.create("blur_to_video", neighbour_width=6)
