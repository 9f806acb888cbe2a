"""`score` and `evaluate`: what is judged is files, nothing is computed twice, and nothing is mixed up."""

import csv
import json
import multiprocessing
import statistics
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image
from torch import Tensor, nn

from golden import fill
from unblur import evaluation, models, weights
from unblur.blur.recipes import blur_batch, load_recipe, sample_seed
from unblur.data.catalog import open_dataset
from unblur.errors import DataError, OutputError, SettingsError, UnknownName, WeightsError
from unblur.evaluation import BLURRED_INPUT, Evaluation, evaluate, fingerprint_of, score
from unblur.metrics import psnr, ssim_wang
from unblur.restorer import Restorer

TRIPLE = load_recipe("gaussian-triple")
BLUR = load_recipe("gaussian-2.5")
LEVELS = [kind.label for kind in TRIPLE.kinds]


class Network(nn.Module):
    """Adds `change` to the picture and counts how often it is asked."""

    def __init__(self, change: float = 0.0) -> None:
        super().__init__()
        self.change = nn.Parameter(torch.tensor(change))
        self.num_calls = 0

    def forward(self, blurred: Tensor) -> Tensor:
        self.num_calls += 1
        return blurred + self.change


@pytest.fixture
def networks(monkeypatch: pytest.MonkeyPatch) -> dict[str, Network]:
    """The networks that `weights.load` finds, by name."""
    known = {"identity": Network(), "brighter": Network(0.1)}

    def load(name_or_file: str | Path) -> nn.Module:
        if str(name_or_file) not in known:
            raise UnknownName("model", str(name_or_file), known)
        return known[str(name_or_file)].eval()

    monkeypatch.setattr(weights, "load", load)
    return known


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of three sharp photographs of different sizes, one of them in a subfolder."""
    astronaut, coffee = skimage.data.astronaut(), skimage.data.coffee()
    save(tmp_path / "photos/a.png", astronaut[100:130, 180:220])
    save(tmp_path / "photos/below/b.png", coffee[100:124, 150:190])
    save(tmp_path / "photos/c.png", astronaut[300:325, 200:225])
    return tmp_path / "photos"


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """A folder of two pairs, blur/ and sharp/."""
    for name, top in (("first", 40), ("second", 200)):
        sharp = skimage.data.astronaut()[top : top + 32, 180:216]
        save(tmp_path / f"pairs/sharp/{name}.png", sharp)
        save(tmp_path / f"pairs/blur/{name}.png", cv2.GaussianBlur(sharp, (7, 7), 1.0))
    return tmp_path / "pairs"


def save(path: Path, picture: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def without_cost(found: Evaluation) -> dict[str, Any]:
    """Everything but the seconds and bytes, which are never the same twice."""
    result = found.to_json()
    for row in (result, *result["rows"]):
        row.pop("cost", None)
    return result


def by_hand(restored: Path, sharp: Path) -> float:
    difference = pixels(restored).astype(float) - pixels(sharp).astype(float)
    return 10 * np.log10(255**2 / np.mean(difference**2))


# -- score -------------------------------------------------------------------------------------------------------------


def test_two_folders_are_scored_by_name_one_score_a_picture(pairs):
    scores = score(pairs / "blur", pairs / "sharp")
    assert [image.name for image in scores.images] == ["first", "second"]
    expected = [by_hand(pairs / f"blur/{name}.png", pairs / f"sharp/{name}.png") for name in ("first", "second")]
    assert [image.values["psnr"] for image in scores.images] == pytest.approx(expected)
    assert scores.mean["psnr"] == pytest.approx(statistics.fmean(expected))
    assert scores.median["psnr"] == pytest.approx(statistics.median(expected))
    assert scores.std["psnr"] == pytest.approx(np.std(expected))
    assert scores.min["psnr"] == pytest.approx(min(expected))


def test_two_files_are_scored(pairs):
    blurred, sharp = pairs / "blur/first.png", pairs / "sharp/first.png"
    scores = score(blurred, sharp)
    assert scores.n == 1
    assert scores.mean["psnr"] == pytest.approx(by_hand(blurred, sharp))
    assert scores.mean["ssim-wang"] == ssim_wang(pixels(blurred), pixels(sharp), data_range=255)
    assert scores.std["psnr"] == 0


def test_the_json_of_a_score_has_the_promised_shape_and_digits(pairs):
    result = json.loads(json.dumps(score(pairs / "blur", pairs / "sharp").to_json(), allow_nan=False))
    assert {"n", "mean", "images", "protocol", "versions"} <= result.keys()
    assert result["n"] == 2
    assert result["mean"].keys() == {"psnr", "ssim-wang"} == result["protocol"].keys()
    assert all(image.keys() == {"name", "psnr", "ssim-wang"} for image in result["images"])
    assert len(str(result["mean"]["psnr"])) > 6
    assert result["versions"]["torch"] == torch.__version__


def test_metrics_are_chosen_by_name_and_counted_once(pairs):
    scores = score(pairs / "blur", pairs / "sharp", metrics=["mae", "ssim-matlab3d", "mae"])
    assert list(scores.mean) == ["mae", "ssim-matlab3d"]
    with pytest.raises(UnknownName, match=r"No metric is called 'snr'\. Did you mean 'psnr'\?"):
        score(pairs / "blur", pairs / "sharp", metrics=["snr"])
    with pytest.raises(ValueError, match="a list"):
        score(pairs / "blur", pairs / "sharp", metrics="psnr")


@pytest.mark.parametrize("metric", ["niqe-unblur", "ssim-realblur"])
def test_a_pair_that_is_too_small_for_a_metric_is_named(pairs, metric):
    for side in ("blur", "sharp"):
        save(pairs / side / "second.png", pixels(pairs / side / "second.png")[:9])
    for side in ("blur", "sharp"):
        save(pairs / side / "first.png", skimage.data.astronaut()[:100, :100])
    with pytest.raises(DataError, match=r"The pair 'second' cannot be scored: .* at least .* not 36x9"):
        score(pairs / "blur", pairs / "sharp", metrics=[metric])


def test_identical_pictures_are_counted_because_their_100_db_are_in_the_mean(pairs):
    save(pairs / "blur/first.png", pixels(pairs / "sharp/first.png"))
    scores = score(pairs / "blur", pairs / "sharp")
    assert scores.identical == 1
    assert scores.images[0].values["psnr"] == 100.0
    assert scores.to_json()["identical"] == 1


def test_a_grey_file_scores_like_three_equal_planes(pairs):
    grey = [cv2.cvtColor(pixels(pairs / f"{side}/first.png"), cv2.COLOR_RGB2GRAY) for side in ("blur", "sharp")]
    save(pairs / "grey-blurred.png", grey[0])
    save(pairs / "grey-sharp.png", grey[1])
    expected = psnr(grey[0], grey[1], data_range=255)
    assert score(pairs / "grey-blurred.png", pairs / "grey-sharp.png").mean["psnr"] == pytest.approx(expected)


def test_unequal_sizes_within_a_pair_are_an_error_that_names_the_pair(pairs):
    save(pairs / "blur/second.png", pixels(pairs / "blur/second.png")[:-1])
    with pytest.raises(DataError, match=r"pair 'second' differs in size: .*second\.png is 36x31, .*second\.png 36x32"):
        score(pairs / "blur", pairs / "sharp")


def test_a_file_without_a_partner_is_an_error(pairs):
    (pairs / "sharp/second.png").unlink()
    with pytest.raises(DataError, match="second"):
        score(pairs / "blur", pairs / "sharp")


@pytest.mark.parametrize(("down", "right"), [(0, 0), (2, -1), (-3, 3), (3, 0)])
def test_the_shift_search_finds_a_known_shift(tmp_path, down, right):
    scene = skimage.data.astronaut()[100:150, 150:200]
    save(tmp_path / "sharp.png", scene[5:45, 5:45])
    save(tmp_path / "shifted.png", scene[5 + down : 45 + down, 5 + right : 45 + right])
    found = score(tmp_path / "shifted.png", tmp_path / "sharp.png", shift_px=3)
    assert found.mean == {"psnr": 100.0, "ssim-wang": 1.0}
    if down or right:
        assert score(tmp_path / "shifted.png", tmp_path / "sharp.png").mean["psnr"] < 30
        assert score(tmp_path / "shifted.png", tmp_path / "sharp.png", shift_px=1).mean["psnr"] < 40


def test_all_offsets_of_the_shift_search_are_judged_on_the_same_part_of_the_sharp_picture(pairs):
    blurred, sharp = pairs / "blur/first.png", pairs / "sharp/first.png"
    inside = np.s_[4:-4, 4:-4]
    expected = psnr(pixels(blurred)[inside], pixels(sharp)[inside], data_range=255)  # no offset fits better than none
    scores = score(blurred, sharp, shift_px=4)
    assert scores.mean["psnr"] == expected
    assert "4 px" in scores.to_json()["protocol"]["shift"]


def test_a_shift_that_leaves_nothing_of_a_picture_is_refused(pairs):
    with pytest.raises(DataError, match="'first' is too small for a shift of 16 px"):
        score(pairs / "blur", pairs / "sharp", shift_px=16)
    with pytest.raises(ValueError, match="shift_px is -1"):
        score(pairs / "blur", pairs / "sharp", shift_px=-1)


# -- evaluate ----------------------------------------------------------------------------------------------------------


def test_the_first_row_is_the_blurred_input_and_scores_what_is_computed_by_hand(networks, photos, tmp_path):
    recipe = load_recipe("gaussian-2.5")
    result = evaluate(["identity"], photos, recipe=recipe, seed=3, out=tmp_path / "out")
    assert [row.model for row in result.rows] == [BLURRED_INPUT, "identity"]
    for index, name in enumerate(["a", "below/b", "c"]):
        sharp = torch.from_numpy(pixels(photos / f"{name}.png").copy()).permute(2, 0, 1).float() / 255
        blurred = blur_batch(sharp[None], recipe, [sample_seed(3, index)])[0]
        image = result.rows[0].images[index]
        assert image.name == name
        assert image.values["psnr"] == pytest.approx(psnr(blurred, sharp), abs=1e-6)


def test_a_network_that_changes_nothing_scores_like_the_blurred_input(networks, photos):
    result = evaluate(["identity"], photos, recipe=TRIPLE)
    assert result.rows[1].mean == result.rows[0].mean
    assert networks["identity"].num_calls == 9


def test_what_is_scored_is_the_files_that_are_left_behind(networks, photos, tmp_path):
    result = evaluate(["brighter"], photos, recipe=TRIPLE, out=tmp_path / "out")
    for level in LEVELS:
        again = score(tmp_path / "out/brighter" / level, tmp_path / "out/sharp")
        assert again.mean == result.rows[1].levels[level].mean
        blurred, restored = (pixels(tmp_path / "out" / row / level / "a.png") for row in ("blurred-input", "brighter"))
        assert np.array_equal(restored, np.clip(np.rint(blurred + 25.5 + 1e-4), 0, 255))


def test_every_picture_is_taken_at_every_level_and_levels_are_reported_apart(networks, photos):
    row = evaluate(["identity"], photos, recipe=TRIPLE).rows[0]
    assert row.n == 9
    assert list(row.levels) == LEVELS
    assert all(level.n == 3 for level in row.levels.values())
    means = [level.mean["psnr"] for level in row.levels.values()]
    assert means == sorted(means, reverse=True)  # more blur, less score
    assert row.mean["psnr"] == pytest.approx(statistics.fmean(means))


def test_a_recipe_without_levels_takes_every_picture_once(networks, photos):
    row = evaluate(["identity"], photos, recipe=load_recipe("everyday")).rows[0]
    assert row.n == 3
    assert row.levels == {}


def test_two_levels_with_the_same_label_are_kept_apart(networks, photos, tmp_path):
    motion = TRIPLE.model_validate(
        {
            "name": "crossed",
            "each_kind": True,
            "kinds": [{"blur": "motion", "length_px": 9, "angle_deg": angle} for angle in (0, 90)],
        }
    )
    row = evaluate(["identity"], photos, recipe=motion, out=tmp_path / "out").rows[0]
    assert list(row.levels) == ["1-motion-9", "2-motion-9"]
    assert len({image.values["psnr"] for image in row.images}) == 6


def test_pictures_are_reduced_by_area_to_the_asked_size(networks, photos, tmp_path):
    evaluate(["identity"], photos, recipe=TRIPLE, size=(20, 12), out=tmp_path / "out")
    expected = cv2.resize(pixels(photos / "a.png"), (20, 12), interpolation=cv2.INTER_AREA)
    assert np.array_equal(pixels(tmp_path / "out/sharp/a.png"), expected)
    assert pixels(tmp_path / f"out/identity/{LEVELS[2]}/below/b.png").shape == (12, 20, 3)


def test_another_seed_is_another_blur_and_the_same_seed_the_same(networks, photos):
    def blurred_input(seed: int) -> list[float]:
        row = evaluate(["identity"], photos, recipe=load_recipe("motion-9"), seed=seed).rows[0]
        return [image.values["psnr"] for image in row.images]

    assert blurred_input(1) == blurred_input(1)
    assert blurred_input(1) != blurred_input(2)


def test_pairs_are_scored_against_their_own_sharp_files(networks, pairs, tmp_path):
    result = evaluate(["brighter"], pairs, out=tmp_path / "out")
    assert result.rows[0].mean == score(pairs / "blur", pairs / "sharp").mean
    assert result.rows[1].mean == score(tmp_path / "out/brighter", pairs / "sharp").mean


def test_pairs_are_not_resized(networks, pairs):
    with pytest.raises(SettingsError, match="size needs a recipe"):
        evaluate(["identity"], pairs, size=(20, 20))


def test_the_shift_is_searched_for_each_row_anew(networks, pairs):
    moved = np.roll(pixels(pairs / "blur/first.png"), 2, axis=1)
    save(pairs / "blur/first.png", moved)

    class MovesBack(Network):
        def forward(self, blurred: Tensor) -> Tensor:
            return blurred.roll(-2, dims=-1)

    networks["moves-back"] = MovesBack()
    without, with_search = (evaluate(["moves-back"], pairs, shift_px=px).rows for px in (0, 3))
    assert without[1].images[0].values["psnr"] > without[0].images[0].values["psnr"] + 3
    difference = with_search[1].images[0].values["psnr"] - with_search[0].images[0].values["psnr"]
    assert abs(difference) < 1  # only a few pixels of border are not the same


def test_progress_counts_every_picture_written_and_scored(networks, photos):
    steps: list[tuple[int, int, str]] = []
    evaluate(["identity"], photos, recipe=TRIPLE, progress=lambda *step: steps.append(step))
    assert [done for done, _, _ in steps] == list(range(1, 37))
    assert {total for _, total, _ in steps} == {36}
    assert steps[0][2] == "blurred input: a"
    assert steps[-1][2] == "identity: c"


def test_a_picture_without_a_readable_name_of_its_own_is_refused(networks, photos):
    Image.open(photos / "a.png").save(photos / "a.jpg")
    with pytest.raises(DataError, match=r"name of another"):
        evaluate(["identity"], photos, recipe=TRIPLE)


def test_an_unknown_model_is_refused_before_anything_is_written(networks, photos, tmp_path):
    with pytest.raises(UnknownName, match="identity"):
        evaluate(["identiti"], photos, recipe=TRIPLE, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match="a list"):
        evaluate("identity", photos, recipe=TRIPLE)
    with pytest.raises(ValueError, match="a list"):
        evaluate([], photos, recipe=TRIPLE)


# -- The folder --------------------------------------------------------------------------------------------------------


def test_the_folder_holds_settings_scores_of_each_picture_and_a_summary(networks, photos, tmp_path):
    result = evaluate(["identity", "brighter"], photos, recipe=TRIPLE, out=tmp_path / "out")
    settings = json.loads((tmp_path / "out/settings.json").read_text())
    assert settings["recipe"]["name"] == "gaussian-triple"
    assert settings["seed"] == 0
    assert {"unblur", "torch", "numpy", "pillow"} <= settings["versions"].keys()
    assert json.loads((tmp_path / "out/summary.json").read_text()) == result.to_json()
    with (tmp_path / "out/scores.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 27
    assert list(lines[0]) == ["model", "level", "name", "psnr", "ssim-wang"]
    assert lines[0]["model"] == BLURRED_INPUT
    assert float(lines[-1]["psnr"]) == result.rows[2].images[-1].values["psnr"]


def test_the_json_of_an_evaluation_leads_with_the_first_model_and_lists_all_rows(networks, photos):
    result = json.loads(
        json.dumps(evaluate(["brighter", "identity"], photos, recipe=TRIPLE).to_json(), allow_nan=False)
    )
    assert [row["model"] for row in result["rows"]] == [BLURRED_INPUT, "brighter", "identity"]
    for key in ("model", "n", "mean", "median", "std", "min", "levels", "images"):
        assert result[key] == result["rows"][1][key]
    assert list(result["levels"]) == LEVELS
    assert result["levels"][LEVELS[0]]["n"] == 3
    assert result["images"][0].keys() == {"name", "level", "psnr", "ssim-wang"}
    assert result["protocol"].keys() == {"psnr", "ssim-wang"}


def test_an_evaluation_that_is_taken_up_again_computes_no_picture_twice(networks, photos, tmp_path):
    first = evaluate(["identity"], photos, recipe=TRIPLE, out=tmp_path / "out")
    (tmp_path / "out/identity" / LEVELS[1] / "a.png").unlink()
    (tmp_path / "out/summary.json").unlink()
    networks["identity"].num_calls = 0
    second = evaluate(["identity"], photos, recipe=TRIPLE, out=tmp_path / "out")
    assert networks["identity"].num_calls == 1
    assert without_cost(second) == without_cost(first)
    assert (tmp_path / "out/summary.json").exists()


@pytest.mark.parametrize("at", [4, 12, 18, 25, 36], ids=lambda at: f"after step {at} of 36")
def test_an_interrupted_evaluation_is_finished_with_the_same_result(networks, photos, tmp_path, at):
    class Stopped(Exception):
        pass

    def stop(done: int, total: int, what: str) -> None:
        if done == at:
            raise Stopped

    with pytest.raises(Stopped):
        evaluate(["identity"], photos, recipe=TRIPLE, out=tmp_path / "out", progress=stop)
    resumed = evaluate(["identity"], photos, recipe=TRIPLE, out=tmp_path / "out")
    assert networks["identity"].num_calls == 9
    assert without_cost(resumed) == without_cost(evaluate(["identity"], photos, recipe=TRIPLE))


@pytest.mark.parametrize(
    ("options", "difference"),
    [
        ({"seed": 2}, "seed was 1, is 2"),
        ({"size": (16, 16)}, "size was absent, is 16x16"),
        ({"metrics": ["psnr"]}, "metrics"),
        ({"recipe": load_recipe("gaussian-2.5")}, "recipe.name was gaussian-triple, is gaussian-2.5"),
        ({"shift_px": 1}, "shift_px was 0, is 1"),
        ({"protocol": "gopro"}, "protocol was plain, is gopro"),
        ({"models": ["identity", "brighter"]}, "models.brighter"),
    ],
)
def test_settings_that_differ_from_those_in_the_folder_are_refused(networks, photos, tmp_path, options, difference):
    def run(**changes: object) -> Evaluation:
        arguments = {"models": ["identity"], "recipe": TRIPLE, "seed": 1, **changes}
        return evaluate(data=photos, out=tmp_path / "out", **arguments)

    run()
    before = (tmp_path / "out/summary.json").read_bytes()
    with pytest.raises(OutputError, match=difference) as error:
        run(**options)
    assert "another folder, or delete" in str(error.value)
    assert (tmp_path / "out/summary.json").read_bytes() == before


def test_other_weights_under_the_same_name_are_refused(networks, photos, tmp_path):
    evaluate(["identity"], photos, recipe=TRIPLE, out=tmp_path / "out")
    networks["identity"] = Network(0.01)
    with pytest.raises(OutputError, match=r"models\.identity"):
        evaluate(["identity"], photos, recipe=TRIPLE, out=tmp_path / "out")


def test_other_pictures_are_refused(networks, photos, tmp_path):
    evaluate(["identity"], photos, recipe=TRIPLE, out=tmp_path / "out")
    (photos / "c.png").unlink()
    with pytest.raises(OutputError, match="pictures"):
        evaluate(["identity"], photos, recipe=TRIPLE, out=tmp_path / "out")


def test_a_folder_with_other_files_is_left_alone(networks, photos, tmp_path):
    save(tmp_path / "mine/photo.png", np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(OutputError, match="no evaluation"):
        evaluate(["identity"], photos, recipe=TRIPLE, out=tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["photo.png"]
    (tmp_path / "file").write_text("text")
    with pytest.raises(OutputError):
        evaluate(["identity"], photos, recipe=TRIPLE, out=tmp_path / "file")


def test_damaged_settings_are_reported(networks, photos, tmp_path):
    (tmp_path / "out").mkdir()
    for damaged in ("{", "[]"):
        (tmp_path / "out/settings.json").write_text(damaged)
        with pytest.raises(OutputError, match=r"settings\.json"):
            evaluate(["identity"], photos, recipe=TRIPLE, out=tmp_path / "out")


def test_files_of_weights_with_the_same_name_have_rows_of_their_own(networks, photos, tmp_path):
    files = [tmp_path / f"runs/{run}/best.safetensors" for run in ("first", "second")]
    for file, change in zip(files, (0.0, 0.05), strict=True):
        file.parent.mkdir(parents=True)
        file.write_bytes(b"")
        networks[str(file)] = Network(change)
    result = evaluate(files, photos, recipe=TRIPLE, out=tmp_path / "out")
    assert [row.model for row in result.rows] == [BLURRED_INPUT, "first/best", "second/best"]
    assert result.rows[1].mean != result.rows[2].mean
    with pytest.raises(SettingsError, match="twice"):
        evaluate([files[0], files[0]], photos, recipe=TRIPLE)


def test_a_model_may_be_called_like_the_folders_beside_it(networks, photos, tmp_path):
    networks["sharp"], networks["blurred-input"] = Network(0.1), Network(0.2)
    result = evaluate(["sharp", "blurred-input"], photos, recipe=TRIPLE, out=tmp_path / "out")
    assert result.rows[0].mean["psnr"] > result.rows[1].mean["psnr"] > result.rows[2].mean["psnr"]
    assert [row.model for row in result.rows] == [BLURRED_INPUT, "sharp", "blurred-input"]


# -- Resuming ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the pictures that are scored, as they are."""
    names: list[str] = []
    original = evaluation._score_files

    def counting(name: str, *arguments: Any) -> dict[str, float]:
        names.append(name)
        return original(name, *arguments)

    monkeypatch.setattr(evaluation, "_score_files", counting)
    return names


def test_what_was_scored_is_not_scored_again(networks, photos, tmp_path, scored):
    first = evaluate(["identity"], photos, recipe=TRIPLE, out=tmp_path / "out")
    assert len(scored) == 18
    scored.clear()
    second = evaluate(["identity"], photos, recipe=TRIPLE, out=tmp_path / "out")
    assert scored == []
    assert second.to_json() == first.to_json()


def test_a_file_that_was_changed_is_scored_anew(networks, photos, tmp_path, scored):
    evaluate(["identity"], photos, recipe=TRIPLE, out=tmp_path / "out")
    scored.clear()
    changed = tmp_path / "out/identity" / LEVELS[0] / "a.png"
    save(changed, 255 - pixels(changed))
    again = evaluate(["identity"], photos, recipe=TRIPLE, out=tmp_path / "out")
    assert scored == ["a"]
    assert again.rows[1].images[0].values["psnr"] < 15


def test_a_journal_that_ends_in_half_a_line_loses_that_line_only(networks, photos, tmp_path, scored):
    first = evaluate(["identity"], photos, recipe=TRIPLE, out=tmp_path / "out")
    journal = tmp_path / "out/journal.jsonl"
    journal.write_bytes(journal.read_bytes()[:-20])
    for _ in range(2):
        scored.clear()
        again = evaluate(["identity"], photos, recipe=TRIPLE, out=tmp_path / "out")
        assert again.to_json() == first.to_json()
    assert scored == []


def test_pass_one_ends_before_pass_two_begins(networks, photos, tmp_path, scored):
    written: list[int] = []

    def look(done: int, total: int, what: str) -> None:
        if not scored:
            written.append(len(list((tmp_path / "out").rglob("*.png"))))

    evaluate(["identity", "brighter"], photos, recipe=TRIPLE, out=tmp_path / "out", progress=look)
    assert written[-1] == 3 + 3 * 9
    assert len(scored) == 27


# -- Protocols ---------------------------------------------------------------------------------------------------------


def test_a_protocol_names_its_metrics_and_is_in_the_result(networks, pairs):
    result = evaluate(["identity"], pairs, protocol="gopro").to_json()
    assert list(result["mean"]) == ["psnr", "ssim-matlab3d", "ssim-wang"]
    assert result["protocol_name"] == "gopro"
    assert "GoPro" in result["protocol"]["benchmark"]
    assert evaluate(["identity"], pairs, protocol="gopro", metrics=["mse"]).rows[0].metrics == ("mse",)
    assert list(score(pairs / "blur", pairs / "sharp", protocol="gopro").mean) == list(result["mean"])
    with pytest.raises(UnknownName, match="gopro"):
        evaluate(["identity"], pairs, protocol="gorpo")


def test_reds_val_300_scores_its_frames_only(networks, tmp_path):
    for frame in range(8, 21):
        for side in ("blur", "sharp"):
            save(tmp_path / f"pairs/{side}/000/{frame:08}.png", skimage.data.astronaut()[frame : frame + 16, 90:110])
    result = evaluate(["identity"], tmp_path / "pairs", protocol="reds-val-300")
    assert [image.name for image in result.rows[0].images] == ["000/00000009", "000/00000019"]
    found = score(tmp_path / "pairs/blur", tmp_path / "pairs/sharp", protocol="reds-val-300")
    assert [image.name for image in found.images] == ["000/00000009", "000/00000019"]
    (tmp_path / "one.png").hardlink_to(tmp_path / "pairs/sharp/000/00000008.png")
    with pytest.raises(DataError, match="No picture belongs to the protocol 'reds-val-300'"):
        score(tmp_path / "one.png", tmp_path / "one.png", protocol="reds-val-300")


def test_realblur_forgives_a_shift_and_the_plain_protocol_does_not(networks, tmp_path):
    scene = skimage.data.astronaut()[60:160, 150:260]
    save(tmp_path / "pairs/sharp/a.png", scene[4:-4, 4:-4])
    save(tmp_path / "pairs/blur/a.png", cv2.GaussianBlur(scene, (0, 0), 1)[6:-2, 3:-5])
    aligned = evaluate(["identity"], tmp_path / "pairs", protocol="realblur").rows[1]
    assert aligned.metrics == ("psnr-realblur", "ssim-realblur")
    assert aligned.mean["psnr-realblur"] > evaluate(["identity"], tmp_path / "pairs").rows[1].mean["psnr"] + 4


def test_dpdd_is_scored_at_16_bits_and_by_its_parts(networks, tmp_path):
    values = np.linspace(20_000, 40_000, 12 * 20 * 3).reshape(12, 20, 3).astype(np.uint16)
    for name, step in (("a", 0), ("b", 30), ("c", 60)):  # less than one step of 8 bits
        for side, change in (("blur", step), ("sharp", 0)):
            path = tmp_path / f"pairs/{side}/{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), (values + np.uint16(change))[..., ::-1])
    np.save(tmp_path / "pairs/indoor_labels.npy", np.array([1]))
    np.save(tmp_path / "pairs/outdoor_labels.npy", np.array([0, 2]))
    metrics = ["psnr-float", "ssim-uniform", "mae"]
    result = evaluate(["identity"], tmp_path / "pairs", protocol="dpdd", metrics=metrics, out=tmp_path / "out")
    assert [image.values["mae"] for image in result.rows[1].images] == pytest.approx(
        [0, 30 / 65535, 60 / 65535], rel=1e-3
    )
    assert {label: part.n for label, part in result.rows[0].levels.items()} == {"outdoor": 2, "indoor": 1}
    assert cv2.imread(str(tmp_path / "out/identity/indoor/b.png"), cv2.IMREAD_UNCHANGED).dtype == np.uint16
    np.save(tmp_path / "pairs/outdoor_labels.npy", np.array([0]))
    with pytest.raises(DataError, match=r"label files .* name 2 places, but there are 3 pictures"):
        evaluate(["identity"], tmp_path / "pairs", protocol="dpdd", metrics=metrics)


def test_a_metric_without_its_weights_ends_an_evaluation_before_it_begins(networks, pairs, tmp_path, monkeypatch):
    monkeypatch.setenv("UNBLUR_HOME", str(tmp_path / "home"))
    with pytest.raises(WeightsError, match="alexnet"):
        evaluate(["identity"], pairs, metrics=["psnr", "lpips-alex"], out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert networks["identity"].num_calls == 0


# -- What the scores come to -------------------------------------------------------------------------------------------


def test_the_share_made_worse_counts_pictures_that_lost_more_than_the_limit(networks, photos):
    networks["slightly"] = Network(0.02)
    result = evaluate(["identity", "slightly"], photos, recipe=TRIPLE)
    kept, brightened = result.to_json()["rows"][1:]
    assert kept["made_worse"] == {"0.5 dB": 0, "3 dB": 0}
    losses = [
        before.values["psnr"] - after.values["psnr"]
        for before, after in zip(result.rows[0].images, result.rows[2].images, strict=True)
    ]
    assert brightened["made_worse"] == {f"{limit:g} dB": sum(loss > limit for loss in losses) / 9 for limit in (0.5, 3)}
    assert 0 < brightened["made_worse"]["3 dB"] < 1


def test_what_was_gained_is_said_of_all_pictures_of_the_worst_and_of_each_level(networks, photos):
    result = evaluate(["brighter"], photos, recipe=TRIPLE)
    found = result.to_json()["rows"][1]
    gains = {
        (after.name, after.level): after.values["psnr"] - before.values["psnr"]
        for before, after in zip(result.rows[0].images, result.rows[1].images, strict=True)
    }
    assert found["gain"] == pytest.approx(statistics.fmean(gains.values()))
    assert found["gain"] == pytest.approx(result.rows[1].mean["psnr"] - result.rows[0].mean["psnr"])
    assert found["worst_5_percent_gain"] == min(gains.values())
    for level in LEVELS:
        of_level = [gain for (_, label), gain in gains.items() if label == level]
        assert found["levels"][level]["gain"] == pytest.approx(statistics.fmean(of_level))
        assert found["levels"][level]["worst_5_percent_gain"] == min(of_level)
        assert found["levels"][level]["made_worse"]["0.5 dB"] == sum(gain < -0.5 for gain in of_level) / 3
    assert "gain" not in result.to_json()["rows"][0]["levels"][LEVELS[0]]


@pytest.fixture
def two_scenes(tmp_path: Path) -> Path:
    """A folder of four pairs, three of them in one folder; what is brighter in the sharp picture differs by scene."""
    sharp = skimage.data.coffee()[100:124, 100:130] // 2
    for name, brighter in (("near/1", 20), ("near/2", 22), ("near/3", 24), ("far/1", 0)):
        save(tmp_path / f"scenes/blur/{name}.png", sharp)
        save(tmp_path / f"scenes/sharp/{name}.png", sharp + np.uint8(brighter))
    return tmp_path / "scenes"


def test_a_scene_counts_once_however_many_pairs_show_it(networks, two_scenes):
    result = evaluate(["brighter"], two_scenes)
    gains = {
        after.name: after.values["psnr"] - before.values["psnr"]
        for before, after in zip(result.rows[0].images, result.rows[1].images, strict=True)
    }
    near = statistics.fmean(gains[f"near/{number}"] for number in (1, 2, 3))
    found = result.to_json()["by_scene"]
    assert found["scenes"]["near"] == {"n": 3, "gain": pytest.approx(near)}
    assert found["scenes"]["far"] == {"n": 1, "gain": gains["far/1"]}
    assert found["gain"] == pytest.approx((near + gains["far/1"]) / 2)
    assert found["worst_gain"] == gains["far/1"] < near


def test_scenes_that_are_given_count_in_place_of_folders(networks, two_scenes, pairs):
    names = ["near/1", "near/2", "near/3", "far/1"]
    given = evaluate(["brighter"], two_scenes, scenes=dict(zip(names, "aabb", strict=True))).to_json()["by_scene"]
    assert {label: scene["n"] for label, scene in given["scenes"].items()} == {"a": 2, "b": 2}
    with pytest.raises(DataError, match="scene of 'near/3' is not given"):
        evaluate(["brighter"], two_scenes, scenes=dict.fromkeys(["near/1", "near/2", "far/1"], "a"))
    assert "by_scene" not in evaluate(["brighter"], pairs).to_json()


def test_photographs_in_folders_are_no_scenes(networks, photos):
    assert "by_scene" not in evaluate(["brighter"], photos, recipe=TRIPLE).to_json()


def test_the_worst_pictures_are_named_with_what_was_gained(networks, photos):
    result = evaluate(["brighter"], photos, recipe=TRIPLE)
    worst = result.to_json()["worst_ten"]
    assert [entry["psnr"] for entry in worst] == sorted(image.values["psnr"] for image in result.rows[1].images)
    assert worst[0]["level"] in LEVELS
    assert worst[0]["gain"] < 0
    assert result.rows[1].worst_5_percent["psnr"] == worst[0]["psnr"]


def test_the_worst_of_a_metric_that_should_be_small_are_its_largest(networks, photos):
    row = evaluate(["brighter"], photos, recipe=TRIPLE, metrics=["psnr", "mse"]).rows[1]
    assert row.worst_5_percent["mse"] == max(image.values["mse"] for image in row.images)


def test_pictures_are_put_together_by_how_blurred_they_are(networks, photos):
    result = evaluate(["identity"], photos, recipe=TRIPLE)
    bands = result.to_json()["by_blur"]
    assert sum(band["n"] for band in bands) == 9
    assert all(band["mean"] == band["blurred"] for band in bands)
    together = sum(band["n"] * band["mean"]["psnr"] for band in bands) / 9
    assert together == pytest.approx(result.rows[0].mean["psnr"])
    means = [band["mean"]["psnr"] for band in bands]
    assert means == sorted(means)


def test_cost_is_measured_in_the_same_run(networks, photos):
    class Convolution(Network):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, blurred: Tensor) -> Tensor:
            return self.conv(blurred)

    networks["convolution"] = Convolution()
    result = evaluate(["convolution", "unsharp"], photos, recipe=TRIPLE, size=(20, 12)).to_json()
    blurred, convolution, unsharp = result["rows"]
    assert "cost" not in blurred
    assert convolution["cost"]["parameters"] == 1 + 3 * 3 * 9 + 3
    assert convolution["cost"]["macs"] == 20 * 12 * 3 * 3 * 9
    assert 0 < convolution["cost"]["seconds"] < 10
    assert convolution["cost"]["device"] == "cpu"
    assert (unsharp["cost"]["parameters"], unsharp["cost"]["macs"]) == (0, None)


class Greedy(Network):
    """Takes 64 MiB for a moment, and 16 MiB of weights all the time."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2**22))

    def forward(self, blurred: Tensor) -> Tensor:
        return blurred + 0 * torch.ones(2**24, device=blurred.device)[0]


def memory_of(order: list[str], photos: Path) -> dict[str, int | None]:
    """Return the memory in MiB of each row of an evaluation of `Greedy` and others."""
    torch.set_num_threads(1)
    weights.load = lambda name: Greedy().eval()
    rows = evaluate(order, photos, recipe=TRIPLE).to_json()["rows"][1:]
    return {row["model"]: row["cost"]["memory"] and row["cost"]["memory"] / 2**20 for row in rows}


@pytest.mark.parametrize("order", [["greedy", "unsharp"], ["unsharp", "greedy"]])
def test_the_memory_of_a_row_is_its_own_whichever_comes_first(photos, order):
    # A process of its own: in this one, tests of commands may have told the allocator to keep what is freed.
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as fresh:
        memory = fresh.submit(memory_of, order, photos).result()
    if memory["greedy"] is None:
        pytest.skip("the system does not tell what a process holds")
    assert 70 <= memory["greedy"] < 110  # 80, and what an allocator rounds or still held
    assert memory["unsharp"] < 16


def test_a_network_restores_in_the_way_that_is_asked_for_and_its_row_says_so(networks, tmp_path):
    options = {"width": 4, "encoder_blocks": [1], "middle_blocks": 1, "decoder_blocks": [1]}
    network = fill(models.create("nafnet", **options)).eval()
    networks["nafnet"] = network
    save(tmp_path / "photos/wide.png", skimage.data.astronaut()[100:124])
    usual = Restorer(network)
    for way, restorer, label in (
        ({}, usual, "nafnet"),
        ({"local_pooling": True}, Restorer(network, local_pooling=True), "nafnet (local pooling)"),
        ({"tile_px": 300}, Restorer(network, tile_px=300), "nafnet (tiles of 300 px)"),
        (
            {"local_pooling": True, "tile_px": 1024},
            Restorer(network, local_pooling=True, tile_px=1024),
            "nafnet (local pooling, tiles of 1024 px)",
        ),
    ):
        home = tmp_path / label
        found = evaluate(["nafnet", "unsharp"], tmp_path / "photos", recipe=BLUR, out=home, **way)
        assert [row.model for row in found.rows] == [BLURRED_INPUT, label, "unsharp"]
        assert found.pictures is not None
        blurred, restored, _ = (files[0].path for files in found.pictures.rows)
        expected = restorer.restore(blurred)
        assert np.array_equal(pixels(restored), np.asarray(expected.to_pil()))
        assert (expected.rgb != usual.restore(blurred).rgb).any() == bool(way)
    networks["plain"] = models.create("reduced_deblurnet")
    with pytest.raises(SettingsError, match="Local pooling is for networks whose authors test so"):
        evaluate(["plain"], tmp_path / "photos", recipe=BLUR, local_pooling=True)


# -- Pairs and pseudo-models -------------------------------------------------------------------------------------------


def test_pairs_of_a_data_set_are_scored_like_their_folder(networks, pairs):
    of_folder = evaluate(["brighter"], pairs)
    of_pairs = evaluate(["brighter"], open_dataset(pairs), data_name="mine/test")
    assert [row.mean for row in of_pairs.rows] == [row.mean for row in of_folder.rows]
    assert of_pairs.settings["data"] == "mine/test"


def test_sharp_photos_without_a_recipe_are_an_error_that_asks_for_one(networks, photos):
    with pytest.raises(DataError, match="recipe"):
        evaluate(["identity"], photos)


def test_the_true_kernel_beats_the_unsharp_mask_and_both_the_blurred_input(photos, tmp_path):
    save(tmp_path / "photos/d.png", skimage.data.coffee()[100:200, 100:220])
    recipe = load_recipe("gaussian-2.5")
    result = evaluate(["unsharp", "wiener-true-kernel"], tmp_path / "photos", recipe=recipe)
    blurred, unsharp, wiener = (row.mean["psnr"] for row in result.rows)
    assert wiener > unsharp + 1 > blurred + 1
    assert result.settings["models"]["unsharp"] == fingerprint_of("unsharp")


def test_the_true_kernel_of_pairs_is_not_known(pairs):
    with pytest.raises(SettingsError, match="wiener-true-kernel needs a recipe"):
        evaluate(["wiener-true-kernel"], pairs)


def test_scores_do_not_depend_on_the_number_of_threads(networks, photos, monkeypatch):
    alone = evaluate(["brighter"], photos, recipe=TRIPLE)
    monkeypatch.setattr(evaluation.os, "sched_getaffinity", lambda _: range(4), raising=False)
    assert without_cost(evaluate(["brighter"], photos, recipe=TRIPLE)) == without_cost(alone)
