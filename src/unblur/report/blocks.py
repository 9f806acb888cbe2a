"""What a page of a report consists of, as plain data: sections of tables, charts, pictures and folded text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from unblur import tables
from unblur.report.charts import Chart


@dataclass(frozen=True)
class Cell:
    """A cell of a table; sorted by `order`, or else by its text."""

    text: str
    order: float | None = None
    best: bool = False


@dataclass(frozen=True)
class Table:
    """A table that can be sorted by each column; the first one says what a row is."""

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""
    folded: bool = False

    @property
    def is_text(self) -> list[bool]:
        """Which columns hold no numbers."""
        columns = zip(*self.rows, strict=True) if self.rows else ([] for _ in self.header)
        return [all(cell.order is None for cell in column) for column in columns]


@dataclass(frozen=True)
class Charts:
    """Charts side by side. There may be several versions of them by what lies along x, one of which is shown."""

    versions: Mapping[str, Sequence[Chart]]

    @property
    def all(self) -> list[Chart]:
        """The charts of the first version."""
        return [chart for charts in list(self.versions.values())[:1] for chart in charts]


@dataclass(frozen=True)
class Shot:
    """A picture as one method left it."""

    label: str
    score: str
    address: str
    """A data: address that holds the picture itself."""


@dataclass(frozen=True)
class Sample:
    """One picture in all its versions."""

    name: str
    why: str
    width: int
    height: int
    shots: Sequence[Shot]
    first: tuple[int, int] = (0, 1)
    """The two that are compared at first."""


@dataclass(frozen=True)
class Samples:
    """Pictures to look at."""

    samples: Sequence[Sample]
    note: str = ""


@dataclass(frozen=True)
class Details:
    """Text that is folded away."""

    title: str
    text: str


@dataclass(frozen=True)
class Paragraph:
    """A paragraph."""

    text: str


Block = Table | Charts | Samples | Details | Paragraph


@dataclass(frozen=True)
class Section:
    """A part of the page with a heading of its own."""

    kind: str
    title: str
    lead: str = ""
    blocks: Sequence[Block] = field(default_factory=list)

    @property
    def charts(self) -> list[Chart]:
        """All charts in it, in their first version."""
        return [chart for block in self.blocks if isinstance(block, Charts) for chart in block.all]


def number(value: float | None, text: str) -> Cell:
    """Return a cell with a number, or a dash where there is none."""
    return Cell("–") if value is None else Cell(text.format(value), float(value))


def with_best(cells: Sequence[Cell], higher_is_better: bool) -> list[Cell]:
    """Return the cells of a column, the best of them marked, all of them where several are as good."""
    orders = [cell.order for cell in cells if cell.order is not None]
    best = (max if higher_is_better else min)(orders, default=None)
    texts = {cell.text for cell in cells if cell.order == best}
    return [Cell(cell.text, cell.order, cell.order is not None and cell.text in texts) for cell in cells]


def duration(seconds: float | None) -> Cell:
    """Return a cell with a time of a training."""
    if seconds is None:
        return Cell("–")
    minutes = seconds / 60
    text = f"{seconds:.0f} s" if seconds < 120 else f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"
    return Cell(text, seconds)


def versions_text(versions: Mapping[str, str]) -> str:
    """Return versions and commit in one line."""
    commit = versions.get("commit")
    return tables.versions_text(versions) + (f", commit {commit}" if commit else "")
