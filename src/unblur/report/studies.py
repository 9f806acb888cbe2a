"""The part of a report on a study: all trials in a table, the objective against each setting, and their curves."""

from collections.abc import Mapping, Sequence
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
from unblur.report.charts import Chart, Series
from unblur.report.runs import StudyRun

LOG_FROM = 20
"""Values whose largest is so many times the smallest lie along a logarithmic axis."""


def section(study: StudyRun) -> Section:
    """Return the section of a study."""
    result = study.result
    counts = [sum(trial["state"] == state for trial in result["trials"]) for state in _STATES]
    told = ", ".join(f"{count} {state}" for count, state in zip(counts, _STATES, strict=True) if count)
    lead = (
        f"{told}. Judged by {result['objective']}: of the network that each training keeps, that of the lowest "
        f"validation loss. Values by {result['sampler']}, seed {result['seed']}, pruning: {result['pruner']}."
    )
    charts = [*setting_charts(result, study.name), *_progress(result, study.name)]
    blocks: list[Block] = [_table(result), Charts({"": charts})]
    if study.trials:
        text = yaml.safe_dump(dict(study.trials[0].settings), sort_keys=False, allow_unicode=True)
        blocks.append(Details(f"All settings of {study.trials[0].name}", text))
    return Section("study", study.name, lead, blocks)


def setting_charts(result: Mapping[str, Any], name: str) -> list[Chart]:
    """Return for each setting a chart of the objective of all complete trials against it."""
    complete = [trial for trial in result["trials"] if trial["state"] == "complete"]
    charts = [_against(result, complete, key, name) for key in result["space"]]
    return [chart for chart in charts if not chart.is_empty]


def value_text(value: Any) -> str:
    """Return a value of a setting in a few letters: `{bce: 1, kld: 0.1}` is "bce + 0.1 kld"."""
    if isinstance(value, Mapping) and all(map(_is_number, value.values())):
        return " + ".join(str(key) if weight == 1 else f"{weight:g} {key}" for key, weight in value.items())
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {value_text(part)}" for key, part in value.items())
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    return f"{value:.4g}" if isinstance(value, float) else str(value)


_STATES = ("complete", "pruned", "failed", "running", "waiting")


def _table(result: Mapping[str, Any]) -> Table:
    keys = list(result["space"])
    header = ["trial", *keys, "PSNR", "loss", "steps", "time", "state"]
    rows = []
    for trial in result["trials"]:
        values = [trial["values"].get(key) for key in keys]
        rows.append(
            [
                number(trial["number"], "{:.0f}"),
                *(Cell(value_text(value), float(value) if _is_number(value) else None) for value in values),
                number(trial["psnr"], "{:.2f}"),
                number(trial["loss"], "{:.5g}"),
                number(trial["step"], "{:.0f}"),
                duration(trial["seconds"]),
                Cell(trial["state"] + (f": {trial['note']}" if trial["note"] else "")),
            ]
        )
    judged = len(keys) + (1 if result["higher_is_better"] else 2)
    for row, cell in zip(rows, with_best([row[judged] for row in rows], result["higher_is_better"]), strict=True):
        row[judged] = cell
    note = f"Experiment: {' '.join((result['base'], *result['changes']))}. {versions_text(result['versions'])}."
    return Table("Trials", header, rows, note)


def _against(result: Mapping[str, Any], trials: Sequence[Mapping[str, Any]], key: str, name: str) -> Chart:
    unit = "dB" if result["higher_is_better"] else "loss"
    title = f"{'PSNR' if result['higher_is_better'] else 'Loss'} against {key}"
    values = [trial["values"][key] for trial in trials]
    labels = [
        f"trial {trial['number']}: {trial['value']:.5g} {unit}, {key} {value_text(v)}"
        for trial, v in zip(trials, values, strict=True)
    ]
    slug = f"{name}-{key}".replace("/", "-")
    if all(map(_is_number, values)):
        xs = [float(value) for value in values]
        log = min(xs, default=0) > 0 and (result["space"][key].get("log") or max(xs) >= LOG_FROM * min(xs))
        categories: list[str] = []
    else:
        names = list(dict.fromkeys(value_text(value) for value in [*result["space"][key].get("values", ()), *values]))
        xs, log, categories = [float(names.index(value_text(value))) for value in values], False, names
    points = [(x, trial["value"]) for x, trial in zip(xs, trials, strict=True)]
    series = Series("trials", points, labels)
    return Chart(title, key, unit, [series], "scatter", log_x=bool(log), categories=categories, name=slug)


def _progress(result: Mapping[str, Any], name: str) -> list[Chart]:
    """Return the curves of the objective over the validations."""
    series = [
        Series(
            f"trial {trial['number']}: {', '.join(value_text(value) for value in trial['values'].values())}",
            list(enumerate(trial["looks"], 1)),
        )
        for trial in result["trials"]
        if trial["looks"]
    ]
    if max((len(curve.points) for curve in series), default=0) < 2 or len(series) > 12:  # more cannot be told apart
        return []
    unit = "dB" if result["higher_is_better"] else "loss"
    return [Chart("Trials on their way", "validation", unit, series, name=f"{name}-progress".replace("/", "-"))]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
