"""Tables are made from results, never typed."""

import copy
import json
from typing import Any

import pytest

from unblur.errors import DataError
from unblur.evaluation import BLURRED_INPUT, Evaluation, PictureScore, Scores
from unblur.evaluation.cost import Cost
from unblur.tables import (
    by_blur_table,
    figures_table,
    fill_tables,
    markdown_table,
    overview_table,
    replace_between_marks,
    reproduction_table,
    score_table,
    small_summary,
    write_result,
)

METRICS = ("psnr", "ssim-wang")


def row(model: str, gain: float) -> Scores:
    images = [
        PictureScore(name, {"psnr": psnr + gain, "ssim-wang": 0.8 + gain / 100}, level)
        for level, psnrs in (("weak", (40.0, 42.0, 50.0)), ("strong", (20.0, 21.0, 25.0)))
        for name, psnr in zip("abc", psnrs, strict=True)
    ]
    cost = Cost(2_500_000, 7_000_000_000, 0.125, 512 * 2**20, "cpu", 2) if model != BLURRED_INPUT else None
    return Scores(tuple(images), METRICS, 0, model, cost=cost)


@pytest.fixture
def summary() -> dict[str, Any]:
    """An evaluation with two levels, three pictures and two models."""
    settings = {
        "data": "photos", "recipe": {"name": "two-levels"}, "size": "448x256", "seed": 7,
        "metrics": list(METRICS), "shift_px": 0,
    }  # fmt: skip
    rows = (row(BLURRED_INPUT, 0), row("small", 1), row("large", 2))
    return Evaluation(rows, settings, {"unblur": "0.1.0"}).to_json()


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_first_row_of_a_table_is_the_blurred_input(summary):
    lines = markdown_table(summary).splitlines()
    assert [cells(line)[0] for line in lines[:5]] == ["model", "---", BLURRED_INPUT, "small", "large"]


COST = ["parameters", "MACs a picture", "s a picture", "memory"]


def test_a_table_shows_mean_median_worst_and_each_level(summary):
    lines = markdown_table(summary).splitlines()
    assert cells(lines[0])[1:6] == ["psnr, mean", "median", "worst 5 %", "weak", "strong"]
    assert cells(lines[2])[1:6] == ["33.00", "32.50", "20.00", "44.00", "22.00"]
    assert cells(lines[3])[6:11] == ["0.8100"] * 5
    assert len({len(cells(line)) for line in lines[:5]}) == 1


def test_a_table_says_how_many_pictures_were_made_worse_and_what_it_cost(summary):
    lines = markdown_table(summary, ["psnr"]).splitlines()
    assert cells(lines[0])[6:] == ["worse by 0.5 dB", "worse by 3 dB", *COST]
    assert cells(lines[2])[6:] == ["-"] * 6
    assert cells(lines[3])[6:] == ["0.0%", "0.0%", "2.5 M", "7 G", "0.125", "512 MiB"]
    assert "Cost on cpu, 2 threads" in lines[-1]


def test_a_table_can_show_some_of_the_metrics(summary):
    table = markdown_table(summary, ["psnr"])
    assert len(cells(table.splitlines()[0])) == 12
    assert "ssim" not in table


def test_a_result_of_an_earlier_version_is_shown_with_what_it_knows(summary):
    for one in summary["rows"]:
        one["levels"] = {}
        for key in ("worst_5_percent", "made_worse", "worst_ten", "by_blur", "cost"):
            one.pop(key, None)
    assert cells(markdown_table(summary, ["psnr"]).splitlines()[0]) == ["model", "psnr, mean", "median"]
    assert by_blur_table(summary) == ""


def test_pictures_are_shown_by_how_blurred_they_are(summary):
    lines = by_blur_table(summary).splitlines()
    assert cells(lines[0]) == ["blurred input (psnr)", "n", BLURRED_INPUT, "small", "large"]
    assert cells(lines[2]) == ["20-25 dB", "2", "20.50", "21.50", "22.50"]
    assert cells(lines[-1]) == ["from 40 dB", "3", "44.00", "45.00", "46.00"]


def test_the_versions_of_what_computed_stand_under_every_table(summary):
    summary["versions"] = {"unblur": "0.1.0", "opencv": "4.14.0", "commit": "abc"}
    for table in (markdown_table(summary), score_table(row("x", 0).to_json() | {"versions": summary["versions"]})):
        assert table.splitlines()[-1].endswith("unblur 0.1.0, opencv 4.14.0.")


def test_the_protocol_of_a_benchmark_stands_under_its_table(summary):
    assert "benchmark" not in markdown_table(summary)
    summary["protocol"]["benchmark"] = "gopro: as for GoPro"
    assert "`benchmark`: gopro: as for GoPro." in markdown_table(summary)


SHOWN = {BLURRED_INPUT: BLURRED_INPUT, "wiener": "Wiener", "small": "`small`"}


def test_the_overview_shows_models_side_by_side_and_the_harm_of_one(summary):
    lines = overview_table({"one": summary}, SHOWN, "small").splitlines()
    harm = ["`small`, worst 5 %: gain", "`small`, worse by 0.5 dB"]
    assert cells(lines[0]) == ["pictures", "n", BLURRED_INPUT, "Wiener", "`small`", *harm]
    assert cells(lines[2]) == ["one, weak", "3", "44.00", "-", "45.00", "+1.00", "0.0%"]
    assert cells(lines[3]) == ["one, strong", "3", "22.00", "-", "23.00", "+1.00", "0.0%"]


FIGURES = ["PSNR", "gain", "worst 5 %: PSNR", "worst 5 %: gain", "worse by 0.5 dB", "SSIM"]


def test_figures_are_shown_level_by_level_with_what_was_gained_and_lost(summary):
    summary["rows"][2]["levels"]["strong"]["made_worse"]["0.5 dB"] = 1 / 3
    lines = figures_table(summary).splitlines()
    assert cells(lines[0]) == ["level", "model", *FIGURES]
    assert cells(lines[2]) == ["weak", BLURRED_INPUT, "44.00", "-", "40.00", "-", "-", "0.8000"]
    assert cells(lines[7]) == ["strong", "large", "24.00", "+2.00", "22.00", "+2.00", "33.3%", "0.8200"]
    assert "The worst 5 % are those with the lowest PSNR" in lines[-1]
    assert "Cost" not in lines[-1]


def test_figures_of_pairs_count_each_scene_once(summary):
    images = [PictureScore(n, {"psnr": 20.0, "ssim-wang": 0.5}, scene=s) for n, s in zip("abc", "xxy", strict=True)]
    better = [PictureScore(i.name, {"psnr": 20.0 + g, "ssim-wang": 0.6}, scene=i.scene)
              for i, g in zip(images, (3, 3, -1), strict=True)]  # fmt: skip
    rows = Scores(tuple(images), METRICS, model=BLURRED_INPUT), Scores(tuple(better), METRICS, model="small")
    lines = figures_table(Evaluation(rows, summary["settings"], {}).to_json()).splitlines()
    assert cells(lines[0]) == ["model", *FIGURES, "by scene: gain", "worst scene: gain"]
    assert cells(lines[2])[-2:] == ["-", "-"]
    assert cells(lines[3]) == ["small", "21.67", "+1.67", "19.00", "-1.00", "33.3%", "0.6000", "+1.00", "-1.00"]
    assert "by scene: the mean over 2 scenes." in lines[-1]


def test_figures_need_both_of_their_metrics(summary):
    del summary["rows"][0]["mean"]["ssim-wang"]
    with pytest.raises(DataError, match="ssim-wang was not computed"):
        figures_table(summary)


@pytest.mark.parametrize("metric", ["psnr", "benchmark"])
def test_two_protocols_never_share_a_column(summary, metric):
    other = copy.deepcopy(summary)
    assert "| one, weak |" in overview_table({"one": summary, "two": other}, SHOWN, "small")
    other["protocol"][metric] = "something else"
    with pytest.raises(DataError, match=f"one and two are not scored alike.*'{metric}'"):
        overview_table({"one": summary, "two": other}, SHOWN, "small")


def test_a_set_that_was_scored_with_a_shift_search_says_so(summary):
    other = copy.deepcopy(summary)
    other["settings"]["shift_px"] = 4
    table = overview_table({"one": summary, "two": other}, SHOWN, "small")
    assert "| two (best shift within 4 px), weak |" in table
    assert "| one, weak |" in table


def test_under_a_table_stand_the_number_of_pictures_and_the_protocol(summary):
    below = markdown_table(summary).splitlines()[-1]
    assert below.startswith(
        "n = 6 (each picture at 2 levels); photos reduced to 448x256; blurred by `two-levels`, seed 7"
    )
    assert "`psnr`: PSNR in dB over RGB, rounded to 8 bit" in below
    assert "`ssim-wang`: SSIM per RGB channel" in below
    assert "unblur 0.1.0" in below


def test_a_mean_with_identical_pictures_says_so(summary):
    assert "identical to" not in markdown_table(summary)
    summary["rows"][2]["identical"] = 2
    assert "large: 2 of 6 pictures are identical to the sharp one and count 100 dB" in markdown_table(summary)


def test_the_small_summary_has_no_single_pictures_and_makes_the_same_table(summary):
    before = copy.deepcopy(summary)
    small = json.loads(json.dumps(small_summary(summary)))
    assert "images" not in json.dumps(small)
    assert markdown_table(small) == markdown_table(summary)
    assert summary == before


def test_tables_in_a_document_are_made_from_the_committed_results(summary, tmp_path):
    write_result(summary, tmp_path / "results/one.json")
    for line in summary["rows"]:
        line["model"] = "other"
    write_result(summary, tmp_path / "results/two.json")
    text = "# Title\n\n<!-- table:one -->\n<!-- /table -->\nbetween\n<!-- table:two -->\nold\n<!-- /table -->\nend\n"
    filled = fill_tables(text, tmp_path / "results", {})
    assert filled.startswith("# Title\n\n<!-- table:one -->\n\n| level | model | PSNR |")
    assert filled.count(BLURRED_INPUT) == 2
    assert "old" not in filled
    assert "\nbetween\n" in filled
    assert filled.endswith("<!-- /table -->\nend\n")
    assert fill_tables(filled, tmp_path / "results", {}) == filled


def test_filling_leaves_a_text_without_tables_as_it_is(tmp_path):
    assert fill_tables("No tables here.\n", tmp_path, {}) == "No tables here.\n"


def test_a_table_without_results_is_an_error_that_names_the_file(tmp_path):
    with pytest.raises(DataError, match=r"lost\.json"):
        fill_tables("<!-- table:lost -->\n<!-- /table -->\n", tmp_path, {})


def test_backslashes_in_a_table_are_kept():
    text = replace_between_marks("<!-- table:x --><!-- /table -->", "x", r"a \1 \n b")
    assert r"a \1 \n b" in text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<!-- table:other --><!-- /table -->",
        "<!-- table:x -->",
        "<!-- table:x --> <!-- table:y --> <!-- /table -->",
    ],
)
def test_a_missing_place_for_a_table_is_an_error(text):
    with pytest.raises(DataError, match="table:x"):
        replace_between_marks(text, "x", "table")


def test_a_table_of_reproduced_experiments_begins_with_the_blurred_input_and_says_what_was_not_run(summary):
    done = {**summary, "training": {"parameters": 48163, "total_steps": 10, "images": 80, "cpu_seconds": 120.0}}
    table = reproduction_table([("small net", "28.7 dB", done), ("large net", "30 dB", None)]).splitlines()
    assert table[2].startswith("| blurred input |")
    assert "48,163" in table[3]
    assert "10 steps, 80 pictures, 2 CPU minutes" in table[3]
    assert table[4].startswith("| large net |")
    assert table[4].endswith("not run yet |")
    assert len({line.count("|") for line in table[:5]}) == 1


def test_a_table_of_experiments_that_were_not_run_holds_no_figure():
    table = reproduction_table([("small net", "28.7 dB", None)])
    assert table.splitlines()[-1] == "| small net | 28.7 dB | not run yet |"
