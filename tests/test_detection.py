"""Objects in sharp pictures are the truth: frames are matched, counted and kept as promised, whoever looks."""

import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image
from scipy.optimize import linear_sum_assignment

from unblur import detection
from unblur.blur.recipes import load_recipe
from unblur.cli import main
from unblur.detection import (
    Counts,
    Detection,
    Detector,
    Found,
    Search,
    detect,
    detection_table,
    find_detector,
    iou,
    match,
)
from unblur.detection.boxes import count_by_class
from unblur.detection.opencv import CASCADES
from unblur.detection.transformer import Preparation
from unblur.detection.yolo import put_on_canvas
from unblur.errors import DataError, MissingExtra, OutputError, SettingsError, UnknownName, WeightsError
from unblur.evaluation import evaluate

Pixels = np.ndarray[Any, Any]


def random_objects(rng: np.random.Generator, count: int) -> list[Found]:
    """Return objects of two classes with whole-numbered frames, crowded enough to overlap, and scores that differ."""
    scores = rng.permutation(count) / (count + 1)
    corners = rng.integers(0, 12, (count, 2))
    sizes = rng.integers(1, 9, (count, 2))
    return [
        Found("ab"[rng.integers(2)], float(score), (float(x), float(y), float(x + w), float(y + h)))
        for score, (x, y), (w, h) in zip(scores, corners, sizes, strict=True)
    ]


def save(path: Path, picture: Pixels) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)
    return path


# -- Boxes and matching ------------------------------------------------------------------------------------------------


def test_the_overlap_of_boxes_is_that_of_their_pixels():
    rng = np.random.default_rng(0)
    for one, other in zip(random_objects(rng, 60), random_objects(rng, 60), strict=True):
        masks = np.zeros((2, 24, 24), bool)
        for mask, (left, top, right, bottom) in zip(masks, (one.box, other.box), strict=True):
            mask[int(top) : int(bottom), int(left) : int(right)] = True
        assert iou(one.box, other.box) == pytest.approx((masks[0] & masks[1]).sum() / (masks[0] | masks[1]).sum())
        assert iou(one.box, other.box) == iou(other.box, one.box)
        assert iou(one.box, one.box) == 1


def test_a_box_without_area_overlaps_nothing_not_even_itself():
    assert iou((3, 3, 3, 9), (3, 3, 3, 9)) == 0


def test_what_is_found_again_is_all_matched_in_whatever_order_it_is_listed():
    objects = random_objects(np.random.default_rng(1), 20)
    assert len(match(objects, objects[::-1], 0.9)) == 20


@pytest.mark.parametrize("seed", range(5))
def test_matching_keeps_to_the_classes_the_limit_and_one_partner_each_and_never_beats_the_best_assignment(seed):
    rng = np.random.default_rng(seed)
    found, true = random_objects(rng, 15), random_objects(rng, 12)
    pairs = match(found, true, 0.3)
    for taken in zip(*pairs, strict=True):
        assert len({*taken}) == len(taken)
    for index, partner in pairs:
        assert found[index].label == true[partner].label
        assert iou(found[index].box, true[partner].box) >= 0.3
    fits = np.array([[a.label == b.label and iou(a.box, b.box) >= 0.3 for b in true] for a in found])
    assert 0 < len(pairs) <= fits[linear_sum_assignment(fits, maximize=True)].sum()
    left_found = {*range(15)} - {index for index, _ in pairs}
    left_true = {*range(12)} - {partner for _, partner in pairs}
    assert not fits[np.ix_(sorted(left_found), sorted(left_true))].any(), "a pair that fits was left unmatched"


def test_the_order_in_which_objects_are_listed_changes_no_count():
    rng = np.random.default_rng(7)
    found, true = random_objects(rng, 15), random_objects(rng, 12)
    expected = count_by_class(found, true, 0.3)
    for _ in range(5):
        shuffled = [found[i] for i in rng.permutation(15)], [true[i] for i in rng.permutation(12)]
        assert count_by_class(*shuffled, 0.3) == expected


def test_of_two_frames_around_one_object_the_surer_one_is_right_though_the_other_fits_better():
    true = [Found("a", 0.9, (0, 0, 10, 10))]
    found = [Found("a", 0.5, (0, 0, 10, 10)), Found("a", 0.6, (0, 0, 10, 8))]
    assert match(found, true, 0.5) == [(1, 0)]
    assert count_by_class(found, true, 0.5) == {"a": Counts(matched=1, found=2, true=1)}


def test_an_overlap_of_just_the_limit_counts():
    true, found = [Found("a", 0.9, (0, 0, 10, 10))], [Found("a", 0.9, (0, 0, 10, 5))]
    assert match(found, true, 0.5)
    assert not match(found, true, 0.51)


def test_precision_recall_and_f1_are_what_their_definitions_say():
    counts = Counts(matched=3, found=4, true=6)
    assert (counts.precision, counts.recall) == (0.75, 0.5)
    assert counts.f1 == pytest.approx(2 * 0.75 * 0.5 / (0.75 + 0.5))
    assert (Counts(true=2).precision, Counts(true=2).recall, Counts(true=2).f1) == (None, 0, 0)
    assert (Counts(found=2).precision, Counts(found=2).recall, Counts(found=2).f1) == (0, None, 0)
    assert Counts().f1 is None


# -- ONNX files --------------------------------------------------------------------------------------------------------

CANVAS = (96, 128)
BOXES = np.array([[10.0, 20.0, 40.0, 60.0], [60.0, 10.0, 90.0, 70.0]])  # on a picture of 100x80
SCORES, NUMBERS = np.array([0.9, 0.6]), np.array([2, 0])
PICTURE = np.zeros((80, 100, 3), np.uint8)
NAMES = {0: "cat", 1: "dog", 2: "cow"}


def on_canvas() -> Pixels:
    return put_on_canvas(PICTURE, CANVAS)[1].there(BOXES)


def centres(boxes: Pixels) -> Pixels:
    return np.hstack([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]])


def dense(num_rows: int, num_classes: int, objectness: bool) -> Pixels:
    """Return rows in which every frame stands twice, the second time a little moved and less sure, among empty ones."""
    rows = np.zeros((num_rows, 4 + objectness + num_classes), np.float32)
    rows[:, 2:4] = 5
    for index, (frame, score, number) in enumerate(zip(centres(on_canvas()), SCORES, NUMBERS, strict=True)):
        for copy, (moved, less) in enumerate(((0, 1.0), (1, 0.9))):
            row = rows[10 * index + copy]
            row[:4] = frame + np.array([moved, 0, 0, 0])
            row[4 + objectness + number] = less
            row[4 + objectness :] *= 1 if objectness else score
            if objectness:
                row[4] = score
    return rows


def corners_score_class() -> Pixels:
    kept = np.column_stack([on_canvas(), SCORES, NUMBERS])
    return np.vstack([kept, np.zeros((5, 6))])


LAYOUTS: dict[str, Callable[[], Pixels]] = {
    "v8: 1x(4+C)xN": lambda: dense(300, 3, objectness=False).T[None],
    "v5: 1xNx(5+C)": lambda: dense(300, 3, objectness=True)[None],
    "end to end: 1xNx6": lambda: corners_score_class()[None],
    "end to end: Nx6": corners_score_class,
    "v7, end to end: Nx7": lambda: np.column_stack(
        [np.zeros(7), corners_score_class()[:, :4], corners_score_class()[:, [5, 4]]]
    ),
}


def write_onnx(
    path: Path,
    output: Pixels,
    metadata: dict[str, str] | None = None,
    shape: Sequence[int | str] = (1, 3, *CANVAS),
    red_as_score: bool = False,
    half: bool = False,
) -> Path:
    """Write a network that gives `output` whatever it sees; with `red_as_score` times the mean of the red plane."""
    onnx = pytest.importorskip("onnx", reason="ONNX files are made by the package onnx")
    pytest.importorskip("onnxruntime")
    helper, kinds = onnx.helper, onnx.TensorProto
    kind = kinds.FLOAT16 if half else kinds.FLOAT
    nodes = [helper.make_node("Identity", ["frames"], ["output0"])]
    initial = [onnx.numpy_helper.from_array(output.astype(np.float32), "frames")]
    if red_as_score:
        weight = np.zeros((1, 3, 1, 1), np.float32)
        weight[0, 0] = 1
        initial += [onnx.numpy_helper.from_array(weight, "red"), onnx.numpy_helper.from_array(np.array([1]), "flat")]
        nodes = [
            helper.make_node("Conv", ["images", "red"], ["plane"]),
            helper.make_node("ReduceMean", ["plane"], ["mean"], axes=[1, 2, 3], keepdims=0),
            helper.make_node("Reshape", ["mean", "flat"], ["one"]),
            helper.make_node("Mul", ["frames", "one"], ["output0"]),
        ]
    graph = helper.make_graph(
        nodes,
        "detector",
        [helper.make_tensor_value_info("images", kind, list(shape))],
        [helper.make_tensor_value_info("output0", kinds.FLOAT, list(output.shape))],
        initial,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    helper.set_model_props(model, metadata or {})
    onnx.save(model, path)
    return path


def assert_the_known_boxes(found: list[Found], labels: Sequence[str]) -> None:
    assert [one.label for one in found] == list(labels)
    assert [one.score for one in found] == pytest.approx(SCORES, abs=1e-6)
    np.testing.assert_allclose([one.box for one in found], BOXES, atol=1e-4)


@pytest.mark.parametrize("shape", [(80, 100), (33, 97), (200, 31), (1, 1), (96, 128)])
def test_boxes_go_onto_the_canvas_and_back_unchanged_and_the_picture_lies_where_they_say(shape):
    canvas, place = put_on_canvas(np.full((*shape, 3), 255, np.uint8), CANVAS)
    boxes = np.random.default_rng(0).uniform(0, shape[0], (10, 4))
    np.testing.assert_allclose(place.back(place.there(boxes)), boxes, atol=1e-12)
    left, top, right, bottom = place.there(np.array([[0, 0, shape[1], shape[0]]]))[0].round(9)
    assert canvas.shape == (*CANVAS, 3)
    assert (canvas[int(top) : int(bottom), int(left) : int(right)] == 255).all()
    assert (canvas == 255).sum() == 3 * (right - left) * (bottom - top), "all around it is grey"
    assert right - left == CANVAS[1] or bottom - top == CANVAS[0]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_known_boxes_come_out_of_every_layout_in_pixels_of_the_picture(layout, tmp_path):
    file = write_onnx(tmp_path / "net.onnx", LAYOUTS[layout](), {"names": str(NAMES), "task": "detect"})
    detector = find_detector(file)
    assert detector.classes == ("cat", "dog", "cow")
    assert_the_known_boxes(detector.find(PICTURE, 0.25, ()), ["cow", "cat"])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_without_names_in_the_file_classes_are_numbers_and_the_layout_is_told_all_the_same(layout, tmp_path):
    file = write_onnx(tmp_path / "net.onnx", LAYOUTS[layout]())
    assert_the_known_boxes(find_detector(file).find(PICTURE, 0.25, ()), ["2", "0"])


def test_names_are_taken_from_a_file_beside(tmp_path):
    file = write_onnx(tmp_path / "net.onnx", LAYOUTS["end to end: Nx6"]())
    (tmp_path / "net.names").write_text("cat\ndog\ncow\n")
    assert_the_known_boxes(find_detector(file).find(PICTURE, 0.25, ()), ["cow", "cat"])


def test_the_one_class_of_a_yolov5_is_not_taken_for_a_detector_that_has_chosen_already(tmp_path):
    rows = 3 * sum((CANVAS[0] // stride) * (CANVAS[1] // stride) for stride in (8, 16, 32))
    output = np.zeros((rows, 6), np.float32)
    output[:2, :4], output[:2, 4], output[:2, 5] = centres(on_canvas()), SCORES, 1
    file = write_onnx(tmp_path / "net.onnx", output[None], {"names": "['person']"})
    assert_the_known_boxes(find_detector(file).find(PICTURE, 0.25, ()), ["person", "person"])


def test_the_score_and_the_classes_that_are_asked_for_decide_what_is_found(tmp_path):
    file = write_onnx(tmp_path / "net.onnx", LAYOUTS["v8: 1x(4+C)xN"](), {"names": str(NAMES)})
    find = find_detector(file).find
    assert [one.label for one in find(PICTURE, 0.7, ())] == ["cow"]
    assert [one.label for one in find(PICTURE, 0.25, ["cat", "dog"])] == ["cat"]
    assert find(PICTURE, 0.95, ()) == []


def test_frames_in_one_place_are_thinned_out_within_a_class_only(tmp_path):
    rows = np.zeros((50, 8), np.float32)
    rows[:3, :4] = [60, 40, 20, 20]
    rows[:3, 4] = 1
    rows[[0, 1, 2], [5, 6, 5]] = 0.9, 0.8, 0.7  # classes 0, 1, 0
    found = find_detector(write_onnx(tmp_path / "net.onnx", rows[None])).find(PICTURE, 0.25, ())
    assert [(one.label, round(one.score, 3)) for one in found] == [("0", 0.9), ("1", 0.8)]


def test_frames_end_at_the_edge_of_the_picture_and_those_beyond_are_gone(tmp_path):
    rows = np.array([[-50, -50, 300, 300, 0.9, 0], [0, 0, 1, 1, 0.9, 0]])  # the second lies on the grey margin
    (found,) = find_detector(write_onnx(tmp_path / "net.onnx", rows)).find(PICTURE, 0.25, ())
    assert found.box == (0, 0, 100, 80)


def test_a_network_of_half_precision_is_fed_so(tmp_path):
    file = write_onnx(tmp_path / "net.onnx", LAYOUTS["end to end: Nx6"](), half=True)
    assert_the_known_boxes(find_detector(file).find(PICTURE, 0.25, ()), ["2", "0"])


def test_the_network_sees_rgb_between_0_and_1(tmp_path):
    frame = np.array([[[10, 10, 90, 90, 1.0, 0]]])
    find = find_detector(write_onnx(tmp_path / "net.onnx", frame, red_as_score=True)).find
    picture = np.zeros((*CANVAS, 3), np.uint8)
    picture[..., 0] = 204
    assert find(picture, 0.1, ())[0].score == pytest.approx(0.8, abs=1e-5)
    assert find(picture[..., ::-1].copy(), 0.1, ()) == []


def test_a_file_for_any_size_is_used_at_the_size_in_its_metadata(tmp_path):
    output = LAYOUTS["end to end: Nx6"]()
    open_sizes = (1, 3, "height", "width")
    file = write_onnx(tmp_path / "net.onnx", output, {"imgsz": str(list(CANVAS))}, shape=open_sizes)
    detector = find_detector(file)
    assert "128x96" in detector.about
    assert_the_known_boxes(detector.find(PICTURE, 0.25, ()), ["2", "0"])
    assert "640x640" in find_detector(write_onnx(tmp_path / "other.onnx", output, shape=open_sizes)).about


def test_what_is_no_detector_is_refused_in_one_line_that_says_why(tmp_path):
    def message(file: Path) -> str:
        with pytest.raises(WeightsError) as caught:
            find_detector(file).find(PICTURE, 0.25, ())
        assert "\n" not in str(caught.value)
        assert str(file) in str(caught.value)
        return str(caught.value)

    fine = LAYOUTS["v8: 1x(4+C)xN"]()
    file = tmp_path / "net.onnx"
    assert "no detector at" in message(file)
    assert "'segment'" in message(write_onnx(file, fine, {"task": "segment"}))
    assert "1x3xHxW" in message(write_onnx(file, fine, shape=(1, *CANVAS, 3)))
    assert "1x3xHxW" in message(write_onnx(file, fine, shape=(8, 3, *CANVAS)))
    assert "names of classes" in message(write_onnx(file, fine, {"names": "{0: "}))
    assert "7 by 300" in message(write_onnx(file, fine, {"names": str(["one", "two", "three", "four", "five"])}))
    assert "(1, 300, 4, 2)" in message(write_onnx(file, np.zeros((1, 300, 4, 2))))
    assert "not from 0 to 1" in message(write_onnx(file, fine * 5))
    file.write_bytes(b"no such thing")
    assert "no ONNX file" in message(file)


def test_without_onnxruntime_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    (tmp_path / "net.onnx").touch()
    with pytest.raises(MissingExtra, match=r"unblur\[engines\]"):
        find_detector(tmp_path / "net.onnx")


def test_the_fingerprint_of_a_file_is_its_sha256_and_knows_weights_beside_it(tmp_path):
    file = write_onnx(tmp_path / "net.onnx", LAYOUTS["end to end: Nx6"]())
    first = find_detector(file).fingerprint
    assert first == hashlib.sha256(file.read_bytes()).hexdigest()
    (tmp_path / "net.onnx.data").write_bytes(b"weights")
    assert find_detector(file).fingerprint != first


# -- transformers ------------------------------------------------------------------------------------------------------


def save_detector(kind: str, folder: Path, size: dict[str, int], **config: Any) -> Path:
    """Save a tiny detector with random weights and a preprocessor_config.json."""
    transformers = pytest.importorskip("transformers", reason="these are models of the package transformers")
    torch.manual_seed(0)
    tiny = {"embedding_size": 8, "hidden_sizes": [8, 8, 8, 8], "depths": [1, 1, 1, 1]}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_layers": 1, "decoder_layers": 1}
    small = {"d_model": 16, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "num_queries": 9, "num_labels": 3, **heads}
    if kind == "yolos":
        made = transformers.YolosConfig(
            hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=[64, 64],
            num_detection_tokens=9, num_labels=3,
        )  # fmt: skip
        network = transformers.YolosForObjectDetection(made)
    elif kind == "detr":
        backbone = transformers.ResNetConfig(**tiny, out_features=["stage4"])
        made = transformers.DetrConfig(backbone_config=backbone, use_timm_backbone=False, backbone=None, **small)
        network = transformers.DetrForObjectDetection(made)
    else:
        backbone = transformers.RTDetrResNetConfig(
            **tiny, layer_type="basic", out_features=["stage2", "stage3", "stage4"]
        )
        made = transformers.RTDetrConfig(
            backbone_config=backbone, encoder_hidden_dim=16, encoder_in_channels=[8, 8, 8],
            decoder_in_channels=[16, 16, 16], **small,
        )  # fmt: skip
        network = transformers.RTDetrForObjectDetection(made)
    network.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({"size": size, **config}))
    return folder


EDGES = {"shortest_edge": 64, "longest_edge": 100}
KINDS = {
    "yolos": ("Yolos", EDGES, {}),
    "detr": ("Detr", EDGES, {}),
    "rtdetr": ("RTDetr", {"height": 64, "width": 64}, {"do_normalize": False}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_detector_of_transformers_finds_what_its_own_image_processor_finds(kind, tmp_path):
    family, size, config = KINDS[kind]
    folder = save_detector(kind, tmp_path / "net", size, **config)
    import transformers  # after save_detector, which skips where it is missing

    try:
        processor = getattr(transformers, f"{family}ImageProcessorPil")(size=size, **config)
    except (AttributeError, ImportError):
        pytest.skip("this version of transformers has no image processor without torchvision")
    picture = skimage.data.astronaut()[:90, 100:250]
    network = transformers.AutoModelForObjectDetection.from_pretrained(folder).eval()
    with torch.inference_mode():
        given = network(**processor(picture, return_tensors="pt"))
    (theirs,) = processor.post_process_object_detection(given, threshold=0.2, target_sizes=[(90, 150)])
    detector = find_detector(folder)
    ours = detector.find(picture, 0.2, ())
    assert len(ours) == len(theirs["scores"]) > 0
    order = theirs["scores"].argsort(descending=True)
    assert [one.score for one in ours] == pytest.approx(theirs["scores"][order].tolist(), abs=1e-5)
    assert detector.classes == ("LABEL_0", "LABEL_1", "LABEL_2")
    expected = sorted(
        (network.config.id2label[int(label)], *box.clamp(min=0).minimum(torch.tensor([150, 90] * 2)).tolist())
        for label, box in zip(theirs["labels"], theirs["boxes"], strict=True)
    )
    found = sorted((one.label, *one.box) for one in ours)
    assert [one[0] for one in found] == [one[0] for one in expected]
    np.testing.assert_allclose([one[1:] for one in found], [one[1:] for one in expected], atol=1e-2)


def test_pictures_are_resized_as_transformers_does_it():
    transforms = pytest.importorskip("transformers.image_transforms")
    rng = np.random.default_rng(0)
    for _ in range(200):
        height, width, shortest = (int(number) for number in rng.integers(20, 1500, 3))
        size = {"shortest_edge": shortest, "longest_edge": 2 * shortest}
        expected = transforms.get_size_with_aspect_ratio((height, width), shortest, 2 * shortest)
        assert Preparation({"size": size}, "net").size_for(height, width) == expected


def test_sizes_as_older_files_write_them_are_understood_and_others_refused():
    assert Preparation({"size": 100, "max_size": 150}, "net").size_for(50, 200) == (38, 150)
    assert Preparation({"do_resize": False}, "net").size_for(50, 200) == (50, 200)
    with pytest.raises(WeightsError, match="'net' resizes pictures to"):
        Preparation({"size": {"max_height": 5}}, "net")


def test_what_cannot_be_had_from_transformers_is_one_clear_line(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def message(source: Path | str) -> str:
        with pytest.raises(WeightsError) as caught:
            find_detector(source)
        assert "\n" not in str(caught.value)
        assert str(source) in str(caught.value)
        return str(caught.value)

    folder = save_detector("yolos", tmp_path / "net", EDGES)
    (folder / "preprocessor_config.json").unlink()
    assert "preprocessor_config.json" in message(folder)
    (folder / "model.safetensors").unlink()
    assert "No detector could be had" in message(folder)
    assert "No detector could be had" in message(tmp_path / "nothing-here")
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
    assert "No detector could be had" in message(folder)
    with_timm = {"model_type": "detr", "backbone": "resnet50", "use_timm_backbone": True}
    (folder / "config.json").write_text(json.dumps(with_timm))
    shutil.copy(save_detector("yolos", tmp_path / "other", EDGES) / "model.safetensors", folder)
    assert "timm" in message(folder)


def test_without_transformers_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtra, match=r"unblur\[transformers\]"):
        find_detector("hustvl/yolos-tiny")


# -- What OpenCV brings along ------------------------------------------------------------------------------------------

FACE = (78, 44, 172, 144)
"""Where the face lies in `portrait`, from the brows' upper end to the lower lip, by eye."""


def portrait() -> Pixels:
    return skimage.data.astronaut()[20:220, 100:320].copy()


def test_the_face_is_found_in_the_sharp_picture_and_less_surely_in_a_blurred_one():
    find = find_detector("default").find
    (sharp,) = find(portrait(), 0.25, ["face"])
    assert iou(sharp.box, FACE) > 0.8
    (blurred,) = find(cv2.GaussianBlur(portrait(), (0, 0), 5), 0.25, ["face"])
    assert iou(blurred.box, FACE) > 0.5
    assert blurred.score < sharp.score - 0.1
    assert find(cv2.GaussianBlur(portrait(), (0, 0), 20), 0.25, ["face"]) == []


def test_at_a_score_of_a_quarter_a_cascade_finds_what_opencv_finds_by_itself():
    cascade = cv2.CascadeClassifier(cv2.data.haarcascades + CASCADES["eye"])
    theirs = cascade.detectMultiScale(cv2.cvtColor(portrait(), cv2.COLOR_RGB2GRAY))
    ours = find_detector("default").find(portrait(), 0.25, ["eye"])
    assert len(ours) >= 2
    assert {one.box for one in ours} == {(x, y, x + w, y + h) for x, y, w, h in theirs.tolist()}


def test_people_are_found_by_opencvs_histograms():
    hog = cv2.HOGDescriptor()
    hog.setSVMDetector(cv2.HOGDescriptor.getDefaultPeopleDetector())
    picture = skimage.data.astronaut()[300:, 256:].copy()
    boxes, margins = hog.detectMultiScale(picture)
    assert len(boxes), "the picture shows nobody"
    ours = find_detector("default").find(picture, 1e-6, ["person"])
    assert {one.box for one in ours} == {
        (max(x, 0), max(y, 0), min(x + w, 256), min(y + h, 212)) for x, y, w, h in boxes.tolist()
    }
    assert max(one.score for one in ours) == pytest.approx(max(margins) / (1 + max(margins)))


@pytest.mark.parametrize("shape", [(1, 1), (30, 30), (100, 100), (127, 64), (128, 63), (128, 64)])
def test_no_picture_is_too_small_to_be_looked_at(shape):
    picture = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    detector = find_detector("default")
    assert isinstance(detector.find(picture, 0.25, detector.classes), list)


# -- A whole comparison ------------------------------------------------------------------------------------------------


def finder(label: str = "square", fingerprint: str = "0123456789abcdef") -> tuple[Detector, list[tuple[int, ...]]]:
    """Return a detector of bright spots, and the list of what it has been shown."""
    shown: list[tuple[int, ...]] = []

    def find(rgb: Pixels, min_score: float, classes: Sequence[str]) -> list[Found]:
        shown.append(rgb.shape)
        _, _, spots, _ = cv2.connectedComponentsWithStats((rgb[..., 1] > 128).astype(np.uint8))
        frames = [(int(x), int(y), int(x + w), int(y + h)) for x, y, w, h, _ in spots[1:]]
        kinds = [label if frame[0] < 20 else "right" for frame in frames]
        return [
            Found(kind, 0.9, frame) for kind, frame in zip(kinds, frames, strict=True) if not classes or kind in classes
        ]

    return Detector("finder", "a finder of bright spots", fingerprint, (label, "right"), find), shown


def spots(*corners: tuple[int, int]) -> Pixels:
    picture = np.full((40, 50, 3), 40, np.uint8)
    for x, y in corners:
        picture[y : y + 8, x : x + 8] = 220
    return picture


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Two pairs: of three spots two are seen in the blurred pictures, one of them in a wrong place."""
    save(tmp_path / "pairs/sharp/a.png", spots((4, 4), (30, 4)))
    save(tmp_path / "pairs/blur/a.png", spots((4, 4)))
    save(tmp_path / "pairs/sharp/below/b.png", spots((4, 20)))
    save(tmp_path / "pairs/blur/below/b.png", spots((30, 20)))
    return tmp_path / "pairs"


def found_in(
    data: Path,
    detector: Detector,
    *,
    min_iou: float = 0.5,
    classes: Sequence[str] = (),
    out: Path | None = None,
    **options: Any,
) -> Detection:
    """Return what the detector finds in the blurred pictures of a folder and behind the unsharp mask."""
    search = Search(detector, min_iou, classes=classes)
    with tempfile.TemporaryDirectory() as temporary:
        return detect(evaluate(["unsharp"], data, out=out or Path(temporary) / "out", **options), search)


def test_counts_are_summed_over_pictures_and_classes_the_blurred_input_first(pairs):
    result = found_in(pairs, finder()[0])
    assert [row.model for row in result.rows] == ["blurred input", "unsharp"]
    first = result.rows[0]
    assert first.counts == Counts(matched=1, found=2, true=3)
    assert first.classes == {"square": Counts(1, 1, 2), "right": Counts(0, 1, 1)}
    assert [image.counts for image in first.images] == [Counts(1, 1, 2), Counts(0, 1, 1)]
    assert first.scores["psnr"] > 0


def test_sharp_pictures_given_as_blurred_ones_lose_nothing(pairs):
    shutil.rmtree(pairs / "blur")
    shutil.copytree(pairs / "sharp", pairs / "blur")
    counts = found_in(pairs, finder()[0]).rows[0].counts
    assert (counts.precision, counts.recall, counts.f1) == (1, 1, 1)


def test_only_the_classes_that_are_asked_for_count_and_an_unknown_one_is_refused(pairs):
    detector, shown = finder()
    assert found_in(pairs, detector, classes=["right"]).rows[0].counts == Counts(0, 1, 1)
    shown.clear()
    with pytest.raises(UnknownName, match=r"No class is called 'sqare'\. Did you mean 'square'\?"):
        found_in(pairs, detector, classes=["sqare"])
    assert not shown


def test_the_json_has_the_rows_the_protocol_and_the_versions(pairs):
    result = json.loads(json.dumps(found_in(pairs, finder()[0], min_iou=0.6).to_json()))
    blurred, restored = result["rows"]
    assert {key: result[key] for key in restored} == restored, "the first model stands at the top"
    assert blurred["n"] == len(blurred["images"]) == 2
    assert (blurred["precision"], blurred["recall"], blurred["f1"]) == (1 / 2, 1 / 3, 2 / 5)
    assert blurred["classes"]["right"] == {
        "precision": 0, "recall": 0, "f1": 0, "matched": 0, "found": 1, "true": 1,
    }  # fmt: skip
    assert blurred["images"][1] == {
        "name": "below/b", "precision": 0, "recall": 0, "f1": 0, "matched": 0, "found": 1, "true": 1,
    }  # fmt: skip
    line = result["protocol"]["detection"]
    for part in ("a finder of bright spots", "sha256 0123456789ab;", "IoU of 0.6", "scores from 0.25", "all classes"):
        assert part in line
    assert result["settings"]["fingerprint"] == "0123456789abcdef"
    assert result["settings"]["evaluation"]["seed"] == 0
    assert {"unblur", "torch", "opencv"} <= result["versions"].keys()


def test_the_table_says_the_same_as_the_json(pairs):
    summary = found_in(pairs, finder()[0]).to_json()
    table = detection_table(summary)
    (blurred,) = (line for line in table.splitlines() if line.startswith("| blurred input | 0."))
    psnr = summary["rows"][0]["scores"]["psnr"]
    assert blurred == f"| blurred input | 0.500 | 0.333 | 0.400 | 1 | 2 | 3 | {psnr:.2f} |"
    assert "| blurred input | right | 0.000 | 0.000 | 0.000 | 0 | 1 | 1 |" in table
    assert summary["protocol"]["detection"] in table
    assert all(f"{name} {version}" in table for name, version in summary["versions"].items() if name != "commit")


def test_a_share_of_nothing_is_a_dash_and_null(pairs):
    save(pairs / "blur/a.png", spots())
    save(pairs / "blur/below/b.png", spots())
    summary = found_in(pairs, finder()[0]).to_json()
    assert summary["rows"][0]["precision"] is None
    assert "| blurred input | - | 0.000 | 0.000 |" in detection_table(summary)


def test_with_a_recipe_each_level_is_held_against_the_sharp_picture_that_was_blurred(tmp_path):
    recipe = load_recipe("gaussian-triple")
    save(tmp_path / "photos/a.png", np.repeat(np.repeat(spots((4, 4), (30, 4)), 2, 0), 2, 1))
    result = found_in(tmp_path / "photos", finder()[0], recipe=recipe, size=(50, 40))
    levels = [kind.label for kind in recipe.kinds]
    assert list(result.rows[0].levels) == levels
    assert all(counts.true == 2 for counts in result.rows[0].levels.values())
    assert result.rows[0].levels[levels[0]].f1 == 1
    header = detection_table(result.to_json()).splitlines()[0]
    assert all(f"F1, {level}" in header for level in levels)


def test_nothing_is_restored_or_looked_at_twice_unless_it_has_changed(pairs, tmp_path):
    out = tmp_path / "out"
    evaluate(["unsharp"], pairs, out=out)
    written = {file: file.stat().st_mtime_ns for file in out.rglob("*.png")}
    detector, shown = finder()
    first = found_in(pairs, detector, out=out)
    assert len(shown) == 6
    assert {file: file.stat().st_mtime_ns for file in out.rglob("*.png")} == written
    shown.clear()
    assert found_in(pairs, detector, out=out).to_json()["rows"] == first.to_json()["rows"]
    assert not shown
    save(out / "unsharp/a.png", spots())
    assert found_in(pairs, detector, out=out).rows[1].counts.found == 1
    assert len(shown) == 1


def test_other_thresholds_and_other_detectors_have_folders_of_their_own(pairs, tmp_path):
    out = tmp_path / "out"
    for detector, min_iou in ((finder()[0], 0.5), (finder()[0], 0.6), (finder(fingerprint="other")[0], 0.5)):
        found_in(pairs, detector, min_iou=min_iou, out=out)
    folders = sorted(out.glob("detections-finder-*"))
    assert len(folders) == 3
    settings = [json.loads((folder / "settings.json").read_text()) for folder in folders]
    assert sorted((one["fingerprint"], one["min_iou"]) for one in settings) == [
        ("0123456789abcdef", 0.5), ("0123456789abcdef", 0.6), ("other", 0.5),
    ]  # fmt: skip
    assert json.loads((folders[0] / "summary.json").read_text())["n"] == 2
    with pytest.raises(OutputError, match="other settings"):
        found_in(pairs, finder()[0], metrics=["psnr"], out=out)


def test_what_cannot_be_judged_is_refused(pairs):
    for wrong in ({"min_iou": 0.0}, {"min_score": 1.5}):
        with pytest.raises(SettingsError, match="above 0 and at most 1"):
            Search(finder()[0], **wrong)
    with pytest.raises(ValueError, match="a list of names"):
        Search(finder()[0], classes="square")
    with pytest.raises(ValueError, match="kept no pictures"):
        detect(evaluate(["unsharp"], pairs), Search(finder()[0]))
    blind = Detector("blind", "one that sees nothing", "0", (), lambda rgb, min_score, classes: [])
    with pytest.raises(DataError, match=r"'blind' finds nothing in 2 sharp pictures at a score of 0\.25"):
        found_in(pairs, blind)


def test_the_command_prints_the_table_or_json_and_needs_no_file_of_a_detector(tmp_path, capsys):
    save(tmp_path / "photos/a.png", portrait())
    command = ["detect", "--model", "unsharp", "--data", tmp_path / "photos", "--recipe", "gaussian-triple"]
    command += ["--classes", "face", "--out", tmp_path / "out"]
    assert main([str(word) for word in command]) == 0
    table = capsys.readouterr().out
    assert "| blurred input | 1.000 | 1.000 | 1.000 |" in table
    assert "OpenCV's HOG people detector" in table
    assert main([str(word) for word in [*command, "--json"]]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["rows"][0]["true"] == 3
    assert printed["settings"]["classes"] == ["face"]
    assert main([str(word) for word in [*command, "--detector", "nothing.onnx"]]) == 1
    assert "There is no detector at nothing.onnx" in capsys.readouterr().err


def test_detecting_does_without_torchvision_and_loads_onnxruntime_and_transformers_when_asked_for():
    program = (
        "import sys, unblur.detection\n"
        "assert not {'torchvision', 'onnxruntime', 'transformers', 'skimage', 'scipy'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_every_public_name_of_the_package_is_there():
    assert all(hasattr(detection, name) for name in detection.__all__)
