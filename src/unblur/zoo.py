"""What networks and weights there are, with their facts: the tables of `unblur models` and `unblur.list_models()`.

What a network costs is counted by running it without memory for its weights, which takes half a second for a large one.
So the costs of all that is listed here stand in `costs.json`, which `scripts/fill_tables.py` writes; those of networks
with other options are counted when they are asked for.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from unblur import models, weights

MACS_SIZE_PX = 256
COSTS = Path(__file__).with_name("costs.json")


class Cost(NamedTuple):
    """What a network needs."""

    parameters: int
    macs_256: int
    """Multiply-accumulates for a picture of 256×256, convolutions and matrix products only."""

    def __str__(self) -> str:
        return f"{self.parameters / 1e6:7.3f} M parameters {self.macs_256 / 1e9:7.2f} G MACs"


@dataclass(frozen=True)
class ModelFacts:
    """One row: weights that come with the package, weights of others, or a network with its default options."""

    kind: Literal["shipped", "known", "network"]
    name: str
    architecture: str
    options: dict[str, Any]
    parameters: int
    macs_256: int
    licence: str
    """Of the weights; of the code for a network."""
    origin: str
    about: str
    here: bool = True
    """Whether it can be used at once; the files of others' weights are yours to get."""
    measured: tuple[str, ...] = ()
    """Scores by data set with their protocol: ours for shipped weights, as reported by others for theirs."""

    @property
    def cost(self) -> Cost:
        """Parameters and multiply-accumulates."""
        return Cost(self.parameters, self.macs_256)


def list_models() -> list[ModelFacts]:
    """Return the facts of all shipped weights, of all known weights of others, then of all networks."""
    return [
        *(_of_shipped(entry) for entry in weights.shipped().values()),
        *(_of_known(entry) for entry in weights.known().values()),
        *(_of_network(name) for name in models.ARCHITECTURES),
    ]


def overview() -> str:
    """Return three tables as text: the weights that `--model` takes, ours and others', and the networks to train."""
    headings = {
        "shipped": "Weights (for --model):",
        "known": f"Weights of others (for --model, once their files are in {weights.home()}; `unblur models NAME` says "
        "where to get them):",
        "network": "Networks (for experiment files, with their default options):",
    }
    rows, lines = list_models(), []
    for kind, heading in headings.items():
        of_kind = [row for row in rows if row.kind == kind]
        width = max((len(row.name) for row in of_kind), default=0)
        lines += ["", heading]
        for facts in of_kind:
            where = "" if facts.here else ", file not here"
            lines.append(f"  {facts.name:<{width}} {facts.architecture:<18} {facts.cost}  {facts.licence}{where}")
            lines.append(f"      {facts.about}" + (f" ({facts.origin})" if kind == "network" else ""))
            shown = facts.measured[:1] if kind == "known" else facts.measured  # `describe` tells the others
            lines += [f"      {score}" for score in shown]
    return "\n".join(lines[1:])


def describe(name_or_file: str) -> str:
    """Return what is known of weights, of a checkpoint file or of a network, as lines of `key: value`."""
    if name_or_file in weights.known():
        return _lines(_known_rows(weights.known()[name_or_file]))
    if name_or_file in models.ARCHITECTURES and name_or_file not in weights.shipped():
        return _lines(_network_rows(name_or_file))
    checkpoint = weights.describe(name_or_file)
    rows = {"file": checkpoint.path.name, "network": checkpoint.architecture}
    rows |= _size_rows(checkpoint.architecture, checkpoint.options)
    if name_or_file in weights.shipped():
        entry = weights.shipped()[name_or_file]
        rows |= {"about": entry.about, "licence": entry.licence, "trained on": entry.trained_on}
        rows |= {f"measured on {data}": score for data, score in entry.measured.items()}
    rows |= _origin_rows(checkpoint.facts.get("origin"))
    rows |= _training_rows(checkpoint.facts)
    return _lines(rows)


def count(architecture: str, options: Mapping[str, Any]) -> Cost:
    """Return what a network costs, counted: it is built and run without memory for its weights."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter, torch.no_grad():
        network = models.create(architecture, **options).eval()
        network(torch.empty(1, 3, MACS_SIZE_PX, MACS_SIZE_PX))
    return Cost(weights.num_parameters(network), int(counter.get_total_flops() // 2))


def costs_as_json(*, recount: bool) -> str:
    """Return what `costs.json` should hold: the cost of each network and options in `list_models`, once.

    Without `recount` costs that stand there already are believed.
    """
    if recount:
        _known_costs().clear()
    rows = {}
    for facts in list_models():
        row = {"network": facts.architecture, "options": facts.options, **facts.cost._asdict()}
        rows[_key(facts.architecture, facts.options)] = json.dumps(row)
    return "[\n" + ",\n".join(rows.values()) + "\n]\n"


# -- rows of the overview ----------------------------------------------------------------------------------------------


def _of_shipped(entry: weights.ShippedWeights) -> ModelFacts:
    checkpoint = weights.describe(entry.name)
    return ModelFacts(
        "shipped",
        entry.name,
        checkpoint.architecture,
        dict(checkpoint.options),
        *_cost(checkpoint.architecture, checkpoint.options),
        entry.licence,
        models.find(checkpoint.architecture).origin,
        entry.about,
        measured=tuple(f"{data}: {score}" for data, score in entry.measured.items()),
    )


def _of_known(entry: weights.KnownWeights) -> ModelFacts:
    options = _options_of(entry)
    about = [text for text in (entry.trained_on and f"trained on {entry.trained_on}", entry.note) if text]
    return ModelFacts(
        "known",
        entry.name,
        entry.network,
        options,
        *_cost(entry.network, options),
        entry.licence,
        models.find(entry.network).origin,
        "; ".join(about) or "not said what it was trained on",
        here=entry.path.is_file(),
        measured=tuple(f"{score.data}: {score}" for score in entry.reported),
    )


def _of_network(name: str) -> ModelFacts:
    arch, options = models.find(name), models.full_options(name)
    return ModelFacts("network", name, name, options, *_cost(name, options), arch.licence, arch.origin, arch.paper)


def _options_of(entry: weights.KnownWeights) -> dict[str, Any]:
    """Return the options of known weights; the first configuration's where it is only seen in the file which it is."""
    return models.full_options(entry.network, **models.find(entry.network).published[entry.configurations[0]])


# -- rows of a description ---------------------------------------------------------------------------------------------


def _known_rows(entry: weights.KnownWeights) -> dict[str, Any]:
    """Return all that is known of weights of others; a file that is there is opened and checked."""
    here = entry.path.is_file()
    rows: dict[str, Any] = {"weights": entry.name, "file": entry.path if here else f"{entry.path} (not there)"}
    rows |= {"to be had from": entry.lies_at} | ({"to be converted": entry.convert} if entry.convert else {})
    rows |= {"repository": entry.repository, "licence of weights": f"{entry.licence}, {entry.licence_note}"}
    rows |= {"network": entry.network, "published as": " or ".join(entry.configurations)}
    rows |= _size_rows(entry.network, weights.describe(entry.name).options if here else _options_of(entry))
    rows |= {"trained on": entry.trained_on} if entry.trained_on else {}
    rows |= {"note": entry.note} if entry.note else {}
    rows |= {f"reported on {score.data}": score for score in entry.reported}
    return rows | ({"protocol": entry.protocol} if entry.protocol and entry.reported else {})


def _network_rows(name: str) -> dict[str, Any]:
    arch = models.find(name)
    rows: dict[str, Any] = {"network": name, "paper": arch.paper, "origin": arch.origin, "licence": arch.licence}
    rows |= _size_rows(name, models.full_options(name))
    of_authors = [entry for entry in weights.known().values() if entry.network == name]
    if of_authors:
        rows["weights of others"] = ", ".join(f"{entry.name} ({entry.licence})" for entry in of_authors)
    return rows


def _size_rows(architecture: str, options: Mapping[str, Any]) -> dict[str, Any]:
    cost = _cost(architecture, options)
    sizes = {"parameters": f"{cost.parameters:,}", "MACs at 256x256": f"{cost.macs_256 / 1e9:.3g} G"}
    return sizes | {f"option {key}": value for key, value in options.items()}


def _origin_rows(origin: Any) -> dict[str, Any]:
    """Return what is known of weights that came from a file of others, by what `published.py` found out."""
    if not isinstance(origin, dict):
        return {}
    return {
        "origin": f"not made by unblur: recognised in {origin.get('file')} by names and shapes of its weights",
        "published as": " or ".join(origin.get("configurations") or ["own options"]),
        "licence of weights": origin.get("weights_licence") or "not known; ask whom you have them from",
    }


def _training_rows(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return how weights were trained, as far as what was stored can be read: another version may have written it."""
    rows = {key: facts[key] for key in ("step", "total_steps", "version", "commit") if facts.get(key) is not None}
    try:
        data, losses = facts["experiment"]["data"], facts["experiment"]["loss"]
        loss = " + ".join(f"{weight:g} {name}" for name, weight in losses.items())
        return rows | {"trained on": f"{data['train']}, {data.get('recipe') or 'pairs'}", "loss": loss}
    except (KeyError, TypeError, AttributeError, ValueError):
        return rows


def _lines(rows: dict[str, Any]) -> str:
    width = max(len(key) for key in rows)
    return "\n".join(f"{key:<{width}}  {value}" for key, value in rows.items())


# -- what things cost --------------------------------------------------------------------------------------------------


def _cost(architecture: str, options: Mapping[str, Any]) -> Cost:
    """Return what a network costs, from `costs.json` where it stands there; others are counted once."""
    costs, key = _known_costs(), _key(architecture, options)
    if key not in costs:
        costs[key] = count(architecture, options)
    return costs[key]


@cache
def _known_costs() -> dict[str, Cost]:
    rows = json.loads(COSTS.read_text(encoding="utf-8")) if COSTS.is_file() else []
    return {_key(row["network"], row["options"]): Cost(row["parameters"], row["macs_256"]) for row in rows}


def _key(architecture: str, options: Mapping[str, Any]) -> str:
    return json.dumps([architecture, dict(options)], sort_keys=True)
