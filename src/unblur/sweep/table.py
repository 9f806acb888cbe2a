"""Where a study stands, as a table: all trials with their values and what came of them."""

from collections.abc import Mapping
from typing import Any

from unblur import tables
from unblur.report.studies import value_text


def markdown_table(result: Mapping[str, Any]) -> str:
    """Return all trials as a Markdown table, best first, those without a value at the end."""
    keys = list(result["space"])
    header = ["trial", *keys, "PSNR (dB)", "loss", "steps", "minutes", "state"]
    lines = []
    for trial in best_first(result):
        measured = [
            f"{trial['psnr']:.2f}" if trial["psnr"] is not None else "-",
            f"{trial['loss']:.5g}" if trial["loss"] is not None else "-",
            str(trial["step"] or "-"),
            f"{trial['seconds'] / 60:.1f}" if trial["seconds"] is not None else "-",
            trial["state"] + (f": {trial['note']}" if trial["note"] else ""),
        ]
        values = [value_text(trial["values"][key]) if key in trial["values"] else "-" for key in keys]
        lines.append([str(trial["number"]), *values, *measured])
    sentences = [
        f"{result['objective']}, of the network with the lowest validation loss",
        f"Experiment: {' '.join((result['base'], *result['changes']))}",
        tables.versions_text(result["versions"]),
    ]
    return f"{tables.markdown(header, lines, text_column=-1)}\n\n{'. '.join(sentences)}."


def best_first(result: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the trials of a result: the complete ones, best first; then the others, by number."""
    sign = -1 if result["higher_is_better"] else 1
    complete = [trial for trial in result["trials"] if trial["state"] == "complete"]
    others = [trial for trial in result["trials"] if trial["state"] != "complete"]
    return [*sorted(complete, key=lambda trial: sign * trial["value"]), *others]
