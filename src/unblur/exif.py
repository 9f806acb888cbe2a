"""The directory of tags: what an EXIF block and a TIFF file have in common.

Both begin with a byte order and a pointer to a directory; an entry is (tag, kind, count, value), and a value of more
than four bytes lies elsewhere, found by its offset. Here such directories are read, an EXIF block is changed to
fit its upright picture, and directories are written again: into a TIFF file, or as an EXIF block of their own.

An EXIF block that stays one is changed in place, byte for byte: camera makers' notes hold offsets that nobody else
understands, and rewriting the block would break them. Only on the way into or out of a TIFF file is it rebuilt.
"""

import contextlib
import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import IntEnum
from io import BytesIO
from typing import BinaryIO, Literal


class Tag(IntEnum):
    """The tags that are understood here; the last five are also, or only, in an EXIF block."""

    PURPOSE = 254
    WIDTH = 256
    HEIGHT = 257
    BITS = 258
    COMPRESSION = 259
    PHOTOMETRIC = 262
    STRIP_OFFSETS = 273
    ORIENTATION = 274
    SAMPLES = 277
    ROWS_PER_STRIP = 278
    STRIP_SIZES = 279
    X_RESOLUTION = 282
    Y_RESOLUTION = 283
    PLANAR = 284
    RESOLUTION_UNIT = 296
    PREDICTOR = 317
    TILE_OFFSETS = 324
    TILE_SIZES = 325
    EXTRA_SAMPLES = 338
    SAMPLE_FORMAT = 339
    XMP = 700
    PHOTOSHOP = 34377
    ICC = 34675
    EXIF = 34665
    GPS = 34853
    INTEROPERABILITY = 40965
    PIXEL_WIDTH = 40962
    PIXEL_HEIGHT = 40963


class Kind(IntEnum):
    """The kinds of values that are written here."""

    BYTE = 1
    SHORT = 3
    LONG = 4
    RATIONAL = 5
    UNDEFINED = 7


Order = Literal["<", ">"]

Entries = Mapping[int, "tuple[int, bytes] | Entries"]
"""For every tag its kind and bytes, or a directory of its own."""


@dataclass(frozen=True)
class Value:
    """What one tag holds: its kind, its bytes in the file's byte order, and where in the file these lie."""

    kind: int
    data: bytes
    offset: int


@dataclass(frozen=True)
class Directory:
    """One directory: a page of a TIFF file, or a part of an EXIF block."""

    order: Order
    """Big-endian or little-endian, as `struct` has it."""
    big: bool
    """Whether the file is a BigTIFF, with eight bytes for every offset."""
    values: dict[int, Value]
    following: int
    """Offset of the next directory, 0 after the last one."""
    following_offset: int
    """Where that offset stands itself."""

    def number(self, tag: int, default: int) -> int:
        """Return the first whole number that `tag` holds."""
        return next(iter(self.numbers(tag)), default)

    def numbers(self, tag: int) -> tuple[int, ...]:
        """Return all whole numbers that `tag` holds, none where it is absent; a rational gives two."""
        value = self.values.get(tag)
        if value is None or value.kind not in _LETTERS:
            return ()
        letter = _LETTERS[value.kind]
        return struct.unpack(f"{self.order}{len(value.data) // struct.calcsize('=' + letter)}{letter}", value.data)

    def data(self, tag: int) -> bytes | None:
        """Return the bytes that `tag` holds."""
        return self.values[tag].data if tag in self.values else None


def read_directories(file: BinaryIO) -> Iterator[Directory]:
    """Yield the directories of a TIFF file (its pages) or an EXIF block. Raises `ValueError` where one is damaged."""
    file.seek(0)
    header = file.read(16)
    try:
        order = _ORDERS[header[:2]]
        big = struct.unpack(order + "H", header[2:4])[0] == 43
        offset = struct.unpack(order + ("Q" if big else "I"), header[8:16] if big else header[4:8])[0]
        seen = {0}
        while offset not in seen:
            seen.add(offset)
            directory = _read_directory(file, order, offset, big)
            yield directory
            offset = directory.following
    except (KeyError, struct.error, OverflowError):
        raise ValueError("a directory of tags is damaged") from None


def upright_exif(exif: bytes) -> tuple[int, bytes]:
    """Return the orientation (1 to 8) that an EXIF block names, and the block for the picture once it stands upright.

    There the orientation is 1, width and height are exchanged if the picture is turned by a quarter, and the thumbnail
    is unlinked: it shows the old picture, and not upright. Raises `ValueError` where the block is damaged.
    """
    block = bytearray(exif)
    while block.startswith(_PREFIX):
        del block[: len(_PREFIX)]
    main = next(read_directories(BytesIO(block)))
    orientation = main.number(Tag.ORIENTATION, 1)
    if orientation not in range(1, 9):
        orientation = 1
    if main.numbers(Tag.ORIENTATION):
        value = main.values[Tag.ORIENTATION]
        struct.pack_into(main.order + _LETTERS[value.kind], block, value.offset, 1)
    if main.following:
        struct.pack_into(main.order + "I", block, main.following_offset, 0)
    if orientation >= 5 and Tag.EXIF in main.values:
        details = _read_directory(BytesIO(block), main.order, main.number(Tag.EXIF, 0), main.big).values
        width, height = details.get(Tag.PIXEL_WIDTH), details.get(Tag.PIXEL_HEIGHT)
        if width and height and width.kind == height.kind:
            block[width.offset : width.offset + len(height.data)] = height.data
            block[height.offset : height.offset + len(width.data)] = width.data
    return orientation, _PREFIX + bytes(block)


def entries_of_exif(exif: bytes) -> tuple[Order, Entries]:
    """Return the byte order of an EXIF block and its entries, to be written into a TIFF file."""
    block = BytesIO(exif.removeprefix(_PREFIX))
    main = next(read_directories(block))
    return main.order, _descriptive_entries(block, main)


def exif_of_tiff(file: BinaryIO, page: Directory) -> bytes | None:
    """Return what a page of a TIFF file says of camera, author and place as an EXIF block; None if it says nothing."""
    entries = _descriptive_entries(file, page)
    if not entries:
        return None
    header = (b"II" if page.order == "<" else b"MM") + struct.pack(page.order + "HI", 42, 8)
    return _PREFIX + header + write_directory(entries, page.order, 8)


def write_directory(entries: Entries, order: Order, offset: int) -> bytes:
    """Return a directory and the values that belong to it, as they must stand at the (even) `offset` of the file."""
    table, beyond = b"", b""
    start = offset + 2 + 12 * len(entries) + 4
    for tag, entry in sorted(entries.items()):
        here = struct.pack(order + "I", start + len(beyond))
        if isinstance(entry, tuple):
            kind, data = entry
            count = len(data) // _SIZES[kind]
            if len(data) > 4:
                beyond += data + b"\0" * (len(data) % 2)
            field = data.ljust(4, b"\0") if len(data) <= 4 else here
        else:
            kind, count, field = Kind.LONG, 1, here
            beyond += write_directory(entry, order, start + len(beyond))
        table += struct.pack(order + "HHI", tag, kind, count) + field
    return struct.pack(order + "H", len(entries)) + table + struct.pack(order + "I", 0) + beyond


_PREFIX = b"Exif\0\0"
_ORDERS: dict[bytes, Order] = {b"II": "<", b"MM": ">"}
_SIZES = {
    1: 1,
    2: 1,
    3: 2,
    4: 4,
    5: 8,
    6: 1,
    7: 1,
    8: 2,
    9: 4,
    10: 8,
    11: 4,
    12: 8,
    13: 4,
    16: 8,
    17: 8,
    18: 8,
}  # bytes per item
_LETTERS = {Kind.BYTE: "B", Kind.SHORT: "H", Kind.LONG: "I", Kind.RATIONAL: "I", 13: "I", 16: "Q", 18: "Q"}

# Of a page's tags those that describe the photograph; the others say how its pixels are stored. Title, maker, camera,
# orientation, software, date, artist, host, copyright, rating (twice); Windows' title, comment, author, keywords and
# subject.
_DESCRIPTIVE = {270, 271, 272, 274, 305, 306, 315, 316, 33432, 18246, 18249, *range(40091, 40096)}
_BELOW: "_Tree" = {Tag.EXIF: {Tag.INTEROPERABILITY: {}}, Tag.GPS: {}}
_Tree = Mapping[int, "_Tree"]


def _descriptive_entries(file: BinaryIO, page: Directory) -> Entries:
    kept = {tag: value for tag, value in page.values.items() if tag in _DESCRIPTIVE or tag in _BELOW}
    return _entries(file, replace(page, values=kept), _BELOW)


def _entries(file: BinaryIO, directory: Directory, below: _Tree) -> Entries:
    """Return the entries of a directory; those in `below` point to directories of their own."""
    entries: dict[int, tuple[int, bytes] | Entries] = {}
    for tag, value in directory.values.items():
        if tag not in below:
            entries[tag] = (value.kind, value.data)
        else:
            with contextlib.suppress(struct.error):  # one that is damaged is left out, the rest is still good
                nested = _read_directory(file, directory.order, directory.number(tag, 0), directory.big)
                entries[tag] = _entries(file, nested, below[tag])
    return entries


def _read_directory(file: BinaryIO, order: Order, offset: int, big: bool) -> Directory:
    count_form, entry_form, offset_form = ("Q", "HHQ8s", "Q") if big else ("H", "HHI4s", "I")
    count_form, entry_form, offset_form = order + count_form, order + entry_form, order + offset_form
    entry_size, field_size = struct.calcsize(entry_form), struct.calcsize(offset_form)
    length = file.seek(0, os.SEEK_END)
    file.seek(offset)
    (count,) = struct.unpack(count_form, file.read(struct.calcsize(count_form)))
    table = file.tell()
    if table + count * entry_size > length:
        raise struct.error("the directory is cut off")
    values: dict[int, Value] = {}
    total = 0
    for index, (tag, kind, items, field) in enumerate(struct.iter_unpack(entry_form, file.read(count * entry_size))):
        size = items * _SIZES.get(kind, 0)
        where = table + index * entry_size + entry_size - field_size
        if size > field_size:
            (where,) = struct.unpack(offset_form, field)
        total += size
        if size > 0 and where + size <= length and total <= length:  # what claims more than there is, is left out
            file.seek(where)
            values[tag] = Value(kind, file.read(size), where)
    following_offset = table + count * entry_size
    file.seek(following_offset)
    following = file.read(field_size).ljust(field_size, b"\0")  # some cameras leave it out at the very end
    return Directory(order, big, values, struct.unpack(offset_form, following)[0], following_offset)
