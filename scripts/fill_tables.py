"""Write the tables of README and docs from the committed results, and count what networks cost.

With --check nothing is written, but it is said whether anything is stale.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from unblur import weights, zoo
from unblur.data import overview
from unblur.settings import read_yaml
from unblur.tables import fill_tables, overview_table, read_result, reproduction_table

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
DOCUMENTS = ROOT / "benchmarks" / "documents.yaml"
OVERVIEW = (
    "gaussian-triple",
    "gaussian-2.5",
    "motion-9",
    "defocus-2.5",
    "sharp",
    "pairs-gopro",
    "pairs-gopro-synth",
    "pairs-reds",
    "pairs-reds-320x180",
    "pairs-levin",
)


def main() -> None:
    """Write `costs.json`, and fill every document that has a place for a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit with 1 where a table is stale")
    check = parser.parse_args().check
    written = {zoo.COSTS: zoo.costs_as_json(recount=not check)}
    others = {
        "overview": overview_table({name: read_result(RESULTS / f"{name}.json") for name in OVERVIEW}, "default"),
        "networks": networks_table(),
        "known-weights": known_weights_table(),
        **{name: documents_table(name, table) for name, table in read_yaml(DOCUMENTS).items()},
        "data-sets": overview.facts_table(),
        "data-layouts": overview.layouts_table(),
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
