"""Measure every row of the tables again and write `benchmarks/results/*.json`.

    UNBLUR_DATA=... python benchmarks/run.py [NAME...] [--keep DIR]

Needs the photographs of UNBLUR_DATA (`eval-dev/`, `pairs-dev/`), which no shipped weights were trained or chosen on,
save that the real pairs were looked at while recipes were chosen. Beside the blurred input stand the unsharp mask,
Wiener with the true kernel where there is one, and all shipped weights. Frames of one scene are no independent samples:
`pairs-dev/manifest.csv` says which belong together, and gains are also averaged by scene.
`scripts/fill_tables.py` then writes the tables of README and docs, and the scores in the list of weights.
"""

import argparse
import csv
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from unblur import tables, weights
from unblur.blur.recipes import load_recipe
from unblur.evaluation import evaluate
from unblur.inference import keep_freed_memory

RESULTS = Path(__file__).with_name("results")

BASELINE, TRUE_KERNEL = "unsharp", "wiener-true-kernel"

FOR_THE_TRIPLE = ("reduced-deblurnet-document", "reduced-deblurnet-gaussian")
"""Weights for three Gaussian blurs at one size; they are measured on these alone."""

FOR_PHOTOGRAPHS = tuple(name for name in weights.shipped() if name not in FOR_THE_TRIPLE)
"""All other weights that come with the package, in the order of their list."""


@dataclass(frozen=True)
class Benchmark:
    """One evaluation: a folder of UNBLUR_DATA, how it is blurred, and what is compared."""

    name: str
    data: str
    recipe: str | None = None
    size: tuple[int, int] | None = None
    shift_px: int = 0
    more: tuple[str, ...] = ()
    """Weights that are measured here only."""

    @property
    def models(self) -> tuple[str, ...]:
        """What stands beside the blurred input. Of pairs nobody knows the kernel."""
        return (BASELINE, *((TRUE_KERNEL,) if self.recipe else ()), *self.more, *FOR_PHOTOGRAPHS)


BENCHMARKS = (
    Benchmark("gaussian-triple", "eval-dev", "gaussian-triple", (448, 256), more=FOR_THE_TRIPLE),
    Benchmark("gaussian-0-3", "eval-dev", "gaussian-0-3"),
    Benchmark("motion-5-25", "eval-dev", "motion-5-25"),
    Benchmark("defocus-1-4", "eval-dev", "defocus-1-4"),
    Benchmark("mixed", "eval-dev", "mixed"),
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
    parser.add_argument(
        "--keep",
        metavar="DIR",
        type=Path,
        help="keep all pictures in DIR/NAME, to look at them; goes on there, too",
    )
    options = parser.parse_args()
    if not os.environ.get("UNBLUR_DATA"):
        sys.exit("Set UNBLUR_DATA to the folder that holds eval-dev/ and pairs-dev/.")
    root = Path(os.environ["UNBLUR_DATA"])
    keep_freed_memory()
    for benchmark in BENCHMARKS:
        if options.names and benchmark.name not in options.names:
            continue
        started = time.perf_counter()
        result = evaluate(
            benchmark.models,
            root / benchmark.data,
            scenes=None if benchmark.recipe else dict(scenes_of(root / benchmark.data)),
            recipe=load_recipe(benchmark.recipe) if benchmark.recipe else None,
            size=benchmark.size,
            shift_px=benchmark.shift_px,
            out=options.keep / benchmark.name if options.keep else None,
        )
        summary = result.to_json()
        tables.write_result(summary, RESULTS / f"{benchmark.name}.json")
        print(
            f"# {benchmark.name} ({time.perf_counter() - started:.0f} s)\n\n{tables.figures_table(summary)}\n",
            flush=True,
        )


def scenes_of(pairs: Path) -> Iterator[tuple[str, str]]:
    """Yield (name, scene) of the pairs of a set, from the list that lies beside the sets."""
    with (pairs.parent / "manifest.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["dataset"] == pairs.name:
                yield row["name"], row["scene"]


if __name__ == "__main__":
    main()
