"""The data sets that experiments name: how they lie, what they hold, whose they are, and where they are here.

An experiment file names a set, never a path: `gopro/train`, or with a variant of the blur `gopro/train/blur_gamma`. The
folder that holds the sets comes from `--data-root` or the environment variable UNBLUR_DATA, each set in a folder of its
own name. Nothing is ever downloaded. `open_dataset` is the one way from a name, a folder, tar shards or a remote
address to pictures.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from unblur.data.layouts import CifarBatches, Folders, Found, Layout, ListFile
from unblur.data.remote import is_address
from unblur.data.shards import TarShards, found_at, found_in_shards
from unblur.data.sources import Pair, subset
from unblur.errors import DataError, UnknownName

DATA_ROOT_VARIABLE = "UNBLUR_DATA"


@dataclass(frozen=True)
class Split:
    """A part of a data set; of its layouts the first one counts that is there, with both sides if one is."""

    name: str
    layouts: tuple[Layout, ...]
    count: int | None = None
    """Pairs, or sharp pictures, of the complete split; None where any number is right."""
    only: str | None = None
    """A regular expression for the names that belong to it, where a layout holds more."""

    def find(self, folder: Path, variant: str) -> Found | None:
        """Return the pictures of the split below the set's folder; None where no layout is there."""
        there = [found for layout in self.layouts if (found := layout.find(folder, variant)) is not None]
        if not there:
            return None
        best = next((found for found in there if found.has_both_sides), there[0])
        return best.only(self.only) if self.only is not None else best


@dataclass(frozen=True)
class DataSet:
    """A data set: its id, which is also its folder's name, and the facts that one looks up."""

    name: str
    about: str
    splits: tuple[Split, ...]
    licence: str
    source: str
    """Where to get it, in words; nothing is downloaded."""
    variants: tuple[str, ...] = ("",)
    """Kinds of blur that it comes with, the usual one first."""
    aligned: bool = True
    """False: the sharp picture is another photograph, so that scores of its pairs mean little."""

    @property
    def layout(self) -> str:
        """How its files lie, in one line: the first layout of the first split."""
        return " and ".join(f"`{row}`" for row in self.splits[0].layouts[0].rows if row) + " (`docs/data-sets.md`)"

    def split(self, name: str) -> Split:
        """Return the split of that name; where there is only one, "" will do."""
        if not name and len(self.splits) == 1:
            return self.splits[0]
        if not name:
            names = ", ".join(f"{self.name}/{split.name}" for split in self.splits)
            raise DataError(f"'{self.name}' has several splits; name one of {names}.")
        for split in self.splits:
            if split.name == name:
                return split
        raise UnknownName(f"split of '{self.name}'", name, [split.name for split in self.splits])

    def variant(self, name: str) -> str:
        """Return the variant of that name, the usual one for none."""
        if name and name not in self.variants:
            raise UnknownName(f"variant of '{self.name}'", name, [variant for variant in self.variants if variant])
        return name or self.variants[0]


@dataclass(frozen=True)
class Named:
    """What `gopro/train/blur_gamma` says; for `pairs` and `sharp` what follows the id is a folder within."""

    dataset: DataSet
    split: str = ""
    variant: str = ""
    folder: str = ""


def find_dataset(name_or_dir: str | Path, data_root: Path | None = None) -> Path:
    """Return the folder of a data set, given by its id, with or without split and variant, or as a folder.

    Of a split that has a folder of its own, that folder. `data_root` is the folder that holds the sets; without it
    UNBLUR_DATA says so. Raises `DataError` with what to do.
    """
    named = parse_name(str(name_or_dir))
    if named is not None:
        folder = folder_of(named, data_root)
        return folder / named.split if named.split and (folder / named.split).is_dir() else folder
    if Path(name_or_dir).is_dir():
        return Path(name_or_dir)
    if "/" in str(name_or_dir) or "\\" in str(name_or_dir) or Path(name_or_dir).exists():
        raise DataError(f"{name_or_dir} is not a folder.")
    raise UnknownName("data set or folder", str(name_or_dir), DATA_SETS)


def open_dataset(
    name_or_dir: str | Path,
    data_root: Path | None = None,
    *,
    sharp_only: bool = False,
    share: float = 1.0,
    seed: int = 0,
) -> list[Pair]:
    """Return the pairs of a data set, by name; of sharp pictures alone pairs whose blurred one is None.

    `name_or_dir` is an id, `id/split` or `id/split/variant`; or a folder: with `blur/` and `sharp/` (or `input/` and
    `target/`), of sharp photographs, or of tar shards; or one tar file; or an address of fsspec (`s3://...`) of any of
    these. `sharp_only` leaves the blurred pictures out, for whoever blurs by a recipe.
    `share` below 1 takes that part, the same for the same `seed`. Raises `DataError` where there is nothing, or where
    files do not belong together.
    """
    named = parse_name(str(name_or_dir))
    if named is None:
        pairs = _open_place(name_or_dir, data_root, sharp_only)
    else:
        pairs = open_within(folder_of(named, data_root), str(name_or_dir), sharp_only=sharp_only)
    return subset(pairs, share, seed) if share != 1 else pairs


def open_within(folder: Path, name: str, *, sharp_only: bool = False) -> list[Pair]:
    """Return the pairs of the set, split and variant `name` that lie in `folder`, whatever that is called."""
    named = parse_name(name)
    if named is None:
        raise UnknownName("data set", name, DATA_SETS)
    found = named.dataset.split(named.split).find(folder, named.dataset.variant(named.variant))
    if found is None:
        dataset = named.dataset
        raise DataError(
            f"{folder} holds nothing of '{name}'. It should hold {dataset.layout}; "
            f"`unblur data check {dataset.name} {folder}` says more."
        )
    return found.pairs(sharp_only=sharp_only)


def open_folder(folder: Path, *, sharp_only: bool = False) -> list[Pair]:
    """Return the pairs, or else the sharp pictures, of a folder of one's own; see `open_dataset`."""
    found = DATA_SETS["pairs"].splits[0].find(folder, "")
    if found is None or not found.has_both_sides:
        found = DATA_SETS["sharp"].splits[0].find(folder, "")
    if found is None:
        raise DataError(f"{folder} holds no photographs.")
    return found.pairs(sharp_only=sharp_only)


def parse_name(name: str) -> Named | None:
    """Return the set, split and variant that a name means; None where it does not begin with an id.

    Raises `UnknownName` for a split or variant that the set does not have.
    """
    first, *rest = name.split("/")
    dataset = DATA_SETS.get(first)
    if dataset is None:
        return None
    if not dataset.splits[0].name:
        return Named(dataset, folder="/".join(rest))
    if len(rest) > 2:
        raise DataError(f"'{name}' is not id/split/variant, such as gopro/train/blur_gamma.")
    split, variant = [*rest, "", ""][:2]
    if split:
        dataset.split(split)
    dataset.variant(variant)
    return Named(dataset, split, variant)


def folder_of(named: Named, data_root: Path | None) -> Path:
    """Return the folder in which a set lies; `DataError` where there is none."""
    name = named.dataset.name
    if data_root is None:
        if not os.environ.get(DATA_ROOT_VARIABLE):
            raise DataError(
                f"Where is the data set '{name}'? Give the folder that holds it with --data-root, "
                f"or set {DATA_ROOT_VARIABLE}."
            )
        data_root = Path(os.environ[DATA_ROOT_VARIABLE])
    inner = f"{name}/{named.folder}" if named.folder else name
    if not (data_root / inner).is_dir():
        raise DataError(f"{data_root} has no folder '{inner}'. It should hold {named.dataset.layout}.")
    return data_root / inner


def _open_place(place: str | Path, data_root: Path | None, sharp_only: bool) -> list[Pair]:
    """Return the pairs of an address, a tar file or a folder of one's own."""
    if is_address(str(place)):
        found = found_at(str(place))
    elif Path(place).is_file() and Path(place).suffix == ".tar":
        found = found_in_shards([str(place)])
    else:
        return open_folder(find_dataset(place, data_root), sharp_only=sharp_only)
    if found is None:
        raise DataError(f"{place} holds no photographs.")
    return found.pairs(sharp_only=sharp_only)


# -- The sets ----------------------------------------------------------------------------------------------------------


def _repacks(split: str, *variants: str) -> tuple[Layout, ...]:
    """Return the layouts into which people repack a set, with the variants that these may hold."""
    only = variants or None
    return Folders(f"{split}/input/**", f"{split}/target/**", only), TarShards(f"{split}*.tar", only)


def _gopro(split: str, count: int) -> Split:
    return Split(split, (Folders(f"{split}/*/{{variant}}/*", f"{split}/*/sharp/*"), *_repacks(split, "blur")), count)


def _hide(split: str, blurred: str, count: int) -> Split:
    return Split(split, (Folders(blurred, "GT/*", spare_sharp=True), *_repacks(split)), count)


def _realblur(kind: str, split: str, count: int) -> Split:
    return Split(split, (ListFile(f"RealBlur_{kind}_{split}_list.txt"), *_repacks(split)), count)


_REDS_VARIANTS = ("blur", "blur_comp", "blur_jpeg", "blur_bicubic")


def _reds(name: str, part: str, count: int, only: str | None = None) -> Split:
    """Return a split of REDS, whose archives unpack with a folder `train` or `val` around them or without.

    The small pictures of `blur_bicubic` have small sharp partners.
    """
    layouts: list[Layout] = []
    for home in ("", f"{part}/"):
        for sharp, variants in (("sharp", _REDS_VARIANTS[:-1]), ("sharp_bicubic", _REDS_VARIANTS[-1:])):
            layouts.append(Folders(f"{home}{part}_{{variant}}/*/*", f"{home}{part}_{sharp}/*/*", variants))
    return Split(name, (*layouts, TarShards(f"{part}*.tar", ("blur",))), count, only)


def _dpdd(split: str, count: int) -> Split:
    original = Folders(f"{split}_{{variant}}/source/*", f"{split}_{{variant}}/target/*")
    views = (("c", "inputC"), ("l", "inputL"), ("r", "inputR"))
    repacked = (Folders(f"{split}/{folder}/*", f"{split}/target/*", (view,)) for view, folder in views)
    return Split(split, (original, *repacked), count)


def _rsblur(split: str, count: int) -> Split:
    folders = Folders(f"{split}/*/blur/*", f"{split}/*/gt/*")
    return Split(split, (ListFile(f"RSBlur*{split}*.txt"), folders, *_repacks(split)), count)


_ALL_SETS = (
    DataSet(
        "gopro",
        "240-fps frames averaged; 720p; `blur` is the mean of the frames, `blur_gamma` of light (gamma 2.2)",
        (_gopro("train", 2103), _gopro("test", 1111)),
        licence="academic; the terms are not clear",
        source="GOPRO_Large, page of Seungjun Nah (Seoul National University), Nah et al. 2017",
        variants=("blur", "blur_gamma"),
    ),
    DataSet(
        "hide",
        "people, near and far; averaged frames, 720p",
        (_hide("train", "train/*", 6397), _hide("test", "test/{test-close-ups,test-long-shot}/*", 2025)),
        licence="research; the terms are not clear",
        source="HIDE, repository joanshen0508/HA_deblur, Shen et al. 2019",
    ),
    DataSet(
        "realblur-j",
        "the same scene caught blurred and sharp by two cameras at dusk; camera's JPEG; align by ECC before scoring",
        (_realblur("J", "train", 3758), _realblur("J", "test", 980)),
        licence="research; see its page",
        source="RealBlur, page of the Computer Graphics Lab at POSTECH, Rim et al. 2020",
    ),
    DataSet(
        "realblur-r",
        "as realblur-j, developed from RAW; very dark",
        (_realblur("R", "train", 3758), _realblur("R", "test", 980)),
        licence="research; see its page",
        source="RealBlur, page of the Computer Graphics Lab at POSTECH, Rim et al. 2020",
    ),
    DataSet(
        "reds",
        "120-fps frames, interpolated and averaged; 720p, 240 + 30 scenes of 100 frames",
        (
            _reds("train", "train", 24_000),
            _reds("val", "val", 3_000),
            _reds("val-300", "val", 300, r"\d{3}/\d{7}9"),
            _reds("half-train", "train", 10_800, r"(02[4-9]|0[3-9]\d|[12]\d\d)/000000[5-9]\d"),
            _reds("half-test", "train", 1_200, r"0([01]\d|2[0-3])/000000[5-9]\d"),
        ),
        licence="academic; the terms are not clear",
        source="REDS, page of Seungjun Nah (Seoul National University), Nah et al. 2019; NTIRE challenges",
        variants=_REDS_VARIANTS,
    ),
    DataSet(
        "cifar10",
        "32×32 pictures; sharp, to be blurred by a recipe",
        (Split("train", (CifarBatches("train"),), 50_000), Split("test", (CifarBatches("test"),), 10_000)),
        licence="none stated; research",
        source="CIFAR-10, page of Alex Krizhevsky (University of Toronto), Krizhevsky 2009",
    ),
    DataSet(
        "kaggle-blur",
        "telephones: sharp, moved and defocused photograph of the same thing, by hand",
        (
            Split(
                "all",
                (
                    Folders("motion_blurred/*_M", "sharp/*_S", variants=("motion",)),
                    Folders("defocused_blurred/*_F", "sharp/*_S", variants=("defocus",)),
                ),
                350,
            ),
        ),
        licence="see its page",
        source="'Blur dataset' of kwentar on Kaggle",
        variants=("motion", "defocus"),
        aligned=False,
    ),
    DataSet(
        "dpdd",
        "wide aperture against a narrow one; 16-bit PNG; centre, left and right view of a dual-pixel sensor",
        (_dpdd("train", 350), _dpdd("val", 74), _dpdd("test", 76)),
        licence="see its repository",
        source="DPDD, repository Abdullah-Abuolaim/defocus-deblurring-dual-pixel, Abuolaim and Brown 2020",
        variants=("c", "l", "r"),
    ),
    DataSet(
        "kohler",
        "4 pictures, each under 12 recorded camera shakes; of the frames along a shake the best one is the truth",
        (
            Split(
                "test",
                (Folders("BlurryImages/Blurry*", "sharp/*"), Folders("blur/**", "sharp/**"), *_repacks("test")),
                48,
            ),
        ),
        licence="research; see its page",
        source="Köhler et al. 2012, page of the Max Planck Institute for Intelligent Systems",
    ),
    DataSet(
        "rsblur",
        "real blur of two cameras with one shutter, long and short exposure, developed from RAW",
        (_rsblur("train", 8878), _rsblur("val", 1120), _rsblur("test", 3360)),
        licence="research; see its page",
        source="RSBlur, page of the Computer Graphics Lab at POSTECH, Rim et al. 2022",
    ),
    DataSet(
        "pairs",
        "any two folders of blurred and sharp pictures with the same relative names",
        (Split("", (Folders("blur/**", "sharp/**"), Folders("input/**", "target/**"), TarShards())),),
        licence="yours",
        source="your own; `unblur data prepare` and `unblur data from-video` make some",
    ),
    DataSet(
        "sharp",
        "any folder of sharp photographs, searched recursively; blurred by a recipe",
        (Split("", (Folders(None, "**"), TarShards(paired=False))),),
        licence="yours",
        source="your own, or photographs such as COCO's",
    ),
    DataSet(
        "windows",
        "folders of numbered sharp frames; trained on as windows of frames that follow each other (`data.windows`), "
        "otherwise single sharp pictures",
        (Split("", (Folders(None, "**"),)),),
        licence="yours",
        source="your own clips of 60 frames a second or more, as pictures",
    ),
)

DATA_SETS: dict[str, DataSet] = {dataset.name: dataset for dataset in _ALL_SETS}
