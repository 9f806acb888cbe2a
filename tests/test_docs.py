"""The documents tell the truth: their commands run or at least parse, their code works, their links lead somewhere.

The `sh` and `python` blocks of the tutorial are run in order, in a folder of their own, with a tiny network and a few
steps. A block under `<!-- not run: the reason -->` is only parsed, as are all commands of the other documents.
"""

import argparse
import dataclasses
import json
import re
import shlex
import shutil
import signal
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
import skimage.data
import torch
import yaml
from PIL import Image
from pydantic.fields import FieldInfo

from unblur import experiment, losses, models, published, weights
from unblur.blur import recipes
from unblur.cli import main, parser
from unblur.commands import train
from unblur.images import find_photos
from unblur.models import critics
from unblur.models.arch import Arch
from unblur.settings import Settings, validated

ROOT = Path(__file__).parents[1]
TUTORIAL = ROOT / "docs" / "train-on-your-own-photos.md"
TRAINING = ROOT / "docs" / "training.md"
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
EVERY_DOCUMENT = pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
SHELLS = {"sh", "bash", "shell", "console"}


@dataclass(frozen=True)
class Block:
    """A fenced block of a document: its language, its text, and whether it stands under `<!-- not run: ... -->`."""

    language: str
    text: str
    runs: bool

    @property
    def commands(self) -> list[list[str]]:
        """The words of each command line, without prompt, comment, and what follows a pipe or `&&`."""
        if self.language not in SHELLS:
            return []
        lines = self.text.replace("\\\n", " ").splitlines()
        commands = []
        for line in lines:
            lexer = shlex.shlex(line.removeprefix("$ "), posix=True, punctuation_chars="|&;<>")
            lexer.whitespace_split = True
            words = list(lexer)
            ends = (index for index, word in enumerate(words) if set(word) <= set("|&;<>"))
            commands.append(words[: next(ends, None)])
        return [words for words in commands if words]


def blocks(path: Path) -> list[Block]:
    fence = re.compile(r"^(<!-- not run: [^\n]+ -->\n)?```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
    return [Block(match[2], match[3], runs=match[1] is None) for match in fence.finditer(path.read_text("utf-8"))]


def unblur_commands(path: Path) -> list[list[str]]:
    """Return the arguments of every `unblur ...` and `... -m unblur ...` line in the blocks of a document."""
    commands = [words for block in blocks(path) for words in block.commands]
    return [
        words[place + 1 :]
        for words in commands
        for place, word in enumerate(words)
        if Path(word).name == "unblur" and (place == 0 or words[place - 1] == "-m")
    ]


def rows(path: Path, heading: str) -> dict[str, str]:
    """Return the table rows under a heading and what is below it: the code in the first cell, and the rest."""
    level = heading.partition(" ")[0]
    section = text_without_blocks(path).partition(f"\n{heading}\n")[2]
    section = re.split(rf"^#{{1,{len(level)}}} ", section, maxsplit=1, flags=re.MULTILINE)[0]
    return dict(re.findall(r"^\| `([^`]+)` \| (.*) \|$", section, re.MULTILINE))


def text_without_blocks(path: Path) -> str:
    return re.sub(r"^```.*?^```$", "", path.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)


# -- the tutorial --------------------------------------------------------------------------------------

TINY = [
    "model.width=4", "model.encoder_blocks=[1]", "model.middle_blocks=1", "model.decoder_blocks=[1]",
    "data.hold_out=0.3", "data.crop_px=16", "data.batch_size=2", "validation.crop_px=32", "validation.max_pictures=2",
]  # fmt: skip


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with what a reader of the tutorial has: the experiments, photographs, pairs. It is the current one."""
    shutil.copytree(ROOT / "experiments", tmp_path / "experiments")
    astronaut = Image.fromarray(skimage.data.astronaut())
    for index in range(12):
        left, top = 90 * (index % 4), 110 * (index // 4)
        photo = astronaut.crop((left, top, left + 96, top + 80))
        _save(photo, tmp_path / "pictures" / f"day{index % 2}" / f"{index:02}.jpg")
        _save(photo, tmp_path / "data" / "pairs" / "sharp" / f"{index:02}.png")
        _save(photo.reduce(2).resize(photo.size), tmp_path / "data" / "pairs" / "blur" / f"{index:02}.png")
    coffee = Image.fromarray(skimage.data.coffee())
    _save(coffee.crop((200, 100, 264, 148)), tmp_path / "pictures-to-test" / "cup.png")
    _save(coffee.crop((300, 200, 364, 248)), tmp_path / "pictures-to-test" / "table.jpg")
    _save(coffee.crop((100, 100, 164, 148)), tmp_path / "holiday" / "beach.jpg")
    monkeypatch.chdir(tmp_path)
    terminate = signal.getsignal(signal.SIGTERM)
    yield tmp_path
    signal.signal(signal.SIGTERM, terminate)


def test_the_tutorial_can_be_followed_from_its_first_command_to_its_last(bench, capsys):
    for block in blocks(TUTORIAL):
        if block.language == "yaml":
            name = block.text.splitlines()[0].removeprefix("# ")
            Path(name).write_text(block.text, encoding="utf-8")
        elif block.language == "python" and block.runs:
            exec(compile(block.text, TUTORIAL.name, "exec"), {})
        elif block.runs:
            for program, *arguments in block.commands:
                assert program == "unblur", f"only unblur can be run here; mark the block as not run: {program}"
                code = main(made_small(arguments))
                said = capsys.readouterr()
                assert code == 0, f"unblur {shlex.join(arguments)} ended with {code}: {said.err}"
                assert said.out, f"unblur {shlex.join(arguments)} printed nothing"

    assert len(find_photos(bench / "data" / "sharp")) == 12
    assert weights.describe("runs/my_photos/best.safetensors").facts["step"] > 0
    assert experiment.load("runs/my_photos/experiment.yaml").schedule.steps == small_steps(24_000), "made longer"
    assert {path.name for path in Path("runs/my_photos").iterdir()} == files_of_a_run_in(TUTORIAL)
    scores = Path("runs/scores/everyday/scores.csv").read_text(encoding="utf-8").splitlines()
    assert [row.split(",")[0] for row in scores[1:]] == ["blurred input"] * 2 + ["my_photos/best"] * 2
    assert [path.name for path in Path("holiday-sharp").iterdir()] == ["beach.jpg"]
    assert Path("beach-sharp.jpg").exists()


def made_small(arguments: list[str]) -> list[str]:
    """Return the arguments, a training's with settings that end it after a few steps of a tiny network."""
    options = parser().parse_args(arguments)
    if options.run is not train.run:
        return arguments
    steps = small_steps(experiment.load(options.experiment, options.set).schedule.steps)
    return [*arguments, "--set", *TINY, f"schedule.steps={steps}", f"validation.every_steps={steps // 2}"]


def small_steps(steps: int | None) -> int:
    assert steps, "the experiments of the tutorial say how many steps"
    return max(4, steps // 2000)


def files_of_a_run_in(path: Path) -> set[str]:
    return {name.rstrip("/") for name in re.findall(r"^\| `([\w./]+)` \|", path.read_text("utf-8"), re.MULTILINE)}


def test_the_experiment_that_begins_with_the_default_weights_has_their_network():
    if "default" not in weights.shipped() or not weights.shipped()["default"].path.is_file():
        pytest.skip("the default weights are not here")
    settings = experiment.load(ROOT / "experiments" / "sharp" / "wiener_nafnet_everyday.yaml").model
    shipped = weights.describe("default")
    options = models.full_options(settings.name, **settings.options)
    assert (settings.name, options) == (shipped.architecture, shipped.options)


# -- every document ------------------------------------------------------------------------------------


@EVERY_DOCUMENT
def test_every_link_to_a_file_leads_to_one(path):
    links = re.findall(r"\]\(([^)\s]+)\)|(?:src|href)=\"([^\"]+)\"", text_without_blocks(path))
    targets = [first or second for first, second in links]
    local = [target for target in targets if not re.match(r"[a-z]+:|#", target)]
    assert not [target for target in local if not (path.parent / target.partition("#")[0]).exists()]


@EVERY_DOCUMENT
def test_every_command_parses(path, capsys):
    wrong = []
    for arguments in unblur_commands(path):
        if arguments in (["--version"], ["--help"]):
            continue  # they print and end the program
        try:
            parser().parse_args(arguments)
        except SystemExit:
            wrong.append(f"unblur {shlex.join(arguments)}: {capsys.readouterr().err.splitlines()[-1]}")
    assert not wrong, "\n".join(wrong)


@EVERY_DOCUMENT
def test_every_training_that_is_shown_has_a_valid_experiment(path):
    for arguments in unblur_commands(path):
        if arguments[0] == "train":
            options = parser().parse_args(arguments)
            changes = [change for change in options.set if not change.endswith(".yaml")]  # the reader's own files
            experiment.load(ROOT / options.experiment, changes)


def flags_of(command: argparse.ArgumentParser) -> set[str]:
    """Return the flags of a command and of its own commands."""
    flags = set()
    for action in command._actions:
        flags |= set(action.option_strings)
        if isinstance(action, argparse._SubParsersAction):
            flags = flags.union(*(flags_of(choice) for choice in action.choices.values()))
    return flags


@EVERY_DOCUMENT
def test_every_command_in_running_text_exists(path):
    (subparsers,) = (action for action in parser()._actions if isinstance(action, argparse._SubParsersAction))
    wrong = []
    for name, rest in re.findall(r"`unblur ([a-z]+)\b([^`]*)`", text_without_blocks(path)):
        if name not in subparsers.choices:
            wrong.append(f"unblur {name}")
            continue
        known = flags_of(subparsers.choices[name])
        wrong += [f"unblur {name} {flag}" for flag in re.findall(r"(?<!\S)--?[a-z][\w-]*", rest) if flag not in known]
    assert not wrong


def test_a_wrong_command_in_a_document_is_found(tmp_path):
    document = tmp_path / "doc.md"
    document.write_text("```sh\n$ unblur restore a.jpg --modell x && ls  # why\n```\n", encoding="utf-8")
    assert unblur_commands(document) == [["restore", "a.jpg", "--modell", "x"]]
    with pytest.raises(SystemExit):
        parser().parse_args(unblur_commands(document)[0])


# -- what single documents promise ---------------------------------------------------------------------


def test_the_network_of_the_guide_keeps_to_the_contract_of_networks(monkeypatch):
    guide = blocks(ROOT / "docs" / "adding-a-model.md")
    (code,) = (block.text for block in guide if block.language == "python")
    module = types.ModuleType("few_convs")
    exec(compile(code, "few_convs.py", "exec"), module.__dict__)
    arch = module.ARCH
    monkeypatch.setitem(models.ARCHITECTURES, arch.name, arch)
    network = models.create(arch.name, **arch.tiny).eval()
    torch.nn.init.normal_(network.out.weight)
    with torch.no_grad():
        for height, width in ((1, 1), (5, 8)):
            assert network(torch.rand(2, 3, height, width)).shape == (2, 3, height, width)
    assert weights.num_parameters(network) < 60_000
    (settings,) = (block.text for block in guide if block.language == "yaml")
    assert validated(experiment.Experiment, yaml.safe_load(settings), "the guide").model.name == arch.name


def test_the_recipes_document_names_every_recipe_kind_and_key():
    text = (ROOT / "docs" / "recipes.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| `([^`]+)` \| (.*)$", text, re.MULTILINE))
    classes = get_args(get_args(recipes.Kind)[0])
    kinds = {get_args(kind.model_fields["blur"].annotation)[0]: kind for kind in classes}
    assert rows.keys() == recipes.built_in_recipes().keys() | kinds.keys() | recipes.Recipe.model_fields.keys()
    for name, kind in kinds.items():
        keys = kind.model_fields.keys() - {"blur", "weight"}
        assert keys == {key for key in keys if f"`{key}`" in rows[name]}, name


def test_the_recipes_in_documents_are_valid(tmp_path):
    shown = [block.text for path in DOCUMENTS for block in blocks(path) if block.language == "yaml"]
    of_recipes = [text for text in shown if "kinds:" in text]
    assert of_recipes
    for text in of_recipes:
        file = tmp_path / "recipe.yaml"
        file.write_text(text, encoding="utf-8")
        recipes.load_recipe(file)


def test_the_training_document_has_every_key_of_an_experiment_with_its_default():
    shown = rows(TRAINING, "## Settings")
    known = dict(keys_of(experiment.Experiment, set()))
    assert shown.keys() == known.keys()
    assert {key: shown[key].partition(" |")[0] for key in shown} == {key: default(known[key]) for key in known}


def keys_of(settings: type[Settings], seen: set[type[Settings]], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Yield every key with what is known of it. Sections that occur a second time are one key there."""
    for name, field in settings.model_fields.items():
        inner, suffix = section_of(field.annotation)
        if inner is None or inner in seen:
            yield prefix + name, field
        else:
            seen.add(inner)
            yield from keys_of(inner, seen, f"{prefix}{name}{suffix}.")


def section_of(annotation: Any) -> tuple[type[Settings] | None, str]:
    """Return the settings within a key's type, and how a key in it is written: `[]` in a list, `NAME` in a dict."""
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        return annotation, ""
    suffix = {tuple: "[]", dict: ".NAME"}.get(get_origin(annotation), "")
    found = (section_of(part) for part in get_args(annotation))
    return next(((inner, suffix + more) for inner, more in found if inner), (None, ""))


def default(field: FieldInfo) -> str:
    """Return a default as the document writes it."""
    if field.is_required():
        return "needed"
    return "–" if field.default is None else f"`{json.dumps(field.default)}`"


def test_the_training_document_has_every_loss_schedule_and_critic():
    assert rows(TRAINING, "## Losses").keys() == set(losses.LOSSES)
    assert rows(TRAINING, "### Against critics").keys() == critics.CRITICS.keys()
    schedules = rows(TRAINING, "## Schedules and optimisers")
    assert schedules.keys() == experiment.SCHEDULE_KEYS.keys()
    for name, (needed, optional) in experiment.SCHEDULE_KEYS.items():
        cells = [set(re.findall(r"`(\w+)`", cell)) for cell in schedules[name].split(" | ")]
        assert (cells[0] >= set(needed), cells[1]) == (True, set(optional)), name


def test_the_settings_in_the_training_document_are_valid():
    whole = experiment.load(ROOT / "experiments" / "sharp" / "my_photos.yaml").model_dump(mode="json")
    parts = [yaml.safe_load(block.text) for block in blocks(TRAINING) if block.language == "yaml"]
    assert len(parts) >= 5
    for part in parts:
        validated(experiment.Experiment, {**whole, **part}, str(part))


def test_the_training_document_names_the_files_of_a_run():
    assert files_of_a_run_in(TUTORIAL) == {name.split("/")[0] for name in rows(TRAINING, "## The run folder")}


def test_the_guide_to_networks_names_every_fact_of_one():
    text = (ROOT / "docs" / "adding-a-model.md").read_text("utf-8")
    facts = {field.name for field in dataclasses.fields(Arch)}
    assert not {fact for fact in facts if not re.search(rf"`{fact}`|^    {fact}=", text, re.MULTILINE)}


def test_the_document_on_checkpoints_has_every_network_and_wrapper_that_is_recognised():
    document = ROOT / "docs" / "published-checkpoints.md"
    assert rows(document, "## What is recognised").keys() == published.READERS.keys()
    assert not {entry for entry in published.WRAPPERS if f"`{entry}`" not in document.read_text("utf-8")}


def test_the_line_in_the_document_on_checkpoints_merges_jins_four_files_into_one_network(tmp_path, monkeypatch):
    network = models.create("blur_to_video", **models.find("blur_to_video").tiny)
    (line,) = (b.text for b in blocks(ROOT / "docs" / "published-checkpoints.md") if b.language == "python")
    beginnings = [("",), ("generateFrame3.", "generateFrame5."), ("generateFrame2_6.",), ("generateFrame1_7.",)]
    left, files = network.state_dict(), re.findall(r'"(\w+\.pth)"', line)[:4]
    for file, starts in reversed([*zip(files, beginnings, strict=True)]):
        part = {key: left.pop(key) for key in [*left] if key.startswith(starts)}
        torch.save({"state_dict_G": part}, tmp_path / file)
    monkeypatch.chdir(tmp_path)
    exec(compile(line, "published-checkpoints.md", "exec"), {})
    merged = weights.load("jin.pth")
    assert models.identity(merged) == models.identity(network)
    assert all(torch.equal(value, network.state_dict()[key]) for key, value in merged.state_dict().items())


def _save(photo: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    photo.save(path)
