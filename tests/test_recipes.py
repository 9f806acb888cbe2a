"""A recipe makes the same picture from the same seed, whatever surrounds it; mistakes in a recipe are named."""

import hashlib
import textwrap
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from unblur.blur.camera import add_noise, from_linear_light, jpeg, round_to_8bit, to_linear_light
from unblur.blur.kernels import convolve, gaussian_kernel
from unblur.blur.kinds import Varying
from unblur.blur.recipes import (
    Recipe,
    blur_batch,
    blur_windows,
    built_in_recipes,
    kernel_of,
    load_recipe,
    sample_seed,
)
from unblur.data.pairs import resized, to_batch
from unblur.errors import SettingsError, UnknownName
from unblur.images import find_photos, read_rgb8
from unblur.metrics import psnr

BUILT_IN = built_in_recipes()
EVERY = pytest.mark.parametrize("recipe", BUILT_IN.values(), ids=BUILT_IN.keys())
OF_PURE_BLUR = pytest.mark.parametrize(
    "recipe", [r for r in BUILT_IN.values() if not (r.noise or r.jpeg)], ids=lambda recipe: recipe.name
)
ONE_STEP = 1.01 / 255


def made_of(**parts: object) -> Recipe:
    return Recipe.model_validate({"name": "ours", **parts})


def seeds(count: int, seed: int = 1) -> list[int]:
    return [sample_seed(seed, index) for index in range(count)]


def written(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    return path


def assert_same_to_8_bit(first: Tensor, second: Tensor) -> None:
    """Assert equality, but for a few values in a thousand that lay on the border between two steps."""
    torch.testing.assert_close(first, second, atol=ONE_STEP, rtol=0)
    assert ((first - second).abs() > 1e-6).float().mean() < 2e-3


# -- What every recipe obeys -------------------------------------------------------------------------------------------


def test_the_promised_recipes_exist():
    promised = {"gaussian-triple", "gaussian-0-3", "gaussian-2.5", "motion-9", "defocus-2.5", "everyday"}
    assert promised <= BUILT_IN.keys()
    assert all(load_recipe(name).name == name for name in promised)


@EVERY
def test_a_picture_does_not_depend_on_its_batch(recipe, photograph):
    numbers = seeds(4)
    batch = torch.stack([photograph, photograph.flip(1), photograph.flip(2), photograph.flip(1, 2)])
    together = blur_batch(batch, recipe, numbers)
    for index in (3, 1):
        alone = blur_batch(batch[index : index + 1], recipe, numbers[index : index + 1])[0]
        assert_same_to_8_bit(alone, together[index])


@EVERY
def test_the_same_seed_makes_the_same_picture(recipe, photograph):
    batch = photograph.expand(3, -1, -1, -1)
    assert torch.equal(blur_batch(batch, recipe, seeds(3)), blur_batch(batch, recipe, seeds(3)))


@pytest.mark.parametrize("name", ["everyday", "gaussian-0-3", "motion-9"])
def test_another_seed_makes_another_picture(name, photograph):
    pictures = blur_batch(photograph.expand(12, -1, -1, -1), load_recipe(name), seeds(12))
    assert len({hashlib.sha256(picture.numpy().tobytes()).digest() for picture in pictures}) >= 10


@EVERY
def test_blurred_pictures_hold_8_bit_values(recipe, photograph):
    blurred = blur_batch(photograph.expand(8, -1, -1, -1), recipe, seeds(8))
    assert torch.equal(blurred, round_to_8bit(blurred))
    assert blurred.dtype == torch.float32
    assert blurred.is_contiguous() or blurred.is_contiguous(memory_format=torch.channels_last)


@EVERY
def test_the_sharp_pictures_are_left_as_they_were(recipe, photograph):
    batch = photograph.expand(4, -1, -1, -1).clone()
    blur_batch(batch, recipe, seeds(4))
    assert torch.equal(batch, photograph.expand(4, -1, -1, -1))


@EVERY
def test_autocast_around_a_recipe_changes_nothing(recipe, photograph):
    batch = photograph.expand(6, -1, -1, -1)
    with torch.autocast("cpu", torch.bfloat16):
        within = blur_batch(batch, recipe, seeds(6))
    assert torch.equal(within, blur_batch(batch, recipe, seeds(6)))


@EVERY
def test_blurring_leaves_the_global_generator_alone(recipe, photograph):
    before = torch.get_rng_state()
    blur_batch(photograph.expand(4, -1, -1, -1), recipe, seeds(4))
    assert torch.equal(before, torch.get_rng_state())


@EVERY
@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 3), (9, 30)])
def test_a_picture_of_any_size_is_blurred(recipe, height, width):
    batch = torch.rand(8, 3, height, width, generator=torch.Generator().manual_seed(1))
    blurred = blur_batch(batch, recipe, seeds(8))
    assert blurred.shape == batch.shape
    assert torch.isfinite(blurred).all()


@OF_PURE_BLUR
def test_a_crop_with_the_margin_is_blurred_like_the_whole_picture(recipe, photograph):
    margin, side = recipe.margin_px, 32
    for kind in range(len(recipe.kinds)):
        whole = blur_batch(photograph[None], recipe, [7], kind=kind)[0]
        top, left = 20 + margin, 30 + margin
        cut = photograph[:, top - margin : top + side + margin, left - margin : left + side + margin]
        crop = blur_batch(cut[None], recipe, [7], kind=kind, margin_px=margin)[0]
        assert_same_to_8_bit(crop, whole[:, top : top + side, left : left + side])


@EVERY
@pytest.mark.parametrize("margin", [1, 9, 40])
def test_a_margin_is_blurred_with_the_rest_and_cut_off(recipe, margin, photograph):
    pure = recipe.model_copy(update={"noise": None, "jpeg": None})
    for kind in range(len(pure.kinds)):
        whole = blur_batch(photograph[None], pure, [7], kind=kind)[0]
        inner = blur_batch(photograph[None], pure, [7], kind=kind, margin_px=margin)[0]
        assert_same_to_8_bit(inner, whole[:, margin:-margin, margin:-margin])


@EVERY
def test_labels_tell_the_kinds_of_a_recipe_apart(recipe):
    assert len({kind.label for kind in recipe.kinds}) == len(recipe.kinds)


# -- What the built-in ones do -----------------------------------------------------------------------------------------


def test_only_the_triple_asks_for_every_picture_once_with_each_kind():
    assert [name for name, recipe in BUILT_IN.items() if recipe.each_kind] == ["gaussian-triple"]


@pytest.mark.parametrize(("kind", "size", "sigma"), [(0, 3, 0.3), (1, 7, 1.0), (2, 11, 1.6)])
def test_the_triple_is_opencvs_gaussian_blur_on_8_bit(kind, size, sigma, photograph):
    blurred = blur_batch(photograph[None], load_recipe("gaussian-triple"), [1], kind=kind)[0]
    pixels = photograph.permute(1, 2, 0).numpy()
    opencvs = cv2.GaussianBlur(pixels, (size, size), sigma, borderType=cv2.BORDER_REFLECT_101)
    assert_same_to_8_bit(blurred, round_to_8bit(torch.from_numpy(opencvs).permute(2, 0, 1)))


def test_the_three_levels_of_the_triple_score_what_is_known_of_them(data_root):
    if not (data_root / "eval-dev").is_dir():
        pytest.skip(f"no eval-dev in {data_root}")
    recipe, scores = load_recipe("gaussian-triple"), []
    for index, path in enumerate(find_photos(data_root / "eval-dev")):
        sharp = to_batch([resized(read_rgb8(path), (448, 256))]).float() / 255
        blurred = [blur_batch(sharp, recipe, [sample_seed(0, index)], kind=kind)[0] for kind in range(3)]
        scores.append([float(psnr(picture, sharp[0])) for picture in blurred])
    light, middle, strong = np.mean(scores, axis=0)
    assert light == pytest.approx(65.5, abs=0.3)
    assert middle == pytest.approx(26.9, abs=0.05)
    assert strong == pytest.approx(24.1, abs=0.05)


def test_everyday_leaves_some_pictures_sharp_and_blurs_most(photograph):
    crop = photograph[:, :32, :32]
    blurred = blur_batch(crop.expand(300, -1, -1, -1), load_recipe("everyday"), seeds(300))
    unchanged = sum(bool(torch.equal(picture, round_to_8bit(crop))) for picture in blurred)
    assert 12 <= unchanged <= 60  # 1.25 of 10 are not blurred, of these some are noisy or packed


def test_kinds_are_drawn_in_proportion_to_their_weights():
    recipe = made_of(kinds=[{"blur": "none", "weight": 3}, {"blur": "gaussian", "sigma": 2, "weight": 1}])
    sharp = (torch.arange(64).reshape(8, 8) % 2).float().expand(800, 3, 8, 8)
    blurred = blur_batch(sharp, recipe, seeds(800))
    assert float((blurred == sharp).all(dim=(1, 2, 3)).float().mean()) == pytest.approx(0.75, abs=0.05)


def test_light_is_blurred_as_light_where_the_recipe_says_so():
    point = torch.zeros(1, 3, 9, 9)
    point[..., 4, 4] = 1
    kinds = [{"blur": "gaussian", "sigma": 1}]
    grey_values, light = (blur_batch(point, made_of(kinds=kinds, linear_light=share), [1]) for share in (0, 1))
    gathered = convolve(to_linear_light(point), gaussian_kernel(1.0, 9))
    torch.testing.assert_close(light, round_to_8bit(from_linear_light(gathered)), atol=ONE_STEP, rtol=0)
    assert light[0, 0, 4, 4] > 1.5 * grey_values[0, 0, 4, 4]


def test_noise_differs_between_pictures_and_falls_on_its_share():
    recipe = made_of(kinds=[{"blur": "none"}], noise={"share": 0.5, "read": 0.05})
    grey = torch.full((200, 3, 12, 12), 128 / 255)
    noisy = blur_batch(grey, recipe, seeds(200))
    spread = noisy.std(dim=(1, 2, 3))
    assert 70 <= int((spread > 0).sum()) <= 130
    assert spread[spread > 0].mean() == pytest.approx(0.05, rel=0.05)
    assert len({picture.numpy().tobytes() for picture in noisy[spread > 0]}) == int((spread > 0).sum())


def test_jpeg_falls_on_its_share(photograph):
    recipe = made_of(kinds=[{"blur": "none"}], jpeg={"share": 0.5, "quality": 40})
    crop = photograph[:, :32, :32]
    packed = blur_batch(crop.expand(100, -1, -1, -1), recipe, seeds(100))
    changed = (packed != round_to_8bit(crop)).any(dim=3).any(dim=2).any(dim=1)
    assert 30 <= int(changed.sum()) <= 70
    assert packed[changed].unique(dim=0).shape[0] == 1  # the same quality makes the same picture


# -- What shipped weights learnt from ----------------------------------------------------------------------------------

LEARNT_FROM = {
    "gaussian-triple": "bb1aababbb1aababbb1aababba23acaaba23acaaba23acaabb1aababb913acabba23acaab913acabb913acab",
    "gaussian-0-3": "ba23acaab531ada7ba15ababb82baca8bb1fabaab82aaca8ba25aca9bb1bababba26aca9bb19ababb913acab",
    "gaussian-2.5": "b62fada7b62fada7b62fada7b62fada7b62fada7b62fada7b62fada7b62fada7b62fada7b62fada7b62fada7",
    "motion-9": "ba1ea7a6b920a9a4b929aaaaba1fa7a6ba27b0abb929aaabbd32b1acbb29b0abba22aca7ba20a8a7b929abab",
    "defocus-2.5": "bb20ababbb20ababbb20ababbb20ababbb20ababbb20ababbb20ababbb20ababbb20ababbb20ababbb20abab",
    "sharp": "b913acabb913acabb913acabb913acabb913acabb913acabb913acabb913acabb913acabb913acabb913acab",
    "everyday": "b838b4adbc18a9ab6f4aa9aeb913abaeae23b6ad9480c8928067c18bba15ababb913acabba32aca9b914acab",
}
"""The green of four places in 11 pictures of each recipe, made by version 0.1 when the weights were trained."""


@pytest.mark.parametrize("name", LEARNT_FROM)
def test_recipes_that_weights_learnt_from_still_make_the_same_pictures(name, photograph):
    blurred = blur_batch(photograph.expand(11, -1, -1, -1), load_recipe(name), seeds(11))
    now = (blurred[:, 1, 24:96:48, 31:128:64] * 255).round().flatten().numpy()
    then = np.frombuffer(bytes.fromhex(LEARNT_FROM[name]), dtype=np.uint8).astype(float)
    assert np.abs(now - then).max() <= 1, "another machine may round the last bit otherwise, and no more"
    assert (now != then).mean() <= 0.05


# -- Blur that differs from place to place, and layers in layers -------------------------------------------------------

VARYING = {
    "rotation": {"blur": "rotation", "roll_px": [2, 6], "extent_px": [0, 5]},
    "depth": {"blur": "depth", "of": {"blur": "shake", "extent_px": 12}},
    "layers": {"blur": "layers", "near": {"blur": "motion", "length_px": 15}, "far": {"blur": "none"}},
}


@pytest.mark.parametrize("kind", VARYING.values(), ids=VARYING.keys())
def test_a_varying_blur_harms_some_places_more_than_others(kind):
    texture = torch.rand(3, 128, 128, generator=torch.Generator().manual_seed(1)).expand(8, -1, -1, -1)

    def unevenness(recipe: Recipe) -> Tensor:
        harm = (blur_batch(texture, recipe, seeds(8)) - texture).square().mean(dim=1, keepdim=True)
        places = torch.nn.functional.avg_pool2d(harm, 32).flatten(1)
        return places.std(dim=1) / places.mean(dim=1)

    uniform = unevenness(made_of(kinds=[{"blur": "shake", "extent_px": 8}]))
    assert (unevenness(made_of(kinds=[kind])) > 1.5 * uniform.max()).float().mean() >= 0.5


@pytest.mark.parametrize("kind", VARYING.values(), ids=VARYING.keys())
def test_a_varying_blur_keeps_its_light_within_its_canvas(kind):
    recipe = made_of(kinds=[kind])
    side = 2 * recipe.margin_px + 21
    point = torch.zeros(12, 3, side, side)
    point[..., side // 2, side // 2] = 1
    lit = blur_batch(point, recipe, seeds(12)) > 2 / 255  # what is guessed behind layers comes from farther away
    rows, columns = torch.nonzero(lit.any(dim=1).any(dim=0)).unbind(1)
    for place in (rows, columns):
        assert int((place - side // 2).abs().max()) <= recipe.margin_px


def test_layers_whose_blurs_are_alike_are_the_uniform_blur_where_one_layer_covers_all(photograph):
    motion = {"blur": "motion", "length_px": 9, "angle_deg": 30}
    layered = made_of(kinds=[{"blur": "layers", "near": motion, "far": {"blur": "none"}, "cover": 1.0}])
    assert_same_to_8_bit(
        blur_batch(photograph[None], layered, [5]), blur_batch(photograph[None], made_of(kinds=[motion]), [5])
    )


def test_depth_blurs_the_nearest_layer_like_its_kind_and_the_farthest_by_its_share(photograph):
    motion = {"blur": "motion", "length_px": 9, "angle_deg": 30}
    alike = made_of(kinds=[{"blur": "depth", "of": motion, "far": 1.0, "cover": 0.0, "layers": 2}])
    assert_same_to_8_bit(
        blur_batch(photograph[None], alike, [5]), blur_batch(photograph[None], made_of(kinds=[motion]), [5])
    )
    level = {**motion, "angle_deg": 0}
    sharp_behind = made_of(kinds=[{"blur": "depth", "of": level, "far": 0.0, "cover": 0.0, "layers": 2}])
    harm = (blur_batch(photograph[None], sharp_behind, [5])[0] - photograph).abs()
    assert harm.mean() < 2e-3, "a tenth of a percent of the picture may lie in the nearer layer"


def test_the_kernel_of_a_sample_is_that_which_blurs_it(photograph):
    recipe = made_of(kinds=[{"blur": "shake", "extent_px": 9}, {"blur": "trajectory", "extent_px": 12}])
    for seed in seeds(6):
        expected = round_to_8bit(convolve(photograph[None], kernel_of(recipe, seed)))
        assert_same_to_8_bit(blur_batch(photograph[None], recipe, [seed]), expected)
    with pytest.raises(SettingsError, match=r"ours: rotation-2-6 has another kernel at every place"):
        kernel_of(made_of(kinds=[VARYING["rotation"]]), 1)


def test_saturated_places_spill_over_and_the_rest_does_not_change():
    scene = torch.full((1, 3, 21, 41), 0.2)
    scene[..., 10, 10] = 1.0  # a lamp
    scene[..., 10, 30] = 0.9  # a bright wall
    kinds = [{"blur": "motion", "length_px": 9, "angle_deg": 0}]
    plain, lit = (
        blur_batch(scene, made_of(kinds=kinds, linear_light=1.0, **more), [3])[0, 0, 10]
        for more in ({}, {"saturation": {"gain": 8}})
    )
    assert (lit[6:15] > plain[6:15] + 0.2).all()
    assert torch.equal(lit[20:], plain[20:])
    assert lit[6:15].min() > 0.9, "the streak of a lamp is about as bright as the lamp"


def test_saturation_leaves_the_unblurred_as_they_are(photograph):
    recipe = made_of(kinds=[{"blur": "none"}, VARYING["layers"]], linear_light=0.5, saturation={"gain": [1, 9]})
    dark = (photograph * 0.95).mul(255).round() / 255
    assert torch.equal(blur_batch(dark.expand(6, -1, -1, -1), recipe, seeds(6), kind=0), dark.expand(6, -1, -1, -1))


def test_handheld_has_all_that_happens_to_a_camera_in_a_hand(photograph):
    recipe = load_recipe("handheld")
    assert {kind.blur for kind in recipe.kinds} >= {
        "shake", "trajectory", "motion", "rotation", "depth", "layers", "defocus", "gaussian", "none",
    }  # fmt: skip
    assert recipe.linear_light > 0.5
    assert recipe.saturation
    crop = photograph[:, :48, :48]
    blurred = blur_batch(crop.expand(150, -1, -1, -1), recipe, seeds(150))
    unchanged = sum(bool(torch.equal(picture, round_to_8bit(crop))) for picture in blurred)
    assert 3 <= unchanged <= 30  # an eighth is not blurred, of these some are noisy or packed


# -- Windows of frames -------------------------------------------------------------------------------------------------


def moving(photograph: Tensor, frames: int) -> Tensor:
    """Return windows of a picture that moves a pixel to the left with each frame, (3, frames, 3, 64, 64)."""
    window = torch.stack([photograph[:, 10:74, t : t + 64] for t in range(frames)])
    return torch.stack([window, window.flip(1), window.flip(2)])


def test_a_window_is_the_mean_of_the_light_of_frames_around_its_middle(photograph):
    recipe = made_of(kinds=[{"blur": "none"}], windows={"frames": [7, 7], "gamma": 2.2})
    frames = moving(photograph, 11)
    blurred, sharp = blur_windows(frames, recipe, seeds(3))
    assert torch.equal(sharp, frames[:, 5])
    expected = from_linear_light(to_linear_light(frames[:, 2:9]).mean(dim=1))
    torch.testing.assert_close(blurred, round_to_8bit(expected), atol=ONE_STEP, rtol=0)


def test_the_number_of_frames_is_drawn_and_each_odd_one_has_its_turn(photograph):
    recipe = made_of(kinds=[{"blur": "none"}], windows={"frames": [3, 25], "gamma": 1.0})
    window = torch.zeros(1, 11, 3, 1, 1)
    window[:, 5] = 1.0  # only the middle frame is lit: the mean tells how many there were
    blurred, _ = blur_windows(window.expand(100, -1, -1, -1, -1), recipe, seeds(100))
    counts = (1 / blurred[:, 0, 0, 0]).round().int().tolist()
    assert set(counts) == {3, 5, 7, 9, 11}


def test_a_window_gets_the_noise_and_jpeg_of_the_recipe(photograph):
    frames = moving(photograph, 5)
    plain, noisy, packed = (
        blur_windows(frames, made_of(kinds=[{"blur": "none"}], **more), seeds(3))[0]
        for more in ({}, {"noise": {"read": 0.02}}, {"jpeg": {"quality": 40}})
    )
    assert float((noisy - plain).std()) == pytest.approx(0.02, rel=0.1)
    torch.testing.assert_close(packed, jpeg(plain, 40), atol=ONE_STEP, rtol=0)


def test_a_window_does_not_depend_on_its_batch_and_needs_a_middle_and_a_seed(photograph):
    recipe, frames = load_recipe("handheld"), moving(photograph, 9)
    together, _ = blur_windows(frames, recipe, seeds(3))
    alone, _ = blur_windows(frames[1:2], recipe, seeds(3)[1:2])
    assert_same_to_8_bit(alone[0], together[1])
    with pytest.raises(ValueError, match="3 windows need as many seeds, not 1"):
        blur_windows(frames, recipe, [1])
    with pytest.raises(ValueError, match="odd number of frames, not 8"):
        blur_windows(frames[:, :8], recipe, seeds(3))


# -- Seeds -------------------------------------------------------------------------------------------------------------


def test_seeds_of_neighbours_are_all_different_and_spread_evenly():
    numbers = [sample_seed(seed, index) for seed in range(20) for index in range(200)]
    assert len(set(numbers)) == 4000
    assert np.mean(numbers) / 2**56 == pytest.approx(0.5, abs=0.03)
    assert max(Counter(number % 7 for number in numbers).values()) < 700


def test_a_seed_fits_into_the_int64_of_a_batch():
    assert all(0 <= sample_seed(seed, index) < 2**63 for seed in (0, -1, 10**12) for index in (0, -5, 10**9))


def test_as_many_seeds_as_pictures_are_needed(photograph):
    with pytest.raises(ValueError, match="2 pictures need as many seeds, not 1"):
        blur_batch(photograph.expand(2, -1, -1, -1), load_recipe("motion-9"), [1])


# -- Recipes in files, and mistakes in them ----------------------------------------------------------------------------


def test_a_recipe_file_is_named_after_itself_and_does_what_it_says(tmp_path, photograph):
    path = written(tmp_path, "kinds:\n  - {blur: gaussian, sigma: 2.5}\n")
    recipe = load_recipe(path)
    assert recipe.name == "mine"
    built_in = blur_batch(photograph[None], load_recipe("gaussian-2.5"), [3])
    assert torch.equal(blur_batch(photograph[None], recipe, [3]), built_in)


def test_a_recipe_file_may_give_a_name_of_its_own(tmp_path):
    assert load_recipe(str(written(tmp_path, "name: soft\nkinds: [{blur: none}]\n"))).name == "soft"


@pytest.mark.parametrize(("wrong", "right"), [("evryday", "everyday"), ("gaussian_triple", "gaussian-triple")])
def test_an_unknown_recipe_is_answered_with_the_nearest_one(wrong, right):
    with pytest.raises(UnknownName, match=f"No recipe is called '{wrong}'. Did you mean '{right}'"):
        load_recipe(wrong)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kinds: [{blur: gaussian, sgima: 1}]", r"'kinds.0.gaussian.sgima'. Did you mean 'sigma'\?"),
        ("kinds: [{blur: motion, lenght_px: 1}]", "Did you mean 'length_px'"),
        ("kinds: [{blur: none}]\nnoise: {raed: 0.1}", "unknown key 'noise.raed'. Did you mean 'read'"),
        ("kind: [{blur: none}]", "unknown key 'kind'. Did you mean 'kinds'"),
        ("kinds: [{blur: gausian, sigma: 1}]", "Did you mean 'gaussian'"),
        ("kinds: [{sigma: 1}]", "blur"),
        ("kinds: [{blur: gaussian}]", "'kinds.0.gaussian.sigma' is missing"),
        ("kinds: [{blur: gaussian, sigma: [3, 1]}]", r"sigma: \[3.0, 1.0\] runs downwards"),
        ("kinds: [{blur: none}]\nnoise: {read: [0.2, 0.1]}", "read: .* runs downwards"),
        ("kinds: [{blur: none}]\njpeg: {quality: [90, 70]}", "quality: .* runs downwards"),
        ("kinds: [{blur: gaussian, sigma: 1, size: 4}]", "must be odd"),
        ("kinds: [{blur: none, weight: 0}]", "greater than 0"),
        ("kinds: [{blur: none}]\nlinear_light: 2", "less than or equal to 1"),
        ("kinds: [{blur: gaussian, sigma: strong}]", "strong"),
        ("kinds: []", "'kinds'"),
        ("kinds: [{blur: layers, near: {blur: none}, far: {blur: motion, lenght_px: 3}}]", "Did you mean 'length_px'"),
        ("kinds: [{blur: layers, near: {blur: none, weight: 2}, far: {blur: none}}]", "weigh the outer one"),
        ("kinds: [{blur: depth, of: {blur: gaussian, sigma: [3, 1]}}]", r"sigma: \[3.0, 1.0\] runs downwards"),
        ("kinds: [{blur: depth, of: {blur: none}}]", "unknown kind, 'none'"),
        ("kinds: [{blur: rotation, roll_px: 3, pivot: -1}]", "pivot: -1 is negative"),
        ("kinds: [{blur: none}]\nsaturation: {gain: 0.5}", "gain: what is brighter than white has at least 1"),
        ("kinds: [{blur: none}]\nwindows: {frames: [4, 8]}", "must be odd"),
        ("- 1", "holds list"),
        ("", "holds NoneType"),
        ("kinds: [", "not valid YAML"),
    ],
)
def test_a_mistake_in_a_recipe_is_named_with_its_file(tmp_path, text, message):
    with pytest.raises(SettingsError, match=message) as caught:
        load_recipe(written(tmp_path, text))
    assert str(caught.value).startswith(str(tmp_path / "mine.yaml"))
    assert "\n" not in str(caught.value)


def test_a_key_of_another_kind_of_blur_is_not_offered(tmp_path):
    with pytest.raises(SettingsError, match=r"unknown key 'kinds.0.gaussian.radius_px'") as caught:
        load_recipe(written(tmp_path, "kinds: [{blur: gaussian, sigma: 1, radius_px: 2}]"))
    assert "Did you mean 'radius_px'" not in str(caught.value)


def test_a_missing_recipe_file_is_named(tmp_path):
    with pytest.raises(SettingsError, match=r"nowhere.yaml does not exist"):
        load_recipe(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize("name", sorted(built_in_recipes()))
def test_light_is_blurred_on_the_device_of_the_pictures(name):
    # The device `meta` refuses to mix with tensors of the CPU, as a GPU does: whatever is made elsewhere shows here.
    recipe = load_recipe(name)
    canvas = 2 * recipe.margin_px + 1
    sharp = torch.empty(2, 3, 40, 36, device="meta")
    for kind in recipe.kinds:
        drawn = kind.draw(torch.Generator().manual_seed(1))
        numbers = torch.tensor([drawn, drawn]).to("meta")
        if isinstance(kind, Varying):
            light = kind.blurred(sharp, numbers, margin_px=8)
            assert light.shape == (2, 3, 24, 20)
            assert light.device.type == "meta"
            continue
        made = kind.kernels(numbers, canvas)
        assert made.device.type == "meta"
        assert made.shape == (2, canvas, canvas)
    blurred = convolve(to_linear_light(sharp), made)
    blurred = add_noise(from_linear_light(blurred), 0.01, torch.full((2,), 0.1, device="meta"), sharp)
    blurred = jpeg(round_to_8bit(blurred), torch.full((2,), 90.0, device="meta"))
    assert blurred.shape == sharp.shape
    assert blurred.device.type == "meta"
