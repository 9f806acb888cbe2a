"""Properties of the facts about networks and weights."""

from pathlib import Path

import pytest
import torch

from unblur import models, weights, zoo
from unblur.errors import UnknownName, WeightsError
from unblur.weights import ShippedWeights

TINY = {"width": 4, "encoder_blocks": [1], "middle_blocks": 1, "decoder_blocks": [1]}
EXPERIMENT = {
    "model": {"name": "nafnet", **TINY},
    "data": {"train": "sharp", "valid": "sharp", "hold_out": 0.1, "recipe": "motion-9", "crop_px": 16},
    "loss": {"charbonnier": 1.0, "mse": 0.5},
    "optimizer": {"lr": 1e-3},
    "schedule": {"steps": 10},
}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """The file of a tiny network, as a training writes it."""
    path = tmp_path / "tiny.safetensors"
    weights.save(models.create("nafnet", **TINY), path, {"step": 7, "total_steps": 10, "experiment": EXPERIMENT})
    return path


@pytest.fixture
def shipped(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> ShippedWeights:
    """The only weights that come with the package, as long as the test runs."""
    entry = ShippedWeights(
        name="small-one", file=checkpoint.name, sha256=weights.sha256(checkpoint), about="for softness of all kinds",
        licence="CC0", trained_on="photographs", experiment="some.yaml", measured={"motion-9": "31.5 dB, psnr"},
    )  # fmt: skip
    monkeypatch.setattr(weights, "PRETRAINED", checkpoint.parent)
    monkeypatch.setattr(weights, "shipped", lambda: {entry.name: entry})
    return entry


def rows(text: str) -> dict[str, str]:
    pairs = (line.split("  ", 1) for line in text.splitlines())
    return {key.strip(): value.strip() for key, value in pairs}


def test_weights_come_first_and_every_network_is_listed(shipped: ShippedWeights) -> None:
    facts = zoo.list_models()
    assert [fact.name for fact in facts] == ["small-one", *models.ARCHITECTURES]
    assert [fact.weights for fact in facts] == ["small-one", *(None for _ in models.ARCHITECTURES)]
    assert facts[0].options["width"] == 4
    assert facts[0].measured == {"motion-9": "31.5 dB, psnr"}


def test_the_overview_tells_of_each_its_cost_its_licence_and_its_scores(shipped: ShippedWeights) -> None:
    text = zoo.overview()
    for word in ("small-one", "for softness of all kinds", "CC0", "motion-9: 31.5 dB, psnr", *models.ARCHITECTURES):
        assert word in text
    assert text.index("small-one") < text.index("reduced_deblurnet")


def test_looking_draws_no_random_numbers(shipped: ShippedWeights) -> None:
    state = torch.get_rng_state()
    zoo.overview()
    assert torch.equal(torch.get_rng_state(), state)


def test_parameters_are_those_of_the_network_itself(shipped: ShippedWeights) -> None:
    for fact in (fact for fact in zoo.list_models() if fact.name in ("small-one", "reduced_deblurnet")):
        network = models.create(fact.architecture, **fact.options)
        assert fact.parameters == sum(parameter.numel() for parameter in network.parameters()), fact.name


def test_multiply_accumulates_agree_with_a_count_by_hand() -> None:
    network = models.create("nafnet", **TINY, padding="zeros", unshuffle=1)
    counted = 0

    def count(layer: torch.nn.Module, _: object, output: torch.Tensor) -> None:
        nonlocal counted
        assert isinstance(layer, torch.nn.Conv2d)
        kernel = layer.kernel_size[0] * layer.kernel_size[1]
        counted += output[0].numel() * kernel * layer.in_channels // layer.groups

    for layer in network.modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.register_forward_hook(count)
    with torch.no_grad():
        network(torch.zeros(1, 3, zoo.MACS_SIZE_PX, zoo.MACS_SIZE_PX))
    assert zoo._macs(zoo._on_meta("nafnet", network.arch_options)) == counted


def test_a_network_is_described_with_all_its_options() -> None:
    described = rows(zoo.describe("nafnet"))
    assert described["network"] == "nafnet"
    assert "2204.04676" in described["paper"]
    assert {f"option {option}" for option in models.ARCHITECTURES["nafnet"].options} <= described.keys()


def test_a_checkpoint_is_described_by_what_stands_in_it(checkpoint: Path) -> None:
    described = rows(zoo.describe(str(checkpoint)))
    assert described["file"] == "tiny.safetensors"
    assert (described["network"], described["option width"]) == ("nafnet", "4")
    assert (described["step"], described["total_steps"]) == ("7", "10")
    assert described["trained on"] == "sharp, motion-9"
    assert described["loss"] == "1 charbonnier + 0.5 mse"


def test_shipped_weights_are_described_with_licence_and_scores(shipped: ShippedWeights) -> None:
    described = rows(zoo.describe("small-one"))
    assert described["licence"] == "CC0"
    assert described["measured on motion-9"] == "31.5 dB, psnr"


def test_a_checkpoint_of_another_version_is_still_described(tmp_path: Path) -> None:
    path = tmp_path / "old.safetensors"
    weights.save(models.create("nafnet", **TINY), path, {"experiment": {"colour": "green"}})
    assert rows(zoo.describe(str(path)))["network"] == "nafnet"


def test_what_is_nothing_of_ours_is_an_error_with_the_nearest_name(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="Did you mean 'nafnet'"):
        zoo.describe("nafent")
    (tmp_path / "text.safetensors").write_text("hello")
    with pytest.raises(WeightsError, match=r"text\.safetensors"):
        zoo.describe(str(tmp_path / "text.safetensors"))
