"""Properties of reading and writing photographs; the files are made here, by Pillow, OpenCV and tifffile."""

import contextlib
import errno
import os
import struct
import subprocess
import sys
import textwrap
import zlib
from dataclasses import replace
from functools import cache
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image, ImageCms, ImageOps
from torch import Tensor

from unblur import formats, images
from unblur.errors import OutputError, PhotoError, PhotoTooLarge, UnblurError
from unblur.formats import Metadata
from unblur.images import Photo, as_photo, find_photos, losses, read_photo, read_rgb8, to_uint8, write_photo

SHAPES = [(5, 7, 1), (5, 7, 2), (5, 7, 3), (5, 7, 4), (1, 1, 1), (1, 1, 3), (1, 1, 4), (1, 9, 3), (9, 1, 2)]
SUFFIXES = (".jpg", ".png", ".tif", ".webp")
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6" dc:title="\xc3\xa9"/></x:xmpmeta>'
UPRIGHT_XMP = XMP.replace(b'Orientation="6"', b'Orientation="1"')
IPTC = b"8BIM\x04\x04\x00\x00\x00\x00\x00\x08\x1c\x02\x78\x00\x03abc"


def noise(shape: tuple[int, ...], dtype: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max + 1, shape, dtype)


def pillow_of(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


@cache  # a profile holds the second in which it was made
def srgb_profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def exif_block(orientation: int = 1, width: int = 0, height: int = 0) -> bytes:
    exif = Image.Exif()
    exif[0x010F], exif[0x0112], exif[0x013B] = "Camera Works", orientation, "Zoë".encode()
    details = exif.get_ifd(0x8769)
    details[0x829A], details[0x927C], details[0xA002], details[0xA003] = 0.02, b"maker's note " * 9, width, height
    exif.get_ifd(0x8825)[1] = "N"
    return exif.tobytes()


def all_metadata() -> Metadata:
    return Metadata(exif_block(), srgb_profile(), UPRIGHT_XMP, IPTC, (300.0, 150.0))


def saved_and_read(photo: Photo, path: Path) -> Photo:
    write_photo(photo, path)
    return read_photo(path)


# Pixels


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", SHAPES)
def test_png_and_tiff_give_every_pixel_back(tmp_path: Path, shape: tuple[int, ...], dtype: type, suffix: str) -> None:
    pixels = noise(shape, dtype)
    photo = saved_and_read(as_photo(pixels), tmp_path / f"photo{suffix}")
    np.testing.assert_array_equal(photo.to_array(), pixels)
    assert photo.bits == 8 * pixels.itemsize
    assert photo.is_grey == (shape[2] < 3)


@pytest.mark.parametrize("shape", [(5, 7, 3), (5, 7, 4), (1, 1, 3)])
def test_webp_gives_every_pixel_back(tmp_path: Path, shape: tuple[int, ...]) -> None:
    pixels = noise(shape)
    photo = saved_and_read(as_photo(pixels), tmp_path / "photo.webp")
    np.testing.assert_array_equal(photo.to_array(), pixels)
    assert not photo.lossy


def test_webp_of_a_photo_from_a_lossy_file_is_lossy(photograph: Tensor, tmp_path: Path) -> None:
    photo = saved_and_read(as_photo(photograph), tmp_path / "photo.jpg")
    assert photo.lossy
    again = saved_and_read(photo, tmp_path / "photo.webp")
    assert again.lossy
    assert (again.rgb - photo.rgb).abs().mean() < 0.02


def test_grey_becomes_three_equal_planes_in_webp(tmp_path: Path) -> None:
    pixels = noise((5, 7, 1))
    photo = saved_and_read(as_photo(pixels), tmp_path / "photo.webp")
    np.testing.assert_array_equal(photo.to_array(), np.repeat(pixels, 3, 2))


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_stays_within_a_few_levels_and_keeps_the_colour_resolution(
    photograph: Tensor, tmp_path: Path, channels: int
) -> None:
    photo = as_photo(photograph[:channels])
    again = saved_and_read(photo, tmp_path / "photo.jpg")
    assert again.is_grey == photo.is_grey
    assert (again.rgb - photo.rgb).square().mean() < 10 ** (-38 / 10)
    with Image.open(tmp_path / "photo.jpg") as image:
        assert all(layer[1:3] == (1, 1) for layer in image.layer)  # type: ignore[attr-defined]


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
def test_sixteen_bit_become_eight_where_the_format_has_no_more_and_that_is_said(tmp_path: Path, suffix: str) -> None:
    photo = as_photo(np.full((8, 8, 3), 40_000, np.uint16))
    again = saved_and_read(photo, tmp_path / f"photo{suffix}")
    assert again.bits == 8
    assert (again.rgb - photo.rgb).abs().max() < 1 / 255
    assert any("16 bit" in loss for loss in losses(photo, Path(f"photo{suffix}")))


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("big", [False, True])
def test_tiff_files_of_tifffile_are_read(tmp_path: Path, channels: int, order: str, big: bool) -> None:
    pixels = noise((5, 7, channels), np.uint16)
    extra = ["unassalpha"] if channels == 4 else []
    for planar in ("contig", "separate"):
        stored = np.moveaxis(pixels, 2, 0) if planar == "separate" else pixels
        options = {"photometric": "rgb", "planarconfig": planar, "extrasamples": extra, "compression": "deflate"}
        tifffile.imwrite(tmp_path / "photo.tif", stored, byteorder=order, bigtiff=big, **options)
        np.testing.assert_array_equal(read_photo(tmp_path / "photo.tif").to_array(), pixels)


def test_tiff_with_lzw_is_read_at_its_full_depth(tmp_path: Path) -> None:
    pixels = noise((50, 70, 3), np.uint16)
    cv2.imwrite(str(tmp_path / "photo.tif"), pixels[..., ::-1], [cv2.IMWRITE_TIFF_COMPRESSION, 5])
    np.testing.assert_array_equal(read_photo(tmp_path / "photo.tif").to_array(), pixels)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_tiff_whose_zero_is_white_is_turned_over(tmp_path: Path, dtype: type) -> None:
    pixels = noise((5, 7), dtype)
    tifffile.imwrite(tmp_path / "photo.tif", pixels, photometric="miniswhite")
    np.testing.assert_array_equal(read_photo(tmp_path / "photo.tif").to_array()[..., 0], np.iinfo(dtype).max - pixels)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_tiff_with_colours_multiplied_by_alpha_is_divided(tmp_path: Path, dtype: type) -> None:
    top = np.iinfo(dtype).max
    pixels = np.array([[[top // 2, top // 4, 0, top // 2], [0, 0, 0, 0], [top, 9, 0, top]]], dtype)
    tifffile.imwrite(tmp_path / "photo.tif", pixels, photometric="rgb", extrasamples=["assocalpha"])
    expected = np.array([[[1, 0.5, 0, 0.5], [0, 0, 0, 0], [1, 9 / top, 0, 1]]])
    photo = read_photo(tmp_path / "photo.tif")
    np.testing.assert_allclose(photo.to_array() / top, expected, atol=0.01)


def test_opencv_reads_the_same_sixteen_bit_values(tmp_path: Path) -> None:
    pixels = noise((5, 7, 3), np.uint16)
    for suffix in (".png", ".tif"):
        as_photo(pixels).save(tmp_path / f"photo{suffix}")
        np.testing.assert_array_equal(cv2.imread(str(tmp_path / f"photo{suffix}"), -1)[..., ::-1], pixels)
        cv2.imwrite(str(tmp_path / f"other{suffix}"), pixels[..., ::-1])
        np.testing.assert_array_equal(read_photo(tmp_path / f"other{suffix}").to_array(), pixels)


def test_pillow_and_tifffile_read_what_is_written(tmp_path: Path) -> None:
    for channels in (1, 2, 3, 4):
        pixels = noise((5, 7, channels))
        for suffix in (".png", ".tif"):
            as_photo(pixels).save(tmp_path / f"photo{suffix}", overwrite=True)
            with Image.open(tmp_path / f"photo{suffix}") as image:
                np.testing.assert_array_equal(np.asarray(image).reshape(pixels.shape), pixels)
        deep = noise((5, 7, channels), np.uint16)
        as_photo(deep).save(tmp_path / "photo.tif", overwrite=True)
        np.testing.assert_array_equal(tifffile.imread(tmp_path / "photo.tif").reshape(deep.shape), deep)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [("1", "L"), ("L", "L"), ("P", "RGB"), ("RGB", "RGB"), ("LA", "LA"), ("RGBA", "RGBA")],
)
def test_every_kind_of_png_is_read(photograph: Tensor, tmp_path: Path, mode: str, expected: str) -> None:
    image = as_photo(photograph).to_pil().convert(mode)
    image.save(tmp_path / "photo.png")
    np.testing.assert_array_equal(
        np.asarray(read_photo(tmp_path / "photo.png").to_pil()), np.asarray(image.convert(expected))
    )


@pytest.mark.parametrize(("mode", "transparent"), [("1", 0), ("L", 7), ("P", 3), ("RGB", (1, 2, 3))])
def test_a_transparent_colour_becomes_alpha(tmp_path: Path, mode: str, transparent: object) -> None:
    image = Image.new(mode, (4, 2), 1)
    if mode == "P":
        image.putpalette(range(12))
    image.putpixel((2, 1), transparent)  # type: ignore[arg-type]
    image.save(tmp_path / "photo.png", transparency=transparent)
    expected = torch.ones(1, 2, 4)
    expected[0, 1, 2] = 0
    assert torch.equal(read_photo(tmp_path / "photo.png").alpha, expected)  # type: ignore[arg-type]


@pytest.mark.parametrize("channels", [1, 3])
def test_a_transparent_colour_of_sixteen_bit_becomes_alpha(tmp_path: Path, channels: int) -> None:
    pixels = noise((4, 5, channels), np.uint16)
    write_photo(as_photo(pixels), tmp_path / "photo.png")
    content = (tmp_path / "photo.png").read_bytes()
    chosen = pixels[2, 3].astype(">u2").tobytes()
    chunk = struct.pack(">I", len(chosen)) + b"tRNS" + chosen + struct.pack(">I", zlib.crc32(b"tRNS" + chosen))
    (tmp_path / "photo.png").write_bytes(content[:33] + chunk + content[33:])
    photo = read_photo(tmp_path / "photo.png")
    assert photo.alpha is not None
    assert (photo.alpha == 0).nonzero().tolist() == [[0, 2, 3]]
    np.testing.assert_array_equal(photo.to_array()[..., :-1], pixels)


def test_cmyk_is_converted_to_srgb_by_its_profile_and_that_is_said(photograph: Tensor, tmp_path: Path) -> None:
    image = as_photo(photograph).to_pil().convert("CMYK")
    image.save(tmp_path / "photo.jpg", quality=95)
    plain = read_photo(tmp_path / "photo.jpg")
    assert (plain.rgb - photograph).abs().mean() < 0.02
    assert plain.icc is None
    assert any("CMYK" in loss for loss in losses(plain, Path("photo.png")))
    image.save(tmp_path / "odd.jpg", quality=95, icc_profile=b"no profile")
    assert torch.equal(read_photo(tmp_path / "odd.jpg").rgb, plain.rgb)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg", ".webp"])
@pytest.mark.parametrize("shape", [(6, 4, 1), (6, 4, 3)])
def test_the_fast_way_reads_the_same_pixels(tmp_path: Path, suffix: str, shape: tuple[int, ...]) -> None:
    write_photo(as_photo(noise(shape)), tmp_path / f"photo{suffix}")
    photo = read_photo(tmp_path / f"photo{suffix}")
    pixels = read_rgb8(tmp_path / f"photo{suffix}")
    assert pixels.dtype == np.uint8
    assert torch.equal(torch.from_numpy(pixels).permute(2, 0, 1), to_uint8(photo.rgb))


def test_the_fast_way_rounds_sixteen_bit_and_drops_alpha(tmp_path: Path) -> None:
    pixels = noise((30, 40, 4), np.uint16)
    write_photo(as_photo(pixels), tmp_path / "photo.png")
    np.testing.assert_array_equal(read_rgb8(tmp_path / "photo.png"), np.floor(pixels[..., :3] / 257 + 0.5))


def test_to_uint8_clips_and_rounds_halves_upwards() -> None:
    values = torch.tensor([-1.0, 0.0, 0.49 / 255, 0.5 / 255, 1.5 / 255, 2.5 / 255, 254.4 / 255, 1.0, 9.0])
    assert to_uint8(values).tolist() == [0, 0, 0, 1, 2, 3, 254, 255, 255]


def test_every_level_survives_the_way_through_floats() -> None:
    for dtype in (np.uint8, np.uint16):
        levels = np.arange(np.iinfo(dtype).max + 1, dtype=dtype)[None, :, None]
        np.testing.assert_array_equal(as_photo(levels).to_array(), levels)


# Orientation and metadata


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
def test_every_orientation_is_applied_as_pillow_does_and_reset(tmp_path: Path, orientation: int, suffix: str) -> None:
    image = pillow_of(noise((5, 7, 3)))
    exif = exif_block(orientation, width=7, height=5)
    image.save(tmp_path / f"photo{suffix}", exif=exif, **({"lossless": True} if suffix == ".webp" else {}))
    tagged = Image.open(BytesIO((tmp_path / f"photo{suffix}").read_bytes()))
    photo = read_photo(tmp_path / f"photo{suffix}")
    np.testing.assert_array_equal(photo.to_array(), np.asarray(ImageOps.exif_transpose(tagged)))
    assert photo.exif is not None
    kept = Image.Exif()
    kept.load(photo.exif)
    assert kept.get(0x0112, 1) == 1
    np.testing.assert_array_equal(saved_and_read(photo, tmp_path / f"again{suffix}").rgb, photo.rgb)
    if suffix != ".tif":
        assert kept.get_ifd(0x8769)[0xA002] == photo.width
        assert kept.get_ifd(0x8769)[0xA003] == photo.height


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_deep_pictures_are_turned_like_others(tmp_path: Path, orientation: int, suffix: str) -> None:
    pixels = noise((5, 7, 3), np.uint16)
    deep, flat = tmp_path / f"deep{suffix}", tmp_path / f"flat{suffix}"
    for path, array in ((deep, pixels), (flat, (pixels >> 8).astype(np.uint8))):
        metadata = Metadata(exif_block(orientation), dpi=(300.0, 150.0))
        path.write_bytes(formats.encode(array, formats.SUFFIXES[suffix], metadata))
    photo = read_photo(deep)
    np.testing.assert_array_equal(photo.to_array() >> 8, read_photo(flat).to_array())
    assert photo.metadata.dpi == pytest.approx((150, 300) if orientation > 4 else (300, 150), abs=0.02)


def test_xmp_alone_can_give_the_orientation(tmp_path: Path) -> None:
    image = pillow_of(noise((5, 7, 3)))
    image.save(tmp_path / "photo.webp", xmp=XMP, lossless=True)
    photo = read_photo(tmp_path / "photo.webp")
    np.testing.assert_array_equal(photo.to_array(), np.rot90(np.asarray(image), -1))
    assert photo.metadata.xmp == UPRIGHT_XMP


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("bits", [8, 16])
def test_every_format_keeps_the_metadata_that_it_can_hold(tmp_path: Path, suffix: str, bits: int) -> None:
    pixels = noise((5, 7, 3), np.uint8 if bits == 8 else np.uint16)
    photo = replace(as_photo(pixels), metadata=all_metadata())
    kept = saved_and_read(photo, tmp_path / f"photo{suffix}").metadata
    assert kept.icc == photo.icc
    assert kept.xmp == UPRIGHT_XMP
    assert kept.iptc == (IPTC if suffix in (".jpg", ".tif") else None)
    if suffix == ".webp":
        assert kept.dpi is None
    else:
        assert kept.dpi == pytest.approx((300, 150), abs=0.02)
    if suffix != ".tif":
        assert kept.exif == photo.exif
    assert exif_values(kept.exif) == exif_values(photo.exif)
    lost = losses(photo, Path(f"photo{suffix}"))
    assert any("IPTC" in loss for loss in lost) == (kept.iptc is None)


def exif_values(exif: bytes | None) -> list[object]:
    assert exif is not None
    read = Image.Exif()
    read.load(exif)
    nested = [dict(read.get_ifd(tag)) for tag in (0x8769, 0x8825)]
    return [read[0x010F], read.get(0x0112, 1), read[0x013B], *nested]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("bits", [8, 16])
def test_pillow_finds_the_profile_and_the_camera(tmp_path: Path, suffix: str, bits: int) -> None:
    pixels = noise((5, 7, 3), np.uint8 if bits == 8 else np.uint16)
    write_photo(replace(as_photo(pixels), metadata=all_metadata()), tmp_path / f"photo{suffix}")
    with Image.open(tmp_path / f"photo{suffix}") as image:
        image.load()
        assert image.info["icc_profile"] == srgb_profile()
        assert image.getexif()[0x010F] == "Camera Works"


def test_the_thumbnail_of_the_blurred_picture_is_unlinked(tmp_path: Path) -> None:
    exif = bytearray(exif_block(6))
    block = exif[6:]
    count = struct.unpack(">H", block[8:10])[0]
    link = 10 + 12 * count
    block[link : link + 4] = struct.pack(">I", len(block))
    block += struct.pack(">HHHII", 1, 0x0103, 3, 1, 6 << 16) + bytes(4)
    Image.new("RGB", (4, 2)).save(tmp_path / "photo.jpg", exif=b"Exif\0\0" + bytes(block))
    photo = read_photo(tmp_path / "photo.jpg")
    kept = Image.Exif()
    kept.load(photo.exif or b"")
    assert not kept.get_ifd(0x0001_0001) and kept[0x010F] == "Camera Works"  # noqa: PT018
    assert photo.exif is not None
    assert len(photo.exif) == 6 + len(block)
    assert photo.exif[6:][link : link + 4] == bytes(4)


def test_damaged_exif_is_left_out_and_that_is_said(tmp_path: Path) -> None:
    Image.new("RGB", (4, 2)).save(tmp_path / "photo.jpg", exif=b"Exif\0\0" + exif_block()[6:20])
    photo = read_photo(tmp_path / "photo.jpg")
    assert photo.exif is None
    assert any("EXIF" in note for note in photo.notes)


def test_the_profile_of_a_grey_picture_is_not_given_to_a_webp_in_colour(tmp_path: Path) -> None:
    profile = srgb_profile()
    grey = profile[:16] + b"GRAY" + profile[20:]
    photo = replace(as_photo(noise((4, 4, 1))), metadata=Metadata(icc=grey))
    assert saved_and_read(photo, tmp_path / "photo.webp").icc is None
    assert saved_and_read(photo, tmp_path / "photo.png").icc == grey
    assert losses(photo, Path("photo.webp")) == ("ICC is left out, the WEBP file cannot hold it",)


def test_exif_too_long_for_a_jpeg_is_left_out_and_that_is_said(tmp_path: Path) -> None:
    photo = replace(as_photo(noise((4, 4, 3))), metadata=Metadata(exif=exif_block() + bytes(70_000)))
    assert saved_and_read(photo, tmp_path / "photo.jpg").exif is None
    assert len(losses(photo, Path("photo.jpg"))) == 1
    assert losses(photo, Path("photo.png")) == ()


# Alpha


def test_jpeg_refuses_transparency_but_not_an_opaque_alpha(tmp_path: Path) -> None:
    pixels = noise((5, 7, 4))
    with pytest.raises(OutputError, match=r"transparency.*\.png"):
        write_photo(as_photo(pixels), tmp_path / "photo.jpg")
    assert list(tmp_path.iterdir()) == []
    pixels[..., 3] = 255
    assert saved_and_read(as_photo(pixels), tmp_path / "photo.jpg").alpha is None


def test_visible_rgb_has_no_colour_from_under_the_transparent_parts() -> None:
    rgb = torch.zeros(3, 37, 53)
    alpha = torch.zeros(1, 37, 53)
    alpha[:, 10:20, 5:9] = 0.5
    rgb[:, alpha[0] > 0] = 0.75
    torch.testing.assert_close(Photo(rgb, alpha).visible_rgb(), torch.full_like(rgb, 0.75))


def test_visible_rgb_leaves_visible_pixels_alone(photograph: Tensor) -> None:
    alpha = (torch.rand(1, *photograph.shape[1:], generator=torch.Generator().manual_seed(0)) > 0.4).float()
    visible = Photo(photograph, alpha).visible_rgb()
    shown = alpha[0] > 0
    assert torch.equal(visible[:, shown], photograph[:, shown])
    assert (visible - photograph)[:, ~shown].abs().mean() < 0.05  # a hole among visible pixels is filled from these
    assert torch.equal(Photo(photograph, torch.ones_like(alpha)).visible_rgb(), photograph)


def test_a_wholly_transparent_picture_is_no_problem() -> None:
    rgb = torch.rand(3, 5, 3)
    assert torch.isfinite(Photo(rgb, torch.zeros(1, 5, 3)).visible_rgb()).all()
    assert torch.isfinite(Photo(rgb[:, :1, :1], torch.zeros(1, 1, 1)).visible_rgb()).all()


# Other sources


def test_arrays_tensors_and_pillow_pictures_give_the_same_photo(photograph: Tensor) -> None:
    pixels = to_uint8(photograph).permute(1, 2, 0).numpy()
    for picture in (pixels, pixels / 255, photograph.double(), Image.fromarray(pixels), to_uint8(photograph)):
        torch.testing.assert_close(as_photo(picture).rgb, photograph)
    photo = as_photo(photograph)
    assert as_photo(photo) is photo
    assert as_photo(pixels[..., 0]).is_grey


def test_a_pillow_picture_is_turned_and_brings_its_metadata() -> None:
    image = pillow_of(noise((5, 7, 3)))
    image.info |= {"exif": exif_block(6), "icc_profile": b"profile"}
    photo = as_photo(image)
    np.testing.assert_array_equal(photo.to_array(), np.rot90(np.asarray(image), -1))
    assert photo.icc == b"profile"
    assert photo.to_pil().info["exif"] == photo.exif


@pytest.mark.parametrize(
    "picture",
    [
        np.zeros((2, 3, 4, 3)),
        np.zeros((4, 4, 5), np.uint8),
        np.zeros((4, 4), np.int64),
        np.full((4, 4, 3), 255.0),
        np.full((4, 4, 3), np.nan),
        np.zeros((0, 4, 3), np.uint8),
        torch.zeros(1, 3, 4, 4),
        3.5,
    ],
)
def test_what_cannot_be_a_picture_is_a_value_error(picture: object) -> None:
    with pytest.raises(ValueError, match="must"):
        as_photo(picture)  # type: ignore[arg-type]


def test_a_photo_checks_its_parts() -> None:
    with pytest.raises(ValueError, match="rgb"):
        Photo(torch.zeros(4, 4, 3))
    with pytest.raises(ValueError, match="alpha"):
        Photo(torch.zeros(3, 4, 4), torch.zeros(1, 4, 5))
    with pytest.raises(ValueError, match="bits"):
        Photo(torch.zeros(3, 4, 4), bits=12)


def test_grey_photos_average_new_colours() -> None:
    photo = as_photo(noise((4, 4, 1))).with_rgb(torch.tensor([0.1, 0.2, 0.6])[:, None, None].expand(3, 4, 4))
    torch.testing.assert_close(photo.rgb, torch.full((3, 4, 4), 0.3))


# What cannot be read


def bad_files(folder: Path) -> dict[str, tuple[Path, str]]:
    """For every fault a file that has it, and a word of the message."""

    def made(name: str, content: bytes) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    image = pillow_of(noise((60, 80, 3)))
    contents = {}
    for kind in ("JPEG", "PNG", "TIFF", "WEBP"):
        file = BytesIO()
        image.save(file, kind)
        contents[kind] = file.getvalue()
    deep_png = formats.encode(noise((60, 80, 3), np.uint16), "PNG", Metadata())
    deep_tiff = formats.encode(noise((60, 80, 3), np.uint16), "TIFF", Metadata())
    deep_grey_tiff = formats.encode(noise((60, 80, 2), np.uint16), "TIFF", Metadata())
    for name, content in (("pages.tif", "TIFF"), ("moving.png", "PNG"), ("moving.webp", "WEBP")):
        image.save(folder / name, content, save_all=True, append_images=[ImageOps.invert(image), image])
    tifffile.imwrite(folder / "float.tif", np.ones((4, 4, 3), np.float32), photometric="rgb")
    tifffile.imwrite(folder / "long.tif", np.ones((4, 4), np.uint32), photometric="minisblack")
    tifffile.imwrite(folder / "raw.dng", np.ones((4, 4), np.uint8), subfiletype=1)
    flipped = bytearray(contents["PNG"])
    flipped[len(flipped) // 2] ^= 255
    (folder / "folder.jpg").mkdir()
    return {
        "missing": (folder / "nowhere.jpg", "does not exist"),
        "folder": (folder / "folder.jpg", "folder"),
        "empty": (made("empty.jpg", b""), "empty"),
        "one byte": (made("byte.jpg", b"\xff"), "not a JPEG"),
        "text": (made("text.jpg", b"This is no picture, only its name says so.\n"), "not a JPEG"),
        "another kind": (made("photo.gif", b"GIF89a" + bytes(50)), "not a JPEG"),
        "short JPEG": (made("short.jpg", contents["JPEG"][:-900]), "truncated"),
        "JPEG without end": (made("end.jpg", contents["JPEG"][:-10]), "truncated"),
        "JPEG header": (made("header.jpg", contents["JPEG"][:40]), "cannot be read"),
        "short PNG": (made("short.png", contents["PNG"][:-2000]), "truncated"),
        "PNG header": (made("header.png", contents["PNG"][:20]), "cannot be read"),
        "damaged PNG": (made("flipped.png", bytes(flipped)), "broken"),
        "short deep PNG": (made("deep.png", deep_png[:-2000]), "truncated"),
        "short TIFF": (made("short.tif", contents["TIFF"][:2000]), "cannot be read"),
        "short deep TIFF": (made("deep.tif", deep_tiff[:-2000]), "2,000 bytes are missing"),
        "short deep grey TIFF": (made("grey.tif", deep_grey_tiff[:-2000]), "2,000 bytes are missing"),
        "TIFF header": (made("header.tif", deep_tiff[:30]), "cannot be read"),
        "TIFF magic": (made("magic.tif", b"II*\0"), "cannot be read"),
        "short WebP": (made("short.webp", contents["WEBP"][:-100]), "cannot be read"),
        "pages": (folder / "pages.tif", "3 pages"),
        "moving PNG": (folder / "moving.png", "animation of 3"),
        "moving WebP": (folder / "moving.webp", "animation of 3"),
        "float": (folder / "float.tif", "32-bit floating-point"),
        "long": (folder / "long.tif", "32-bit"),
        "raw": (folder / "raw.dng", "RAW"),
    }


def test_every_fault_is_one_line_that_names_the_file_and_the_fault(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for fault, (path, word) in bad_files(tmp_path).items():
        for read in (read_photo, read_rgb8):
            with pytest.raises(PhotoError) as caught:
                read(path)
            message = str(caught.value)
            assert message.startswith(str(path)), fault
            assert word in message, (fault, message)
            assert "\n" not in message, fault
    assert capfd.readouterr() == ("", "")


def test_damage_at_any_place_is_a_photo_error_or_no_harm(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    for suffix in SUFFIXES:
        for dtype in (np.uint8, np.uint16):
            photo = replace(as_photo(noise((9, 8, 3), dtype)), metadata=all_metadata())
            write_photo(photo, tmp_path / f"photo{suffix}", overwrite=True)
            content = (tmp_path / f"photo{suffix}").read_bytes()
            for _ in range(25):
                damaged = bytearray(content)
                for place in random.integers(0, min(len(content), 900), 3):
                    damaged[place] = random.integers(256)
                (tmp_path / "damaged").write_bytes(damaged)
                with contextlib.suppress(PhotoError):
                    read_photo(tmp_path / "damaged").save(tmp_path / "again.tif", overwrite=True)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_refused_instead_of_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(PhotoError, match="regular"):
        read_photo(tmp_path / "pipe.jpg")


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="everything may be read here")
def test_a_file_that_may_not_be_read_is_a_photo_error(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"x")
    (tmp_path / "photo.jpg").chmod(0)
    with pytest.raises(PhotoError, match="cannot be read"):
        read_photo(tmp_path / "photo.jpg")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("bits", [8, 16])
def test_too_many_pixels_are_refused_by_the_header_alone(tmp_path: Path, suffix: str, bits: int) -> None:
    path = tmp_path / f"photo{suffix}"
    pixels = noise((30, 40, 3), np.uint8 if bits == 8 else np.uint16)
    write_photo(as_photo(pixels), path)
    content = path.read_bytes()
    if suffix != ".webp":  # whose reader refuses a short file before it tells the size
        path.write_bytes(content[:-200])  # whoever decodes notices
    with pytest.raises(PhotoTooLarge, match=r"40×30.*1,199.*--max-pixels 1200"):
        read_photo(path, max_pixels=1199)
    path.write_bytes(content)
    assert read_photo(path, max_pixels=1200).width == 40


def test_a_bomb_is_refused_in_little_memory(tmp_path: Path) -> None:
    side = 20_000
    header = struct.pack(">IIBBBBB", side, side, 16, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + formats._chunk(b"IHDR", header)
    bomb += formats._chunk(b"IDAT", zlib.compress(bytes(10_000_000), 9)) + formats._chunk(b"IEND", b"")
    (tmp_path / "bomb.png").write_bytes(bomb)
    with pytest.raises(PhotoTooLarge, match="--max-pixels 400000000"):
        read_photo(tmp_path / "bomb.png")


def test_the_limit_is_ours_alone_and_pillow_neither_warns_nor_refuses(tmp_path: Path) -> None:
    Image.new("1", (14_000, 13_500)).save(tmp_path / "large.png")  # 189 megapixels; Pillow's limit is 179
    with open(tmp_path / "large.png", "rb") as file:
        decoded = formats.decode(file, "large.png", images.DEFAULT_MAX_PIXELS)
    assert decoded.pixels.shape == (13_500, 14_000, 1)


# What cannot be written


def test_an_existing_file_is_replaced_only_if_asked(tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(b"precious")
    photo = as_photo(noise((4, 4, 3)))
    with pytest.raises(OutputError, match="--overwrite"):
        photo.save(path)
    assert path.read_bytes() == b"precious"
    photo.save(path, overwrite=True)
    assert torch.equal(read_photo(path).rgb, photo.rgb)
    assert [p.name for p in tmp_path.iterdir()] == ["photo.png"]


@pytest.mark.parametrize("name", ["photo", "photo.gif", "photo.jp2", ".png"])
def test_an_unknown_suffix_is_an_output_error_that_lists_the_known_ones(tmp_path: Path, name: str) -> None:
    with pytest.raises(OutputError, match=r"\.jpeg, \.jpg, \.png"):
        as_photo(noise((4, 4, 3))).save(tmp_path / name)


@pytest.mark.parametrize(("suffix", "limit"), [(".webp", 16_383), (".jpg", 65_500)])
def test_a_picture_too_wide_for_the_format_is_an_output_error(tmp_path: Path, suffix: str, limit: int) -> None:
    saved_and_read(as_photo(np.zeros((1, limit, 3), np.uint8)), tmp_path / f"fits{suffix}")
    with pytest.raises(OutputError, match=f"{limit:,}"):
        as_photo(np.zeros((1, limit + 1, 3), np.uint8)).save(tmp_path / f"photo{suffix}")


def test_a_folder_in_the_way_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "photo.png").mkdir()
    with pytest.raises(OutputError):
        as_photo(noise((4, 4, 3))).save(tmp_path / "photo.png", overwrite=True)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError):
        as_photo(noise((4, 4, 3))).save(tmp_path / "file" / "photo.png")


@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_failure_while_writing_leaves_the_folder_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException
) -> None:
    def fail(_: int) -> None:
        assert len(list(tmp_path.iterdir())) == 2  # the old file and the temporary one
        raise failure

    path = tmp_path / "photo.png"
    path.write_bytes(b"precious")
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(KeyboardInterrupt if isinstance(failure, KeyboardInterrupt) else OutputError) as caught:
        as_photo(noise((4, 4, 3))).save(path, overwrite=True)
    if isinstance(caught.value, UnblurError):
        assert "No space left" in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["photo.png"]
    assert path.read_bytes() == b"precious"


@pytest.mark.skipif(os.name == "nt", reason="Windows has no limit of file sizes")
def test_a_disk_that_ends_in_the_middle_leaves_nothing(tmp_path: Path) -> None:
    """A limit of the file size fails like a full disk: the system takes a part and refuses the rest."""
    program = f"""
        import resource, numpy
        from unblur.images import as_photo
        from unblur.errors import OutputError
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        try:
            as_photo(numpy.random.default_rng(0).random((90, 90, 3))).save({str(tmp_path / "photo.png")!r})
        except OutputError as error:
            print(error)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(str(tmp_path / "photo.png"))
    assert done.stdout.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="everything may be written here")
def test_a_folder_that_may_not_be_written_to_is_an_output_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError):
        as_photo(noise((4, 4, 3))).save(tmp_path / "photo.png")
    tmp_path.chmod(0o700)


# Folders


def test_find_photos_goes_down_in_order_and_passes_over_what_is_hidden_or_no_picture(tmp_path: Path) -> None:
    wanted = ["a.JPG", "b.jpeg", "sub/c.Png", "sub/deeper/d.tif", "sub/deeper/e.TIFF", "z.webp"]
    others = [".hidden.jpg", ".git/f.jpg", "sub/.thumbs/g.png", "notes.txt", "h.gif", "._a.jpg"]
    for name in wanted + others:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "folder.jpg").mkdir()
    assert find_photos(tmp_path) == sorted(tmp_path / name for name in wanted)


def test_find_photos_of_nothing_is_a_photo_error(tmp_path: Path) -> None:
    with pytest.raises(PhotoError):
        find_photos(tmp_path / "nowhere")


def test_opencv_and_tifffile_are_not_loaded_for_pictures_of_eight_bit(tmp_path: Path) -> None:
    program = """
        import sys
        from unblur.images import as_photo, read_photo
        import numpy
        for suffix in ("jpg", "png", "tif", "webp"):
            as_photo(numpy.zeros((4, 4, 3), "uint8")).save(f"{sys.argv[1]}/photo.{suffix}")
            read_photo(f"{sys.argv[1]}/photo.{suffix}")
        assert not {"cv2", "tifffile"} & set(sys.modules)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program), str(tmp_path)], check=True)


def test_real_photographs_are_read(data_root: Path) -> None:
    for path in find_photos(data_root / "eval-dev")[:4]:
        photo = read_photo(path)
        np.testing.assert_array_equal(read_rgb8(path), np.asarray(Image.open(path).convert("RGB")))
        assert photo.lossy == (path.suffix == ".jpg")
