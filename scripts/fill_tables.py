"""Write the tables of README and docs from the committed results; with --check only say whether they are stale."""

import argparse
import sys
from pathlib import Path

from unblur import models, zoo
from unblur.tables import fill_tables, overview_table, read_result

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
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
    """Fill every document that has a place for a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit with 1 where a table is stale")
    check = parser.parse_args().check
    others = {
        "overview": overview_table({name: read_result(RESULTS / f"{name}.json") for name in OVERVIEW}, "default"),
        "networks": networks_table(),
    }
    stale = []
    for document in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        old = document.read_text(encoding="utf-8")
        new = fill_tables(old, RESULTS, others)
        if new != old:
            stale.append(document.name)
            if not check:
                document.write_text(new, encoding="utf-8", newline="\n")
    print(f"{'stale' if check else 'written'}: {', '.join(stale) or 'nothing'}")
    if check and stale:
        sys.exit(1)


def networks_table() -> str:
    """Return a Markdown table of all networks with their default options."""
    lines = ["| network | paper | authors | parameters | MACs at 256x256 |", "| --- | --- | --- | ---: | ---: |"]
    for facts in zoo.list_models():
        if facts.weights is None:
            cost = f"{facts.parameters / 1e6:.3f} M | {facts.macs_256 / 1e9:.2f} G"
            lines.append(f"| `{facts.name}` | {models.find(facts.name).paper} | {facts.origin} | {cost} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
