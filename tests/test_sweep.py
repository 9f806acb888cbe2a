"""Studies: every trial is trained once, whoever is killed, and what came of them is a table."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from training_pictures import TINY, write_pictures
from unblur.cli import main
from unblur.errors import SettingsError, TrainingError
from unblur.experiment import Experiment

pytest.importorskip("optuna")
from unblur import sweep

TESTS = Path(__file__).parent


@dataclass
class Done:
    """What a training leaves behind, as far as a study reads it."""

    best_loss: float
    best_psnr: float
    step: int = 20
    total_steps: int = 20
    seconds: float = 1.5
    stopped: str = "done"


class Training:
    """A training in no time: two validations, whose PSNR is best at a learning rate of 0.01."""

    def __init__(self, stopped: str = "done") -> None:
        self.stopped = stopped
        self.trained: list[tuple[str, float]] = []

    def __call__(
        self,
        experiment: Experiment,
        out: Path,
        *,
        data_root: Path | None,
        resume: bool,
        progress: bool,
        tell: Callable[[str], None],
    ) -> Done:
        lr = experiment.optimizer.lr
        self.trained.append((out.name, lr))
        loss = abs(lr - 0.01)
        (out / "log").mkdir(parents=True, exist_ok=True)
        lines = ["step,seconds,loss,psnr"]
        for step, worse in ((10, 2.0), (20, 1.0)):
            lines.append(f"{step},{step / 10},{worse * loss},{30 - worse * 100 * loss}")
            (out / "log" / "valid.csv").write_text("\n".join(lines) + "\n")
            tell(f"step {step}/20: validation loss ...")
        return Done(loss, 30 - 100 * loss, stopped=self.stopped)


def study_file(folder: Path, **changes: object) -> Path:
    """Write an experiment and a study of its learning rate, with other values for some keys of the study."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "experiment.yaml").write_text(yaml.safe_dump(TINY, sort_keys=False))
    content = {"experiment": "experiment.yaml", "space": {"optimizer.lr": {"values": [0.001, 0.01, 0.1]}}, **changes}
    path = folder / "study.yaml"
    path.write_text(
        yaml.safe_dump({key: value for key, value in content.items() if value is not None}, sort_keys=False)
    )
    return path


def run(file: Path, out: Path, train: Any = None, **options: Any) -> sweep.StudyResult:
    return sweep.sweep(sweep.load(file), out, train=train or Training(), **options)


def test_a_grid_trains_every_combination_once_and_finds_the_best(tmp_path):
    space = {"optimizer.lr": {"values": [0.001, 0.01, 0.1]}, "data.batch_size": {"values": [2, 4]}}
    training = Training()
    result = run(study_file(tmp_path, space=space), tmp_path / "out", training)
    trained = [tuple(trial["values"].values()) for trial in result.data["trials"]]
    assert sorted(trained) == [(lr, size) for lr in (0.001, 0.01, 0.1) for size in (2, 4)]
    assert [name for name, _ in training.trained] == [f"{number:03}" for number in range(6)]
    assert result.data["trials"][result.data["best"]]["values"]["optimizer.lr"] == 0.01
    assert json.loads((tmp_path / "out" / "result.json").read_text()) == result.data


def test_the_table_has_the_best_first_and_every_setting(tmp_path):
    table = run(study_file(tmp_path, settings={"schedule.steps": 7}), tmp_path / "out").table
    header, _, first, *_ = table.splitlines()
    assert header == "| trial | optimizer.lr | PSNR (dB) | loss | steps | minutes | state |"
    assert first == "| 1 | 0.01 | 30.00 | 0 | 20 | 0.0 | complete |"
    assert "experiment.yaml schedule.steps=7. " in table
    assert (tmp_path / "out" / "result.md").read_text() == table + "\n"


def test_the_experiment_of_a_trial_is_that_of_the_same_set_options(tmp_path):
    study = sweep.load(study_file(tmp_path, settings={"loss": {"mse": 1.0}}), ["seed=5"])
    trial = study.experiment({"optimizer.lr": 1e-5})
    assert (trial.optimizer.lr, trial.loss, trial.seed) == (1e-5, {"mse": 1.0}, 5)
    assert sweep.as_changes({"optimizer.lr": 1e-5}) == ("optimizer.lr=1e-05",)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"sampeler": "grid"}, "unknown key 'sampeler'. Did you mean 'sampler'?"),
        ({"space": {"optimizer.learn": {"values": [1]}}}, "unknown key 'optimizer.learn'"),
        ({"space": {"optimiser.lr": {"values": [1]}}}, "unknown key 'optimiser'. Did you mean 'optimizer'?"),
        ({"space": {"model.widht": {"values": [4]}}}, "Did you mean 'width'?"),
        ({"space": {"optimizer.lr": {"values": [0.1, -1]}}}, "with optimizer.lr=-1: "),
        ({"space": {"optimizer.lr": {"valeus": [0.1]}}}, "Did you mean 'values'?"),
        ({"space": {"optimizer.lr": {"values": [0.1, 0.1]}}}, "optimizer.lr has a value twice"),
        ({"space": {"optimizer.lr": {"low": 0.1, "high": 1}}}, "a grid needs values: [...] for optimizer.lr"),
        ({"space": {"optimizer.lr": {"low": 1, "high": 0.1}}, "sampler": "tpe", "trials": 2}, "low being the smaller"),
        ({"space": {"optimizer.lr": {"low": -1, "high": 0.1}}, "sampler": "tpe", "trials": 2}, "optimizer.lr=-1"),
        ({"sampler": "random"}, "random needs trials, their number"),
        ({"trials": 3}, "a grid takes every combination: leave trials out"),
        ({"objective": "valid/ssim"}, "'objective' is 'valid/ssim'"),
        (
            {"objective": "valid/loss", "space": {"loss": {"values": [{"mse": 1}]}}},
            "different losses cannot be compared",
        ),
        ({"experiment": "other.yaml"}, "other.yaml does not exist"),
        ({"settings": {"schedule.step": 3}}, "unknown key 'schedule.step'. Did you mean 'steps'?"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_trained(tmp_path, changes, complaint):
    with pytest.raises(SettingsError) as error:
        sweep.load(study_file(tmp_path, **changes))
    assert complaint in str(error.value)


def test_a_combination_that_does_not_go_together_is_refused_though_each_value_alone_is_right(tmp_path):
    space = {"schedule.name": {"values": ["cosine", "constant"]}, "schedule.hold": {"values": [None, 2]}}
    with pytest.raises(SettingsError, match=r'with schedule.name="constant" schedule.hold=2: .* constant has no hold'):
        sweep.load(study_file(tmp_path, space=space))


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_samplers_draw_within_the_ranges_and_never_the_same_twice(tmp_path, sampler):
    space = {"optimizer.lr": {"low": 1e-4, "high": 0.1, "log": True}, "data.batch_size": {"low": 1, "high": 9}}
    result = run(study_file(tmp_path, space=space, sampler=sampler, trials=5), tmp_path / "out")
    values = [tuple(trial["values"].values()) for trial in result.data["trials"]]
    assert len(set(values)) == 5
    assert all(1e-4 <= lr <= 0.1 and isinstance(size, int) and 1 <= size <= 9 for lr, size in values)


def test_random_draws_depend_on_the_seed_alone(tmp_path):
    space = {"optimizer.lr": {"low": 1e-4, "high": 0.1}}

    def drawn(name: str, seed: int) -> list[float]:
        file = study_file(tmp_path / name, space=space, sampler="random", trials=2, seed=seed)
        return [trial["values"]["optimizer.lr"] for trial in run(file, tmp_path / name / "out").data["trials"]]

    assert drawn("a", 1) == drawn("b", 1) != drawn("c", 2)


def test_the_same_values_again_are_not_trained_again(tmp_path):
    space = {"optimizer.lr": {"values": [0.1, 0.2]}}
    training = Training()
    result = run(study_file(tmp_path, space=space, sampler="random", trials=4), tmp_path / "out", training)
    assert len(training.trained) == len({lr for _, lr in training.trained})
    assert result.number_of("complete") == 4
    assert sum("the same as" in trial["note"] for trial in result.data["trials"]) == 4 - len(training.trained)


def test_bad_trials_are_pruned_and_keep_what_they_reached(tmp_path):
    space = {"optimizer.lr": {"values": [0.01, 0.011, 0.012, 0.5]}}
    result = run(study_file(tmp_path, space=space, pruner="median"), tmp_path / "out")
    *good, bad = result.data["trials"]
    assert [trial["state"] for trial in good] == ["complete"] * 3
    assert (bad["state"], bad["value"], bad["step"]) == ("pruned", None, 20)
    assert len(bad["looks"]) == 2


def test_hyperband_takes_a_validation_as_its_unit(tmp_path):
    space = {"optimizer.lr": {"values": [0.01, 0.011, 0.3, 0.5]}}
    result = run(study_file(tmp_path, space=space, pruner="hyperband"), tmp_path / "out")
    assert result.number_of("complete", "pruned") == 4
    assert result.data["best"] == 0


def test_a_training_that_fails_is_noted_and_the_next_one_follows(tmp_path):
    class Failing(Training):
        def __call__(self, experiment: Experiment, out: Path, **options: Any) -> Done:
            if experiment.optimizer.lr == 0.001:
                raise TrainingError("20 steps in a row were not finite")
            return super().__call__(experiment, out, **options)

    result = run(study_file(tmp_path), tmp_path / "out", Failing())
    assert [trial["state"] for trial in result.data["trials"]] == ["failed", "complete", "complete"]
    assert "failed: 20 steps in a row were not finite" in result.table


def test_an_interrupted_trial_is_gone_on_with_and_the_others_are_not_repeated(tmp_path):
    file, out = study_file(tmp_path), tmp_path / "out"
    first = run(file, out, Training(stopped="interrupted"))
    assert first.interrupted
    assert [trial["state"] for trial in first.data["trials"]] == ["running", "waiting", "waiting"]
    again = Training()
    assert run(file, out, again, resume=True).number_of("complete") == 3
    assert [name for name, _ in again.trained] == ["000", "001", "002"]
    nothing = Training()
    run(file, out, nothing, resume=True)
    assert not nothing.trained


def test_a_folder_with_a_study_wants_resume_and_the_same_study(tmp_path):
    file, out = study_file(tmp_path), tmp_path / "out"
    run(file, out)
    with pytest.raises(TrainingError, match=r"holds a study already\. Go on with --resume"):
        run(file, out)
    with pytest.raises(SettingsError, match=r"another study \(experiment.seed was 3, is 4\)"):
        sweep.sweep(sweep.load(file, ["seed=4"]), out, train=Training(), resume=True)


def test_more_trials_can_be_asked_for_later(tmp_path):
    space = {"optimizer.lr": {"low": 1e-4, "high": 0.1}}
    out = tmp_path / "out"
    run(study_file(tmp_path, space=space, sampler="random", trials=2), out)
    more = Training()
    result = run(study_file(tmp_path, space=space, sampler="random", trials=4), out, more, resume=True)
    assert (len(result.data["trials"]), len(more.trained)) == (4, 2)


PROCESS = """
import sys, time
sys.path.insert(0, {tests!r})
from pathlib import Path
from test_sweep import Training
from unblur import sweep

class Slow(Training):
    def __call__(self, experiment, out, **options):
        with open({journal!r}, "a") as file:
            file.write(f"{{out.name}} {{(out / 'begun').exists()}}\\n")
        (out / "begun").touch()
        time.sleep({seconds})
        return super().__call__(experiment, out, **options)

sweep.sweep(sweep.load({file!r}), Path({out!r}), train=Slow(), resume=True)
"""


def started(folder: Path, file: Path, seconds: float) -> subprocess.Popen[bytes]:
    """Start a process that works on the study; each training notes its folder, and whether it was begun before."""
    program = PROCESS.format(
        tests=str(TESTS), journal=str(folder / "journal"), file=str(file), out=str(folder / "out"), seconds=seconds
    )
    return subprocess.Popen([sys.executable, "-c", program], env={**os.environ, "OMP_NUM_THREADS": "1"})


def test_two_processes_share_a_study_and_no_trial_is_trained_twice(tmp_path):
    space = {"optimizer.lr": {"values": [round(0.001 * number, 3) for number in range(1, 7)]}}
    file = study_file(tmp_path, space=space)
    both = [started(tmp_path, file, seconds=0.2) for _ in range(2)]
    assert [process.wait(120) for process in both] == [0, 0]
    lines = (tmp_path / "journal").read_text().splitlines()
    assert sorted(lines) == [f"{number:03} False" for number in range(6)]
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert [trial["state"] for trial in result["trials"]] == ["complete"] * 6


def test_after_kill_9_the_trial_left_behind_is_gone_on_with(tmp_path):
    file, journal = study_file(tmp_path), tmp_path / "journal"
    killed = started(tmp_path, file, seconds=60)
    limit = time.monotonic() + 60
    while not journal.exists() and time.monotonic() < limit:
        time.sleep(0.05)
    time.sleep(0.2)
    killed.send_signal(signal.SIGKILL)
    killed.wait(30)
    assert journal.read_text().splitlines() == ["000 False"]
    after = Training()
    assert run(file, tmp_path / "out", after, resume=True).number_of("complete") == 3
    assert [name for name, _ in after.trained] == ["000", "001", "002"]


def test_a_database_by_address_is_used_and_not_written_down(tmp_path):
    address = f"sqlite:///{tmp_path / 'elsewhere.db'}"
    run(study_file(tmp_path), tmp_path / "out", storage=address)
    assert (tmp_path / "elsewhere.db").exists()
    assert not (tmp_path / "out" / "study.db").exists()
    assert "elsewhere" not in (tmp_path / "out" / "study.yaml").read_text()
    with pytest.raises(SettingsError, match="database cannot be opened"):
        run(study_file(tmp_path), tmp_path / "other", storage="sqlite:////no/such/folder/a.db")


def test_the_command_trains_real_run_folders_which_a_report_shows(tmp_path, capsys):
    pytest.importorskip("lightning")
    write_pictures(tmp_path / "data" / "sharp")
    file = study_file(tmp_path, settings={"schedule.steps": 2, "validation.every_steps": 1}, pruner="median")
    options = ["--out", str(tmp_path / "out"), "--data-root", str(tmp_path / "data"), "-q"]
    assert main(["sweep", str(file), *options, "--set", "seed=5"]) == 0
    assert capsys.readouterr().out.startswith("| trial | optimizer.lr |")
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert [trial["state"] for trial in result["trials"]] == ["complete"] * 3
    for trial in result["trials"]:
        assert (tmp_path / "out" / trial["folder"] / "best.safetensors").exists()
        assert trial["psnr"] in [pytest.approx(look) for look in trial["looks"]]
    assert main(["compare", str(tmp_path / "out"), "-o", str(tmp_path / "report.html")]) == 0
    assert capsys.readouterr().out.startswith(f"{tmp_path / 'report.html'} (1 study, ")
    assert "PSNR against optimizer.lr" in (tmp_path / "report.html").read_text()


STUDIES = sorted((TESTS.parent / "experiments" / "studies").glob("*.yaml"))


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_a_study_that_ships_is_possible_and_begins_with_what_it_is(path):
    first = path.read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("# Document B, ")
    assert sweep.load(path).settings.count > 1


def test_the_studies_of_document_b_are_there():
    assert [path.stem.removeprefix("document_b_") for path in STUDIES] == [
        "batch_norm",
        "batch_size",
        "learning_rate",
        "vae_loss",
    ]
