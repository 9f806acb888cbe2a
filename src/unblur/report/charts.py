"""Charts as plain data, and their drawing as SVG that lies in a page and follows its colours.

The same `Chart` becomes a PNG for a paper in `plots.py`. In the page a series is told by its colour and by a mark of
its own, so that a print in grey can be read. Text is as large as that of the page down to a phone's width.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal, TypeVar

WIDTH, HEIGHT = 440, 280
LEFT, RIGHT, TOP, BOTTOM = 50, 14, 28, 44
MAX_POINTS = 300
COLOURS = 8
"""Series have the classes c0 to c7 of the page's style sheet, again and again."""

Point = tuple[float, float]
Item = TypeVar("Item")


@dataclass(frozen=True)
class Series:
    """Points that belong together, in their order."""

    name: str
    points: Sequence[Point]
    labels: Sequence[str] = ()
    """What each point is, where it is something of its own; shown when it is pointed at."""
    faint: bool = False
    """Drawn thin, behind the others, without a mark: the noisy original of a smoothed line."""
    colour: int | None = None
    """Number of the colour and mark; that of its place among the others where nothing is said."""


@dataclass(frozen=True)
class Chart:
    """Lines, or points that are not joined."""

    title: str
    x: str
    y: str
    series: Sequence[Series]
    kind: Literal["line", "scatter"] = "line"
    log_x: bool = False
    log_y: bool = False
    categories: Sequence[str] = ()
    """Names of x = 0, 1, 2 ... where x is no number."""
    name: str = ""
    """What a file of it is called."""
    note: str = ""
    zero_line: bool = False
    """Whether 0 on the y axis parts good from bad."""

    @property
    def drawn(self) -> list[tuple[int, Series]]:
        """The series with what can be drawn of them, and their colours."""
        found = []
        for number, series in enumerate(self.series):
            kept = [
                i
                for i, (x, y) in enumerate(series.points)
                if math.isfinite(x) and math.isfinite(y) and (x > 0 or not self.log_x) and (y > 0 or not self.log_y)
            ]
            labels = [series.labels[i] for i in kept] if series.labels else ()
            colour = (number if series.colour is None else series.colour) % COLOURS
            points = [series.points[i] for i in kept]
            if points:
                found.append((colour, Series(series.name, points, labels, series.faint, colour)))
        return found

    @property
    def named(self) -> list[tuple[int, Series]]:
        """Those series that a legend names: not the noisy originals of others."""
        others = {series.name for _, series in self.drawn if not series.faint}
        return [(colour, series) for colour, series in self.drawn if not series.faint or series.name not in others]

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to draw."""
        return not self.drawn


def smoothed(points: Sequence[Point], share: float = 0.05) -> list[Point]:
    """Return the running mean of the values over that share of the points (of at least one)."""
    window = max(1, round(share * len(points)))
    sums, found = 0.0, []
    for i, (x, y) in enumerate(points):
        sums += y - (points[i - window][1] if i >= window else 0)
        found.append((x, sums / min(i + 1, window)))
    return found


def thinned(points: Sequence[Item], most: int = MAX_POINTS) -> list[Item]:
    """Return at most so many of the points (or of what will be some), evenly spread, with the first and the last."""
    if len(points) <= most:
        return list(points)
    return [points[round(i * (len(points) - 1) / (most - 1))] for i in range(most)]


def svg(chart: Chart) -> str:
    """Return the chart as an <svg> element without any address, for a page whose style sheet colours it."""
    drawn = chart.drawn
    every = [point for _, series in drawn for point in series.points]
    x_axis = (
        _Axis.of_categories(chart.categories) if chart.categories else _Axis.over([x for x, _ in every], chart.log_x)
    )
    y_axis = _Axis.over([y for _, y in every], chart.log_y)

    def place(point: Point) -> Point:
        x = LEFT + x_axis.share(point[0]) * (WIDTH - LEFT - RIGHT)
        return x, HEIGHT - BOTTOM - y_axis.share(point[1]) * (HEIGHT - TOP - BOTTOM)

    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(_spoken(chart))}" class="chart">',
        *_grid(chart, x_axis, y_axis, place),
    ]
    for colour, series in sorted(drawn, key=lambda entry: not entry[1].faint):
        places = [place(point) for point in series.points]
        parts.append(f'<g class="c{colour}{" faint" if series.faint else ""}">')
        if chart.kind == "line":
            parts.append(f'<polyline points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in places)}"/>')
        marked = places if chart.kind == "scatter" or len(places) <= 30 else places[-1:]
        labels = series.labels or [_label(chart, series, point) for point in series.points]
        for at, label in zip(marked, labels[len(places) - len(marked) :], strict=True):
            if not series.faint:
                parts.append(_mark(colour, *at, label))
        parts.append("</g>")
    return "".join([*parts, "</svg>"])


def tick_text(value: float) -> str:
    """Return a number as short as an axis wants it."""
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 10_000 or size < 0.001:
        for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
            if size >= limit:
                return f"{value / limit:g}{unit}"
        mantissa, exponent = f"{value:.0e}".split("e")
        return f"{mantissa}e{int(exponent)}"
    return f"{value:.6g}"


@dataclass(frozen=True)
class _Axis:
    low: float
    high: float
    log: bool
    ticks: Sequence[float]
    texts: Sequence[str]

    @classmethod
    def over(cls, values: Sequence[float], log: bool) -> "_Axis":
        low, high = min(values, default=0.0), max(values, default=1.0)
        if log:
            first, last = math.log10(low), math.log10(high)
            pad = 0.06 * (last - first) or 0.5
            low, high = 10 ** (first - pad), 10 ** (last + pad)
            ticks = _log_ticks(low, high)
        else:
            pad = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
            low, high = (0.0 if 0 <= low <= 2 * pad else low - pad), high + pad
            ticks = _ticks(low, high)
        return cls(low, high, log, ticks, [tick_text(tick) for tick in ticks] if log else _alike(ticks))

    @classmethod
    def of_categories(cls, names: Sequence[str]) -> "_Axis":
        return cls(-0.5, len(names) - 0.5, False, range(len(names)), names)

    def share(self, value: float) -> float:
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


def _ticks(low: float, high: float) -> list[float]:
    rough = (high - low) / 6
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round((first + i) * step, 12) for i in range(int((high - first * step) / step + 1e-9) + 1)]


def _alike(ticks: Sequence[float]) -> list[str]:
    """Return the numbers of an even axis, plain ones with as many decimals as the one that needs most."""
    texts = [tick_text(tick) for tick in ticks]
    if any(not text.lstrip("-").replace(".", "").isdigit() for text in texts if text != "0"):
        return texts
    decimals = max(len(text.partition(".")[2]) for text in texts)
    return [f"{tick:.{decimals}f}" for tick in ticks]


def _log_ticks(low: float, high: float) -> list[float]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1,), (1, 3), (1, 2, 5), (1, 2, 3, 5, 7)):
        ticks = [factor * 10.0**decade for decade in decades for factor in factors]
        within = [tick for tick in ticks if low <= tick <= high]
        if len(within) >= 3:
            return within[:: math.ceil(len(within) / 7)]
    return within or [low]


def _grid(chart: Chart, x_axis: _Axis, y_axis: _Axis, place: Callable[[Point], Point]) -> list[str]:
    bottom, middle = HEIGHT - BOTTOM, (LEFT + WIDTH - RIGHT) / 2
    parts = ['<g class="grid">']
    for tick in y_axis.ticks:
        y = place((x_axis.low, tick))[1]
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
    if chart.zero_line and y_axis.low < 0 < y_axis.high:
        y = place((x_axis.low, 0))[1]
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" class="zero"/>')
    parts.append(f'</g><g class="axis"><line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{bottom}" y2="{bottom}"/>')
    room = (WIDTH - LEFT - RIGHT) / max(1, len(x_axis.texts)) / 6.2
    for tick, text in zip(x_axis.ticks, x_axis.texts, strict=True):
        x = place((tick, y_axis.low))[0]
        shown = text if len(text) <= max(room, 4) else f"{text[: max(3, int(room) - 1)]}…"
        parts.append(f'<text x="{x:.1f}" y="{bottom + 17}" text-anchor="middle">{escape(shown)}</text>')
    for tick, text in zip(y_axis.ticks, y_axis.texts, strict=True):
        y = place((x_axis.low, tick))[1]
        parts.append(f'<text x="{LEFT - 7}" y="{y + 4:.1f}" text-anchor="end">{escape(text)}</text>')
    parts.append(f'<text x="{middle}" y="{HEIGHT - 6}" text-anchor="middle" class="name">{escape(chart.x)}</text>')
    parts.append(f'<text x="2" y="12" class="name">{escape(chart.y)}</text></g>')
    return parts


def _mark(colour: int, x: float, y: float, label: str) -> str:
    r = 4.2
    shapes = [
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{r}"/>',
        f'<rect x="{x - r + 0.5:.1f}" y="{y - r + 0.5:.1f}" width="{2 * r - 1}" height="{2 * r - 1}"/>',
        f'<path d="M{x:.1f} {y - r - 1:.1f}l{r + 0.6} {2 * r:.1f}h-{2 * r + 1.2}z"/>',
        f'<path d="M{x:.1f} {y - r - 1:.1f}l{r + 1} {r + 1}l-{r + 1} {r + 1}l-{r + 1} -{r + 1}z"/>',
    ]
    return f"<g>{shapes[colour % len(shapes)]}<title>{escape(label)}</title></g>"


def legend_mark(colour: int, series: Series) -> str:
    """Return the mark of a series as an <svg> element for a legend."""
    mark = '<polyline points="0,6 12,6"/>' if series.faint else _mark(colour, 6, 6, series.name)
    look = f"c{colour}{' faint' if series.faint else ''}"
    return f'<svg viewBox="0 0 12 12" class="chart key" aria-hidden="true"><g class="{look}">{mark}</g></svg>'


def _label(chart: Chart, series: Series, point: Point) -> str:
    x = chart.categories[round(point[0])] if chart.categories else tick_text(point[0])
    return f"{series.name}: {chart.y} {point[1]:.5g} at {chart.x} {x}"


def _spoken(chart: Chart) -> str:
    ends = [
        f"{series.name}: {series.points[0][1]:.4g} to {series.points[-1][1]:.4g}"
        for _, series in chart.drawn
        if chart.kind == "line" and not series.faint
    ]
    return f"{chart.title}: {chart.y} over {chart.x}. {'; '.join(ends)}".rstrip(". ")
