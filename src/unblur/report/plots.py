"""Charts as PNG files for papers, drawn by matplotlib."""

from collections.abc import Sequence
from pathlib import Path

from unblur.errors import MissingExtra
from unblur.files import written_whole
from unblur.report.charts import Chart, tick_text

WIDTH_INCHES, HEIGHT_INCHES, DPI = 4.6, 3.1, 300
PALETTE = ("#1f6f8b", "#d1603d", "#4f8f46", "#8a5aa8", "#b8860b", "#5b6770", "#b03a5b", "#2a9d8f")
"""The page's colours in daylight (report.css)."""
MARKS = ("o", "s", "^", "D")


def write_plots(charts: Sequence[Chart], folder: Path) -> list[Path]:
    """Write each chart as a PNG and return the files; one of the same name is replaced.

    Raises `MissingExtra` where matplotlib is not installed.
    """
    files = []
    for chart in charts:
        file = folder / f"{chart.name}.png"
        with written_whole(file) as temporary:
            _draw(chart, temporary)
        files.append(file)
    return files


def _draw(chart: Chart, file: Path) -> None:
    try:
        from matplotlib.figure import Figure  # not pyplot: that keeps figures and looks for a screen
        from matplotlib.ticker import FuncFormatter, NullFormatter
    except ImportError:
        raise MissingExtra("A PNG plot", "plot") from None
    figure = Figure(figsize=(WIDTH_INCHES, HEIGHT_INCHES), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    for colour, series in sorted(chart.drawn, key=lambda entry: not entry[1].faint):
        x, y = zip(*series.points, strict=True)
        joined = chart.kind == "line"
        axes.plot(
            x,
            y,
            color=PALETTE[colour],
            linestyle="-" if joined else "",
            linewidth=0.8 if series.faint else 1.6,
            alpha=0.35 if series.faint else 1,
            marker="" if series.faint or (joined and len(x) > 30) else MARKS[colour % len(MARKS)],
            markersize=4,
            label=series.name if (colour, series) in chart.named else None,
        )
    for axis, log in ((axes.xaxis, chart.log_x), (axes.yaxis, chart.log_y)):
        if log:
            axis.axes.set_xscale("log") if axis is axes.xaxis else axis.axes.set_yscale("log")
        axis.set_major_formatter(FuncFormatter(lambda value, _: tick_text(value)))
        axis.set_minor_formatter(NullFormatter())
    if chart.categories:
        axes.set_xticks(range(len(chart.categories)), chart.categories)
        axes.set_xlim(-0.5, len(chart.categories) - 0.5)
    if chart.zero_line:
        axes.axhline(0, color="#888888", linewidth=0.8)
    axes.set_xlabel(chart.x)
    axes.set_ylabel(chart.y)
    axes.grid(axis="y", linewidth=0.4, alpha=0.5)
    axes.spines[["top", "right"]].set_visible(False)
    if len(chart.named) > 1:
        axes.legend(frameon=False, fontsize=8)
    figure.savefig(file, format="png")
