"""Tables are made from results, never typed."""

import copy
import json
from typing import Any

import pytest

from unblur.errors import DataError
from unblur.evaluation import BLURRED_INPUT, Evaluation, PictureScore, Scores
from unblur.tables import fill_tables, markdown_table, replace_between_marks, small_summary, write_result

METRICS = ("psnr", "ssim-wang")


def row(model: str, gain: float) -> Scores:
    images = [
        PictureScore(name, {"psnr": psnr + gain, "ssim-wang": 0.8 + gain / 100}, level)
        for level, psnrs in (("weak", (40.0, 42.0, 50.0)), ("strong", (20.0, 21.0, 25.0)))
        for name, psnr in zip("abc", psnrs, strict=True)
    ]
    return Scores(tuple(images), METRICS, 0, model)


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


def test_a_table_shows_mean_median_and_each_level(summary):
    lines = markdown_table(summary).splitlines()
    assert cells(lines[0])[1:5] == ["psnr, mean", "median", "weak", "strong"]
    assert cells(lines[2])[1:5] == ["33.00", "32.50", "44.00", "22.00"]
    assert cells(lines[3])[5:] == ["0.8100", "0.8100", "0.8100", "0.8100"]
    assert {len(cells(line)) for line in lines[:5]} == {9}


def test_a_table_can_show_some_of_the_metrics(summary):
    table = markdown_table(summary, ["psnr"])
    assert len(cells(table.splitlines()[0])) == 5
    assert "ssim" not in table


def test_a_table_without_levels_has_mean_and_median_only(summary):
    for one in summary["rows"]:
        one["levels"] = {}
    assert cells(markdown_table(summary, ["psnr"]).splitlines()[0]) == ["model", "psnr, mean", "median"]


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
    assert filled.startswith("# Title\n\n<!-- table:one -->\n\n| model | psnr, mean |")
    assert filled.count(BLURRED_INPUT) == 1
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
