"""The benchmarks and their committed results belong together."""

import json
import sys
from pathlib import Path

import pytest

from unblur import weights
from unblur.evaluation import hash_of_network

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

import run  # noqa: E402


def test_every_benchmark_has_a_committed_result_of_its_settings() -> None:
    for benchmark in run.BENCHMARKS:
        summary = json.loads((run.RESULTS / f"{benchmark.name}.json").read_text(encoding="utf-8"))
        assert [row["model"] for row in summary["rows"]] == ["blurred input", *benchmark.models]
        recipe = summary["settings"]["recipe"]
        assert (recipe["name"] if recipe else None) == benchmark.recipe
        assert summary["settings"]["shift_px"] == benchmark.shift_px
        assert "images" not in summary


def test_every_committed_result_is_of_a_benchmark() -> None:
    assert {path.stem for path in run.RESULTS.glob("*.json")} == {benchmark.name for benchmark in run.BENCHMARKS}


@pytest.mark.parametrize("benchmark", run.BENCHMARKS, ids=lambda benchmark: benchmark.name)
def test_the_committed_results_were_measured_with_the_weights_that_are_shipped(benchmark: run.Benchmark) -> None:
    summary = json.loads((run.RESULTS / f"{benchmark.name}.json").read_text(encoding="utf-8"))
    for model in benchmark.models:
        assert summary["settings"]["models"][model] == hash_of_network(weights.load(model))
