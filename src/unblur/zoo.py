"""What networks and weights there are, with their facts: the tables of `unblur models` and `unblur.list_models()`."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from unblur import models, weights
from unblur.errors import SettingsError
from unblur.experiment import Experiment
from unblur.settings import validated

MACS_SIZE_PX = 256


@dataclass(frozen=True)
class ModelFacts:
    """One row: shipped weights (`weights` is their name) or a network with its default options."""

    name: str
    architecture: str
    options: dict[str, Any]
    parameters: int
    macs_256: int
    """Multiply-accumulates for a picture of 256×256, convolutions and matrix products only."""
    licence: str
    origin: str
    about: str
    weights: str | None = None
    measured: dict[str, str] | None = None


def list_models() -> list[ModelFacts]:
    """Return the facts of all shipped weights, then of all networks."""
    return [_of_weights(name) for name in weights.shipped()] + [_of_network(name) for name in models.ARCHITECTURES]


def overview() -> str:
    """Return two tables as text: the weights that `--model` takes, and the networks that can be trained."""
    rows = list_models()
    lines = ["Weights (for --model):"]
    for facts in (row for row in rows if row.weights):
        lines.append(f"  {facts.name:<28} {_cost(facts)}  {facts.licence}")
        lines.append(f"      {facts.about}")
        lines += [f"      {data}: {score}" for data, score in (facts.measured or {}).items()]
    lines += ["", "Networks (for experiment files, with their default options):"]
    for facts in (row for row in rows if not row.weights):
        lines.append(f"  {facts.name:<28} {_cost(facts)}  {facts.licence}")
        lines.append(f"      {facts.about} ({facts.origin})")
    return "\n".join(lines)


def describe(name_or_file: str) -> str:
    """Return what is known of weights, of a checkpoint file or of a network, as lines of `key: value`."""
    if name_or_file in models.ARCHITECTURES and name_or_file not in weights.shipped():
        facts = _of_network(name_or_file)
        rows = {"network": facts.name, "paper": facts.about, "origin": facts.origin, "licence": facts.licence}
        rows |= {"parameters": f"{facts.parameters:,}", "MACs at 256x256": f"{facts.macs_256 / 1e9:.3g} G"}
        return _lines(rows | {f"option {key}": value for key, value in facts.options.items()})
    checkpoint = weights.describe(name_or_file)
    network = _on_meta(checkpoint.architecture, checkpoint.options)
    rows = {"file": checkpoint.path.name, "network": checkpoint.architecture}
    rows |= {f"option {key}": value for key, value in checkpoint.options.items()}
    rows |= {"parameters": f"{weights.num_parameters(network):,}", "MACs at 256x256": f"{_macs(network) / 1e9:.3g} G"}
    if name_or_file in weights.shipped():
        entry = weights.shipped()[name_or_file]
        rows |= {"about": entry.about, "licence": entry.licence, "trained on": entry.trained_on}
        rows |= {f"measured on {data}": score for data, score in entry.measured.items()}
    rows |= _origin_rows(checkpoint.facts.get("origin"))
    rows |= _training_rows(checkpoint.facts)
    return _lines(rows)


def _origin_rows(origin: Any) -> dict[str, Any]:
    """Return what is known of weights that came from a file of others, by what `published.py` found out."""
    if not isinstance(origin, dict):
        return {}
    return {
        "origin": f"not made by unblur: recognised in {origin.get('file')} by names and shapes of its weights",
        "published as": " or ".join(origin.get("configurations") or ["own options"]),
        "licence of weights": origin.get("weights_licence") or "not known; ask whom you have them from",
    }


def _training_rows(facts: Any) -> dict[str, Any]:
    rows = {key: facts[key] for key in ("step", "total_steps", "version", "commit") if facts.get(key) is not None}
    try:
        experiment = validated(Experiment, facts.get("experiment"), "experiment")
    except SettingsError:
        return rows  # written by another version
    loss = " + ".join(f"{weight:g} {name}" for name, weight in experiment.loss.items())
    return rows | {"trained on": f"{experiment.data.train}, {experiment.data.recipe or 'pairs'}", "loss": loss}


def _of_weights(name: str) -> ModelFacts:
    entry, checkpoint = weights.shipped()[name], weights.describe(name)
    network = _on_meta(checkpoint.architecture, checkpoint.options)
    return ModelFacts(
        name,
        checkpoint.architecture,
        dict(checkpoint.options),
        weights.num_parameters(network),
        _macs(network),
        entry.licence,
        models.find(checkpoint.architecture).origin,
        entry.about,
        weights=name,
        measured=dict(entry.measured),
    )


def _of_network(name: str) -> ModelFacts:
    arch, options = models.find(name), models.full_options(name)
    network = _on_meta(name, options)
    return ModelFacts(
        name, name, options, weights.num_parameters(network), _macs(network), arch.licence, arch.origin, arch.paper
    )


def _on_meta(name: str, options: Any) -> nn.Module:
    """Return the network without memory for its weights: enough to count."""
    with torch.device("meta"):
        return models.create(name, **options).eval()


def _macs(network: nn.Module) -> int:
    with torch.device("meta"), FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.empty(1, 3, MACS_SIZE_PX, MACS_SIZE_PX))
    return int(counter.get_total_flops() // 2)


def _cost(facts: ModelFacts) -> str:
    return f"{facts.architecture:<18} {facts.parameters / 1e6:7.3f} M parameters {facts.macs_256 / 1e9:7.2f} G MACs"


def _lines(rows: dict[str, Any]) -> str:
    width = max(len(key) for key in rows)
    return "\n".join(f"{key:<{width}}  {value}" for key, value in rows.items())
