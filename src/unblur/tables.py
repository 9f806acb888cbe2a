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
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from unblur.errors import DataError
from unblur.files import written_whole
from unblur.metrics import find_metric

Summary = Mapping[str, Any]
"""What `Evaluation.to_json` returns, with or without the scores of each picture."""

Row = Mapping[str, Any]
"""One of its rows."""


def markdown_table(summary: Summary, metrics: Sequence[str] | None = None) -> str:
    """Return the rows of an evaluation as a Markdown table: mean and median, and the mean of each level of blur.

    The first row is the blurred input. Beside the scores stand how many pictures a model made worse, and what it cost,
    where the summary knows. Under the table stand n, what the pictures are, the protocol of each metric, the versions,
    and how many identical pictures are in a mean. `metrics` chooses some; without it all that were computed are shown.
    """
    shown = list(metrics or summary["rows"][0]["mean"])
    levels = list(summary["rows"][0]["levels"])
    header, cells = ["model"], [[row["model"]] for row in summary["rows"]]
    for name in shown:
        worst = ["worst 5 %"] if "worst_5_percent" in summary["rows"][0] else []
        header += [f"{name}, mean", "median", *worst, *levels]
        for row, line in zip(summary["rows"], cells, strict=True):
            numbers = [row["mean"][name], row["median"][name]]
            numbers += [row["worst_5_percent"][name]] if worst else []
            numbers += [row["levels"][level]["mean"][name] for level in levels]
            line += [score_text(name, number) for number in numbers]
    for title, cell in _BESIDE.items():
        column = [cell(row) for row in summary["rows"]]
        if any(column):
            header.append(title)
            cells = [[*line, text or "-"] for line, text in zip(cells, column, strict=True)]
    costs = [row["cost"] for row in summary["rows"] if row.get("cost")]
    cost = f"Cost on {costs[0]['device']}, {costs[0]['threads']} threads: median seconds a picture" if costs else None
    return f"{markdown(header, cells)}\n\n{_below(summary, shown, cost)}"


def figures_table(summary: Summary) -> str:
    """Return what a benchmark found as a Markdown table: a row for each model, level by level where there are levels.

    Means of PSNR and SSIM and the gain over the blurred input; the worst twentieth of the pictures, by their PSNR and
    by what they gained; the share that was made worse; and where scenes are known what is gained with each scene
    counted once, and in the worst scene. Raises `DataError` where the summary has no `psnr` or no `ssim-wang`.
    """
    missing = {"psnr", "ssim-wang"} - summary["rows"][0]["mean"].keys()
    if missing:
        raise DataError(f"A table of figures needs psnr and ssim-wang; {', '.join(sorted(missing))} was not computed.")
    scenes = _num_scenes(summary)
    columns = {**_FIGURES, **(_BY_SCENE if scenes else {})}
    levels = list(summary["rows"][0]["levels"])
    cells = [
        [*([level] if level else []), row["model"], *(cell(part) for cell in columns.values())]
        for level in levels or [None]
        for row in summary["rows"]
        for part in [row["levels"][level] if level else row]
    ]
    header = [*(["level"] if levels else []), "model", *columns]
    about = "The worst 5 % are those with the lowest PSNR, and for the gain those that gained least"
    about += f"; by scene: the mean over {scenes} scene{'s' if scenes > 1 else ''}" if scenes else ""
    return f"{markdown(header, cells)}\n\n{about}. {_below(summary, ['psnr', 'ssim-wang'])}"


def by_blur_table(summary: Summary) -> str:
    """Return the mean PSNR of pictures that are about equally blurred, a row for each 5 dB of the blurred input.

    Empty where the summary holds no PSNR.
    """
    models = [row for row in summary["rows"] if row.get("by_blur")]
    if not models:
        return ""
    judge = next(name for name in summary["rows"][0]["mean"] if name.startswith("psnr"))
    header = [f"blurred input ({judge})", "n", summary["rows"][0]["model"], *(row["model"] for row in models)]
    cells = []
    for bands in zip(*(row["by_blur"] for row in models), strict=True):
        first = bands[0]
        means = [first["blurred"][judge], *(band["mean"][judge] for band in bands)]
        cells.append([first["blurred_psnr"], str(first["n"]), *(score_text(judge, mean) for mean in means)])
    return markdown(header, cells)


def score_table(summary: Summary) -> str:
    """Return the scores of one folder (`Scores.to_json`) as a Markdown table, a row for each metric."""
    statistics = {"mean": "mean", "median": "median", "std": "std", "min": "min", "worst 5 %": "worst_5_percent"}
    cells = [
        [name, *(score_text(name, summary[statistic][name]) for statistic in statistics.values())]
        for name in summary["mean"]
    ]
    counted = f"{summary['n']} pictures" if summary["n"] > 1 else "1 picture"
    protocol = "; ".join(f"{name}: {text}" for name, text in summary["protocol"].items())
    below = f"{counted}. {protocol}. {versions_text(summary['versions'])}."
    return f"{markdown(['metric', *statistics], cells)}\n\n{below}"


def check_comparable(summaries: Mapping[str, Summary], metrics: Sequence[str]) -> None:
    """Raise `DataError` where the same metric was computed in two ways: such numbers never share a column."""
    for metric in (*metrics, "benchmark"):
        ways: dict[str | None, str] = {}
        for name, summary in summaries.items():
            ways.setdefault(summary["protocol"].get(metric), name)
        if len(ways) > 1:
            (one, first), (other, second) = list(ways.items())[:2]
            raise DataError(
                f"{first} and {second} are not scored alike and cannot share a column: '{metric}' is "
                f"'{one or 'plain'}' in one, '{other or 'plain'}' in the other. Make a table of each."
            )


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


def overview_table(summaries: Mapping[str, Summary], columns: Mapping[str, str], model: str) -> str:
    """Return the mean PSNR of several models on many sets, a row a set (or a level of it).

    `columns`: the titles by the names of the rows that are shown; "-" where a set has no such row. The last columns say
    of `model` what the twentieth of the pictures gained that gained least, and which share was made worse. A set that
    was scored with a shift search says so. Raises `DataError` where two sets are not scored alike.
    """
    check_comparable(summaries, ("psnr",))
    harm = ("worst 5 %: gain", "worse by 0.5 dB")
    cells = []
    for name, summary in summaries.items():
        rows = {row["model"]: row for row in summary["rows"]}
        shift = summary["settings"]["shift_px"]
        name = f"{name} (best shift within {shift} px)" if shift else name
        for level in rows[model]["levels"] or [None]:
            parts = {label: row["levels"][level] if level else row for label, row in rows.items()}
            line = [f"{name}, {level}" if level else name, str(parts[model]["n"])]
            line += [_FIGURES["PSNR"](parts[label]) if label in parts else "-" for label in columns]
            cells.append([*line, *(_FIGURES[title](parts[model]) for title in harm)])
    return markdown(["pictures", "n", *columns.values(), *(f"{columns[model]}, {title}" for title in harm)], cells)


def reproduction_table(rows: Sequence[tuple[str, str, Summary | None]]) -> str:
    """Return a document's figures beside ours: (network, what the document reports, our summary or None).

    The first row is the blurred input. A network that was not trained yet has no figure. A summary says under
    `training` what its training took. Raises `DataError` where two summaries are not scored alike.
    """
    found = [summary for _, _, summary in rows if summary is not None]
    if not found:
        cells = [[network, text, "not run yet"] for network, text, _ in rows]
        return markdown(["network", "the document", "ours"], cells)
    blurred = found[0]["rows"][0]
    check_comparable({str(index): summary for index, summary in enumerate(found)}, list(blurred["mean"]))
    levels = list(blurred["levels"])
    scores = [f"{name}, {part}" for name in blurred["mean"] for part in levels or ("mean", "median")]
    cells = [["blurred input", "", "", *_scores(blurred), ""]]
    for network, document, summary in rows:
        if summary is None:
            cells.append([network, "", document, *[""] * len(scores), "not run yet"])
        else:
            taken = summary["training"]
            cells.append([network, f"{taken['parameters']:,}", document, *_scores(summary["rows"][1]), _budget(taken)])
    table = markdown(["network", "parameters", "the document", *scores, "our training"], cells)
    return f"{table}\n\n{_below(found[0], list(blurred['mean']))}"


def fill_tables(text: str, results: Path, others: Mapping[str, str]) -> str:
    """Return a document's text, every table made anew: from `others` by name, or from NAME.json in `results`.

    Raises `DataError` where a result is missing.
    """
    for name in dict.fromkeys(_OPENING.findall(text)):
        table = others[name] if name in others else figures_table(read_result(results / f"{name}.json"))
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


def score_text(metric: str, value: float) -> str:
    """Return a score with as many digits as mean something."""
    if metric.startswith("psnr"):
        return f"{value:.2f}"
    return f"{value:.4f}" if find_metric(metric).higher_is_better else f"{value:.3g}"


def amount_text(count: float) -> str:
    """Return a count with three digits: 1,684 is "1.68 k"."""
    for limit, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= 0.9995 * limit:
            return f"{count / limit:.3g} {unit}"
    return f"{count:.0f}"


def _scores(row: Row) -> list[str]:
    """Return each metric's mean at each level, or its mean and median where there are no levels."""
    if row["levels"]:
        return [score_text(name, level["mean"][name]) for name in row["mean"] for level in row["levels"].values()]
    return [score_text(name, row[part][name]) for name in row["mean"] for part in ("mean", "median")]


def _budget(taken: Mapping[str, Any]) -> str:
    minutes = f", {taken['cpu_seconds'] / 60:.0f} CPU minutes" if taken["cpu_seconds"] else ""
    return f"{taken['total_steps']:,} steps, {taken['images']:,} pictures{minutes}"


def markdown(header: Sequence[str], cells: Sequence[Sequence[str]], *, text_column: int = 0) -> str:
    """Return a table of numbers with one column of text, the first unless another one is named."""
    aligned = ["---:"] * len(header)
    aligned[text_column] = "---"
    return "\n".join(f"| {' | '.join(line)} |" for line in (header, aligned, *cells))


def versions_text(versions: Mapping[str, str]) -> str:
    """Return the versions in one line, the commit left out."""
    return ", ".join(f"{name} {version}" for name, version in versions.items() if name != "commit")


def _made_worse(limit: str) -> Callable[[Row], str]:
    return lambda row: f"{row['made_worse'][limit]:.1%}" if "made_worse" in row else ""


def _cost(key: str, text: Callable[[float], str]) -> Callable[[Row], str]:
    return lambda row: text(row["cost"][key]) if (row.get("cost") or {}).get(key) is not None else ""


_BESIDE: Mapping[str, Callable[[Row], str]] = {
    "worse by 0.5 dB": _made_worse("0.5 dB"),
    "worse by 3 dB": _made_worse("3 dB"),
    "parameters": _cost("parameters", amount_text),
    "MACs a picture": _cost("macs", amount_text),
    "s a picture": _cost("seconds", lambda number: f"{number:.3g}"),
    "memory": _cost("memory", lambda number: f"{number / 2**20:.0f} MiB"),
}
"""Columns beside the scores, by title; one that is empty for all rows is left out."""


def _gain_text(gain: float | None) -> str:
    return "-" if gain is None else f"{round(gain, 2) + 0.0:+.2f}"  # never -0.00


_FIGURES: Mapping[str, Callable[[Row], str]] = {
    "PSNR": lambda part: score_text("psnr", part["mean"]["psnr"]),
    "gain": lambda part: _gain_text(part.get("gain")),
    "worst 5 %: PSNR": lambda part: score_text("psnr", part["worst_5_percent"]["psnr"]),
    "worst 5 %: gain": lambda part: _gain_text(part.get("worst_5_percent_gain")),
    "worse by 0.5 dB": lambda part: _made_worse("0.5 dB")(part) or "-",
    "SSIM": lambda part: score_text("ssim-wang", part["mean"]["ssim-wang"]),
}
"""Columns of a benchmark's table by title, of a row or of a level of it; the blurred input gains nothing."""

_BY_SCENE: Mapping[str, Callable[[Row], str]] = {
    "by scene: gain": lambda row: _gain_text(row["by_scene"]["gain"] if "by_scene" in row else None),
    "worst scene: gain": lambda row: _gain_text(row["by_scene"]["worst_gain"] if "by_scene" in row else None),
}


def _num_scenes(summary: Summary) -> int:
    """Return how many scenes a summary knows; 0 where it knows none, or has levels, which are not parted by scene."""
    rows = [row for row in summary["rows"] if "by_scene" in row and not row["levels"]]
    return len(rows[0]["by_scene"]["scenes"]) if rows else 0


def _below(summary: Summary, metrics: Sequence[str], last: str | None = None) -> str:
    """Return what stands under a table; `last` is a sentence before the versions."""
    settings = summary["settings"]
    first = summary["rows"][0]
    parts = [f"n = {first['n']}" + (f" (each picture at {len(first['levels'])} levels)" if first["levels"] else "")]
    parts.append(settings["data"] + (f" reduced to {settings['size']}" if settings["size"] else ""))
    if settings["recipe"]:
        parts.append(f"blurred by `{settings['recipe']['name']}`, seed {settings['seed']}, 8 bit")
    sentences = ["; ".join(parts)]
    shown = {*metrics, "benchmark", "shift"}
    sentences += [f"`{name}`: {line}" for name, line in summary["protocol"].items() if name in shown]
    sentences += [
        f"{row['model']}: {row['identical']} of {row['n']} pictures are identical to the sharp one and count 100 dB"
        for row in summary["rows"]
        if row["identical"]
    ]
    sentences += [last] if last else []
    sentences.append(versions_text(summary["versions"]))
    return ". ".join(sentences) + "."
