"""Measure every row of the tables again and write `benchmarks/results/*.json`.

    UNBLUR_DATA=... python benchmarks/run.py [NAME...]

Needs the photographs of UNBLUR_DATA (`eval-dev/`, `pairs-dev/`), which no shipped weights were trained or chosen on,
save that the real pairs were looked at while recipes were chosen. `scripts/fill_tables.py` then writes the tables of
README and docs.
"""

import argparse
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from unblur import tables
from unblur.blur.recipes import load_recipe
from unblur.evaluation import evaluate
from unblur.inference import keep_freed_memory

RESULTS = Path(__file__).with_name("results")


@dataclass(frozen=True)
class Benchmark:
    """One evaluation: a folder of UNBLUR_DATA, how it is blurred, and the weights that are compared."""

    name: str
    data: str
    recipe: str | None = None
    size: tuple[int, int] | None = None
    shift_px: int = 0
    models: tuple[str, ...] = ("default",)


CLASSICAL_MODELS = ("unsharp", "wiener-true-kernel")
TRIPLE_MODELS = ("reduced-deblurnet-document", "reduced-deblurnet-gaussian", "default")

BENCHMARKS = (
    Benchmark("gaussian-triple", "eval-dev", "gaussian-triple", (448, 256), models=TRIPLE_MODELS),
    Benchmark("gaussian-triple-classical", "eval-dev", "gaussian-triple", (448, 256), models=CLASSICAL_MODELS),
    Benchmark("gaussian-2.5", "eval-dev", "gaussian-2.5"),
    Benchmark("motion-9", "eval-dev", "motion-9"),
    Benchmark("defocus-2.5", "eval-dev", "defocus-2.5"),
    Benchmark("gaussian-0-3", "eval-dev", "gaussian-0-3"),
    Benchmark("sharp", "eval-dev", "sharp"),
    Benchmark("pairs-gopro", "pairs-dev/gopro"),
    Benchmark("pairs-gopro-synth", "pairs-dev/gopro-synth"),
    Benchmark("pairs-reds", "pairs-dev/reds"),
    Benchmark("pairs-reds-320x180", "pairs-dev/reds-320x180"),
    Benchmark("pairs-levin", "pairs-dev/levin", shift_px=4),
)


def main() -> None:
    """Measure the benchmarks that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", choices=[[], *(b.name for b in BENCHMARKS)], default=[])
    names = parser.parse_args().names
    root = os.environ.get("UNBLUR_DATA")
    if not root:
        sys.exit("Set UNBLUR_DATA to the folder that holds eval-dev/ and pairs-dev/.")
    keep_freed_memory()
    for benchmark in BENCHMARKS:
        if names and benchmark.name not in names:
            continue
        started = time.perf_counter()
        result = evaluate(
            benchmark.models,
            Path(root) / benchmark.data,
            recipe=load_recipe(benchmark.recipe) if benchmark.recipe else None,
            size=benchmark.size,
            shift_px=benchmark.shift_px,
        )
        summary = result.to_json()
        tables.write_result(summary, RESULTS / f"{benchmark.name}.json")
        print(
            f"# {benchmark.name} ({time.perf_counter() - started:.0f} s)\n\n{tables.markdown_table(summary)}\n",
            flush=True,
        )


if __name__ == "__main__":
    main()
