"""From the summary of an evaluation to a Markdown table, and into the documents that show it.

A table is never typed. `unblur evaluate --json` (or OUT/summary.json) is reduced by `small_summary` to a file of
`benchmarks/results/`, which is committed; documents hold a place for the table,

    <!-- table:NAME -->
    <!-- /table -->

and `fill_tables` puts the table of NAME.json there. A test does the same and fails where a document is not what
its results say.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unblur.errors import DataError
from unblur.files import written_whole
from unblur.metrics import find_metric

Summary = Mapping[str, Any]
"""What `Evaluation.to_json` returns, with or without the scores of each picture."""


def markdown_table(summary: Summary, metrics: Sequence[str] | None = None) -> str:
    """Return the rows of an evaluation as a Markdown table: mean and median, and the mean of each level of blur.

    The first row is the blurred input. Under the table stand n, what the pictures are, the protocol of each metric, and
    how many identical pictures are in a mean. `metrics` chooses some; without it all that were computed are shown.
    """
    shown = list(metrics or summary["rows"][0]["mean"])
    levels = list(summary["rows"][0]["levels"])
    header, cells = ["model"], [[row["model"]] for row in summary["rows"]]
    for name in shown:
        header += [f"{name}, mean", "median", *levels]
        for row, line in zip(summary["rows"], cells, strict=True):
            numbers = [row["mean"][name], row["median"][name]]
            numbers += [row["levels"][level]["mean"][name] for level in levels]
            line += [_text(name, number) for number in numbers]
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *cells]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{table}\n\n{_below(summary, shown)}"


def score_table(summary: Summary) -> str:
    """Return the scores of one folder (`Scores.to_json`) as a Markdown table, a row for each metric."""
    lines = ["| metric | mean | median | std | min |", "| --- | ---: | ---: | ---: | ---: |"]
    for name in summary["mean"]:
        numbers = (_text(name, summary[statistic][name]) for statistic in ("mean", "median", "std", "min"))
        lines.append(f"| {name} | {' | '.join(numbers)} |")
    counted = f"{summary['n']} pictures" if summary["n"] > 1 else "1 picture"
    protocol = "; ".join(f"{name}: {text}" for name, text in summary["protocol"].items())
    return "\n".join(lines) + f"\n\n{counted}. {protocol}."


def small_summary(summary: Summary) -> dict[str, Any]:
    """Return the summary without the scores of each picture: what is committed, and enough for `markdown_table`."""
    return {
        **{key: value for key, value in summary.items() if key != "images"},
        "rows": [{key: value for key, value in row.items() if key != "images"} for row in summary["rows"]],
    }


def write_result(summary: Summary, path: Path) -> None:
    """Write the small summary as JSON. Raises `OutputError` where the file cannot be written."""
    with written_whole(path) as temporary:
        temporary.write_text(json.dumps(small_summary(summary), indent=1) + "\n", encoding="utf-8", newline="\n")


def overview_table(summaries: Mapping[str, Summary], model: str) -> str:
    """Return one model beside the blurred input on many sets, a row a set (or a level of it), PSNR and SSIM means."""
    lines = [
        f"| pictures | n | blurred input: PSNR, SSIM | `{model}`: PSNR, SSIM | gain |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name, summary in summaries.items():
        rows = {row["model"]: row for row in summary["rows"]}
        before, after = summary["rows"][0], rows[model]
        for level in before["levels"] or [None]:
            old, new = ((row["levels"][level] if level else row) for row in (before, after))
            label = f"{name}, {level}" if level else name
            cells = [f"{_text('psnr', row['mean']['psnr'])} dB, {row['mean']['ssim-wang']:.4f}" for row in (old, new)]
            gain = new["mean"]["psnr"] - old["mean"]["psnr"]
            lines.append(f"| {label} | {old['n']} | {cells[0]} | {cells[1]} | {gain:+.2f} dB |")
    return "\n".join(lines)


def fill_tables(text: str, results: Path, others: Mapping[str, str]) -> str:
    """Return a document's text, every table made anew: from `others` by name, or from NAME.json in `results`.

    Raises `DataError` where a result is missing.
    """
    for name in dict.fromkeys(_OPENING.findall(text)):
        table = others[name] if name in others else markdown_table(read_result(results / f"{name}.json"))
        text = replace_between_marks(text, name, table)
    return text


def read_result(path: Path) -> Summary:
    """Return what `write_result` wrote. Raises `DataError` where it cannot be read."""
    try:
        summary: Summary = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"A table needs {path}, which cannot be read: {error}") from None
    return summary


def replace_between_marks(text: str, name: str, table: str) -> str:
    """Return the text with `table` in each place between `<!-- table:NAME -->` and `<!-- /table -->`.

    Whatever stood there is replaced, so that filling twice changes nothing. Raises `DataError` where there is no such
    place.
    """
    opening, closing = f"<!-- table:{name} -->", "<!-- /table -->"
    place = re.compile(f"{re.escape(opening)}(?:(?!<!-- table:).)*?{re.escape(closing)}", re.DOTALL)
    if not place.search(text):
        raise DataError(f"The text has no {opening} that is followed by {closing}.")
    return place.sub(lambda _: f"{opening}\n\n{table}\n\n{closing}", text)


_OPENING = re.compile(r"<!-- table:(\S+) -->")


def _text(metric: str, value: float) -> str:
    """Return a score with as many digits as mean something."""
    if metric.startswith("psnr"):
        return f"{value:.2f}"
    return f"{value:.4f}" if find_metric(metric).higher_is_better else f"{value:.3g}"


def _below(summary: Summary, metrics: Sequence[str]) -> str:
    settings = summary["settings"]
    first = summary["rows"][0]
    parts = [f"n = {first['n']}" + (f" (each picture at {len(first['levels'])} levels)" if first["levels"] else "")]
    parts.append(settings["data"] + (f" reduced to {settings['size']}" if settings["size"] else ""))
    if settings["recipe"]:
        parts.append(f"blurred by `{settings['recipe']['name']}`, seed {settings['seed']}, 8 bit")
    sentences = ["; ".join(parts)]
    sentences += [f"`{name}`: {line}" for name, line in summary["protocol"].items() if name in {*metrics, "shift"}]
    sentences += [
        f"{row['model']}: {row['identical']} of {row['n']} pictures are identical to the sharp one and count 100 dB"
        for row in summary["rows"]
        if row["identical"]
    ]
    sentences.append(f"unblur {summary['versions']['unblur']}")
    return ". ".join(sentences) + "."
