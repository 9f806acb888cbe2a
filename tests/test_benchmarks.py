"""The benchmarks and their committed results belong together."""

import json
import sys
from pathlib import Path

import pytest

from unblur import weights
from unblur.data.catalog import open_dataset
from unblur.evaluation import fingerprint_of

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


def test_every_benchmark_compares_doing_nothing_the_classical_answers_and_all_weights_for_photographs() -> None:
    for benchmark in run.BENCHMARKS:
        assert benchmark.models[0] == "unsharp"
        assert ("wiener-true-kernel" in benchmark.models) == (benchmark.recipe is not None)
        assert set(run.FOR_PHOTOGRAPHS) <= set(benchmark.models)
    assert {model for benchmark in run.BENCHMARKS for model in benchmark.models} >= weights.shipped().keys()


def test_the_scenes_of_real_pairs_are_those_of_their_list(data_root: Path) -> None:
    for benchmark in run.BENCHMARKS:
        if benchmark.recipe is None:
            scenes = dict(run.scenes_of(data_root / benchmark.data))
            assert scenes.keys() == {pair.name for pair in open_dataset(data_root / benchmark.data)}
            summary = json.loads((run.RESULTS / f"{benchmark.name}.json").read_text(encoding="utf-8"))
            assert summary["by_scene"]["scenes"].keys() == set(scenes.values())


def test_every_committed_result_is_of_a_benchmark() -> None:
    assert {path.stem for path in run.RESULTS.glob("*.json")} == {benchmark.name for benchmark in run.BENCHMARKS}


@pytest.mark.parametrize("benchmark", run.BENCHMARKS, ids=lambda benchmark: benchmark.name)
def test_the_committed_results_were_measured_with_the_weights_that_are_shipped(benchmark: run.Benchmark) -> None:
    summary = json.loads((run.RESULTS / f"{benchmark.name}.json").read_text(encoding="utf-8"))
    for model in benchmark.models:
        assert summary["settings"]["models"][model] == fingerprint_of(model)


@pytest.mark.parametrize("name", sorted(weights.shipped()))
def test_the_scores_in_the_list_of_weights_are_those_of_the_committed_results(name: str) -> None:
    for result, text in weights.shipped()[name].measured.items():
        summary = json.loads((run.RESULTS / f"{result}.json").read_text(encoding="utf-8"))
        rows = {row["model"]: row for row in summary["rows"]}
        shown = []
        for row in (rows[name], rows["blurred input"]):
            parts = list(row["levels"].values()) or [row]
            shown.append(" / ".join(f"{part['mean']['psnr']:.2f}" for part in parts))
        assert text == f"psnr {shown[0]} dB (blurred input {shown[1]})"
