"""A study: the same experiment trained with other values of some of its settings, to see what they change.

    study = load("experiments/studies/document-b-learning-rate.yaml")
    result = sweep(study, Path("runs/document-b-learning-rate"), train=train)

Optuna proposes the values and keeps the book. Each trial is an ordinary run folder of a training. The folder of a
study holds

    study.yaml              what is studied, with the full settings of the experiment
    study.db                the book (SQLite), unless another one is named by an address
    trials/000/ ...         the run folders
    locks/                  who works on what; see below
    result.json result.md   every trial with its values and what came of it; the same as a table, best first

Any number of processes may work on one study at a time, and each may be killed at any moment. All trials are put into
the book as waiting when the study is made. A process takes one by locking its file, which the system unlocks when the
process ends, however it ends. A trial that the book calls running and that nobody has locked was left behind: the next
process goes on with its training where that stopped. On several machines with one database each machine has a folder
of its own, and what it left behind waits for it.

`study.py` is the study as data, `book.py` who has which values and what came of them, `trials.py` trains, `table.py`
shows where a study stands. What a report makes of a study is `unblur/report/studies.py`.
"""

from unblur.sweep.study import Setting, Study, StudySettings, as_changes, load
from unblur.sweep.table import best_first, markdown_table
from unblur.sweep.trials import StudyResult, Train, TrainingResult, sweep

__all__ = [
    "Setting",
    "Study",
    "StudyResult",
    "StudySettings",
    "Train",
    "TrainingResult",
    "as_changes",
    "best_first",
    "load",
    "markdown_table",
    "sweep",
]
