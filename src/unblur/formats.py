"""JPEG, PNG, TIFF and WebP: bytes in, upright pixels and metadata out; and back.

Pillow decodes and encodes what has 8 bits. It opens 16-bit colour as 8-bit without a word, so deeper pictures are
decoded by OpenCV or tifffile (loaded only then) and encoded here. What can be kept:

                 JPEG           PNG    TIFF   WebP
    16 bit       becomes 8      yes    yes    becomes 8
    alpha        no             yes    yes    yes
    grey         yes            yes    yes    as colour
    EXIF, XMP    up to 64 KB    yes    yes    yes
    ICC          yes            yes    yes    yes, save that of a grey picture
    IPTC         up to 64 KB    no     yes    no
    resolution   yes            yes    yes    no

Maker's notes in EXIF may become unreadable on the way into or out of a TIFF file. Comments, PNG texts, previews and
further pictures in the file (gain map) are not kept.
"""

import contextlib
import os
import re
import struct
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from io import BytesIO
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, ImageCms, JpegImagePlugin, PngImagePlugin, TiffImagePlugin, WebPImagePlugin

from unblur.errors import PhotoError, PhotoTooLarge
from unblur.exif import (
    Directory,
    Entries,
    Kind,
    Order,
    Tag,
    entries_of_exif,
    exif_of_tiff,
    read_directories,
    upright_exif,
    write_directory,
)

SUFFIXES = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".tif": "TIFF", ".tiff": "TIFF", ".webp": "WEBP"}
MAX_SIDE_PX = {"JPEG": 65_500, "WEBP": 16_383}


@dataclass(frozen=True)
class Metadata:
    """What a file says about its picture, passed on unread."""

    exif: bytes | None = None
    """Begins with "Exif", two zeros; the orientation in it is 1."""
    icc: bytes | None = None
    xmp: bytes | None = None
    iptc: bytes | None = None
    """Photoshop's resource blocks ("8BIM..."), the home of IPTC captions and keywords."""
    dpi: tuple[float, float] | None = None
    """Dots per inch, across and down."""


@dataclass(frozen=True)
class Decoded:
    """The content of a picture file."""

    pixels: np.ndarray
    """(H, W, C) uint8 or uint16, upright; C is 1 for grey, 2 for grey and alpha, 3 for RGB, 4 for RGB and alpha."""
    metadata: Metadata
    kind: str | None = None
    """ "JPEG", "PNG", "TIFF" or "WEBP"; None for a picture that was never a file."""
    lossy: bool = False
    """Whether detail was lost already: JPEG, or WebP of the lossy kind."""
    notes: tuple[str, ...] = ()
    """What could not be taken over as it is, in words."""


def decode(file: BinaryIO, name: str, max_pixels: int) -> Decoded:
    """Return the picture in an open file; `name` is for messages.

    Raises `PhotoTooLarge` for more than `max_pixels`, from the header alone; `PhotoError` for what is damaged, of
    another kind, or more than one picture.
    """
    with _errors_in_one_line(name):
        kind = _kind(file)
        if kind is None:
            raise PhotoError(f"{name} is not a JPEG, PNG, TIFF or WebP file inside. Convert it to one of these first.")
        if kind == "TIFF":
            return _decode_tiff(file, name, max_pixels)
        image: Image.Image = _OPENERS[kind](file)
        check_size(name, *image.size, max_pixels)
        frames = getattr(image, "n_frames", 1)
        if frames > 1:
            raise PhotoError(f"{name} is an animation of {frames} frames; only single pictures can be read.")
        image.load()  # finds what is cut off, in deep files too, where OpenCV only logs it
        if kind == "PNG" and _png_bits_and_colour(file)[0] == 16:
            pixels = _decode_png16(file, image.info.get("transparency"))
            decoded = Decoded(pixels, _metadata_of(image), kind)
        else:
            decoded = replace(_decoded_by_pillow(image, name), kind=kind, lossy=kind == "JPEG" or _is_lossy_webp(file))
        if "mp" in image.info:
            decoded = _noted(decoded, "further pictures in the file (a gain map or preview) are left out")
        return _upright(decoded)


def decode_pillow(image: Image.Image, name: str) -> Decoded:
    """Return the content of a Pillow picture, upright. Raises `PhotoError` for modes of more than 16 bit."""
    with _errors_in_one_line(name):
        image.load()
        return _upright(_decoded_by_pillow(image, name))


def encode(pixels: np.ndarray, kind: str, metadata: Metadata, *, lossy: bool = False) -> bytes:
    """Return a picture file; `pixels` (H, W, C) as in `Decoded`, of a depth and with channels that `kind` can hold.

    JPEG has quality 95 at full colour resolution: halving that is a blur of its own. WebP loses nothing unless `lossy`.
    """
    if kind == "TIFF":
        return _encode_tiff(pixels, metadata)
    if pixels.dtype == np.uint16:
        return _encode_png16(pixels, metadata)
    # Measured on 12 megapixels. PNG: level 3 takes half the time of Pillow's default for 4 % more bytes. Lossless
    # WebP: an eighth of the time of the default for 14 % more.
    options: dict[str, dict[str, Any]] = {
        "JPEG": {"quality": 95, "subsampling": 0, "optimize": True},
        "PNG": {"compress_level": 3},
        "WEBP": {"quality": 95} if lossy else {"lossless": True, "method": 0, "quality": 0, "exact": True},
    }
    return _encode_pillow(
        Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels), kind, metadata, **options[kind]
    )


def fit(metadata: Metadata, bits: int, kind: str) -> tuple[Metadata, tuple[str, ...]]:
    """Return the metadata that a file of this kind can hold, and in words what of metadata and depth it cannot."""
    unfit = set()
    if kind == "JPEG":
        unfit = {key for key in ("exif", "xmp", "iptc") if len(getattr(metadata, key) or b"") > _JPEG_SEGMENT}
    elif kind in ("PNG", "WEBP"):
        unfit = {"iptc"}
    if kind == "WEBP" and metadata.icc and metadata.icc[16:20] == b"GRAY":
        unfit.add("icc")
    unfit = {key for key in unfit if getattr(metadata, key) is not None}
    notes = [f"{key.upper()} is left out, the {kind} file cannot hold it" for key in sorted(unfit)]
    if bits == 16 and kind in ("JPEG", "WEBP"):
        notes.insert(0, f"16 bit became 8, a {kind} file holds no more")
    return replace(metadata, **dict.fromkeys(unfit)), tuple(notes)


def check_size(name: str, width: int, height: int, max_pixels: int) -> None:
    """Raise `PhotoTooLarge` for more than `max_pixels`, `PhotoError` for an empty picture."""
    if width < 1 or height < 1:
        raise PhotoError(f"{name} has {width}×{height} pixels, there is nothing to restore.")
    if width * height > max_pixels:
        raise PhotoTooLarge(
            f"{name} has {width}×{height} pixels, more than the limit of {max_pixels:,}. If you trust the file, "
            f"raise it: --max-pixels {width * height}"
        )


# Pillow's `Image.open` has a limit of its own, one for the whole process; its openers have none. They read the header.
_OPENERS: dict[str, Any] = {
    "JPEG": JpegImagePlugin.JpegImageFile,
    "PNG": PngImagePlugin.PngImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
}
_JPEG_SEGMENT = 65_500  # a segment's 65,535 bytes less the longest heading


def _kind(file: BinaryIO) -> str | None:
    head = file.read(12)
    file.seek(0)
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "TIFF"
    return "WEBP" if head[:4] == b"RIFF" and head[8:12] == b"WEBP" else None


@contextlib.contextmanager
def _errors_in_one_line(name: str) -> Iterator[None]:
    """Turn whatever a decoder raises over bytes that it does not like into a `PhotoError`, and silence its warnings."""
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    except PhotoError:
        raise
    except MemoryError as error:
        raise PhotoError(f"{name} does not fit into the memory.") from error
    except Exception as error:  # decoders raise nearly everything: OSError, SyntaxError, struct.error, cv2.error, ...
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise PhotoError(f"{name} cannot be read: {reason.rstrip('.')}.") from error


# Pixels and metadata by way of Pillow


def _decoded_by_pillow(image: Image.Image, name: str) -> Decoded:
    metadata, notes = _metadata_of(image), []
    if image.mode.startswith("I;16"):
        return Decoded(np.asarray(image).astype(np.uint16)[..., None], metadata)
    if image.mode == "CMYK":
        image, icc = _rgb_of_cmyk(image, metadata.icc)
        metadata = replace(metadata, icc=icc)
        notes.append("CMYK became RGB")
    if image.mode not in _PLAIN_MODES:
        raise PhotoError(
            f"{name} has pixels of the kind '{image.mode}'; convert it to grey or RGB of 8 or 16 bit first."
        )
    mode = _PLAIN_MODES[image.mode] + ("A" if image.has_transparency_data else "")
    pixels = np.asarray(image if image.mode == mode else image.convert(mode))
    return Decoded(pixels[..., None] if pixels.ndim == 2 else pixels, metadata, notes=tuple(notes))


_PLAIN_MODES = {
    **dict.fromkeys(("1", "L", "LA", "La"), "L"),
    **dict.fromkeys(("P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "YCbCr", "HSV"), "RGB"),
}


def _rgb_of_cmyk(image: Image.Image, icc: bytes | None) -> tuple[Image.Image, bytes | None]:
    """Return the picture in sRGB by its own profile; without one, by the plain formula."""
    if icc:
        srgb = ImageCms.createProfile("sRGB")
        with contextlib.suppress(ImageCms.PyCMSError):
            flags = ImageCms.Flags.BLACKPOINTCOMPENSATION
            intent = ImageCms.Intent.RELATIVE_COLORIMETRIC
            rgb = ImageCms.profileToProfile(image, BytesIO(icc), srgb, intent, "RGB", flags=flags)
            assert rgb is not None
            return rgb, ImageCms.ImageCmsProfile(srgb).tobytes()
    return image.convert("RGB"), None


def _metadata_of(image: Image.Image) -> Metadata:
    info = image.info
    exif = info.get("exif")
    if exif is None and "Raw profile type exif" in info:  # ImageMagick's way before PNG had a place for it
        exif = bytes.fromhex("".join(str(info["Raw profile type exif"]).split("\n")[3:]))
    segments = [
        data for marker, data in getattr(image, "applist", ()) if marker == "APP13" and data.startswith(_PHOTOSHOP)
    ]
    iptc = b"".join(data.removeprefix(_PHOTOSHOP) for data in segments)
    return Metadata(exif or None, info.get("icc_profile"), info.get("xmp"), iptc or None, _sane_dpi(info.get("dpi")))


def _sane_dpi(dpi: Any) -> tuple[float, float] | None:
    if not isinstance(dpi, tuple) or len(dpi) != 2 or not all(1 <= value <= 65_535 for value in dpi):
        return None
    return float(dpi[0]), float(dpi[1])


def _encode_pillow(image: Image.Image, kind: str, metadata: Metadata, **options: Any) -> bytes:
    options |= {"exif": metadata.exif or b"", "icc_profile": metadata.icc}
    if metadata.dpi:
        options["dpi"] = metadata.dpi
    if metadata.xmp and kind == "PNG":
        options["pnginfo"] = PngImagePlugin.PngInfo()
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", metadata.xmp.decode("utf-8", "replace"))
    elif metadata.xmp:
        options["xmp"] = metadata.xmp
    if metadata.iptc and kind == "JPEG":
        segment = _PHOTOSHOP + metadata.iptc
        options["extra"] = b"\xff\xed" + struct.pack(">H", len(segment) + 2) + segment
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


_PHOTOSHOP = b"Photoshop 3.0\0"


# Orientation


def _upright(decoded: Decoded) -> Decoded:
    """Return the picture turned as its EXIF (or else its XMP) says, and metadata that say it is upright."""
    metadata, orientation = decoded.metadata, 1
    if metadata.exif:
        try:
            orientation, exif = upright_exif(metadata.exif)
        except (ValueError, struct.error):
            decoded, exif = _noted(decoded, "its EXIF is damaged and left out"), None
        metadata = replace(metadata, exif=exif)
    if metadata.xmp and (found := _XMP_ORIENTATION.search(metadata.xmp)):
        orientation = int(found[2]) if orientation == 1 else orientation
        metadata = replace(metadata, xmp=_XMP_ORIENTATION.sub(rb"\g<1>1", metadata.xmp))
    if orientation == 1:
        return replace(decoded, metadata=metadata)
    if orientation >= 5 and metadata.dpi:
        metadata = replace(metadata, dpi=metadata.dpi[::-1])
    quarter, *axes = _TURNS[orientation]
    pixels = decoded.pixels.swapaxes(0, 1) if quarter else decoded.pixels
    return replace(decoded, pixels=np.ascontiguousarray(np.flip(pixels, tuple(axes))), metadata=metadata)


_XMP_ORIENTATION = re.compile(rb"""(tiff:Orientation(?:\s*=\s*["']|>))([2-8])""")
# Orientation -> whether rows and columns change places first, then the axes (0 down, 1 across) to be mirrored.
_TURNS = {2: (0, 1), 3: (0, 0, 1), 4: (0, 0), 5: (1,), 6: (1, 1), 7: (1, 0, 1), 8: (1, 0)}


def _noted(decoded: Decoded, note: str) -> Decoded:
    return replace(decoded, notes=(*decoded.notes, note))


# WebP


def _is_lossy_webp(file: BinaryIO) -> bool:
    """Return whether a WebP file has a chunk of lossy pixels; False for other files."""
    file.seek(0)
    if file.read(12)[8:] != b"WEBP":
        return False
    while len(head := file.read(8)) == 8:
        if head[:4] in (b"VP8 ", b"VP8L"):
            return head[:4] == b"VP8 "
        (size,) = struct.unpack("<I", head[4:])
        file.seek(size + size % 2, 1)
    return False


# PNG of 16 bit


def _png_bits_and_colour(file: BinaryIO) -> tuple[int, int]:
    file.seek(24)
    bits, colour = file.read(2)
    return bits, colour


def _decode_png16(file: BinaryIO, transparent: Any) -> np.ndarray:
    """Return (H, W, C) uint16. `transparent`: the one value (grey) or three (RGB) that stand for nothing, or None."""
    channels = {0: [0], 2: [2, 1, 0], 4: [0, 3], 6: [2, 1, 0, 3]}[_png_bits_and_colour(file)[1]]
    pixels = _decoded_by_opencv(file)[..., channels]
    if transparent is not None:
        alpha = np.any(pixels != np.array(transparent), axis=2, keepdims=True) * np.uint16(65_535)
        pixels = np.concatenate([pixels, alpha.astype(np.uint16)], axis=2)
    return pixels


def _decoded_by_opencv(source: BinaryIO | bytearray) -> np.ndarray:
    """Return (H, W, C) uint16, in OpenCV's order of channels: grey, BGR, or BGR and alpha."""
    import cv2

    if not isinstance(source, bytearray):
        source.seek(0)
        source = bytearray(source.read())
    pixels = cv2.imdecode(np.frombuffer(source, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype != np.uint16:
        raise ValueError("OpenCV cannot decode it at 16 bit")
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _encode_png16(pixels: np.ndarray, metadata: Metadata) -> bytes:
    """Return a PNG file, every row filtered by the left neighbour ("sub"): 2 % larger than OpenCV's, and faster.

    OpenCV cannot write grey and alpha, nor the resolution. The chunks of metadata are those of a tiny file by Pillow.
    """
    height, width, channels = pixels.shape
    rows = np.frombuffer(pixels.astype(">u2").tobytes(), np.uint8).reshape(height, -1)
    filtered = np.empty((height, 1 + rows.shape[1]), np.uint8)
    step = 2 * channels
    filtered[:, 0] = 1
    filtered[:, 1 : 1 + step] = rows[:, :step]
    np.subtract(rows[:, step:], rows[:, :-step], out=filtered[:, 1 + step :])
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)
    tiny = _encode_pillow(Image.new("RGB", (1, 1)), "PNG", metadata)
    about = tiny[33 : tiny.rindex(b"IDAT") - 4]  # after signature and header, before the pixels
    body = _chunk(b"IDAT", zlib.compress(filtered.data, 1))
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + about + body + _chunk(b"IEND", b"")


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(data, zlib.crc32(name)))


# TIFF


def _decode_tiff(file: BinaryIO, name: str, max_pixels: int) -> Decoded:
    pages = list(read_directories(file))
    page = pages[0]
    if page.number(Tag.PURPOSE, 0) & 1:
        raise PhotoError(
            f"{name} begins with a preview, as cameras' RAW files do. Develop it into a TIFF or JPEG first."
        )
    pages = [page for page in pages if not page.number(Tag.PURPOSE, 0) & 1]
    if len(pages) > 1:
        raise PhotoError(f"{name} has {len(pages)} pages; only single pictures can be read. Split it first.")
    check_size(name, page.number(Tag.WIDTH, 0), page.number(Tag.HEIGHT, 0), max_pixels)
    _check_complete(file, name, page)
    bits, form = max(page.numbers(Tag.BITS), default=1), page.number(Tag.SAMPLE_FORMAT, 1)
    if bits not in (1, 2, 4, 8, 16) or form not in (1, 4):
        numbers = "floating-point numbers" if form == 3 else "numbers"
        raise PhotoError(f"{name} has {bits}-bit {numbers} for pixels; convert it to 8 or 16 bit first.")
    if bits == 16 and page.number(Tag.PHOTOMETRIC, 1) in (0, 1, 2):
        decoded = Decoded(_decode_tiff16(file, page), Metadata(icc=page.data(Tag.ICC)))
    else:
        image = _loaded_tiff(file)
        page.values.pop(Tag.ORIENTATION, None)  # of all kinds Pillow turns only this one, while it loads
        decoded = _decoded_by_pillow(image, name)
        if bits == 16:
            decoded = _noted(decoded, "16 bit became 8")
    about = replace(
        decoded.metadata,
        exif=exif_of_tiff(file, page),
        xmp=page.data(Tag.XMP),
        iptc=page.data(Tag.PHOTOSHOP),
        dpi=_dpi_of_tiff(page),
    )
    return _upright(replace(decoded, metadata=about, kind="TIFF"))


def _check_complete(file: BinaryIO, name: str, page: Directory) -> None:
    """Raise `PhotoError` if strips or tiles lie beyond the end of the file; libtiff would print that to stderr."""
    length = file.seek(0, os.SEEK_END)
    for offsets, sizes in ((Tag.STRIP_OFFSETS, Tag.STRIP_SIZES), (Tag.TILE_OFFSETS, Tag.TILE_SIZES)):
        end = max(map(sum, zip(page.numbers(offsets), page.numbers(sizes), strict=False)), default=0)
        if end > length:
            raise PhotoError(f"{name} cannot be read: it is truncated, {end - length:,} bytes are missing.")


def _loaded_tiff(file: BinaryIO) -> Image.Image:
    file.seek(0)
    image = TiffImagePlugin.TiffImageFile(file)
    image.load()
    return image


def _decode_tiff16(file: BinaryIO, page: Directory) -> np.ndarray:
    """Return (H, W, C) uint16, not yet turned. OpenCV knows all compressions, tifffile all arrangements of channels."""
    samples = page.number(Tag.SAMPLES, 1)
    is_odd = page.big and page.order == ">"  # Pillow takes the header of these for a damaged one
    if page.number(Tag.PLANAR, 1) == 1 and samples in (1, 3, 4) and not is_odd:
        _loaded_tiff(file)  # finds what is cut off
        file.seek(0)
        content = bytearray(file.read())
        if Tag.ORIENTATION in page.values:  # or OpenCV turns the picture
            value = page.values[Tag.ORIENTATION]
            struct.pack_into(page.order + "H", content, value.offset, 1)
        pixels = _decoded_by_opencv(content)[..., {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[samples]]
    else:
        import tifffile

        file.seek(0)
        pixels = tifffile.TiffFile(file).pages[0].asarray()
        pixels = np.moveaxis(pixels, 0, 2) if page.number(Tag.PLANAR, 1) == 2 and pixels.ndim == 3 else pixels
    photometric = page.number(Tag.PHOTOMETRIC, 1)
    colours = 3 if photometric == 2 else 1
    meaning = next(iter(page.numbers(Tag.EXTRA_SAMPLES)), 0)  # of the first channel after the colours
    has_alpha = samples > colours and meaning in (1, 2)
    pixels = pixels.reshape(*pixels.shape[:2], samples)[..., : colours + has_alpha]
    if photometric == 0:
        pixels[..., 0] = 65_535 - pixels[..., 0]
    if has_alpha and meaning == 1:  # the colours have been multiplied by alpha
        alpha = np.maximum(pixels[..., colours:], 1).astype(np.float32)
        pixels[..., :colours] = np.minimum(pixels[..., :colours] * (65_535 / alpha) + 0.5, 65_535)
    return pixels


def _dpi_of_tiff(page: Directory) -> tuple[float, float] | None:
    across, down = page.numbers(Tag.X_RESOLUTION), page.numbers(Tag.Y_RESOLUTION)
    per_inch = {2: 1.0, 3: 2.54}.get(page.number(Tag.RESOLUTION_UNIT, 2))
    if per_inch is None or len(across) != 2 or len(down) != 2 or not across[1] or not down[1]:
        return None
    return _sane_dpi((across[0] / across[1] * per_inch, down[0] / down[1] * per_inch))


def _encode_tiff(pixels: np.ndarray, metadata: Metadata) -> bytes:
    """Return a TIFF file: one strip, differences to the left neighbour, deflated. Pillow cannot write 16-bit colour."""
    height, width, channels = pixels.shape
    order: Order = "<"
    described: Entries = {}
    if metadata.exif:
        order, described = entries_of_exif(metadata.exif)
    differences = pixels.astype(pixels.dtype.newbyteorder(order))
    differences[:, 1:] -= pixels[:, :-1]
    strip = zlib.compress(differences.tobytes(), 3)

    def shorts(*numbers: int) -> tuple[int, bytes]:
        return Kind.SHORT, struct.pack(f"{order}{len(numbers)}H", *numbers)

    def long(number: int) -> tuple[int, bytes]:
        return Kind.LONG, struct.pack(order + "I", number)

    entries: dict[int, tuple[int, bytes] | Entries] = {
        **described,
        Tag.WIDTH: long(width),
        Tag.HEIGHT: long(height),
        Tag.BITS: shorts(*[8 * pixels.itemsize] * channels),
        Tag.COMPRESSION: shorts(8),
        Tag.PHOTOMETRIC: shorts(1 if channels < 3 else 2),
        Tag.SAMPLES: shorts(channels),
        Tag.ROWS_PER_STRIP: long(height),
        Tag.STRIP_SIZES: long(len(strip)),
        Tag.STRIP_OFFSETS: long(0),
        Tag.PLANAR: shorts(1),
        Tag.PREDICTOR: shorts(2),
    }
    if channels in (2, 4):
        entries[Tag.EXTRA_SAMPLES] = shorts(2)
    if metadata.dpi:
        for tag, dpi in zip((Tag.X_RESOLUTION, Tag.Y_RESOLUTION), metadata.dpi, strict=True):
            entries[tag] = Kind.RATIONAL, struct.pack(order + "II", round(dpi * 1000), 1000)
        entries[Tag.RESOLUTION_UNIT] = shorts(2)
    if metadata.xmp:
        entries[Tag.XMP] = Kind.BYTE, metadata.xmp
    if metadata.iptc:
        entries[Tag.PHOTOSHOP] = Kind.BYTE, metadata.iptc
    if metadata.icc:
        entries[Tag.ICC] = Kind.UNDEFINED, metadata.icc
    # The strip follows the directory, whose length does not depend on where that is.
    entries[Tag.STRIP_OFFSETS] = long(8 + len(write_directory(entries, order, 8)))
    header = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, 8)
    return header + write_directory(entries, order, 8) + strip
