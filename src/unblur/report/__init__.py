"""Trainings, evaluations and studies side by side, in one HTML file that needs nothing beside itself.

    compare([Path("runs/a"), Path("runs/b"), Path("evaluations/gopro")], Path("report.html"))

`runs.py` reads the folders; `trainings.py`, `evaluations.py` and `studies.py` make sections of them, which are plain
data (`blocks.py`, `charts.py`); `page.html`, `page.css` and `page.js` show them. The page asks no other computer for
anything, and its own policy forbids that it could.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from unblur.errors import DataError
from unblur.files import written_whole
from unblur.provenance import versions
from unblur.report import blocks, charts, evaluations, groups, studies, trainings
from unblur.report.blocks import Section
from unblur.report.plots import write_plots
from unblur.report.runs import EvaluationRun, Run, StudyRun, TrainingRun, read_runs

__all__ = ["Report", "compare", "page", "sections_of"]


@dataclass(frozen=True)
class Report:
    """What `compare` wrote."""

    file: Path
    about: str
    plots: list[Path]


def compare(
    runs: Sequence[Path],
    out: Path,
    *,
    title: str = "Comparison",
    plots: Path | None = None,
    data_root: Path | None = None,
) -> Report:
    """Write a report on run folders of trainings, evaluations and studies to the file `out`, and return what it is.

    `plots` is a folder for its plots as PNGs. `data_root` is where sharp pictures are looked for that an evaluation's
    folder does not hold. Raises `DataError` for a folder that is no run, `OutputError` where a file cannot be written,
    `MissingExtra` where plots are asked for without matplotlib.
    """
    if not runs:
        raise DataError("There is nothing to compare: give a run folder.")
    found = read_runs(list(runs))
    sections = sections_of(found, data_root)
    text = page(sections, title)
    with written_whole(out) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")
    drawn = [chart for section in sections for chart in section.charts]
    return Report(out, _about(found), write_plots(drawn, plots) if plots is not None else [])


def sections_of(runs: Sequence[Run], data_root: Path | None = None) -> list[Section]:
    """Return the sections on runs: evaluations first, then trainings, then studies."""
    comparable = groups.groups([run for run in runs if isinstance(run, EvaluationRun)])
    return [
        *(evaluations.section(group, index, data_root) for index, group in enumerate(comparable, 1)),
        *trainings.sections([run for run in runs if isinstance(run, TrainingRun)]),
        *(studies.section(run) for run in runs if isinstance(run, StudyRun)),
    ]


def page(sections: Sequence[Section], title: str) -> str:
    """Return sections as a page of HTML."""
    parts = {name: files(__package__).joinpath(f"page.{name}").read_text(encoding="utf-8") for name in ("css", "js")}
    template = files(__package__).joinpath("page.html").read_text(encoding="utf-8")
    surroundings = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    surroundings.tests["a"] = lambda block, kind: type(block).__name__ == kind
    return surroundings.from_string(template).render(
        title=title,
        sections=sections,
        css=Markup(parts["css"]),  # ours, in the package
        js=Markup(parts["js"]),
        draw=lambda chart: Markup(charts.svg(chart)),
        key=lambda colour, series: Markup(charts.legend_mark(colour, series)),
        made=blocks.versions_text(versions()),
    )


def _about(runs: Sequence[Run]) -> str:
    kinds = {EvaluationRun: "evaluation", TrainingRun: "training", StudyRun: "study"}
    counts = {name: sum(isinstance(run, kind) for run in runs) for kind, name in kinds.items()}
    plural = {"study": "studies"}
    return ", ".join(
        f"{count} {name if count == 1 else plural.get(name, name + 's')}" for name, count in counts.items() if count
    )
