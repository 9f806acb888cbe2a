"""Reports: what is read, what may stand side by side, and that the page works in a browser and on a phone."""

import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml
from torch import Tensor

from golden import fill
from training_pictures import settings
from unblur import evaluation, models, report, weights
from unblur.blur.recipes import load_recipe
from unblur.errors import DataError
from unblur.images import Photo, write_photo
from unblur.report import charts, groups
from unblur.report.blocks import Cell, Charts, Samples, Table, with_best
from unblur.report.charts import Chart, Series
from unblur.report.runs import EvaluationRun, read_runs, read_table

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
browser_needed = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here to look at the page with")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three evaluations, two trainings and a study."""
    data = pytest.importorskip("skimage.data")
    folder = tmp_path_factory.mktemp("runs")
    (folder / "photos").mkdir()
    for name, picture in {"face": data.astronaut()[60:156, 160:288], "cup": data.coffee()[100:196, 200:328]}.items():
        write_photo(Photo(as_tensor(picture), bits=8), folder / "photos" / f"{name}.png")
    model = fill(models.create("reduced_deblurnet", residual=True)).eval()
    weights.save(model, folder / "a" / "best.safetensors", {})
    evaluate(folder, "first", ["unsharp"])
    evaluate(folder, "second", [folder / "a" / "best.safetensors", "unsharp"])
    evaluate(folder, "shifted", ["unsharp"], shift_px=1)
    write_training(folder / "slow", lr=1e-4)
    write_training(folder / "fast", lr=1e-2)
    write_study(folder / "rates")
    return folder


def as_tensor(picture: Any) -> Tensor:
    import torch

    return torch.from_numpy(picture.copy()).permute(2, 0, 1).float() / 255


def evaluate(folder: Path, name: str, models: list[Any], **options: Any) -> None:
    recipe = load_recipe("gaussian-triple")
    evaluation.evaluate(models, folder / "photos", recipe=recipe, out=folder / name, **options)


def write_training(folder: Path, lr: float, **changes: object) -> None:
    experiment = settings(optimizer={"name": "adam", "lr": lr}, **changes)
    (folder / "log").mkdir(parents=True)
    (folder / "experiment.yaml").write_text(yaml.safe_dump(experiment.model_dump(mode="json"), sort_keys=False))
    train, valid = ["step,seconds,images,loss,learning_rate,bad_steps"], ["step,seconds,images,loss,psnr,psnr_blurred"]
    train += [f"{step},{step / 2},{8 * step},{1 / (1 + lr * step)},{lr},0" for step in range(10, 410, 10)]
    valid += [f"{s},{s / 2},{8 * s},{1 / (1 + lr * s)},{25 + 100 * lr + s / 100},26.5" for s in (100, 200, 300, 400)]
    (folder / "log" / "train.csv").write_text("\n".join(train) + "\n")
    (folder / "log" / "valid.csv").write_text("\n".join(valid) + "\n")


def write_study(folder: Path) -> None:
    folder.mkdir()
    common = {"loss": 0.1, "step": 40, "seconds": 90.0, "looks": [24.0, 25.0], "note": ""}
    trials = [
        {"number": n, "state": "complete", "values": {"optimizer.lr": lr, "loss": loss}, "value": psnr, "psnr": psnr}
        | common
        | {"folder": f"trials/{n:03}"}
        for n, (lr, loss, psnr) in enumerate([(0.001, {"mse": 1}, 25.0), (0.1, {"bce": 1, "kld": 0.5}, 27.5)])
    ]
    failed = {"state": "failed", "value": None, "psnr": None, "loss": None, "step": None, "seconds": None}
    trials.append({**trials[0], **failed, "number": 2, "looks": [], "note": "<b>not</b> finite"})
    space = {"optimizer.lr": {"values": [0.001, 0.1]}, "loss": {"values": [{"mse": 1}, {"bce": 1, "kld": 0.5}]}}
    result = {
        "base": "a.yaml",
        "changes": ["schedule.steps=40"],
        "space": space,
        "sampler": "grid",
        "pruner": "none",
        "seed": 0,
        "objective": "valid/psnr",
        "higher_is_better": True,
        "best": 1,
        "trials": trials,
        "versions": {"unblur": "0"},
    }
    (folder / "study.yaml").write_text("study: {}\n")
    (folder / "result.json").write_text(json.dumps(result))


def compared(home: Path, *names: str, **options: Any) -> str:
    out = home / "report.html"
    report.compare([home / name for name in names], out, **options)
    return out.read_text(encoding="utf-8")


def tables_of(home: Path, *names: str) -> list[Table]:
    sections = report.sections_of(read_runs([home / name for name in names]))
    return [block for section in sections for block in section.blocks if isinstance(block, Table)]


# -- Reading -----------------------------------------------------------------------------------------------------------


def test_folders_are_named_by_as_much_of_their_paths_as_tells_them_apart(home, tmp_path):
    write_training(tmp_path / "fast", lr=1e-3)
    names = [run.name for run in read_runs([home / "fast", tmp_path / "fast", home / "slow"])]
    assert names == [f"{home.name}/fast", f"{tmp_path.name}/fast", f"{home.name}/slow"]


@pytest.mark.parametrize(
    ("name", "complaint"),
    [("photos", "is no run: it has neither experiment.yaml"), ("nothing", "is not a folder")],
)
def test_a_folder_that_is_no_run_is_refused_with_what_would_be_one(home, name, complaint):
    with pytest.raises(DataError, match=complaint):
        read_runs([home / name])


def test_a_folder_given_twice_and_an_unfinished_evaluation_are_refused(home, tmp_path):
    with pytest.raises(DataError, match="given twice"):
        read_runs([home / "fast", home / "fast"])
    (tmp_path / "settings.json").write_text("{}")
    with pytest.raises(DataError, match="is not finished; the same command with the same --out goes on"):
        read_runs([tmp_path])


def test_a_table_that_is_being_written_is_read_without_its_last_half_line(tmp_path):
    (tmp_path / "valid.csv").write_text("step,loss,psnr\n10,0.5,\n20,0.25,21\n30,0.1")
    assert read_table(tmp_path / "valid.csv") == [{"step": 10, "loss": 0.5}, {"step": 20, "loss": 0.25, "psnr": 21}]


# -- What may stand side by side ---------------------------------------------------------------------------------------


def test_evaluations_of_the_same_pictures_share_a_table_with_each_method_once(home):
    scores = tables_of(home, "first", "second")[0]
    assert [row[0].text for row in scores.rows] == ["blurred input", "unsharp", "a/best"]


def test_two_protocols_never_share_a_table(home):
    runs = read_runs([home / name for name in ("first", "shifted")])
    sections = report.sections_of(runs)
    assert len(sections) == 2
    assert [len(section.blocks[0].rows) for section in sections] == [2, 2]
    assert "shift: " not in sections[0].blocks[0].note
    assert "shift: " in sections[1].blocks[0].note


@pytest.mark.parametrize(
    ("key", "value"),
    [("pictures", "other"), ("size", "8x8"), ("seed", 7), ("protocol", "gopro"), ("recipe", None), ("data", "other")],
)
def test_evaluations_that_differ_in_what_is_judged_are_kept_apart(home, key, value):
    [run] = read_runs([home / "first"])
    assert isinstance(run, EvaluationRun)
    other = EvaluationRun(run.folder, "other", {**run.summary, "settings": {**run.settings, key: value}})
    assert len(groups.groups([run, other])) == 2
    assert len(groups.groups([run, EvaluationRun(run.folder, "same", run.summary)])) == 1


def test_a_metric_that_was_computed_in_another_way_keeps_evaluations_apart(home):
    [run] = read_runs([home / "first"])
    lines = {**run.summary["protocol"], "psnr": "PSNR in dB of the luminance"}
    assert len(groups.groups([run, EvaluationRun(run.folder, "other", {**run.summary, "protocol": lines})])) == 2


def test_other_weights_under_the_same_name_are_another_row(home):
    [run] = read_runs([home / "first"])
    changed = {**run.settings, "models": {"unsharp": "another"}}
    other = EvaluationRun(run.folder, "other", {**run.summary, "settings": changed})
    [group] = groups.groups([run, other])
    assert [method.label for method in group.methods] == ["blurred input", "unsharp", "unsharp (other)"]


def test_protocol_and_versions_stand_under_the_scores(home):
    note = tables_of(home, "first")[0].note
    assert "psnr: PSNR in dB over RGB, rounded to 8 bit" in note
    assert "torch" in note
    assert "opencv" in note


def test_trainings_with_other_losses_share_no_chart_and_with_other_validation_pictures_no_section(home, tmp_path):
    write_training(tmp_path / "mse", lr=1e-3, loss={"mse": 1.0})
    write_training(tmp_path / "other", lr=1e-3, validation={"every_steps": 10, "max_pictures": 7})
    runs = read_runs([home / "fast", tmp_path / "mse", tmp_path / "other"])
    first, second = report.sections_of(runs)
    titles = [chart.title for chart in first.charts]
    assert titles[:4] == [
        "Training loss: charbonnier",
        "Validation loss: charbonnier",
        "Training loss: mse",
        "Validation loss: mse",
    ]
    assert (first.title, second.title) == ("fast, mse", "other")


def test_the_psnr_of_the_steps_and_further_metrics_of_the_validation_have_curves_of_their_own(tmp_path):
    looking = {"every_steps": 100, "metrics": ["strongest-channel"]}
    write_training(tmp_path / "run", lr=1e-3, validation=looking)
    write_training(tmp_path / "other", lr=1e-2, validation={"every_steps": 100})
    for name, column in (("train", "psnr"), ("valid", "strongest-channel")):
        table = tmp_path / f"run/log/{name}.csv"
        head, *rows = table.read_text().splitlines()
        table.write_text("\n".join([f"{head},{column}", *(f"{row},{0.1 * i}" for i, row in enumerate(rows))]) + "\n")
    [section] = report.sections_of(read_runs([tmp_path / "run", tmp_path / "other"]))
    charts = {chart.title: chart for chart in section.charts}
    assert charts["Training PSNR"].drawn[0][1].points[:2] == [(10.0, 0.0), (20.0, 0.1)]
    [(_, measured)] = charts["Validation strongest-channel"].drawn
    assert (measured.name, measured.points[1]) == ("run", (200.0, 0.1))


def test_the_table_of_trainings_names_the_best_and_the_settings_in_which_they_differ(home):
    reached, differ = tables_of(home, "slow", "fast")
    psnr = reached.header.index("best PSNR")
    assert [(row[psnr].text, row[psnr].best) for row in reached.rows] == [("29.01", False), ("30.00", True)]
    assert [[cell.text for cell in row] for row in differ.rows] == [["optimizer.lr", "0.0001", "0.01"]]


def test_the_best_of_a_column_is_marked_and_equal_ones_all_are():
    cells = [Cell("1.0", 1.0), Cell("2.0", 2.0), Cell("2.0", 1.99), Cell("–")]
    assert [cell.best for cell in with_best(cells, True)] == [False, True, True, False]
    assert [cell.best for cell in with_best(cells, False)] == [True, False, False, False]


def test_a_study_shows_every_trial_and_the_objective_against_each_setting(home):
    [section] = report.sections_of(read_runs([home / "rates"]))
    table = section.blocks[0]
    assert isinstance(table, Table)
    assert [cell.text for cell in table.rows[1]][:4] == ["1", "0.1", "bce + 0.5 kld", "27.50"]
    by_rate, by_loss, *_ = section.charts
    assert by_rate.log_x
    assert by_rate.series[0].points == [(0.001, 25.0), (0.1, 27.5)]
    assert by_loss.categories == ["mse", "bce + 0.5 kld"]


# -- Pictures ----------------------------------------------------------------------------------------------------------


def samples_of(home: Path, *names: str, data_root: Path | None = None) -> Samples:
    [section] = report.sections_of(read_runs([home / name for name in names]), data_root)
    return next(block for block in section.blocks if isinstance(block, Samples))


def test_pictures_show_every_method_and_the_sharp_one_and_each_photo_once(home):
    samples = samples_of(home, "first", "second").samples
    assert sorted(sample.name.split(",")[0] for sample in samples) == ["cup", "face"]
    for sample in samples:
        assert [shot.label for shot in sample.shots] == ["blurred input", "unsharp", "a/best", "sharp"]
        assert all(shot.address.startswith("data:image/webp;base64,") for shot in sample.shots)


def test_large_pictures_are_cut_and_never_reduced(home, monkeypatch):
    monkeypatch.setattr("unblur.report.pictures.MAX_SIDE_PX", 40)
    sample = samples_of(home, "first").samples[0]
    assert (sample.width, sample.height) == (40, 40)
    assert "the middle 40×40 of 128×96 px" in sample.name


def test_the_size_of_all_pictures_is_bounded(home, monkeypatch):
    monkeypatch.setattr("unblur.report.pictures.MAX_BYTES", 1)
    assert len(samples_of(home, "first").samples) == 1


def test_without_its_pictures_an_evaluation_is_still_shown(home, tmp_path):
    for name in ("settings.json", "summary.json"):
        shutil.copy(home / "first" / name, tmp_path / name)
    assert "not in its folder any more" in compared(home, tmp_path)


# -- Charts ------------------------------------------------------------------------------------------------------------


def test_axes_have_round_ticks_that_cover_the_values():
    text = charts.svg(Chart("t", "x", "y", [Series("a", [(0, 0.113), (700, 0.377)])]))
    ticks = re.findall(r">([\d.]+)</text>", text)
    assert ticks == ["0", "200", "400", "600", "0.10", "0.15", "0.20", "0.25", "0.30", "0.35"]


def test_both_axes_say_what_they_show():
    text = charts.svg(Chart("t", "steps", "loss < 1", [Series("a", [(0, 1), (7, 2)])]))
    assert re.findall(r'class="name">([^<]+)</text>', text) == ["steps", "loss &lt; 1"]


def test_what_is_not_finite_or_below_a_logarithmic_axis_is_left_out():
    chart = Chart("t", "x", "y", [Series("a", [(0, 1), (1, float("nan")), (10, 2), (100, 3)])], log_x=True)
    assert [series.points for _, series in chart.drawn] == [[(10, 2), (100, 3)]]
    assert "nan" not in charts.svg(chart)
    assert Chart("t", "x", "y", [Series("a", [(0, float("inf"))])]).is_empty


def test_a_single_point_can_be_drawn():
    for kind in ("line", "scatter"):
        assert "<title>" in charts.svg(Chart("t", "x", "y", [Series("a", [(5, 5)])], kind))


def test_a_running_mean_keeps_constants_and_the_number_of_points():
    assert charts.smoothed([(x, 2.0) for x in range(50)]) == [(x, 2.0) for x in range(50)]
    assert len(charts.thinned([(x, x) for x in range(10_000)])) == charts.MAX_POINTS
    assert charts.thinned([(x, x) for x in range(10_000)])[-1] == (9999, 9999)


def test_plots_are_png_files_one_for_each_chart(home, tmp_path):
    pytest.importorskip("matplotlib")
    made = report.compare([home / "slow", home / "rates"], tmp_path / "r.html", plots=tmp_path / "plots")
    assert [plot.name for plot in made.plots] == [
        "training-1-training-loss.png",
        "training-1-validation-loss.png",
        "training-1-psnr.png",
        "training-1-learning-rate.png",
        "rates-optimizer.lr.png",
        "rates-loss.png",
        "rates-progress.png",
    ]
    assert all(plot.read_bytes().startswith(b"\x89PNG") for plot in made.plots)


# -- The page ----------------------------------------------------------------------------------------------------------

ALL = ("first", "second", "shifted", "slow", "fast", "rates")


class _Addresses(HTMLParser):
    """Every address in a page, and whether its elements are closed in order."""

    VOID = frozenset({"meta", "link", "img", "input", "br", "line", "polyline", "circle", "rect", "path"})

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for name, value in attributes if name in ("src", "href", "srcset", "action")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


def test_the_page_names_no_address_outside_itself_and_its_elements_are_closed(home):
    text = compared(home, *ALL)
    parser = _Addresses()
    parser.feed(text)
    assert not parser.open
    assert all(address.startswith(("data:", "#")) for address in parser.found)
    assert not re.search(r"https?://|url\(|@import", text)
    assert "default-src 'none'" in text


def test_names_and_notes_are_text_and_never_markup(home):
    text = compared(home, "rates", title="<script>alert(1)</script>")
    assert "<script>alert" not in text
    assert "&lt;b&gt;not&lt;/b&gt; finite" in text


def test_the_same_runs_give_the_same_page(home):
    assert compared(home, *ALL) == compared(home, *ALL)


PROBE = """
const frames = [...document.querySelectorAll("iframe")];
addEventListener("load", () => setTimeout(async () => {
  const found = {};
  for (const frame of frames) {
    const d = frame.contentDocument, w = frame.contentWindow;
    const inside = (e) => e.closest(".scroll, pre, svg, .stage");
    const sticksOut = (e) => e.getBoundingClientRect().right > frame.clientWidth + 1;
    const wide = [...d.querySelectorAll("body *")].filter((e) => sticksOut(e) && !inside(e));
    const requests = w.performance.getEntriesByType("resource").map((e) => e.name);
    const named = (e) => e.textContent.trim() || e.getAttribute("aria-label") || e.closest("label");
    const one = found[frame.clientWidth] = {
      overflow: d.documentElement.scrollWidth - d.documentElement.clientWidth,
      wide: wide.map((e) => e.outerHTML.slice(0, 80)),
      requests: requests.filter((name) => !name.startsWith("data:")),
      viewers: d.querySelectorAll(".viewer").length,
      unnamed: [...d.querySelectorAll("button, select, input, [tabindex]")].filter((e) => !named(e)).length,
    };
    const order = () => [...d.querySelector("tbody").rows].map((row) => row.cells[0].textContent);
    const title = d.querySelectorAll("thead button")[1];
    title.click(); one.down = order(); title.click(); one.up = order();
    one.sorted = title.parentElement.getAttribute("aria-sort");
    const viewer = d.querySelector(".viewer"), slider = viewer.querySelector("input");
    slider.value = "20"; slider.dispatchEvent(new w.Event("input"));
    one.clip = viewer.querySelector(".stage img + img").style.clipPath;
    const crop = () => viewer.querySelector("canvas").toDataURL();
    const before = crop(), stage = viewer.querySelector(".stage"), spot = viewer.querySelector(".spot").style.left;
    stage.focus();
    stage.dispatchEvent(new w.KeyboardEvent("keydown", { key: "ArrowLeft", shiftKey: true, bubbles: true }));
    one.moved = crop() !== before && viewer.querySelector(".spot").style.left !== spot;
    one.different = new Set([...viewer.querySelectorAll("canvas")].map((c) => c.toDataURL())).size;
    const along = d.querySelectorAll(".along button"), plots = along[0].closest(".charts").querySelectorAll(".plots");
    along[2].click(); one.along = [...plots].map((p) => p.hidden);
  }
  document.body.append(Object.assign(document.createElement("output"), { textContent: JSON.stringify(found) }));
}, 500));
"""


@browser_needed
def test_in_a_browser_it_works_at_the_width_of_a_phone_and_of_a_desk_without_errors_or_requests(home, tmp_path):
    text = html.escape(compared(home, *ALL))
    frames = "".join(
        f'<iframe style="width:{w}px;height:900px;border:0" srcdoc="{text}"></iframe>' for w in (360, 1280)
    )
    page = tmp_path / "frames.html"
    page.write_text(
        f"<!DOCTYPE html><meta charset=utf-8><body>{frames}<script>{PROBE}</script></body>", encoding="utf-8"
    )
    options = [
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--enable-logging=stderr",
        "--virtual-time-budget=8000",
    ]
    folder = f"--user-data-dir={tmp_path / 'profile'}"
    done = subprocess.run(
        [str(CHROMIUM), *options, folder, "--dump-dom", page.as_uri()], capture_output=True, text=True, timeout=120
    )
    assert "CONSOLE" not in done.stderr
    found = json.loads(html.unescape(re.findall(r"<output>(.*?)</output>", done.stdout)[-1]))
    assert found.keys() == {"360", "1280"}
    for seen in found.values():
        assert seen["overflow"] == 0
        assert seen["wide"] == []
        assert seen["requests"] == []
        assert seen["unnamed"] == 0
        assert seen["viewers"] == 4
        assert (seen["sorted"], seen["down"]) == ("ascending", seen["up"][::-1])
        assert seen["clip"] == "inset(0px 80% 0px 0px)"
        assert seen["moved"]
        assert seen["different"] == 4
        assert seen["along"] == [True, True, False]


def test_every_chart_of_a_page_has_a_file_name_of_its_own(home):
    sections = report.sections_of(read_runs([home / name for name in ALL]))
    names = [chart.name for section in sections for chart in section.charts]
    assert len(set(names)) == len(names)
    assert all(names)
    assert any(isinstance(block, Charts) for section in sections for block in section.blocks)
