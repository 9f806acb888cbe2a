"""Files of others open under whatever wrapper, are recognised by names and shapes alone, and never run code."""

import argparse
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

import unblur
from golden import fill, fill_value
from unblur import models, published, weights
from unblur.errors import WeightsError
from unblur.models.uformer import distance_index
from unblur.published import READERS, WRAPPERS, recognise

NAMES = sorted(READERS)
EVERY = pytest.mark.parametrize("name", NAMES)
SMALL = {name: dict(models.find(name).tiny) for name in NAMES} | {
    "stripformer": {"widths": [8, 8, 20], "decoder_width": 12, "bottleneck_blocks": 3, "decoder_blocks": 2},
}
"""A small network of each kind; Stripformer with its authors' numbers of heads, which leave no trace."""

OTHERS = [
    ("blur_to_video", {"frames": 1, "width": 6, "colour_width": 3}),
    ("blur_to_video", {"frames": 3, "width": 4, "colour_width": 8, "neighbour_width": 12}),
    ("deblurgan", {"channels": 6, "blocks": 3, "convs_per_block": 1}),
    ("deblurgan_v2", {"backbone": "mobilenet_v2", "backbone_width": 0.25, "channels": 6}),
    ("deblurgan_v2", {"backbone": "mobilenet_dsc", "backbone_width": 1 / 16, "channels": 8}),
    ("deblurgan_v2", {"backbone": "inception_resnet_v2", "backbone_width": 1 / 32, "channels": 8}),
    ("deepdeblur", {"width": 6, "blocks": 3}),
    ("fftformer", {"width": 4, "blocks": [1, 2, 3], "refinement_blocks": 2, "expansion": 2.5}),
    ("mimo_unet", {"width": 8, "blocks": 11}),
    ("mprnet", {"width": 12, "level_growth": 4, "last_growth": 8, "blocks": 2, "reduction": 4}),
    ("mprnet", {"width": 12, "level_growth": 6, "last_growth": 6, "blocks": 3, "reduction": 3}),
    ("nafnet", {"width": 6, "encoder_blocks": [1, 2, 11], "middle_blocks": 3, "decoder_blocks": [2, 1, 1]}),
    ("nafnet", {"width": 4, "encoder_blocks": [1], "middle_blocks": 1, "decoder_blocks": [0], "unshuffle": 2}),
    ("red_net", {"layers": 20, "width": 4, "planes": 1}),
    ("red_net", {"layers": 4, "width": 8, "planes": 3}),
    ("restormer", {"width": 4, "blocks": [2, 1, 1, 3], "heads": [1, 1, 4, 2], "refinement_blocks": 2}),
    ("restormer", {**SMALL["restormer"], "norm": "scale-only", "conv_bias": True, "expansion": 3}),
    ("restormer", {**SMALL["restormer"], "width": 24, "expansion": 2.55}),
    ("sam_deblur", {**SMALL["sam_deblur"], "region_planes": 3}),
    ("sam_deblur", {**SMALL["sam_deblur"], "masks": "labels"}),
    ("srn", {"planes": 3, "width": 4, "blocks": 2, "kernel_px": 3, "convlstm": False}),
    ("srn", {"planes": 1, "width": 6, "blocks": 1, "kernel_px": 5, "halving": False}),
    ("stripformer", {"widths": [4, 8, 10], "decoder_width": 6, "bottleneck_blocks": 0, "decoder_blocks": 12}),
    ("uformer", {"width": 4, "encoder_blocks": [1], "middle_blocks": 1, "decoder_blocks": [2], "window": 2}),
    ("uformer", {**SMALL["uformer"], "window": 8, "width": 8}),
]
"""Further options, all of which can be seen in the shapes."""


def filled(name: str, **options: Any) -> dict[str, Tensor]:
    return fill(models.create(name, **options)).state_dict()


def hollow(layout: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return tensors of these shapes that take no room, in memory or in a file."""
    return {key: torch.zeros(()).expand(tuple(shape)) for key, shape in layout.items()}


def written(content: object, path: Path) -> Path:
    torch.save(content, path)
    return path


def complaint(path: Path) -> str:
    """Return the one line in which a file is refused."""
    with pytest.raises(WeightsError) as caught:
        unblur.load_model(path)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(path))
    return str(caught.value)


# -- Files and wrappers ------------------------------------------------------------------------------------------------


def parallel(state: dict[str, Tensor], times: int = 1) -> dict[str, Tensor]:
    return {"module." * times + key: value for key, value in state.items()}


WRAPPED = {
    "the state dict alone": lambda state: state,
    **{wrapper: lambda state, wrapper=wrapper: {wrapper: state} for wrapper in WRAPPERS},
    "module.": parallel,
    "module. twice": lambda state: {"state_dict": parallel(state, 2)},
    "one in the other": lambda state: {"model": {"generator": {"params": parallel(state)}}},
    "beside the training's": lambda state: {
        "epoch": 3000,
        "state_dict": parallel(state),
        "optimizer": {"state": {0: {"step": torch.tensor(5.0), "exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 1}]},
        "best": {"psnr": 32.87},
        "D": {"model.0.weight": torch.ones(3)},
    },
}


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
def test_weights_are_found_under_every_wrapper(tmp_path, wrap):
    state = filled("nafnet", **SMALL["nafnet"])
    model = unblur.load_model(written(wrap(state), tmp_path / "net.pth"))
    assert (model.arch_name, model.arch_options) == ("nafnet", models.full_options("nafnet", **SMALL["nafnet"]))
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


def test_it_is_said_in_which_wrapper_the_weights_lay(tmp_path):
    state = filled("nafnet", **SMALL["nafnet"])
    assert recognise(written(state, tmp_path / "a.pth")).entry == ""
    assert recognise(written({"model": {"params": state}}, tmp_path / "b.pth")).entry == "model/params"


@pytest.mark.parametrize("name", ["nafnet", "deblurgan", "srn"])
@pytest.mark.parametrize("beginning", ["net_g.", "_orig_mod.", "module.network.", "model."])
def test_what_all_keys_begin_with_may_be_anything(tmp_path, name, beginning):
    state = filled(name, **SMALL[name])
    path = written({"state_dict": {beginning + key: value for key, value in state.items()}}, tmp_path / "net.pth")
    model = unblur.load_model(path)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("suffix", ["pth", "pt", "pth.tar", "pkl", "h5", "ckpt", "weird"])
def test_torch_files_open_under_any_suffix(tmp_path, suffix):
    path = written({"params": filled("nafnet", **SMALL["nafnet"])}, tmp_path / f"net.{suffix}")
    assert unblur.load_model(path).arch_name == "nafnet"


def test_the_form_of_files_before_2020_opens(tmp_path):
    torch.save(filled("nafnet", **SMALL["nafnet"]), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert unblur.load_model(tmp_path / "old.pth").arch_name == "nafnet"


@pytest.mark.parametrize("name", ["net.safetensors", "net.pth"])
def test_safetensors_of_others_open_under_any_suffix(tmp_path, name):
    state = {key: value.contiguous() for key, value in filled("nafnet", **SMALL["nafnet"]).items()}
    save_file(parallel(state), tmp_path / name)
    model = unblur.load_model(tmp_path / name)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


def test_averaged_weights_come_before_raw_ones_where_they_fit(tmp_path):
    raw = filled("nafnet", **SMALL["nafnet"])
    averaged = {key: value + 1 for key, value in raw.items()}
    both = recognise(written({"params": raw, "params_ema": averaged}, tmp_path / "both.pth"))
    assert both.entry == "params_ema"
    assert torch.equal(both.state["intro.bias"], averaged["intro.bias"])
    partly = written({"params": raw, "params_ema": {"intro.bias": averaged["intro.bias"]}}, tmp_path / "partly.pth")
    assert recognise(partly).entry == "params"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_precision_become_float32(tmp_path, dtype):
    state = {key: value.to(dtype) for key, value in filled("nafnet", **SMALL["nafnet"]).items()}
    model = unblur.load_model(written(state, tmp_path / "net.pth"))
    assert {value.dtype for value in model.parameters()} == {torch.float32}
    assert torch.equal(model.state_dict()["intro.weight"], state["intro.weight"].float())


# -- Every network -----------------------------------------------------------------------------------------------------


def test_every_network_that_has_files_of_its_authors_is_read_and_has_a_licence_note():
    assert sorted({entry.network for entry in weights.known().values()}) == NAMES
    assert all(models.find(name).published and weights.licence_of_others(name) for name in NAMES)


@EVERY
def test_a_file_of_every_network_becomes_that_network_ready_for_use(tmp_path, name):
    state = filled(name, **SMALL[name])
    model = unblur.load_model(written({"params": parallel(state)}, tmp_path / "net.pth"))
    assert (model.arch_name, model.arch_options) == (name, models.full_options(name, **SMALL[name]))
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert model.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize(("name", "options"), OTHERS)
def test_options_are_read_off_the_shapes(tmp_path, name, options):
    with torch.device("meta"):
        layout = {key: value.shape for key, value in models.create(name, **options).state_dict().items()}
    found = recognise(written(hollow(layout), tmp_path / "net.pth"))
    assert (found.architecture, found.options) == (name, models.full_options(name, **options))
    assert found.configurations == ()


LARGE = ("fpn_inception", "Uformer_B", "MIMO-UNetPlus", "motion_deblurring", "NAFNet-SIDD-width64", "RED20", "RED10")


@pytest.mark.parametrize(
    ("name", "configuration"),
    [
        pytest.param(name, configuration, marks=pytest.mark.full if configuration in LARGE else ())
        for name in NAMES
        for configuration in models.find(name).published
        if not configuration.startswith(("REDS_L1", "GOPRO_L1_", "Stripformer_realblur"))  # the same options again
    ],
)
def test_every_published_configuration_is_recognised_by_name(tmp_path, name, configuration):
    options = models.full_options(name, **models.find(name).published[configuration])
    with torch.device("meta"):
        layout = {key: value.shape for key, value in models.create(name, **options).state_dict().items()}
    found = recognise(written(hollow(layout), tmp_path / "net.pth"))
    assert found.architecture == name
    assert configuration in found.configurations
    without_trace = {"mask_dropout", "residual"}
    assert {key for key in options if options[key] != found.options[key]} <= without_trace


def test_what_leaves_no_trace_is_as_published_for_these_shapes_or_else_the_default(tmp_path):
    def options_of(name: str, **options: Any) -> Mapping[str, Any]:
        with torch.device("meta"):
            layout = {key: value.shape for key, value in models.create(name, **options).state_dict().items()}
        return recognise(written(hollow(layout), tmp_path / "net.pth")).options

    assert options_of("mimo_unet", blocks=20)["dropout"] == 0.1
    assert options_of("mimo_unet", blocks=8, dropout=0.3)["dropout"] == 0
    assert options_of("uformer", **SMALL["uformer"], shift_middle=False)["shift_middle"] is True
    assert options_of("sam_deblur", mask_dropout=0.0)["mask_dropout"] == 0.5
    assert options_of("srn", blocks=3, kernel_px=3, convlstm=False, residual=False)["residual"] is True
    assert options_of("deblurgan", blocks=1, statistics="running")["statistics"] == "image"
    assert options_of("nafnet", padding="reflect")["padding"] == "zeros"


def test_configurations_of_the_same_shapes_are_all_named(tmp_path):
    with torch.device("meta"):
        layout = {key: value.shape for key, value in models.create("nafnet", width=64).state_dict().items()}
    found = recognise(written(hollow(layout), tmp_path / "net.pth"))
    assert found.configurations == ("NAFNet-GoPro-width64", "NAFNet-REDS-width64")


def test_tensorflows_order_of_dimensions_is_turned_to_torchs(tmp_path):
    state = filled("srn", **SMALL["srn"])
    tensorflow = {key: value.permute(2, 3, 1, 0) if value.ndim == 4 else value for key, value in state.items()}
    model = unblur.load_model(written(tensorflow, tmp_path / "net.pth"))
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


def test_tensorflows_other_variables_and_its_numbers_of_outputs_do_not_matter(tmp_path):
    state = filled("srn", **SMALL["srn"])
    slots = {f"{key}/{slot}": torch.ones_like(value) for key, value in state.items() for slot in ("Adam", "Adam_1")}
    training = {"beta1_power": torch.tensor(0.9), "global_step": torch.tensor(523000)}
    outputs = {f"{key}:0": value for key, value in state.items()}
    for content in ({**state, **slots, **training}, outputs):
        model = unblur.load_model(written(content, tmp_path / "net.pth"))
        assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    said = complaint(written({**state, "g_net/enc9_1/weights": torch.ones(3)}, tmp_path / "net.pth"))
    assert "1 unknown to it (g_net/enc9_1/weights)" in said


def test_what_no_result_depends_on_may_be_missing_or_of_another_shape(tmp_path):
    state = filled("fftformer", **SMALL["fftformer"])
    assert "reduce_chan_level2.weight" in state
    without = {key: value for key, value in state.items() if key != "reduce_chan_level2.weight"}
    other = state | {"reduce_chan_level2.weight": torch.ones(3), "reduce_chan_level2.bias": torch.ones(3)}
    for content in (without, other):
        model = unblur.load_model(written(content, tmp_path / "net.pth"))
        assert not model.state_dict()["reduce_chan_level2.weight"].any()
        assert torch.equal(model.state_dict()["output.weight"], state["output.weight"])


def test_files_from_before_batches_were_counted_open(tmp_path):
    state = filled("deblurgan", **SMALL["deblurgan"])
    old = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    assert len(old) < len(state)
    assert unblur.load_model(written(old, tmp_path / "net.pth")).arch_name == "deblurgan"


# -- The authors' outputs ----------------------------------------------------------------------------------------------

NAF = {"width": 8, "encoder_blocks": [1, 1, 2], "middle_blocks": 1, "decoder_blocks": [1, 1, 1]}
RESTORMER = {"width": 8, "blocks": [1, 1, 1, 2], "heads": [1, 2, 4, 8], "refinement_blocks": 1}
SMALL_GOLDENS = {
    "deepdeblur-tiny": ("deepdeblur", {"width": 8, "blocks": 2}),
    "fftformer-tiny": ("fftformer", {"width": 8, "blocks": [1, 1, 2], "refinement_blocks": 1}),
    "mimounet-tiny": ("mimo_unet", {"blocks": 1}),
    "mprnet-tiny": ("mprnet", {"width": 16, "level_growth": 8, "last_growth": 8, "blocks": 2, "reduction": 2}),
    "nafnet-tiny": ("nafnet", NAF),
    "rednet-tiny": ("red_net", {"width": 8}),
    "restormer-biasfree-tiny": ("restormer", {**RESTORMER, "norm": "scale-only", "conv_bias": True}),
    "restormer-tiny": ("restormer", RESTORMER),
    "samdeblur-tiny": ("sam_deblur", NAF),
    "uformer-tiny": (
        "uformer",
        {"width": 8, "encoder_blocks": [1, 1, 2, 1], "middle_blocks": 2, "decoder_blocks": [1, 2, 1, 1]},
    ),
}
FULL_GOLDENS = {
    "deblurgan-2conv-instancestats": "deblurgan-2conv",
    "deblurgan-head-instancestats": "deblurgan-head",
    "deblurganv2-fpn-inception-trainmode": "deblurganv2-fpn-inception",
    "deblurganv2-fpn-mobilenet-trainmode": "deblurganv2-fpn-mobilenet",
    "deepdeblur-msresnet": "deepdeblur-msresnet",
    "fftformer": "fftformer",
    "mimounet": "mimounet",
    "mimounet-plus": "mimounet-plus",
    "mprnet-deblurring": "mprnet-deblurring",
    "nafnet-gopro-width32": "nafnet-gopro-width32",
    "nafnet-gopro-width64": "nafnet-gopro-width64",
    "nafnet-sidd-width32": "nafnet-sidd-width32",
    "rednet-ch1": "rednet-ch1",
    "rednet-ch3": "rednet-ch3",
    "restormer-motion": "restormer-motion",
    "samdeblur-segnafnet": "samdeblur-segnafnet",
    "srn-color": "srn-color",
    "srn-gray": "srn-gray",
    "srn-lstm": "srn-lstm",
    "stripformer": "stripformer",
    "uformer-b": "uformer-b",
    "uformer-s": "uformer-s",
    "uformer-t": "uformer-t",
}
"""The golden of a full network and the table of its keys and shapes."""


@pytest.mark.parametrize("golden", SMALL_GOLDENS)
def test_a_file_restores_what_its_authors_code_restores(published_root, tmp_path, golden):
    name, options = SMALL_GOLDENS[golden]
    path = golden_at(published_root, golden)
    model = fill(models.create(name, **options), gain_of(path))
    for module in model.modules():
        if isinstance(module, nn.PReLU):
            nn.init.constant_(module.weight, 0.2)  # as MPRNet's golden says
    loaded = unblur.load_model(written({"state_dict": parallel(model.state_dict())}, tmp_path / "net.pth.tar"))
    assert_restores_as_the_authors(loaded, path)


@pytest.mark.parametrize(
    ("name", "options"),
    [("srn", {"planes": 1, "convlstm": True}), ("srn", {"planes": 1, "convlstm": False}), ("red_net", {"planes": 1})],
)
def test_a_network_of_one_plane_restores_colours_as_grey_pictures_of_their_own(tmp_path, name, options):
    state = filled(name, **{**SMALL[name], **options})
    model = unblur.load_model(written({"params": state}, tmp_path / "net.pth"))
    picture = torch.rand(2, 3, 20, 36, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        planes = [model(picture[:, plane : plane + 1]) for plane in range(3)]
        torch.testing.assert_close(model(picture), torch.cat(planes, dim=1), atol=1e-6, rtol=0)


@pytest.mark.full
@pytest.mark.parametrize("golden", FULL_GOLDENS)
def test_a_file_of_full_size_restores_what_its_authors_code_restores(published_root, tmp_path, golden):
    path = golden_at(published_root, golden)
    facts = json.loads((published_root / f"{FULL_GOLDENS[golden]}.json").read_text())
    state = authors_state(facts["state_dict"], gain_of(path))
    loaded = unblur.load_model(written({"params": parallel(state)}, tmp_path / "net.pth"))
    assert_restores_as_the_authors(loaded, path)


@pytest.mark.full
@pytest.mark.parametrize(
    "table",
    [
        *sorted({*FULL_GOLDENS.values()}),
        *("nafnet-reds-width64", "samdeblur-masknafnet"),
    ],
)
def test_the_authors_own_keys_and_shapes_are_those_of_a_published_configuration(published_root, tmp_path, table):
    facts = json.loads((published_root / f"{table}.json").read_text())
    found = recognise(written(hollow(facts["state_dict"]), tmp_path / "net.pth"))
    assert found.configurations
    with torch.device("meta"):
        assert weights.num_parameters(models.create(found.architecture, **found.options)) == facts["params"]


def golden_at(folder: Path, name: str) -> Path:
    path = folder / f"{name}.safetensors"
    if not path.is_file():
        pytest.skip(f"no golden {path.name}")
    return path


def gain_of(path: Path) -> float:
    with safe_open(path, framework="pt") as file:
        return float(file.metadata()["gain"])


def authors_state(layout: Mapping[str, list[int]], gain: float) -> dict[str, Tensor]:
    """Return the weights of a golden in the authors' layout, made from the table of their keys and shapes alone."""
    state = {}
    for key, shape in layout.items():
        if key.endswith("relative_position_index"):
            state[key] = distance_index(int(shape[0] ** 0.5))
        elif key.endswith("num_batches_tracked"):
            state[key] = torch.tensor(0)
        elif key.startswith("g_net/") and len(shape) == 4:  # TensorFlow's, by the rule filled in torch's order
            height, width, inputs, outputs = shape
            values = torch.from_numpy(fill_value(key, (outputs, inputs, height, width), gain))
            state[key] = values.permute(2, 3, 1, 0)
        elif key.endswith(".body.1.weight") and shape == [1]:  # MPRNet's PReLU
            state[key] = torch.tensor([0.2])
        else:
            state[key] = torch.from_numpy(fill_value(key, tuple(shape), gain))
    return state


def assert_restores_as_the_authors(model: nn.Module, path: Path) -> None:
    with safe_open(path, framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (it is no dict)
        floors = json.loads(file.metadata().get("float32_vs_float64_max_abs_diff", "{}"))
    low, high = {"deblurgan": (-1, 1), "deblurgan_v2": (-1, 1), "deepdeblur": (0, 255), "stripformer": (-0.5, 0.5)}.get(
        model.arch_name, (0, 1)
    )  # the authors' range
    final = {"mimo_unet": ".2", "mprnet": ".0", "srn": ".2", "deepdeblur": ".0"}.get(model.arch_name, "")
    count = sum(key in tensors for key in ("input0", "input1", "input0.0", "input1.0"))
    assert count
    for number in range(count):
        blurred = tensors.get(f"input{number}", tensors.get(f"input{number}.0"))
        expected = tensors[f"output{number}{final}"]
        tolerance = max(2e-5, 10 * max(floors.values(), default=0.0) / (high if high == 255 else 1))
        masks = [tensors[f"input{number}.1"].transpose(0, 1)] if model.arch_name == "sam_deblur" else []
        with torch.no_grad():
            restored = model((as_picture(blurred) - low) / (high - low), *masks)
        wanted = (as_picture(expected) - low) / (high - low)
        torch.testing.assert_close(restored, wanted, atol=tolerance, rtol=0)


def as_picture(planes: Tensor) -> Tensor:
    """Return one picture of three planes, where the authors have a batch of three, or a grey one."""
    if planes.shape[:2] == (3, 1):
        return planes.transpose(0, 1)
    return planes.expand(-1, 3, -1, -1)


# -- What is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["pth", "pkl", "h5", "safetensors"])
def test_a_file_that_would_run_code_is_refused_and_runs_none(tmp_path, suffix):
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "trapped"),)

    state = filled("nafnet", **SMALL["nafnet"])
    said = complaint(written({"params": state, "args": Trap()}, tmp_path / f"trap.{suffix}"))
    assert "would run code" in said or suffix == "safetensors"
    assert not (tmp_path / "trapped").exists()


def test_scores_and_settings_beside_the_weights_are_read_as_data(tmp_path):
    state = filled("nafnet", **SMALL["nafnet"])
    scores = {"psnr": np.float64(32.87), "loss": np.float32(0.1), "step": np.int64(7), "best": np.bool_(True)}
    content = {"params": state, "args": argparse.Namespace(lr=1e-3, name="x"), "scores": scores}
    assert unblur.load_model(written(content, tmp_path / "net.pth")).arch_name == "nafnet"


def test_a_file_that_holds_a_whole_network_is_refused_with_a_way_out(tmp_path):
    said = complaint(written(nn.Conv2d(3, 3, 3), tmp_path / "whole.pth"))
    assert "would run code when it is opened (torch.nn.modules.conv.Conv2d)" in said
    assert "Save the state dict alone" in said


@pytest.mark.parametrize("kept", [0, 1, 10, 500, -1])
def test_a_file_that_was_cut_off_is_refused(tmp_path, kept):
    path = written({"params": filled("nafnet", **SMALL["nafnet"])}, tmp_path / "net.pth")
    path.write_bytes(path.read_bytes()[:kept])
    assert "damaged, or of another kind" in complaint(path)


def test_a_text_is_no_file_of_weights(tmp_path):
    (tmp_path / "notes.pth").write_text("These are no weights at all, but a text of some length.\n" * 20)
    assert "damaged, or of another kind" in complaint(tmp_path / "notes.pth")


@pytest.mark.parametrize("content", [{}, [], 3, {"epoch": 3}, {"params": {}}, {"params": {"model": [torch.ones(2)]}}])
def test_a_file_without_weights_is_refused(tmp_path, content):
    assert "holds no weights" in complaint(written(content, tmp_path / "empty.pth"))


def test_wrappers_without_end_are_no_weights(tmp_path):
    endless: dict[str, Any] = {}
    endless["params"] = endless
    assert "holds no weights" in complaint(written(endless, tmp_path / "endless.pth"))


def test_a_file_of_an_unknown_network_is_refused_with_some_of_its_keys(tmp_path):
    said = complaint(written({"backbone.stem.weight": torch.ones(2, 2), "top.bias": torch.ones(2)}, tmp_path / "x.pth"))
    assert "does not say which network it belongs to" in said
    assert "2 keys (backbone.stem.weight, top.bias), none of them in any network" in said


@EVERY
def test_one_key_of_another_shape_is_named_with_the_network_that_came_nearest(tmp_path, name):
    state = filled(name, **SMALL[name])
    key = [key for key in state if not key.startswith(models.find(name).unused) and state[key].ndim == 4][-1]
    wrong = tuple(size + 1 for size in state[key].shape)
    said = complaint(written(state | {key: torch.zeros(wrong)}, tmp_path / "net.pth"))
    assert f"Nearest is {name}, with 9" in said
    shapes = ["x".join(map(str, shape)) for shape in (wrong, state[key].shape)]
    assert f"1 of another shape ({key} is {shapes[0]} and not {shapes[1]})" in said


def test_keys_that_are_missing_and_keys_that_are_unknown_are_named(tmp_path):
    state = filled("nafnet", **SMALL["nafnet"])
    wrong = {key: value for key, value in state.items() if key != "ending.bias"} | {"extra.weight": torch.ones(1)}
    said = complaint(written(wrong, tmp_path / "net.pth"))
    assert "Nearest is nafnet, with 9" in said
    assert "1 missing (ending.bias), 1 unknown to it (extra.weight)." in said


def test_the_nearest_network_is_found_also_where_the_key_is_missing_that_tells_its_width(tmp_path):
    state = filled("nafnet", **SMALL["nafnet"])
    del state["intro.weight"]
    assert "Nearest is nafnet" in complaint(written(state, tmp_path / "net.pth"))


def test_a_file_that_is_part_of_a_network_is_said_to_lack_the_rest_and_nothing_else(tmp_path):
    state = filled("blur_to_video", **models.find("blur_to_video").options)
    last = {key: value for key, value in state.items() if key.startswith("generateFrame1_7.")}
    said = complaint(written({"state_dict_G": last}, tmp_path / "F17_N9.pth"))
    assert "Nearest is blur_to_video" in said
    assert f"{len(state) - len(last)} missing (conv1_B.weight, " in said
    assert "unknown to it" not in said
    assert "of another shape" not in said


def test_a_folder_is_said_to_be_one(tmp_path):
    assert complaint(tmp_path) == f"{tmp_path} is a folder. Give the file of weights in it."


def test_a_missing_file_is_named(tmp_path):
    assert complaint(tmp_path / "missing.pth") == f"{tmp_path / 'missing.pth'} does not exist."


# -- What is told and kept ---------------------------------------------------------------------------------------------


def test_a_file_of_others_is_described_by_what_was_found_out(tmp_path):
    about = weights.describe(written({"params": filled("mimo_unet", **SMALL["mimo_unet"])}, tmp_path / "net.pkl"))
    assert about.architecture == "mimo_unet"
    origin = about.facts["origin"]
    licence = "none, neither for code nor for weights, so all rights are reserved (chosj95/MIMO-UNet)"
    assert origin == {"file": "net.pkl", "configurations": [], "weights_licence": licence}
    json.dumps(about.facts)


def test_non_commercial_weights_are_said_to_be_such():
    marked = {entry.network for entry in weights.known().values() if entry.licence == "NON-COMMERCIAL"}
    assert marked == {"mprnet", "red_net", "restormer"}


@EVERY
def test_what_was_recognised_goes_into_a_file_of_ours_and_comes_back(tmp_path, name):
    path = written({"params": filled(name, **SMALL[name])}, tmp_path / "net.pth")
    model = unblur.load_model(path)
    weights.save(model, tmp_path / "ours.safetensors", weights.describe(path).facts)
    again = unblur.load_model(tmp_path / "ours.safetensors")
    assert again.arch_options == model.arch_options
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in again.state_dict().items())
    assert weights.describe(tmp_path / "ours.safetensors").facts["origin"]["file"] == "net.pth"


def test_recognising_draws_no_random_numbers(tmp_path):
    path = written(filled("nafnet", **SMALL["nafnet"]), tmp_path / "net.pth")
    state = torch.get_rng_state()
    published.recognise(path)
    assert torch.equal(torch.get_rng_state(), state)
