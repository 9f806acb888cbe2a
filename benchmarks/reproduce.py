"""Score the networks that were trained as the source documents' experiments: `benchmarks/results/reproduction/*.json`.

    UNBLUR_DATA=... unblur train experiments/cifar10/resunet_1.yaml --out runs/cifar10/resunet_1
    UNBLUR_DATA=... python benchmarks/reproduce.py [ROW...]
    python scripts/fill_tables.py

`documents.yaml` beside this file lists the tables and their rows; a row is scored where its run folder holds
`best.safetensors`. The tables stand in docs/reproduction.md.
"""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from unblur import tables, weights
from unblur.blur.recipes import load_recipe
from unblur.data.catalog import open_dataset
from unblur.evaluation import evaluate
from unblur.experiment import parse_size
from unblur.inference import keep_freed_memory
from unblur.settings import read_yaml

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "reproduction"


def main() -> None:
    """Score the rows that are named, or all whose training is here."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", metavar="ROW", help="for example cifar10/resunet_1")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the run folders (%(default)s)")
    options = parser.parse_args()
    if not os.environ.get("UNBLUR_DATA"):
        sys.exit("Set UNBLUR_DATA to the folder that holds cifar10/ and eval-dev/.")
    keep_freed_memory()
    for document, table in read_yaml(HERE / "documents.yaml").items():
        for row in table["rows"]:
            trained = options.runs / row / "best.safetensors"
            if options.rows and row not in options.rows:
                continue
            if not trained.is_file():
                print(f"{document}: {row} is not trained here ({trained} is missing)", file=sys.stderr)
                continue
            summary = score(trained, table)
            path = RESULTS / document / f"{row.replace('/', '-')}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            tables.write_result(summary, path)
            print(f"{document}: {row}\n\n{tables.markdown_table(summary)}\n", flush=True)


def score(trained: Path, table: dict[str, Any]) -> dict[str, Any]:
    """Return the summary of one trained network, with what its training took."""
    result = evaluate(
        [trained],
        open_dataset(table["data"], Path(os.environ["UNBLUR_DATA"]), sharp_only=True)
        if "/" in table["data"]
        else Path(os.environ["UNBLUR_DATA"]) / table["data"],
        data_name=table["data"],
        recipe=load_recipe(table["recipe"]),
        size=parse_size(table["size"]) if "size" in table else None,
        metrics=table["metrics"],
    )
    model, checkpoint = weights.open_weights(trained)
    facts = checkpoint.facts
    training = facts["experiment"]
    return {
        **result.to_json(),
        "training": {
            "parameters": weights.num_parameters(model),
            "step": facts["step"],
            "total_steps": facts["total_steps"],
            "images": facts["step"] * training["data"]["batch_size"] * training.get("accumulate", 1),
            "cpu_seconds": facts.get("cpu_seconds"),
            "commit": facts["commit"],
            "experiment": training,
        },
    }


if __name__ == "__main__":
    main()
