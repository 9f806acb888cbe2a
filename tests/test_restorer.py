"""Properties of restoring pictures and files, with networks whose result is known."""

import os
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from unblur import restorer as restorer_module
from unblur import weights
from unblur.errors import OutputError, PhotoError, PhotoTooLarge, SettingsError, WeightsError
from unblur.formats import Metadata
from unblur.images import Photo, as_photo, read_photo, write_photo
from unblur.outputs import FailedFile, PlannedFile, plan_outputs
from unblur.restorer import RestoredFile, Restorer, restore, restore_files


class Brighten(nn.Module):
    """Half way to white; remembers how often it ran and what it saw last."""

    def __init__(self) -> None:
        super().__init__()
        self.runs = 0
        self.seen = torch.empty(0)
        self.eval()

    def forward(self, blurred: Tensor) -> Tensor:
        self.runs += 1
        self.seen = blurred[0].clone()
        return (blurred + 1) / 2


class Tint(nn.Module):
    """Adds 0.3 to red alone."""

    def forward(self, blurred: Tensor) -> Tensor:
        return blurred + torch.tensor([0.3, 0.0, 0.0])[:, None, None]


def identity() -> nn.Module:
    return nn.Identity().eval()


def noise(*shape: int, dtype: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max + 1, shape, dtype)


def write(path: Path, *shape: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_photo(as_photo(noise(*(shape or (6, 8, 3)))), path)
    return path


# One picture


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 1, 1), (7, 5, 3), (7, 5, 4), (7, 5, 1), (7, 5, 2)])
def test_a_network_that_changes_nothing_gives_every_pixel_back(shape: tuple[int, ...], dtype: type) -> None:
    pixels = noise(*shape, dtype=dtype)
    np.testing.assert_array_equal(restore(pixels, identity()).to_array(), pixels)


def test_the_network_changes_the_colours_and_nothing_else(tmp_path: Path) -> None:
    metadata = Metadata(exif=Image.Exif().tobytes(), icc=b"profile", xmp=b"<x/>", dpi=(300.0, 300.0))
    photo = replace(as_photo(noise(6, 8, 4, dtype=np.uint16)), metadata=metadata, format="TIFF")
    assert photo.alpha is not None
    restored = Restorer(Brighten()).restore(photo)
    torch.testing.assert_close(restored.rgb, (photo.rgb + 1) / 2)
    assert torch.equal(restored.alpha, photo.alpha)  # type: ignore[arg-type]
    assert (restored.bits, restored.format, restored.metadata) == (16, "TIFF", metadata)


def test_paths_photos_pillow_pictures_arrays_and_tensors_give_the_same(tmp_path: Path) -> None:
    pixels = noise(6, 8, 3)
    path = write(tmp_path / "photo.png")
    expected = restore(path, Brighten()).rgb
    for picture in (str(path), read_photo(path), Image.open(path), pixels, torch.from_numpy(pixels).permute(2, 0, 1)):
        torch.testing.assert_close(restore(picture, Brighten()).rgb, expected)


def test_the_sentence_of_the_readme_works_again_and_again(tmp_path: Path) -> None:
    import unblur

    path = write(tmp_path / "photo.jpg")
    for name in ("one.jpg", "two.jpg"):
        unblur.restore(path, identity()).save(tmp_path / name)
        assert read_photo(tmp_path / name).width == 8


def test_a_grey_photo_is_shown_as_three_equal_planes_and_stays_grey() -> None:
    network = Brighten()
    restored = restore(noise(6, 8, 1), network)
    assert restored.is_grey
    assert torch.equal(network.seen[0], network.seen[2])
    photo = as_photo(np.full((4, 4), 0.5))
    torch.testing.assert_close(restore(photo, Tint().eval()).rgb, photo.rgb + 0.1)


def test_the_network_does_not_see_what_is_under_transparent_parts() -> None:
    rgb, alpha = torch.full((3, 16, 16), 0.75), torch.ones(1, 16, 16)
    rgb[:, :, :8], alpha[:, :, :8] = 0.0, 0.0
    network = Brighten()
    restored = restore(Photo(rgb, alpha), network)
    torch.testing.assert_close(network.seen, torch.full_like(rgb, 0.75))
    torch.testing.assert_close(restored.rgb[:, :, 8:], torch.full((3, 16, 8), 0.875))
    assert torch.equal(restored.rgb[:, :, :8], rgb[:, :, :8])  # kept as it was


def test_weights_are_loaded_by_name_once_and_only_when_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load(name: str | Path) -> nn.Module:
        asked.append(name)
        return Brighten()

    monkeypatch.setattr(weights, "load", load)
    restorer = Restorer("some-weights")
    assert asked == []
    restorer.restore(noise(4, 4, 3))
    restorer.restore(noise(4, 4, 3))
    assert asked == ["some-weights"]
    restore(noise(4, 4, 3))
    assert asked == ["some-weights", "default"]


def test_a_network_in_training_mode_is_refused() -> None:
    with pytest.raises(ValueError, match=r"eval\(\)"):
        Restorer(nn.Identity())


@pytest.mark.parametrize(
    ("device", "says"), [("gpu", "auto, cpu, cuda, mps"), ("cuda:99", "no device"), ("cpu:x", "kind")]
)
def test_a_device_that_is_not_there_is_an_error_that_names_others(device: str, says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        Restorer("default", device=device)


def test_a_picture_above_the_limit_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "photo.png")
    with Image.open(path) as image:
        for picture in (path, image):
            with pytest.raises(PhotoTooLarge):
                restore(picture, identity(), max_pixels=47)


def test_too_little_memory_is_an_error_with_a_way_out(tmp_path: Path) -> None:
    class Hungry(nn.Module):
        def forward(self, blurred: Tensor) -> Tensor:
            raise RuntimeError(
                "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."
            )

    class Broken(nn.Module):
        def forward(self, blurred: Tensor) -> Tensor:
            raise RuntimeError("a bug of ours")

    path = write(tmp_path / "photo.png")
    with pytest.raises(PhotoError, match=r"photo\.png .*--tile"):
        Restorer(Hungry().eval()).restore_file(path, tmp_path / "out.png")
    with pytest.raises(RuntimeError, match="bug"):
        restore(path, Broken().eval())


def test_the_restorer_leaves_no_trace_on_the_network() -> None:
    network = Brighten()
    restore(noise(4, 4, 3), network)
    assert not network._forward_hooks


# Files


def test_a_file_is_restored_and_what_was_done_is_told(tmp_path: Path) -> None:
    source, target = write(tmp_path / "photo.png", 40, 60, 3), tmp_path / "new" / "out.png"
    before = source.read_bytes()
    network = Brighten()
    done = Restorer(network, tile_px=32).restore_file(source, target)
    assert (done.source, done.target, done.width, done.height) == (source, target, 60, 40)
    assert done.tiles == network.runs > 1
    assert done.seconds > 0
    assert done.losses == ()
    assert source.read_bytes() == before
    expected = (read_photo(source).rgb + 1) / 2
    assert (read_photo(target).rgb - expected).abs().max() < 0.6 / 255


def test_what_the_output_cannot_hold_is_told(tmp_path: Path) -> None:
    write_photo(as_photo(noise(6, 8, 3, dtype=np.uint16)), tmp_path / "photo.png")
    done = Restorer(identity()).restore_file(tmp_path / "photo.png", tmp_path / "photo.jpg")
    assert any("16 bit" in loss for loss in done.losses)


def outputs_to_refuse(folder: Path) -> dict[str, tuple[Path, Path, bool, str]]:
    """For every reason: input, output, overwrite, and a word of the message."""
    source = write(folder / "photo.png")
    existing = write(folder / "existing.png")
    see_through = write(folder / "see-through.png", 6, 8, 4)
    cases = {
        "exists": (source, existing, False, "--overwrite"),
        "itself": (source, source, True, "never overwritten"),
        "other spelling": (source, folder / "." / "x" / ".." / "photo.png", True, "never overwritten"),
        "suffix": (source, folder / "out.bmp", False, ".jpeg"),
        "transparency": (see_through, folder / "out.jpg", False, "transparency"),
        "file as folder": (source, existing / "out.png", False, "cannot be written"),
    }
    (folder / "x").mkdir()
    if os.name != "nt":
        (folder / "link.png").symlink_to(source)
        os.link(source, folder / "hard.png")
        cases["link"] = (source, folder / "link.png", True, "never overwritten")
        cases["hard link"] = (source, folder / "hard.png", True, "never overwritten")
    if sys.platform == "linux":
        cases["full device"] = (source, Path("/dev/full/out.png"), False, "/dev/full")
    return cases


def test_an_output_that_must_fail_fails_before_the_network_runs(tmp_path: Path) -> None:
    for reason, (source, target, overwrite, word) in outputs_to_refuse(tmp_path).items():
        network = Brighten()
        before = source.read_bytes()
        with pytest.raises(OutputError) as caught:
            Restorer(network).restore_file(source, target, overwrite=overwrite)
        assert word in str(caught.value), reason
        assert "\n" not in str(caught.value), reason
        assert network.runs == 0, reason
        assert source.read_bytes() == before, reason


def test_overwriting_replaces_an_older_result(tmp_path: Path) -> None:
    source, target = write(tmp_path / "photo.png"), write(tmp_path / "out.png", 3, 3, 3)
    Restorer(identity()).restore_file(source, target, overwrite=True)
    assert torch.equal(read_photo(target).rgb, read_photo(source).rgb)


# Folders


def test_one_bad_file_is_reported_and_the_others_are_done(tmp_path: Path) -> None:
    good = [write(tmp_path / "in" / name) for name in ("a.png", "sub/c.png")]
    (tmp_path / "in" / "b.jpg").write_bytes(b"no picture")
    (tmp_path / "in" / "empty.tif").write_bytes(b"")
    plan = plan_outputs([tmp_path / "in", tmp_path / "missing.jpg", tmp_path / "notes.txt"], tmp_path / "out")
    results = list(restore_files(plan, Restorer(Brighten())))
    assert [type(result) for result in results] == [
        RestoredFile,
        FailedFile,
        FailedFile,
        RestoredFile,
        FailedFile,
        FailedFile,
    ]
    for result in results:
        if isinstance(result, FailedFile):
            assert str(result.error).startswith(str(result.source))
    written = [
        path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file()
    ]
    assert sorted(written) == ["a.png", "sub/c.png"]
    assert all(path.exists() for path in good)


def test_without_a_network_nothing_is_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(name: str | Path) -> nn.Module:
        raise WeightsError(f"{name} is damaged.")

    monkeypatch.setattr(weights, "load", load)
    write(tmp_path / "in" / "a.png")
    with pytest.raises(WeightsError):
        list(restore_files(plan_outputs([tmp_path / "in"], tmp_path / "out"), Restorer("some.safetensors")))
    assert not (tmp_path / "out").exists()


def test_restoring_a_folder_in_place_twice_does_nothing_the_second_time(tmp_path: Path) -> None:
    write(tmp_path / "a.png")
    first = list(restore_files(plan_outputs([tmp_path]), Restorer(Brighten())))
    network = Brighten()
    second = list(restore_files(plan_outputs([tmp_path]), Restorer(network)))
    assert len(first) == len(second) == 1
    assert isinstance(second[0], FailedFile)
    assert "--overwrite" in str(second[0].error)
    assert network.runs == 0


def test_an_interrupt_leaves_only_whole_files(tmp_path: Path) -> None:
    class Interrupted(Brighten):
        def forward(self, blurred: Tensor) -> Tensor:
            if self.runs == 2:
                raise KeyboardInterrupt
            return super().forward(blurred)

    for name in "abcd":
        write(tmp_path / "in" / f"{name}.png")
    results = restore_files(plan_outputs([tmp_path / "in"], tmp_path / "out"), Restorer(Interrupted()))
    with pytest.raises(KeyboardInterrupt):
        list(results)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.png", "b.png"]
    assert all(read_photo(path).width == 8 for path in (tmp_path / "out").iterdir())


def test_an_interrupt_while_a_file_is_written_leaves_no_part_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    source = write(tmp_path / "a.png")
    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        list(restore_files([PlannedFile(source, tmp_path / "b.png")], Restorer(identity())))
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no limit of file sizes")
def test_a_disk_that_is_full_fails_in_one_line_and_small_files_are_still_done(tmp_path: Path) -> None:
    write(tmp_path / "in" / "large.png", 90, 90, 3)
    write(tmp_path / "in" / "small.png", 4, 4, 3)
    program = """
        import resource
        from pathlib import Path
        from torch import nn
        from unblur.outputs import FailedFile, plan_outputs
        from unblur.restorer import Restorer, restore_files
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        for result in restore_files(plan_outputs([Path("in")], Path("out")), Restorer(nn.Identity().eval())):
            print(result.error if isinstance(result, FailedFile) else result.target)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    large, small = done.stdout.splitlines()
    assert large.startswith(str(Path("out/large.png")))
    assert "could not be written" in large
    assert small == str(Path("out/small.png"))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["small.png"]


def test_the_device_of_a_given_network_stays_and_auto_finds_one() -> None:
    network = Brighten()
    assert Restorer(network).network is network
    assert restorer_module.find_device("auto").type in ("cpu", "cuda", "mps")
