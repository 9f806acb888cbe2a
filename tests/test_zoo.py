"""Properties of the facts about networks and weights."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode

from unblur import models, weights, zoo
from unblur.errors import MissingExtra, UnknownName, WeightsError
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


@pytest.fixture
def local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of local weights, empty."""
    monkeypatch.setenv("UNBLUR_HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


def test_weights_come_first_and_every_network_is_listed(shipped: ShippedWeights) -> None:
    facts = zoo.list_models()
    assert [fact.name for fact in facts] == ["small-one", *weights.known(), *models.ARCHITECTURES]
    kinds = ["shipped", *("known" for _ in weights.known()), *("network" for _ in models.ARCHITECTURES)]
    assert [fact.kind for fact in facts] == kinds
    assert facts[0].options["width"] == 4
    assert facts[0].measured == ("motion-9: 31.5 dB, psnr",)


def test_the_overview_tells_of_each_its_cost_its_licence_and_its_scores(shipped: ShippedWeights, local: Path) -> None:
    text = zoo.overview()
    for word in ("small-one", "for softness of all kinds", "CC0", "motion-9: 31.5 dB, psnr", *models.ARCHITECTURES):
        assert word in text
    assert text.index("small-one") < text.index("nafnet-gopro-width64") < text.index("reduced_deblurnet")
    lines = {line.split()[0]: line for line in text.splitlines() if line.startswith("  ") and line[2] != " "}
    assert lines["mprnet-deblurring"].split("  ")[-1] == "NON-COMMERCIAL, file not here"
    assert "GoPro: psnr 33.7103 dB, SSIM 0.9668 (authors' README)" in text
    assert str(local) in text


def test_known_weights_are_said_to_be_here_once_their_file_is(shipped: ShippedWeights, local: Path) -> None:
    def here() -> list[str]:
        return [fact.name for fact in zoo.list_models() if fact.kind == "known" and fact.here]

    assert here() == []
    (local / "MIMO-UNet.pkl").touch()
    assert here() == ["mimounet-gopro"]
    assert [fact.here for fact in zoo.list_models() if fact.kind != "known"] == [True] * (1 + len(models.ARCHITECTURES))


def test_looking_draws_no_random_numbers(shipped: ShippedWeights) -> None:
    state = torch.get_rng_state()
    zoo.overview()
    zoo.count("nafnet", TINY)
    assert torch.equal(torch.get_rng_state(), state)


def test_looking_at_all_that_is_listed_builds_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def build(name: str, **options: object) -> torch.nn.Module:
        raise AssertionError(f"{name} {options} is not in costs.json: run scripts/fill_tables.py")

    monkeypatch.setattr(models, "create", build)
    zoo._known_costs.cache_clear()
    assert zoo.overview()


@pytest.mark.parametrize(
    "row", json.loads(zoo.COSTS.read_text(encoding="utf-8")), ids=lambda row: f"{row['network']}-{row['parameters']}"
)
def test_the_committed_costs_are_what_is_counted(row: dict[str, Any]) -> None:
    try:
        cost = zoo.count(row["network"], row["options"])
    except MissingExtra as error:
        pytest.skip(str(error))
    assert cost == (row["parameters"], row["macs_256"])


def test_networks_that_nobody_counted_before_are_counted_when_they_are_listed(shipped: ShippedWeights) -> None:
    facts = zoo.list_models()[0]
    network = models.create("nafnet", **TINY)
    assert facts.parameters == sum(parameter.numel() for parameter in network.parameters())
    assert "nafnet" not in {
        row["network"] for row in json.loads(zoo.COSTS.read_text()) if row["options"] == facts.options
    }


def test_multiply_accumulates_agree_with_a_count_by_hand() -> None:
    network = models.create("nafnet", **TINY, padding="zeros", unshuffle=1)
    counted = 0

    class Count(TorchFunctionMode):
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            nonlocal counted
            result = function(*args, **(kwargs or {}))
            if function is torch.conv2d:
                counted += result[0].numel() * args[1][0].numel()  # each value: a kernel over the planes of its group
            return result

    with torch.no_grad(), Count():
        network(torch.zeros(1, 3, zoo.MACS_SIZE_PX, zoo.MACS_SIZE_PX))
    assert zoo.count("nafnet", network.arch_options).macs_256 == counted


def test_a_network_is_described_with_all_its_options() -> None:
    described = rows(zoo.describe("nafnet"))
    assert described["network"] == "nafnet"
    assert "2204.04676" in described["paper"]
    assert {f"option {option}" for option in models.ARCHITECTURES["nafnet"].options} <= described.keys()


def test_a_network_names_the_weights_of_its_authors_with_their_licence() -> None:
    assert rows(zoo.describe("mprnet"))["weights of others"] == "mprnet-deblurring (NON-COMMERCIAL)"
    assert "weights of others" not in rows(zoo.describe("reduced_deblurnet"))


def test_known_weights_are_described_without_their_file_but_with_all_that_is_known(local: Path) -> None:
    described = rows(zoo.describe("nafnet-gopro-width64"))
    assert described["file"] == f"{local / 'NAFNet-GoPro-width64.pth'} (not there)"
    assert described["to be had from"] == weights.known()["nafnet-gopro-width64"].lies_at
    assert described["licence of weights"].startswith("MIT, ")
    assert (described["network"], described["option width"]) == ("nafnet", "64")
    assert described["parameters"] == "67,888,835"
    assert described["reported on GoPro"] == "psnr 33.7103 dB, SSIM 0.9668 (authors' README)"
    assert "test-time local converter" in described["protocol"]
    assert "TensorFlow" in rows(zoo.describe("srn-lstm"))["to be converted"]
    assert rows(zoo.describe("restormer-motion"))["licence of weights"].startswith("NON-COMMERCIAL, ")


def test_known_weights_whose_file_is_there_are_described_by_what_it_turned_out_to_be(local: Path) -> None:
    state = models.create("deblurgan", convs_per_block=1).state_dict()
    torch.save({key: torch.zeros(()).expand(value.shape) for key, value in state.items()}, local / "latest_net_G.pth")
    described = rows(zoo.describe("deblurgan-gopro"))
    assert described["file"] == str(local / "latest_net_G.pth")
    assert described["option convs_per_block"] == "1"
    (local / "MIMO-UNet.pkl").write_text("Sign in")
    with pytest.raises(WeightsError, match=r"Get MIMO-UNet\.pkl from"):
        zoo.describe("mimounet-gopro")


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
