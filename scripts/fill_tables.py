"""Write the tables of README and docs and the scores in the list of weights from the committed results, and count what
networks cost.

With --check nothing is written, but it is said whether anything is stale.
"""

import argparse
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from unblur import sweep, weights, zoo
from unblur.data import overview
from unblur.settings import read_yaml
from unblur.tables import Summary, fill_tables, overview_table, read_result, reproduction_table

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
WEIGHTS = Path(weights.__file__).with_name("weights.yaml")
DOCUMENTS = ROOT / "benchmarks" / "documents.yaml"
OVERVIEW = (
    "gaussian-triple",
    "gaussian-0-3",
    "motion-5-25",
    "defocus-1-4",
    "mixed",
    "sharp",
    "pairs-gopro",
    "pairs-gopro-synth",
    "pairs-reds",
    "pairs-reds-320x180",
    "pairs-levin",
)
FOR_PHOTOGRAPHS = tuple(name for name in ("fast", "default", "best") if name in weights.shipped())
COLUMNS: Mapping[str, str] = {
    "blurred input": "blurred input",
    "unsharp": "unsharp mask",
    "wiener-true-kernel": "Wiener, true kernel",
    **{name: f"`{name}`" for name in FOR_PHOTOGRAPHS},
}


def main() -> None:
    """Write `costs.json`, the scores of shipped weights, and every document that has a place for a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit with 1 where a table is stale")
    check = parser.parse_args().check
    written = {zoo.COSTS: zoo.costs_as_json(recount=not check)}
    results = {name: read_result(RESULTS / f"{name}.json") for name in OVERVIEW}
    written[WEIGHTS] = with_scores(WEIGHTS.read_text(encoding="utf-8"), results)
    others = {
        "overview": overview_table(results, COLUMNS, "default"),
        **{f"card-{name}": card_table(results, name) for name in FOR_PHOTOGRAPHS},
        "networks": networks_table(),
        "known-weights": known_weights_table(),
        **{name: documents_table(name, table) for name, table in read_yaml(DOCUMENTS).items()},
        "data-sets": overview.facts_table(),
        "data-layouts": overview.layouts_table(),
        **{path.stem: sweep.table.markdown_table(read_result(path)) for path in (RESULTS / "studies").glob("*.json")},
    }
    for document in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        written[document] = fill_tables(document.read_text(encoding="utf-8"), RESULTS, others)
    stale = []
    for path, text in written.items():
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            stale.append(path.name)
            if not check:
                path.write_text(text, encoding="utf-8", newline="\n")
    print(f"{'stale' if check else 'written'}: {', '.join(stale) or 'nothing'}")
    if check and stale:
        sys.exit(1)


def with_scores(text: str, results: Mapping[str, Summary]) -> str:
    """Return the text of `weights.yaml` with `measured` of shipped weights as the results have it."""
    for name in weights.shipped():
        lines = "".join(f'      {result}: "{scores}"\n' for result, scores in scores_of(name, results))
        place = re.compile(rf"^(  {re.escape(name)}:\n(?:    .*\n)*?    measured:\n)(?:      .*\n)*", re.MULTILINE)
        text, count = place.subn(rf"\g<1>{lines}", text)
        assert count == 1, f"{WEIGHTS} has no place for the scores of {name}"
    return text


def scores_of(model: str, results: Mapping[str, Summary]) -> Iterator[tuple[str, str]]:
    """Yield (result, "psnr 29.68 dB (blurred input 26.86)") of every result that has the model; levels by "/"."""
    for name, summary in results.items():
        rows = {row["model"]: row for row in summary["rows"]}
        if model in rows:
            ours, blurred = (
                " / ".join(f"{part['mean']['psnr']:.2f}" for part in list(row["levels"].values()) or [row])
                for row in (rows[model], summary["rows"][0])
            )
            yield name, f"psnr {ours} dB (blurred input {blurred})"


def card_table(results: Mapping[str, Summary], name: str) -> str:
    """Return what the weights `name` reach, beside doing nothing."""
    columns = {column: COLUMNS[column] for column in ("blurred input", name)}
    return overview_table(results, columns, name)


def documents_table(name: str, table: dict[str, Any]) -> str:
    """Return the table of a document's experiments, from the results of `benchmarks/reproduce.py`."""
    rows = []
    for row, facts in table["rows"].items():
        path = RESULTS / "reproduction" / name / f"{row.replace('/', '-')}.json"
        rows.append((facts["network"], facts["document"], read_result(path) if path.is_file() else None))
    return reproduction_table(rows)


def networks_table() -> str:
    """Return a Markdown table of all networks with their default options."""
    lines = [
        "| network | paper | authors | parameters | MACs at 256x256 | licence of the code | of authors' weights |",
        "| --- | --- | --- | ---: | ---: | --- | --- |",
    ]
    for facts in _listed("network"):
        theirs = {entry.licence for entry in weights.known().values() if entry.network == facts.name}
        licences = f"{facts.licence} | {', '.join(sorted(theirs)) or '-'}"
        lines.append(f"| `{facts.name}` | {facts.about} | {facts.origin} | {_cost(facts)} | {licences} |")
    return "\n".join(lines)


def known_weights_table() -> str:
    """Return a Markdown table of all weights of others that have a name, with the scores that their authors report."""
    lines = [
        "| weights | network | parameters | MACs at 256x256 | licence | trained on | reported by others | protocol |",
        "| --- | --- | ---: | ---: | --- | --- | --- | --- |",
    ]
    for facts in _listed("known"):
        entry = weights.known()[facts.name]
        scores = "; ".join(f"{score.data}: {score}" for score in entry.reported) or "-"
        protocol = entry.protocol if entry.protocol and entry.reported else "-"
        about = f"{facts.licence} | {entry.trained_on or entry.note or '-'} | {scores} | {protocol}"
        lines.append(f"| `{facts.name}` | `{facts.architecture}` | {_cost(facts)} | {about} |")
    return "\n".join(lines)


def _listed(kind: str) -> list[zoo.ModelFacts]:
    return [facts for facts in zoo.list_models() if facts.kind == kind]


def _cost(facts: zoo.ModelFacts) -> str:
    return f"{facts.parameters / 1e6:.3f} M | {facts.macs_256 / 1e9:.2f} G"


if __name__ == "__main__":
    main()
