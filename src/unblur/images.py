"""Photographs: from a file to a tensor and back, with nothing lost on the way that the file can hold.

A `Photo` is upright RGB in [0, 1] and what came with it: alpha, depth, EXIF, ICC profile, resolution. The rest of the
package sees only its tensor. Colours stay in the file's own colour space, whose profile is written back; CMYK alone is
converted to sRGB. A palette becomes colours, a bilevel picture grey. `formats.py` knows the kinds of files.

Alpha is kept as it was, and so are the colours under it. Where a picture is fully transparent these are arbitrary
(often black), and a network would draw them into the visible part: give it `Photo.visible_rgb` instead.
"""

import os
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from unblur import files, formats
from unblur.errors import OutputError, PhotoError
from unblur.formats import Decoded, Metadata

PHOTO_SUFFIXES = frozenset(formats.SUFFIXES)
DEFAULT_MAX_PIXELS = 200_000_000
"""Enough for every camera; a file that claims more is probably meant to exhaust the memory."""


@dataclass(frozen=True)
class Photo:
    """A photograph and what its file said about it."""

    rgb: Tensor
    """(3, H, W) float32 in [0, 1], upright; the three planes are equal where `is_grey`."""
    alpha: Tensor | None = None
    """(1, H, W) float32 in [0, 1]; 0 is transparent."""
    is_grey: bool = False
    """Came as grey and is written as grey."""
    bits: int = 8
    """8 or 16: the depth it came with and is written with, where the format has it."""
    format: str | None = None
    """ "JPEG", "PNG", "TIFF" or "WEBP"; None if it was never a file."""
    lossy: bool = False
    """Came from a lossy file; a WebP file made of it may be lossy too."""
    metadata: Metadata = field(default_factory=Metadata)
    notes: tuple[str, ...] = ()
    """What reading could not take over as it was, in words."""

    def __post_init__(self) -> None:
        if self.rgb.ndim != 3 or self.rgb.shape[0] != 3 or self.rgb.numel() == 0 or self.rgb.dtype != torch.float32:
            raise ValueError(f"rgb must be (3, H, W) float32, not {tuple(self.rgb.shape)} {self.rgb.dtype}")
        if self.alpha is not None and self.alpha.shape != (1, self.height, self.width):
            raise ValueError(f"alpha must be (1, {self.height}, {self.width}), not {tuple(self.alpha.shape)}")
        if self.bits not in (8, 16):
            raise ValueError(f"bits must be 8 or 16, not {self.bits}")

    @property
    def height(self) -> int:
        """Return the number of rows."""
        return self.rgb.shape[1]

    @property
    def width(self) -> int:
        """Return the number of columns."""
        return self.rgb.shape[2]

    @property
    def exif(self) -> bytes | None:
        """Return the EXIF block with its "Exif" heading; the orientation in it is 1."""
        return self.metadata.exif

    @property
    def icc(self) -> bytes | None:
        """Return the ICC profile of the colours."""
        return self.metadata.icc

    @property
    def is_opaque(self) -> bool:
        """Return whether nothing shows through, so that alpha can be left out."""
        return self.alpha is None or bool((self.alpha == 1).all())

    def with_rgb(self, rgb: Tensor) -> "Photo":
        """Return this photo with other colours (3, H, W); those of a grey photo are averaged.

        The mean, not the brightness of BT.601: a network's errors on three equal planes are alike, and the mean has the
        least of them.
        """
        return replace(self, rgb=rgb.mean(0, keepdim=True).repeat(3, 1, 1) if self.is_grey else rgb)

    def visible_rgb(self) -> Tensor:
        """Return (3, H, W) with the colours of fully transparent places taken from the visible ones around them."""
        if self.is_opaque:
            return self.rgb
        assert self.alpha is not None
        return _spread(self.rgb, (self.alpha > 0).float())

    def to_array(self) -> np.ndarray:
        """Return (H, W, C) uint8 or uint16 by `bits`: grey, grey and alpha, RGB, or RGB and alpha."""
        planes = [*(self.rgb[:1] if self.is_grey else self.rgb), *(() if self.alpha is None else self.alpha)]
        array = np.empty((self.height, self.width, len(planes)), np.uint8 if self.bits == 8 else np.uint16)
        for channel, plane in enumerate(planes):
            array[..., channel] = (to_uint8(plane) if self.bits == 8 else _rounded(plane, 65_535)).cpu().numpy()
        return array

    def to_pil(self) -> Image.Image:
        """Return a Pillow picture of mode L, LA, RGB or RGBA with the metadata in `info`; always 8 bit."""
        array = replace(self, bits=8).to_array()
        image = Image.fromarray(array[..., 0] if array.shape[2] == 1 else array)
        about = {"exif": self.exif, "icc_profile": self.icc, "xmp": self.metadata.xmp, "dpi": self.metadata.dpi}
        image.info.update({key: value for key, value in about.items() if value})
        return image

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write the photo, as `write_photo` does."""
        write_photo(self, path, overwrite=overwrite)


def read_photo(path: str | Path, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> Photo:
    """Return the photograph in a JPEG, PNG, TIFF or WebP file; what counts is the content, not the suffix.

    Raises `PhotoError` if it is missing, empty, damaged, of another kind, or holds several pages or frames, and
    `PhotoTooLarge`, before anything is decoded, if it has more than `max_pixels`.
    """
    return _photo(_decode(Path(path), max_pixels))


def read_rgb8(path: str | Path, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> np.ndarray:
    """Return (H, W, 3) uint8, upright, to be written to: grey repeated, alpha dropped, 16 bit rounded.

    Raises as `read_photo` does.
    """
    pixels = _decode(Path(path), max_pixels).pixels
    if pixels.dtype == np.uint16:
        pixels = ((pixels.astype(np.uint32) * 255 + 32_767) // 65_535).astype(np.uint8)
    return np.repeat(pixels[..., :1], 3, axis=2) if pixels.shape[2] < 3 else pixels[..., :3].copy()


def write_photo(photo: Photo, path: str | Path, *, overwrite: bool = False) -> None:
    """Write the photo in the format that the suffix names: whole or not at all, and over an existing file if asked.

    What a format cannot hold is told by `losses`. Only transparency is too much to lose: a JPEG of a photo that has any
    is an `OutputError`, like a file that exists, a folder that may not be written to, and a full disk.
    """
    path = Path(path)
    kind = check_output(path, overwrite=overwrite, photo=photo)
    metadata, _ = formats.fit(photo.metadata, photo.bits, kind)
    array = replace(
        photo,
        bits=photo.bits if kind in ("PNG", "TIFF") else 8,
        alpha=photo.alpha if kind != "JPEG" else None,
        # WebP has no grey: three equal planes
        is_grey=photo.is_grey and kind != "WEBP",
    ).to_array()
    content = formats.encode(array, kind, metadata, lossy=photo.lossy)
    with files.written_whole(path, overwrite=overwrite) as temporary:
        temporary.write_bytes(content)


def check_output(path: Path, *, overwrite: bool, photo: Photo | None = None) -> str:
    """Return the format for `path`. Raises the `OutputError` that can be foreseen, before any work is done in vain."""
    kind = formats.SUFFIXES.get(path.suffix.lower())
    if kind is None:
        raise OutputError(f"{path} has no suffix that names a format; use one of {', '.join(sorted(PHOTO_SUFFIXES))}.")
    if os.path.lexists(path) and not overwrite:
        raise OutputError(f"{path} exists already; give --overwrite to replace it.")
    folder = next(parent for parent in path.absolute().parents if os.path.exists(parent))
    if not os.path.isdir(folder) or not os.access(folder, os.W_OK):
        raise OutputError(f"{path} cannot be written: {folder} is not a folder that you may write to.")
    if photo is not None and kind == "JPEG" and not photo.is_opaque:
        raise OutputError(f"{path} would lose the transparency, which JPEG does not have; write .png, .tif or .webp.")
    limit = formats.MAX_SIDE_PX.get(kind)
    if photo is not None and limit and max(photo.height, photo.width) > limit:
        raise OutputError(
            f"{path} would be {photo.width}×{photo.height}, but a {kind} file has at most {limit:,} pixels a side."
        )
    return kind


def losses(photo: Photo, path: Path) -> tuple[str, ...]:
    """Return in words what of this photo, as it was first read, the file `path` will not have; mostly nothing."""
    return photo.notes + formats.fit(photo.metadata, photo.bits, formats.SUFFIXES[path.suffix.lower()])[1]


def as_photo(
    picture: "str | Path | Photo | Image.Image | np.ndarray | Tensor", *, max_pixels: int = DEFAULT_MAX_PIXELS
) -> Photo:
    """Return any kind of picture as a `Photo`.

    A path is read. A Pillow picture is turned as its EXIF says. An array is (H, W) or (H, W, 1 to 4) of uint8, uint16,
    or floats in [0, 1]; a tensor is (1 to 4, H, W) likewise. Other shapes and values are a `ValueError`.
    """
    if isinstance(picture, Photo):
        return picture
    if isinstance(picture, str | Path):
        return read_photo(picture, max_pixels=max_pixels)
    if isinstance(picture, Image.Image):
        name = str(getattr(picture, "filename", "") or "the picture")
        formats.check_size(name, *picture.size, max_pixels)
        return _photo(
            replace(formats.decode_pillow(picture, name), kind=picture.format, lossy=picture.format == "JPEG")
        )
    if isinstance(picture, Tensor):
        if picture.ndim != 3 or picture.shape[0] not in (1, 2, 3, 4):
            raise ValueError(f"a tensor must be (1 to 4, H, W), one picture, not {tuple(picture.shape)}")
        planes = picture.detach().cpu()
        picture = (planes.float() if planes.is_floating_point() else planes).permute(1, 2, 0).numpy()
    if isinstance(picture, np.ndarray):
        pixels = picture[..., None] if picture.ndim == 2 else picture
        if pixels.ndim != 3 or pixels.shape[2] not in (1, 2, 3, 4):
            raise ValueError(f"an array must be (H, W) or (H, W, 1 to 4), one picture, not {picture.shape}")
        return _photo_of_pixels(pixels)
    raise ValueError(f"a picture must be a path, Photo, Pillow picture, array or tensor, not {type(picture).__name__}")


def find_photos(folder: Path) -> list[Path]:
    """Return the pictures in `folder` and below it, sorted, by suffix; hidden files and folders are left out.

    Raises `PhotoError` for a folder that may not be read. Links to folders are not followed.
    """

    def fail(error: OSError) -> None:
        raise PhotoError(f"{error.filename} cannot be read: {error.strerror}.") from error

    found: list[Path] = []
    for parent, folders, names in os.walk(folder, onerror=fail):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths = [Path(parent, name) for name in names if not name.startswith(".")]
        found += [path for path in paths if path.suffix.lower() in PHOTO_SUFFIXES and path.is_file()]
    return sorted(found)


def to_uint8(rgb: Tensor) -> Tensor:
    """Return values of [0, 1] as 0 to 255, clipped, halves rounded upwards: the only place where 8 bit are made."""
    return _rounded(rgb, 255).to(torch.uint8)


def _rounded(values: Tensor, top: int) -> Tensor:
    return values.clamp(0, 1).mul_(top).add_(0.5).to(torch.int32)


def _decode(path: Path, max_pixels: int) -> Decoded:
    try:
        if path.is_dir():
            raise PhotoError(f"{path} is a folder, not a picture.")
        if path.exists() and not path.is_file():
            raise PhotoError(f"{path} is not a regular file.")
        with open(path, "rb") as file:
            if not file.read(1):
                raise PhotoError(f"{path} is empty (0 bytes).")
            file.seek(0)
            return formats.decode(file, str(path), max_pixels)
    except FileNotFoundError:
        raise PhotoError(f"{path} does not exist.") from None
    except OSError as error:
        raise PhotoError(f"{path} cannot be read: {error.strerror or error}.") from error


def _photo(decoded: Decoded) -> Photo:
    return replace(
        _photo_of_pixels(decoded.pixels),
        format=decoded.kind,
        lossy=decoded.lossy,
        metadata=decoded.metadata,
        notes=decoded.notes,
    )


def _photo_of_pixels(pixels: np.ndarray) -> Photo:
    """Return the photo of (H, W, C) uint8, uint16 or floats: grey, grey and alpha, RGB, or RGB and alpha."""
    top = {"uint8": 255, "uint16": 65_535}.get(pixels.dtype.name)
    if pixels.size == 0:
        raise ValueError(f"a picture must have pixels, not the shape {pixels.shape}")
    if top is None and not (pixels.dtype.kind == "f" and pixels.min() >= 0 and pixels.max() <= 1):
        seen = f"{pixels.dtype} from {pixels.min()} to {pixels.max()}"
        raise ValueError(f"pixels must be uint8, uint16 or floats in [0, 1], not {seen}")
    height, width, channels = pixels.shape
    colours = 1 if channels < 3 else 3
    planes = np.empty((3 + channels - colours, height, width), np.float32)
    # Plane by plane, so that nothing but the result needs much memory.
    for plane, channel in zip(planes, [0, 0, 0, 1] if colours == 1 else [0, 1, 2, 3], strict=False):
        np.divide(pixels[..., channel], top or 1, out=plane, dtype=np.float32)
    rgb, alpha = torch.from_numpy(planes[:3]), torch.from_numpy(planes[3:]) if channels in (2, 4) else None
    return Photo(rgb, alpha, is_grey=colours == 1, bits=16 if top == 65_535 else 8)


def _spread(rgb: Tensor, known: Tensor) -> Tensor:
    """Return `rgb` (3, H, W) with the places where `known` (1, H, W) is 0 filled from the nearest known colours.

    Pull-push: each level halves the picture by the mean of what is known, down to one pixel; on the way back every
    gap takes the value of the level above.
    """
    if bool(known.all()) or known.numel() == 1:
        return rgb
    shape = known.shape[-2:]
    share = F.avg_pool2d(known[None], 2, ceil_mode=True, count_include_pad=False)[0]
    mean = F.avg_pool2d((rgb * known)[None], 2, ceil_mode=True, count_include_pad=False)[0]
    coarser = _spread(mean / share.clamp(min=1e-6), (share > 0).float())
    return torch.where(known > 0, rgb, F.interpolate(coarser[None], shape, mode="nearest")[0])
