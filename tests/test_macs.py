"""The multiply-accumulates that `unblur models` counts are those that were counted of the authors' code."""

import json
from pathlib import Path

import pytest

from unblur import models, zoo

NAMES = {
    "nafnet-gopro-width32": ("nafnet", "NAFNet-GoPro-width32"),
    "nafnet-gopro-width64": ("nafnet", "NAFNet-GoPro-width64"),
    "nafnet-sidd-width32": ("nafnet", "NAFNet-SIDD-width32"),
    "restormer-motion": ("restormer", "motion_deblurring"),
    "mprnet-deblurring": ("mprnet", None),
    "stripformer": ("stripformer", None),
    "mimounet": ("mimo_unet", None),
    "mimounet-plus": ("mimo_unet", "MIMO-UNetPlus"),
    "uformer-t": ("uformer", "Uformer_T"),
    "uformer-s": ("uformer", "Uformer_S"),
    "uformer-b": ("uformer", "Uformer_B"),
    "fftformer": ("fftformer", None),
    "deepdeblur-msresnet": ("deepdeblur", None),
    "deblurgan-2conv": ("deblurgan", None),
    "deblurgan-head": ("deblurgan", "deblurgan-head"),
    "deblurganv2-fpn-inception": ("deblurgan_v2", None),
    "deblurganv2-fpn-mobilenet": ("deblurgan_v2", "fpn_mobilenet"),
}
"""The counted configurations of the networks that are built here: name and published configuration (None: default)."""


@pytest.mark.parametrize("counted", NAMES)
def test_parameters_and_macs_at_256_px_are_those_of_the_authors_network(published_root: Path, counted: str) -> None:
    facts = json.loads((published_root / "macs.json").read_text())[counted]
    name, published = NAMES[counted]
    options = models.full_options(name, **(models.find(name).published[published] if published else {}))
    cost = zoo.count(name, options)
    assert cost.parameters == facts["params"]
    assert cost.macs_256 / 1e9 == pytest.approx(facts["gmacs"], rel=1e-3)
