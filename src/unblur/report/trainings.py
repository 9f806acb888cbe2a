"""The part of a report on trainings: what was reached, curves, and in which settings they differ.

Numbers stand side by side only where they mean the same: a section has the trainings that were validated on the same
pictures, a chart of losses those that had the same loss.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from unblur.report.blocks import (
    Block,
    Cell,
    Charts,
    Details,
    Section,
    Table,
    duration,
    number,
    versions_text,
    with_best,
)
from unblur.report.charts import Chart, Point, Series, smoothed, thinned
from unblur.report.runs import Row, TrainingRun

ALONG = {"steps": ("step", 1.0), "pictures": ("images", 1.0), "minutes": ("seconds", 60.0)}
"""What lies along x: its name, the column, and how many of its units make one."""


def sections(runs: Sequence[TrainingRun]) -> list[Section]:
    """Return a section for each set of pictures that trainings were validated on."""
    groups: dict[str, list[TrainingRun]] = {}
    for run in runs:
        groups.setdefault(json.dumps(_validated_on(run), sort_keys=True), []).append(run)
    return [_section(group, index) for index, group in enumerate(groups.values(), 1)]


def loss_text(run: TrainingRun) -> str:
    """Return the losses with their weights in one line."""
    weights: Mapping[str, float] = run.settings["loss"]
    return " + ".join(name if weight == 1 else f"{weight:g} {name}" for name, weight in weights.items())


def curves(runs: Sequence[TrainingRun], prefix: str) -> Charts:
    """Return the curves of losses, PSNR and learning rate."""
    versions = {}
    for along in ALONG:
        charts = [chart for chart in _charts(runs, along, prefix) if not chart.is_empty]
        if charts:
            versions[along] = charts
    return Charts(versions)


def _validated_on(run: TrainingRun) -> dict[str, Any]:
    data, validation = run.settings["data"], run.settings["validation"]
    of_data = {key: data.get(key) for key in ("valid", "recipe", "resize")}
    held_out = data.get("hold_out") if data.get("train") == data.get("valid") else None
    how = {key: validation.get(key) for key in ("max_pictures", "crop_px", "seed")}
    return {**of_data, "hold_out": held_out, **how}


def _section(runs: Sequence[TrainingRun], index: int) -> Section:
    on = _validated_on(runs[0])
    pictures = f"{on['max_pictures']} pictures" if on["max_pictures"] else "all pictures"
    crop = f", the middle {on['crop_px']} px of each" if on["crop_px"] else ""
    size = f" reduced to {on['resize']}" if on["resize"] else ""
    blur = f", blurred by {on['recipe']}" if on["recipe"] else ""
    lead = (
        f"Validated on {pictures} of {on['valid']}{size}{blur}{crop}: PSNR in dB, values not rounded (psnr-float), "
        "mean over the pictures. The network that is kept is that of the lowest validation loss."
    )
    blocks: list[Block] = [_table(runs), curves(runs, f"training-{index}"), *_differences(runs)]
    for run in runs:
        made = versions_text({**run.facts.get("versions", {}), **_commit(run)})
        text = yaml.safe_dump(dict(run.settings), sort_keys=False, allow_unicode=True)
        blocks.append(Details(f"{run.name}: all settings", f"# {made}\n{text}" if made else text))
    return Section("training", ", ".join(run.name for run in runs), lead, blocks)


def _table(runs: Sequence[TrainingRun]) -> Table:
    header = ["training", "network", "loss", "best PSNR", "gain", "its loss", "at step", "steps", "time", "bad steps"]
    rows = []
    for run in runs:
        best, last = run.best or {}, max([*run.steps[-1:], *run.looks[-1:]], key=lambda row: row["step"], default={})
        gain = best["psnr"] - best["psnr_blurred"] if "psnr_blurred" in best else None
        rows.append(
            [
                Cell(run.name),
                Cell(run.settings["model"]["name"]),
                Cell(loss_text(run)),
                number(best.get("psnr"), "{:.2f}"),
                number(gain, "{:+.2f}"),
                number(best.get("loss"), "{:.5f}"),
                number(best.get("step"), "{:.0f}"),
                number(last.get("step"), "{:.0f}"),
                duration(last.get("seconds")),
                number((run.steps or [{}])[-1].get("bad_steps"), "{:.0f}"),
            ]
        )
    psnr = header.index("best PSNR")
    for row, cell in zip(rows, with_best([row[psnr] for row in rows], True), strict=True):
        row[psnr] = cell
    note = "gain: above the blurred input on the same pictures."
    return Table("What was reached", header, rows, note)


def _charts(runs: Sequence[TrainingRun], along: str, prefix: str) -> Iterator[Chart]:
    losses = dict.fromkeys(loss_text(run) for run in runs)
    colours = {run.name: number for number, run in enumerate(runs)}
    for position, loss in enumerate(losses, 1):
        alike = [run for run in runs if loss_text(run) == loss]
        number_of_loss = f"-{position}" if len(losses) > 1 else ""
        of_training = _of_steps(alike, along, "loss", colours)
        name = f"{prefix}-training-loss{number_of_loss}"
        yield Chart(f"Training loss: {loss}", along, "loss", of_training, name=name, note="bold: running mean over 5 %")
        of_validation = [
            Series(run.name, thinned(_points(run.looks, along, "loss")), colour=colours[run.name]) for run in alike
        ]
        name = f"{prefix}-validation-loss{number_of_loss}"
        yield Chart(f"Validation loss: {loss}", along, "loss", of_validation, name=name)
    psnr = [Series(run.name, thinned(_points(run.looks, along, "psnr")), colour=colours[run.name]) for run in runs]
    longest = max(runs, key=lambda run: max((look.get("step", 0) for look in run.looks), default=0))
    input_psnr = Series("blurred input", _points(longest.looks, along, "psnr_blurred"), faint=True, colour=7)
    yield Chart(
        "Validation PSNR",
        along,
        "dB",
        [*psnr, input_psnr],
        name=f"{prefix}-psnr",
    )
    own = _of_steps(runs, along, "psnr", colours)
    note = "of each step's own pictures; bold: running mean over 5 %"
    yield Chart("Training PSNR", along, "dB", own, name=f"{prefix}-training-psnr", note=note)
    for metric in dict.fromkeys(name for run in runs for name in run.settings["validation"].get("metrics", ())):
        measured = [
            Series(run.name, thinned(_points(run.looks, along, metric)), colour=colours[run.name]) for run in runs
        ]
        yield Chart(f"Validation {metric}", along, metric, measured, name=f"{prefix}-{metric}")
    rates = [
        Series(run.name, thinned(_points(run.steps, along, "learning_rate")), colour=colours[run.name]) for run in runs
    ]
    yield Chart("Learning rate", along, "learning rate", rates, name=f"{prefix}-learning-rate")


def _of_steps(runs: Sequence[TrainingRun], along: str, key: str, colours: Mapping[str, int]) -> list[Series]:
    """Return two lines a run: what each step gave, faint, and its running mean."""
    lines = []
    for run in runs:
        points = _points(run.steps, along, key)
        lines += [
            Series(run.name, thinned(points), faint=True, colour=colours[run.name]),
            Series(run.name, thinned(smoothed(points)), colour=colours[run.name]),
        ]
    return lines


def _points(rows: Sequence[Row], along: str, column: str) -> list[Point]:
    name, unit = ALONG[along]
    return [(row[name] / unit, row[column]) for row in rows if name in row and column in row]


def _differences(runs: Sequence[TrainingRun]) -> list[Block]:
    """Return a table of the settings in which the trainings differ."""
    if len(runs) < 2:
        return []
    flat = [dict(_flat(run.settings)) for run in runs]
    keys = [
        key for key in dict.fromkeys(key for one in flat for key in one) if len({_value(one, key) for one in flat}) > 1
    ]
    if not keys:
        return []
    rows = [[Cell(key), *(Cell(_value(one, key)) for one in flat)] for key in keys]
    return [Table("Settings in which they differ", ["setting", *(run.name for run in runs)], rows)]


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _value(settings: Mapping[str, Any], key: str) -> str:
    value = settings.get(key)
    return "–" if value is None else f"{value:.6g}" if isinstance(value, float) else json.dumps(value).strip('"')


def _commit(run: TrainingRun) -> dict[str, str]:
    commit = run.facts.get("commit")
    return {"commit": commit} if commit else {}
