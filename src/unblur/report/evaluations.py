"""The part of a report on evaluations: scores, cost, harm, and pictures to look at."""

import json
from collections.abc import Sequence
from pathlib import Path

from unblur.evaluation import BLURRED_INPUT
from unblur.metrics import find_metric
from unblur.report.blocks import (
    Block,
    Cell,
    Charts,
    Details,
    Section,
    Table,
    number,
    versions_text,
    with_best,
)
from unblur.report.charts import MAX_POINTS, Chart, Series, thinned
from unblur.report.groups import Group, Method
from unblur.report.pictures import samples
from unblur.report.runs import EvaluationRun
from unblur.tables import amount_text, score_text


def section(group: Group, index: int, data_root: Path | None) -> Section:
    """Return the section of a group; its sharp pictures are in its folder or in the data set of its name."""
    settings, judge = group.settings, group.judge
    recipe = settings.get("recipe")
    size = f" reduced to {settings['size']}" if settings.get("size") else ""
    blur = f", blurred by {recipe['name']}" if recipe else ""
    first = group.methods[0].row
    count = f"{first['n'] // max(1, len(first.get('levels') or [1]))} pictures"
    levels = f" at {len(first['levels'])} levels of blur each" if first.get("levels") else ""
    lead = f"{count}{levels}. Protocol {settings.get('protocol', 'plain')}. The first row is what doing nothing gives."
    blocks: list[Block] = [_scores(group)]
    if first.get("levels"):
        blocks += _levels(group)
    if judge:
        charts = [*_cost_charts(group, judge, index), *_gain_chart(group, judge, index)]
        if charts:
            blocks.append(Charts({"": charts}))
        blocks += samples(group, judge, data_root)
        blocks += _by_blur(group, judge)
        blocks += _worst(group, judge)
    for run in group.runs:
        blocks.append(Details(f"{run.name}: settings, weights and versions", _facts(run)))
    return Section("evaluation", f"{settings['data']}{size}{blur}", lead, blocks)


def _scores(group: Group) -> Table:
    """Return the table of scores, harm and cost."""
    header, columns = ["model"], [[Cell(method.label) for method in group.methods]]
    for metric in group.metrics:
        for title, statistic in ((f"{metric}", "mean"), ("median", "median"), ("worst 5 %", "worst_5_percent")):
            values = [method.row.get(statistic, {}).get(metric) for method in group.methods]
            cells = [Cell("–") if v is None else Cell(score_text(metric, v), v) for v in values]
            if any(value is not None for value in values):
                header.append(title)
                columns.append(with_best(cells, find_metric(metric).higher_is_better))
    for title, cells in _beside(group.methods):
        if any(cell.order is not None for cell in cells):
            header.append(title)
            columns.append(cells)
    lines = [f"{name}: {line}" for name, line in group.protocol.items()]
    same = [
        f"{method.label}: {method.row['identical']} pictures are identical to the sharp one and count 100 dB"
        for method in group.methods
        if method.row.get("identical")
    ]
    made = list(dict.fromkeys(versions_text(run.summary["versions"]) for run in group.runs))
    rows = [list(row) for row in zip(*columns, strict=True)]
    return Table("Scores: mean over the pictures", header, rows, ". ".join([*lines, *same, *made]) + ".")


def _beside(methods: Sequence[Method]) -> list[tuple[str, list[Cell]]]:
    def cells(text: str, values: Sequence[float | None]) -> list[Cell]:
        return [number(value, text) for value in values]

    worse = {limit: [method.row.get("made_worse", {}).get(limit) for method in methods] for limit in ("0.5 dB", "3 dB")}
    return [
        *((f"worse by {limit}", cells("{:.1%}", values)) for limit, values in worse.items()),
        *((title, [_amount(_cost(m, key)) for m in methods]) for title, key in _AMOUNTS.items()),
        ("s a picture", cells("{:.3g}", [_cost(method, "seconds") for method in methods])),
        ("MiB", cells("{:.0f}", [_cost(method, "memory", 2**20) for method in methods])),
    ]


_AMOUNTS = {"parameters": "parameters", "MACs": "macs"}


def _amount(count: float | None) -> Cell:
    return Cell("–") if count is None else Cell(amount_text(count), count)


def _cost(method: Method, name: str, unit: float = 1.0) -> float | None:
    value = (method.row.get("cost") or {}).get(name)
    return None if not value else value / unit  # what is no network has 0 parameters


def _levels(group: Group) -> list[Table]:
    """Return the means of each level of blur, a table for each metric."""
    levels = list(group.methods[0].row["levels"])
    tables = []
    for metric in group.metrics:
        columns = [[Cell(method.label) for method in group.methods]]
        for level in levels:
            values = [method.row["levels"][level]["mean"].get(metric) for method in group.methods]
            cells = [Cell("–") if v is None else Cell(score_text(metric, v), v) for v in values]
            columns.append(with_best(cells, find_metric(metric).higher_is_better))
        rows = [list(row) for row in zip(*columns, strict=True)]
        tables.append(Table(f"{metric} by level of blur", ["model", *levels], rows))
    return tables


def _cost_charts(group: Group, judge: str, index: int) -> list[Chart]:
    """Return the mean PSNR against each kind of cost."""
    kinds = (
        ("parameters", "parameters", 1.0),
        ("macs", "multiply-accumulates a picture", 1.0),
        ("seconds", "seconds a picture", 1.0),
    )
    charts = []
    for name, x, unit in kinds:
        series = []
        for colour, method in enumerate(group.methods[1:]):
            cost = _cost(method, name, unit)
            if cost:
                mean = method.row["mean"][judge]
                label = f"{method.label}: {mean:.2f} dB, {cost:.4g} {x}"
                series.append(Series(method.label, [(cost, mean)], [label], colour=colour))
        if len(series) > 1:
            title = f"Quality against {x.split(' a ')[0]}"
            slug = f"evaluation-{index}-{name}"
            charts.append(Chart(title, x, f"{judge}, dB", series, "scatter", log_x=True, name=slug))
    return charts


def _gain_chart(group: Group, judge: str, index: int) -> list[Chart]:
    """Return what was gained on each picture against how blurred it was."""
    blurred, *methods = group.methods
    series = []
    for colour, method in enumerate(methods):
        keys = thinned([key for key in method.images if key in blurred.images])
        points = [(blurred.score(key, judge), method.score(key, judge) - blurred.score(key, judge)) for key in keys]
        labels = [
            f"{' '.join(filter(None, key[::-1]))}, {method.label}: {gain:+.2f} dB"
            for key, (_, gain) in zip(keys, points, strict=True)
        ]
        series.append(Series(method.label, points, labels, colour=colour))
    name = f"evaluation-{index}-gain"
    note = f"each point is a picture, {MAX_POINTS} at most; below 0 it was made worse"
    chart = Chart(
        "Gain on each picture",
        f"{judge} of the {BLURRED_INPUT}",
        "dB gained",
        series,
        "scatter",
        name=name,
        note=note,
        zero_line=True,
    )
    return [] if chart.is_empty else [chart]


def _by_blur(group: Group, judge: str) -> list[Block]:
    models = [method for method in group.methods if method.row.get("by_blur")]
    if not models or group.methods[0].row.get("levels"):
        return []
    header = [f"{BLURRED_INPUT}, {judge}", "pictures", BLURRED_INPUT, *(method.label for method in models)]
    rows = []
    for bands in zip(*(method.row["by_blur"] for method in models), strict=True):
        first = bands[0]
        means = [first["blurred"][judge], *(band["mean"][judge] for band in bands)]
        cells = with_best([Cell(score_text(judge, mean), mean) for mean in means], True)
        rows.append([Cell(first["blurred_psnr"]), number(first["n"], "{:.0f}"), *cells])
    return [Table("By how blurred a picture is", header, rows)]


def _worst(group: Group, judge: str) -> list[Block]:
    rows = [
        [
            Cell(method.label),
            Cell(case["name"]),
            Cell(case.get("level", "–")),
            Cell(score_text(judge, case[judge]), case[judge]),
            Cell(f"{case['gain']:+.2f}", case["gain"]),
        ]
        for method in group.methods
        for case in method.row.get("worst_ten", [])
    ]
    header = ["model", "picture", "level", judge, "gain"]
    note = "The ten pictures of each model with the lowest scores. gain: above the blurred input."
    return [Table("Worst cases", header, rows, note, folded=True)] if rows else []


def _facts(run: EvaluationRun) -> str:
    return json.dumps({"versions": run.summary["versions"], **run.settings}, indent=1, ensure_ascii=False)
