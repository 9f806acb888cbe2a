"""Masks come from files or from Segment Anything, and reach the network cut like its tiles."""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from golden import fill
from unblur import models, weights
from unblur.cli import main
from unblur.errors import MissingExtra, PhotoError, SettingsError, WeightsError
from unblur.inference import restore_image
from unblur.masks import MaskFolder, SegmentAnything, draw_labels, find_masks
from unblur.outputs import plan_outputs
from unblur.restorer import Restorer, restore, restore_files

HEIGHT, WIDTH = 20, 30
TINY = dict(models.find("sam_deblur").tiny)


@pytest.fixture
def transformers():
    return pytest.importorskip("transformers", reason="Segment Anything is a model of the package transformers")


def picture(height: int = HEIGHT, width: int = WIDTH) -> Tensor:
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(1))


def labels_of_bands(height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Return labels 0, 7 and 200 in three bands."""
    labels = np.zeros((height, width), np.uint8)
    labels[height // 3 :] = 7
    labels[2 * height // 3 :] = 200
    return labels


def write(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def photo(path: Path) -> Path:
    return write(path, (picture().permute(1, 2, 0).numpy() * 255).astype(np.uint8))


class Told(nn.Module):
    """Returns its labels over 255 as a grey picture, and the picture itself without any."""

    def forward(self, blurred: Tensor, masks: Tensor | None = None) -> Tensor:
        return blurred if masks is None else (masks / 255)[:, None].expand_as(blurred)


# -- From files --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["beach.png", "2024/beach.png", "holiday/2024/beach.png"])
def test_a_label_picture_of_the_photos_name_is_found_along_its_path(tmp_path, place):
    write(tmp_path / "masks" / place, labels_of_bands())
    found = MaskFolder(tmp_path / "masks")(picture(), Path("/photos/holiday/2024/beach.jpg"))
    assert found.dtype == torch.uint8
    assert found.tolist() == labels_of_bands().tolist()


def test_the_longest_way_counts_so_that_photos_of_one_name_have_masks_of_their_own(tmp_path):
    write(tmp_path / "beach.png", np.zeros((HEIGHT, WIDTH), np.uint8))
    write(tmp_path / "2024" / "beach.png", labels_of_bands())
    masks = MaskFolder(tmp_path)
    assert masks(picture(), Path("2024/beach.jpg")).max() == 200
    assert masks(picture(), Path("2023/beach.jpg")).max() == 0


def test_binary_masks_in_a_folder_of_the_photos_name_are_numbered_and_their_overlaps_are_regions(tmp_path):
    left, upper = np.zeros((2, HEIGHT, WIDTH), np.uint8)
    left[:, :10], upper[:5] = 255, 255
    write(tmp_path / "beach" / "a.png", left)
    write(tmp_path / "beach" / "b.png", upper)
    found = MaskFolder(tmp_path)(picture(), Path("beach.jpg"))
    assert [found[10, 5], found[2, 20], found[2, 5], found[10, 20]] == [1, 2, 3, 0]


def test_numbers_add_up_to_255_at_most():
    assert draw_labels([torch.ones(2, 3, dtype=torch.bool)] * 30, (2, 3)).tolist() == [[255] * 3] * 2
    assert draw_labels([], (2, 3)).tolist() == [[0] * 3] * 2


@pytest.mark.parametrize(
    ("pixels", "says"),
    [
        (np.zeros((HEIGHT, WIDTH + 1), np.uint8), "beach.png is 31×20, its photo 30×20: a mask has the size"),
        (np.eye(3, dtype=np.uint8)[np.zeros((HEIGHT, WIDTH), int)] * 255, "beach.png is in colour or has 16 bit"),
        (np.zeros((HEIGHT, WIDTH), np.uint16), "beach.png is in colour or has 16 bit"),
    ],
)
def test_files_that_cannot_be_meant_are_refused(tmp_path, pixels, says):
    write(tmp_path / "beach.png", pixels)
    with pytest.raises(PhotoError, match=says):
        MaskFolder(tmp_path)(picture(), Path("beach.jpg"))


def test_a_photo_without_masks_and_a_picture_without_a_file_say_so(tmp_path):
    with pytest.raises(PhotoError, match=r"beach.jpg has no masks in .*: neither beach.png nor a folder beach"):
        MaskFolder(tmp_path)(picture(), Path("beach.jpg"))
    with pytest.raises(PhotoError, match="A picture without a file has no masks in"):
        MaskFolder(tmp_path)(picture(), None)


def test_a_folder_that_is_not_there_is_refused_at_once(tmp_path):
    with pytest.raises(SettingsError, match=r"nowhere is no folder of masks. Give one, or sam:NAME for Segment"):
        Restorer(Told().eval(), masks=tmp_path / "nowhere")


# -- From Segment Anything ---------------------------------------------------------------------------------------------


def tiny_sam(transformers):
    """Return Segment Anything with random weights, for pictures of 64 pixels."""
    torch.manual_seed(3)
    vision = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 64, "patch_size": 8}
    vision |= {"output_channels": 16, "window_size": 4, "global_attn_indexes": [0], "mlp_dim": 32, "num_pos_feats": 8}
    prompts = {"hidden_size": 16, "image_size": 64, "patch_size": 8, "mask_input_channels": 4}
    decoder = {"hidden_size": 16, "mlp_dim": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "iou_head_depth": 2}
    decoder |= {"iou_head_hidden_dim": 16, "attention_downsample_rate": 2}
    config = transformers.SamConfig(
        vision_config=transformers.SamVisionConfig(**vision),
        prompt_encoder_config=transformers.SamPromptEncoderConfig(**prompts),
        mask_decoder_config=transformers.SamMaskDecoderConfig(**decoder),
    )
    return transformers.SamModel(config)


def test_segment_anything_is_loaded_from_a_folder_and_labels_a_picture_of_any_size(transformers, tmp_path, capfd):
    tiny_sam(transformers).save_pretrained(tmp_path)
    capfd.readouterr()
    segment = SegmentAnything(str(tmp_path), points_per_side=4, min_iou=-9, min_stability=0, max_overlap=0.9)
    for height, width in [(HEIGHT, WIDTH), (90, 31), (1, 1)]:
        labels = segment(picture(height, width))
        assert (labels.shape, labels.dtype) == ((height, width), torch.uint8)
        assert torch.equal(labels, segment(picture(height, width)))
    assert len(segment(picture()).unique()) > 1
    assert capfd.readouterr() == ("", "")


def test_masks_of_which_the_network_is_not_sure_are_left_out(transformers, tmp_path):
    tiny_sam(transformers).save_pretrained(tmp_path)
    assert SegmentAnything(str(tmp_path), points_per_side=2, min_iou=99)(picture()).max() == 0


class Discs:
    """Stands for Segment Anything: asked at a point, it finds the discs there; of the whole picture it is unsure."""

    config = SimpleNamespace(vision_config=SimpleNamespace(image_size=64))
    discs = ((16.0, 12.0, 9.0), (46.0, 20.0, 7.0))
    """x, y and radius in the picture as the network sees it."""

    def __init__(self) -> None:
        self.seen = torch.empty(0)
        self.asked = []

    def to(self, device):
        return self

    def get_image_embeddings(self, seen):
        self.seen = seen
        return torch.zeros(1, 16, 8, 8)

    def __call__(self, *, input_points, image_embeddings, multimask_output):
        assert multimask_output
        assert input_points.ndim == 4
        rows, columns = torch.meshgrid(4 * torch.arange(16) + 1.5, 4 * torch.arange(16) + 1.5, indexing="ij")
        masks, scores = [], []
        for x, y in input_points[0, :, 0].tolist():
            self.asked.append((x, y))
            hit = [disc for disc in self.discs if (x - disc[0]) ** 2 + (y - disc[1]) ** 2 < disc[2] ** 2]
            for centre_x, centre_y, radius in hit:
                distance = ((columns - centre_x) ** 2 + (rows - centre_y) ** 2).sqrt()
                some = torch.stack([50 * (radius - distance), 50 * (radius - 1 - distance), 0.1 * (20 - distance)])
                masks.append(some)  # the disc; nearly the same; one that blurs out
                scores.append([0.95, 0.92, 0.99])
            if not hit:
                masks.append(torch.full((3, 16, 16), 5.0))
                scores.append([0.5] * 3)
        return SimpleNamespace(pred_masks=torch.stack(masks)[None], iou_scores=torch.tensor(scores)[None])


@pytest.fixture
def discs(monkeypatch) -> Discs:
    network = Discs()
    monkeypatch.setattr(SegmentAnything, "network", network)
    return network


def test_each_thing_is_found_once_where_it_is(discs):
    labels = SegmentAnything("discs", points_per_side=16)(picture(80, 160))  # 2.5 times as large as it is seen
    assert sorted(labels.unique().tolist()) == [0, 1, 2]
    rows, columns = torch.meshgrid(torch.arange(80), torch.arange(160), indexing="ij")
    for x, y, radius in discs.discs:
        number = labels[round(2.5 * y), round(2.5 * x)]
        expected = (columns + 0.5 - 2.5 * x) ** 2 + (rows + 0.5 - 2.5 * y) ** 2 < (2.5 * radius) ** 2
        found = labels == number
        assert number > 0
        assert (found & expected).sum() / (found | expected).sum() > 0.85


def test_the_grid_of_points_lies_evenly_over_the_picture_and_not_over_its_margin(discs):
    SegmentAnything("discs", points_per_side=4, points_at_once=3)(picture(80, 160))
    assert discs.asked == [(x, y) for y in (4, 12, 20, 28) for x in (8, 24, 40, 56)]


def test_the_picture_is_normalised_and_has_its_margin_below_and_on_the_right(discs):
    grey = torch.full((3, 100, 50), 0.5)
    SegmentAnything("discs", points_per_side=1)(grey)
    assert discs.seen.shape == (1, 3, 64, 64)
    assert discs.seen[0, :, 0, 0].tolist() == pytest.approx([0.0655, 0.1964, 0.4178], abs=1e-3)
    torch.testing.assert_close(discs.seen[..., :32], discs.seen[..., :1, :1].expand(-1, -1, 64, 32))
    assert (discs.seen[..., 32:] == 0).all()


def test_without_a_model_it_says_what_to_give(transformers, tmp_path):
    with pytest.raises(WeightsError, match=r"No Segment Anything could be had from .*facebook/sam-vit-huge"):
        SegmentAnything(str(tmp_path))(picture())


def test_without_transformers_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtra, match=r"Segment Anything needs .*pip install 'unblur\[transformers\]'"):
        find_masks("sam:facebook/sam-vit-base")(picture(), None)


def test_the_name_after_sam_is_that_of_the_model():
    masks = find_masks("sam:facebook/sam-vit-base")
    assert isinstance(masks, SegmentAnything)
    assert masks.name_or_folder == "facebook/sam-vit-base"
    assert isinstance(find_masks(Path(".")), MaskFolder)


# -- To the network ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tile_px", [None, 16, 7])
def test_tiles_cut_the_masks_like_the_picture(tile_px):
    labels = torch.from_numpy(labels_of_bands(50, 70))
    restored = restore_image(Told(), picture(50, 70), tile_px=tile_px, masks=labels, precision="fp32")
    torch.testing.assert_close(restored, labels.expand(3, -1, -1) / 255, atol=1e-6, rtol=0)


def test_masks_of_another_size_than_the_picture_are_refused():
    with pytest.raises(ValueError, match=r"masks are a label picture of shape \(20, 30\) here, not \(20, 29\)"):
        restore_image(Told(), picture(), masks=torch.zeros(20, 29))


def test_files_are_restored_with_the_masks_of_their_names(tmp_path):
    photo(tmp_path / "photos" / "a.png")
    photo(tmp_path / "photos" / "b.png")
    write(tmp_path / "masks" / "a.png", labels_of_bands())
    plan = plan_outputs([tmp_path / "photos"], tmp_path / "out")
    done, failed = restore_files(plan, Restorer(Told().eval(), masks=tmp_path / "masks"))
    with Image.open(done.target) as restored:
        np.testing.assert_array_equal(np.asarray(restored)[..., 0], labels_of_bands())
    assert done.losses == ()
    assert "b.png has no masks in" in str(failed.error)


def test_a_function_may_give_the_masks_of_a_picture_in_memory():
    seen = []

    def ones(rgb: Tensor, path: Path | None) -> Tensor:
        seen.append(path)
        return torch.ones(rgb.shape[-2:], dtype=torch.uint8)

    restored = restore(picture(), Told().eval(), masks=ones)
    assert seen == [None]
    assert restored.rgb.unique().numel() == 1


def test_sam_deblur_restores_a_photo_with_masks_as_without_tiles_and_files(tmp_path, photograph):
    model = fill(models.create("sam_deblur", **TINY))
    labels = torch.from_numpy(labels_of_bands(96, 128))
    with torch.no_grad():
        expected = model(photograph[None], labels[None])[0].clamp(0, 1)
    restored = restore_image(model, photograph, masks=labels, precision="fp32")
    torch.testing.assert_close(restored, expected, atol=1e-5, rtol=0)


def test_without_masks_it_says_so(tmp_path):
    source = photo(tmp_path / "a.png")
    done = Restorer(Told().eval()).restore_file(source, tmp_path / "b.png")
    assert "restored without masks" in done.losses[0]
    with pytest.warns(UserWarning, match="without masks, as one region"):
        restore(source, Told().eval())


def test_masks_for_a_network_that_takes_none_are_refused_before_any_file(tmp_path):
    model = models.create("reduced_deblurnet").eval()
    with pytest.raises(SettingsError, match="reduced_deblurnet takes no masks; restore without them, or"):
        list(restore_files([], Restorer(model, masks=tmp_path)))


def test_the_command_restores_with_masks_and_says_where_it_has_none(tmp_path, capsys):
    weights.save(fill(models.create("sam_deblur", **TINY)), tmp_path / "sam.safetensors", {})
    source = str(photo(tmp_path / "a.png"))
    write(tmp_path / "masks" / "a.png", labels_of_bands())
    common = ["restore", source, "--model", str(tmp_path / "sam.safetensors"), "--device", "cpu"]
    assert main([*common, "-o", str(tmp_path / "with.png"), "--masks", str(tmp_path / "masks")]) == 0
    assert "masks" not in capsys.readouterr().err
    assert main([*common, "-o", str(tmp_path / "without.png")]) == 0
    assert "restored without masks" in capsys.readouterr().err
    with Image.open(tmp_path / "with.png") as one, Image.open(tmp_path / "without.png") as other:
        assert (np.asarray(one) != np.asarray(other)).any()
    assert main([*common, "-o", str(tmp_path / "no.png"), "--masks", str(tmp_path / "nowhere")]) == 1
    assert "is no folder of masks" in capsys.readouterr().err
