"""The command as a user meets it: what it writes, what it says where, and with which exit code it ends."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import warnings
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from unblur import cli, images, models, weights
from unblur.commands.terminal import warnings_in_one_line
from unblur.images import as_photo, read_photo

COMMANDS = (
    "restore", "models", "blur", "data", "train", "sweep", "evaluate", "score", "detect", "compare", "export"
)  # fmt: skip
TINY = {"width": 4, "encoder_blocks": [1], "middle_blocks": 1, "decoder_blocks": [1]}
POSIX = pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals, limits and terminals")


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one line on stderr; nothing else may be there."""
        (line,) = self.err.splitlines()
        assert line.startswith("unblur: ")
        return line


Command = Callable[..., Ended]


@pytest.fixture
def unblur(capsys: pytest.CaptureFixture[str]) -> Iterator[Command]:
    """Run the command in this process; whatever happens, there is no traceback unless one was asked for."""
    before = signal.getsignal(signal.SIGTERM)

    def run(*arguments: object) -> Ended:
        capsys.readouterr()
        try:
            code = cli.main([str(argument) for argument in arguments])
        except SystemExit as left:
            code = int(left.code or 0)
        ended = Ended(code, *capsys.readouterr())
        assert "Traceback" not in ended.err or "-v" in arguments
        return ended

    yield run
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, in which relative paths begin."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def keeps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights that give every picture back as it is (a fresh NAFNet does)."""
    return save_weights(tmp_path_factory.mktemp("keeps") / "best.safetensors", 0.0)


@pytest.fixture(scope="session")
def brightens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights that make every picture brighter by a tenth."""
    return save_weights(tmp_path_factory.mktemp("brightens") / "best.safetensors", 0.1)


def save_weights(path: Path, brighter: float) -> Path:
    network = models.create("nafnet", **TINY)
    torch.nn.init.constant_(network.get_parameter("ending.bias"), brighter)
    weights.save(network, path, {})
    return path


def noise(*shape: int, dtype: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max + 1, shape or (30, 40, 3), dtype)


def write(name: str, pixels: np.ndarray | None = None) -> Path:
    as_photo(noise() if pixels is None else pixels).save(name)
    return Path(name)


def smooth(index: int) -> np.ndarray:
    """A picture that looks like something after it was blurred."""
    coarse = np.random.default_rng(index).integers(0, 256, (6, 7, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((56, 48), Image.Resampling.BICUBIC))


def files_in(folder: Path | str) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file())


def buffered() -> dict[str, str]:
    """The environment for a Python that writes to a pipe as it does by default: when a block is full."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}


def pixels(path: Path | str) -> np.ndarray:
    return read_photo(path).to_array()


# -- restore: what is written where ------------------------------------------------------------------------------------


def test_a_photo_is_restored_beside_itself_and_one_line_says_so(unblur: Command, here: Path, keeps: Path) -> None:
    before = write("photo.png").read_bytes()
    ended = unblur("restore", "photo.png", "--model", keeps)
    assert ended.code == 0
    assert re.fullmatch(r"photo\.png -> photo-restored\.png \(40x30, \d+\.\d\d s\)\n", ended.out)
    assert ended.err == ""
    assert Path("photo.png").read_bytes() == before
    np.testing.assert_array_equal(pixels("photo-restored.png"), noise())


def test_the_network_that_is_named_is_the_one_that_runs(unblur: Command, here: Path, brightens: Path) -> None:
    write("photo.png", np.full((20, 20, 3), 100, np.uint8))
    assert unblur("restore", "photo.png", "-o", "out.png", "--model", brightens).code == 0
    assert abs(int(pixels("out.png")[10, 10, 0]) - 125.5) <= 1


@pytest.mark.parametrize(
    ("output", "written"), [("new/out.tif", "new/out.tif"), ("out", "out/photo.png"), ("out.d", "out.d/photo.png")]
)
def test_an_output_for_one_photo_is_a_file_or_a_folder(
    unblur: Command, here: Path, keeps: Path, output: str, written: str
) -> None:
    write("photo.png")
    assert unblur("restore", "photo.png", "-o", output, "--model", keeps).code == 0
    assert files_in(here) == sorted([written, "photo.png"])


def test_a_folder_keeps_its_names_and_subfolders(unblur: Command, here: Path, keeps: Path) -> None:
    names = ["A.PNG", "a.jpg", "b.c.tiff", "sub/deep/a.webp"]
    for name in [*names, ".hidden/d.png"]:
        write(f"in/{name}")
    Path("in/notes.txt").write_text("no picture")
    ended = unblur("restore", "in", "-o", "out", "--model", keeps)
    assert (ended.code, ended.err) == (0, "")
    assert files_in("out") == names
    assert len(ended.out.splitlines()) == 4


def test_several_inputs_share_one_output_folder(unblur: Command, here: Path, keeps: Path) -> None:
    write("one/sub/a.png")
    write("b.png")
    assert unblur("restore", "one", "b.png", "-o", "out", "--model", keeps).code == 0
    assert files_in("out") == ["b.png", "sub/a.png"]


def test_an_existing_result_is_replaced_only_if_asked(unblur: Command, here: Path, keeps: Path) -> None:
    write("photo.png")
    old = write("photo-restored.png", np.zeros((3, 3, 3), np.uint8)).read_bytes()
    ended = unblur("restore", "photo.png", "--model", keeps)
    assert ended.code == 1
    assert "--overwrite" in ended.error
    assert Path("photo-restored.png").read_bytes() == old
    assert unblur("restore", "photo.png", "--model", keeps, "--overwrite").code == 0
    assert pixels("photo-restored.png").shape == (30, 40, 3)


@pytest.mark.parametrize("output", ["photo.png", ".", "./photo.png", "link.png"])
def test_the_input_is_never_overwritten(unblur: Command, here: Path, keeps: Path, output: str) -> None:
    before = write("photo.png").read_bytes()
    os.link("photo.png", "link.png")
    ended = unblur("restore", "photo.png", "-o", output, "--model", keeps, "--overwrite")
    assert ended.code == 1
    assert "never overwritten" in ended.error
    assert Path("photo.png").read_bytes() == before


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_depth_grey_and_alpha_are_kept(
    unblur: Command, here: Path, keeps: Path, channels: int, dtype: type[np.generic]
) -> None:
    sharp = noise(9, 7, channels, dtype=dtype)
    write("photo.png", sharp)
    assert unblur("restore", "photo.png", "--model", keeps).code == 0
    np.testing.assert_array_equal(pixels("photo-restored.png"), sharp)


def test_a_photo_that_was_turned_by_its_exif_comes_out_upright(unblur: Command, here: Path, keeps: Path) -> None:
    exif = Image.Exif()
    exif[274], exif[271] = 6, "Some camera"  # orientation: a quarter turn; make
    Image.fromarray(noise()).save("photo.png", exif=exif)
    ended = unblur("restore", "photo.png", "--model", keeps)
    assert "(30x40, " in ended.out
    with Image.open("photo-restored.png") as restored:
        assert restored.getexif().get(274, 1) == 1
        assert restored.getexif()[271] == "Some camera"
        np.testing.assert_array_equal(np.asarray(restored), np.rot90(noise(), -1))


def test_what_the_output_cannot_hold_is_said_on_stderr(unblur: Command, here: Path, keeps: Path) -> None:
    write("photo.png", noise(9, 7, 3, dtype=np.uint16))
    ended = unblur("restore", "photo.png", "-o", "out.jpg", "--model", keeps)
    assert ended.code == 0
    assert "16 bit" in ended.error


def test_tiles_are_counted_and_change_nothing(unblur: Command, here: Path, keeps: Path) -> None:
    write("photo.png", noise(70, 90, 3))
    ended = unblur("restore", "photo.png", "--model", keeps, "--tile", "32", "--device", "cpu", "--engine", "torch")
    assert re.search(r"\(90x70, \d+ tiles, ", ended.out)
    np.testing.assert_array_equal(pixels("photo-restored.png"), noise(70, 90, 3))


@pytest.mark.skipif(sys.platform != "linux", reason="only there may a name be any bytes")
def test_a_file_name_that_is_no_text_is_restored_and_printed(unblur: Command, here: Path, keeps: Path) -> None:
    name = os.fsdecode(b"\xff [/red].png")
    write(name)
    ended = unblur("restore", name, "-o", "out", "--model", keeps)
    assert ended.code == 0
    assert "\\udcff [/red].png -> out/" in ended.out


# -- restore: what goes wrong ------------------------------------------------------------------------------------------


def bad_input(kind: str) -> Path:
    """Make the input of that kind, each of which has its own message."""
    path = Path("bad.jpg")
    if kind == "directory without pictures":
        path.mkdir()
    elif kind == "0-byte file":
        path.touch()
    elif kind == "text":
        path.write_text("Dear diary")
    elif kind == "truncated":
        whole = write("whole.jpg", noise(64, 64, 3)).read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        Path("whole.jpg").unlink()
    elif kind == "bomb":  # claims 30,000 × 30,000 and is a few bytes long
        Image.fromarray(noise()).save(path, "PNG")
        content = bytearray(path.read_bytes())
        content[16:24] = (30_000).to_bytes(4, "big") * 2
        content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
        path.write_bytes(content)
    return path


BAD_INPUTS = {
    "missing": "does not exist",
    "directory without pictures": "has no pictures",
    "0-byte file": "empty",
    "text": "is not a JPEG, PNG, TIFF or WebP",
    "truncated": "truncated",
    "bomb": "--max-pixels",
}


@pytest.mark.parametrize(("kind", "says"), BAD_INPUTS.items())
@pytest.mark.parametrize("command", ["restore", "blur"])
def test_bad_input_is_one_line_that_names_it_and_nothing_is_written(
    unblur: Command, here: Path, keeps: Path, command: str, kind: str, says: str
) -> None:
    path = bad_input(kind)
    before = files_in(here)
    rest = ("--model", keeps) if command == "restore" else ("--recipe", "gaussian-2.5")
    ended = unblur(command, path, "-o", "out", *rest)
    assert (ended.code, ended.out) == (1, "")
    assert "bad.jpg" in ended.error
    assert says in ended.error
    assert files_in(here) == before


def test_one_bad_file_is_reported_and_the_others_are_done(unblur: Command, here: Path, keeps: Path) -> None:
    write("in/a.png")
    Path("in/b.jpg").write_bytes(b"no picture")
    write("in/c.png")
    ended = unblur("restore", "in", "-o", "out", "--model", keeps)
    assert ended.code == 1
    about_b, about_all = ended.err.splitlines()
    assert about_b.startswith(f"unblur: {Path('in/b.jpg')} ")
    assert about_all == "unblur: 1 of 3 files failed, the others are done."
    assert files_in("out") == ["a.png", "c.png"]
    assert len(ended.out.splitlines()) == 2


def test_the_limit_of_pixels_can_be_lowered_and_raised(
    unblur: Command, here: Path, keeps: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("photo.png")  # 1200 pixels
    restore = ("restore", "photo.png", "--overwrite", "--model", keeps)
    assert unblur(*restore, "--max-pixels", 1199).code == 1
    assert unblur(*restore, "--max-pixels", 1200).code == 0
    monkeypatch.setattr(images, "DEFAULT_MAX_PIXELS", 1000)
    refused = unblur(*restore)
    flag = re.search(r"--max-pixels \d+", refused.error)
    assert flag, "the error gives the flag that helps"
    assert unblur(*restore, *flag[0].split()).code == 0


def test_a_file_in_place_of_the_output_folder_is_an_error(unblur: Command, here: Path, keeps: Path) -> None:
    write("photo.png")
    Path("file").touch()
    for output in ("file", "file/out.png", "file/deeper/out.png"):
        ended = unblur("restore", "photo.png", "-o", output, "--model", keeps)
        assert ended.code == 1
        assert "file" in ended.error


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="needs a folder that its user may not write to")
def test_a_folder_that_may_not_be_written_to_is_an_error(unblur: Command, here: Path, keeps: Path) -> None:
    write("photo.png")
    Path("locked").mkdir(mode=0o500)
    ended = unblur("restore", "photo.png", "-o", "locked", "--model", keeps)
    assert ended.code == 1
    assert "locked" in ended.error


def test_a_name_that_is_not_known_is_an_error_with_the_nearest(unblur: Command, here: Path, keeps: Path) -> None:
    write("photo.png")
    cases = {
        ("restore", "photo.png", "--model", "nafent"): "Did you mean 'nafnet'",
        ("restore", "photo.png", "--model", "lost.safetensors"): "lost.safetensors does not exist",
        ("restore", "photo.png", "--model", keeps, "--device", "gpu"): "auto, cpu, cuda, mps",
        ("blur", "photo.png", "-o", "out", "--recipe", "gaussian-tripel"): "Did you mean 'gaussian-triple'",
        ("score", "photo.png", "photo.png", "--metrics", "pnsr"): "Did you mean 'psnr'",
        ("evaluate", "--model", keeps, "--data", "shrap", "--recipe", "sharp"): "Did you mean 'sharp'",
        ("models", "nafent"): "Did you mean 'nafnet'",
    }
    for arguments, says in cases.items():
        ended = unblur(*arguments)
        assert (ended.code, ended.out) == (1, ""), arguments
        assert says in ended.error
    assert files_in(here) == ["photo.png"]


@pytest.mark.skipif(sys.platform != "linux", reason="mounts a file system in memory")
def test_a_full_disk_fails_in_one_line_and_leaves_nothing_half_done(unblur: Command, here: Path, keeps: Path) -> None:
    write("in/large.png", noise(200, 200, 3))
    write("in/small.png")
    Path("out").mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(here / "out")]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("mounting needs a right that this user does not have")
    try:
        ended = unblur("restore", "in", "-o", "out", "--model", keeps)
        assert ended.code == 1
        assert "large.png could not be written: No space left on device" in ended.err.splitlines()[0]
        assert files_in("out") == ["small.png"]
    finally:
        subprocess.run(["umount", str(here / "out")], check=True)


@POSIX
def test_a_limit_of_file_sizes_fails_like_a_full_disk(here: Path, keeps: Path) -> None:
    write("in/large.png", noise(200, 200, 3))
    write("in/small.png")
    program = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000));"
    program += f"from unblur.cli import main; sys.exit(main(['restore', 'in', '-o', 'out', '--model', {str(keeps)!r}]))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 1
    assert "could not be written" in done.stderr.splitlines()[0]
    assert len(done.stderr.splitlines()) == 2
    assert files_in("out") == ["small.png"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_results_that_cannot_be_printed_are_an_error_of_one_line(here: Path) -> None:
    write("photo.png")
    command = [sys.executable, "-m", "unblur", "score", "photo.png", "photo.png"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, env=buffered())
    assert done.returncode == 1
    assert done.stderr == "unblur: The results cannot be printed: No space left on device.\n"


def hear_interrupts() -> None:
    """What a shell starts in the background ignores Ctrl-C, and so does all that it starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@POSIX
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_during_a_folder_leaves_only_whole_files(here: Path, keeps: Path, number: signal.Signals) -> None:
    write("in/00.png", noise(300, 400, 3))
    for index in range(1, 60):
        shutil.copy("in/00.png", f"in/{index:02}.png")
    command = [sys.executable, "-m", "unblur", "restore", "in", "-o", "out", "--model", str(keeps)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(command, **pipes, text=True, env=buffered(), preexec_fn=hear_interrupts)
    assert process.stdout is not None
    first = process.stdout.readline()  # which comes when the file is done, though stdout is a pipe
    process.send_signal(number)
    rest, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "unblur: interrupted; what was finished is whole.\n")
    written = files_in("out")
    assert 1 <= len(written) < 60
    assert all(re.fullmatch(r"\d\d\.png", name) for name in written)
    assert len(written) - len([first, *rest.splitlines()]) in (0, 1)
    for name in written:
        np.testing.assert_array_equal(pixels(f"out/{name}"), noise(300, 400, 3))


# -- how much is said, and where ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("before", [True, False])
def test_quiet_says_nothing_but_errors(unblur: Command, here: Path, keeps: Path, before: bool) -> None:
    write("photo.png", noise(9, 7, 3, dtype=np.uint16))
    Path("bad.png").touch()
    restore = ["restore", "photo.png", "bad.png", "-o", "out", "--model", keeps]
    ended = unblur("-q", *restore) if before else unblur(*restore, "--quiet")
    assert ended.out == ""
    assert ended.err.splitlines() == [
        "unblur: bad.png is empty (0 bytes).",
        "unblur: 1 of 2 files failed, the others are done.",
    ]
    assert files_in("out") == ["photo.png"]


@pytest.mark.parametrize("arguments", [["restore", "missing.png"], ["restore", "photo.png", "--device", "gpu"]])
def test_verbose_shows_where_an_error_arose(unblur: Command, here: Path, keeps: Path, arguments: list[str]) -> None:
    write("photo.png")
    for call in (["-v", *arguments], [*arguments, "-v"]):
        ended = unblur(*call, "--model", keeps)
        assert ended.code == 1
        assert ended.err.startswith("Traceback")
        assert ended.err.splitlines()[-1].startswith("unblur: ")


@pytest.fixture
def on_terminal(unblur: Command, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run the command with a terminal as its stderr, whose content comes back."""

    def run(*arguments: object) -> Ended:
        primary, secondary = os.openpty()
        with ThreadPoolExecutor(1) as screen:
            seen = screen.submit(read_all, primary)  # meanwhile, for a terminal that nobody reads is full one day
            with os.fdopen(secondary, "w") as terminal, monkeypatch.context() as patch:
                patch.setenv("TERM", "xterm-256color")
                patch.setattr(sys, "stderr", terminal)
                ended = unblur(*arguments)
        os.close(primary)
        return replace(ended, err=seen.result().decode())

    return run


def read_all(primary: int) -> bytes:
    """Read a terminal until its other side is closed, which Linux tells by an error, macOS by nothing."""
    content = b""
    with contextlib.suppress(OSError):
        while chunk := os.read(primary, 4096):
            content += chunk
    return content


@POSIX
@pytest.mark.parametrize(
    ("names", "flags", "shown"), [("abc", [], True), ("a", [], False), ("abc", ["-q"], False)], ids=str
)
def test_a_progress_bar_is_shown_on_a_terminal_for_more_than_one_file(
    on_terminal: Command, here: Path, keeps: Path, names: str, flags: list[str], shown: bool
) -> None:
    for name in names:
        write(f"in/{name}.png")
    ended = on_terminal("restore", "in", "-o", "out", "--model", keeps, *flags)
    assert ("restoring" in ended.err) == shown
    assert shown or ended.err == ""
    assert len(ended.out.splitlines()) == (0 if flags else len(names)), "results go to stdout, the bar to stderr"
    assert "\x1b" not in ended.out


@POSIX
def test_a_name_in_brackets_is_no_markup_of_the_progress_bar(on_terminal: Command, here: Path, keeps: Path) -> None:
    write("in/[/b].png", smooth(0))
    ended = on_terminal("evaluate", "--model", keeps, "--data", "in", "--recipe", "sharp", "--json")
    assert "[/b]" in ended.err
    assert json.loads(ended.out)["images"][0]["name"] == "[/b]"


# -- wrong usage -------------------------------------------------------------------------------------------------------

WRONG_USAGE = {
    "no command": ([], "required: COMMAND"),
    "unknown command": (["restroe", "a.png"], "Did you mean 'restore'?"),
    "strange command": (["xyzzy"], f"Known: {', '.join(sorted(COMMANDS))}."),
    "unknown flag": (["restore", "a.png", "--modle", "x"], "Did you mean '--model'?"),
    "unknown flag with a value": (["restore", "a.png", "--max-pixel=3"], "Did you mean '--max-pixels'?"),
    "shortened flag": (["restore", "a.png", "--over"], "Did you mean '--overwrite'?"),
    "unknown engine": (["restore", "a.png", "--engine", "torhc"], "Did you mean 'torch'?"),
    "no photo": (["restore"], "required: PATH"),
    "one photo too many": (["score", "a.png", "b.png", "c.png"], "unrecognized arguments: c.png"),
    "empty path": (["restore", ""], "a path is empty"),
    "empty output": (["restore", "a.png", "-o", ""], "a path is empty"),
    "tile of nothing": (["restore", "a.png", "--tile", "0"], "'0' is not a whole number from 1 upwards"),
    "tile of text": (["restore", "a.png", "--tile", "big"], "'big' is not a whole number"),
    "negative shift": (["score", "a.png", "b.png", "--shift", "-1"], "'-1' is not a whole number from 0 upwards"),
    "no output": (["blur", "a.png", "--recipe", "sharp"], "required: -o/--output"),
    "no data": (["evaluate", "--model", "default"], "required: --data"),
    "no format to export to": (["export", "--model", "default", "-o", "a.safetensors"], "required: --format"),
    "export to a strange suffix": (
        ["export", "--model", "default", "--format", "torch", "-o", "a.pth"],
        "--format torch writes a .safetensors file, not a.pth",
    ),
    "no dB to fail below": (["score", "a", "b", "--fail-below", "3", "--metrics", "mse"], "--fail-below is in dB"),
}


@pytest.mark.parametrize(("arguments", "says"), WRONG_USAGE.values(), ids=WRONG_USAGE)
def test_wrong_usage_ends_with_2_and_says_what_was_probably_meant(
    unblur: Command, here: Path, arguments: list[str], says: str
) -> None:
    ended = unblur(*arguments)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("usage: unblur")
    assert says in ended.err.splitlines()[-1]


def test_wrong_usage_and_help_do_not_wait_for_torch() -> None:
    for arguments in (["restore", "--modle"], ["--help"]):
        program = f"import sys; from unblur.cli import main\ntry: main({arguments})\n"
        program += "finally: assert not {'torch', 'numpy', 'PIL'} & {*sys.modules}"
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
        assert "AssertionError" not in done.stderr


def test_help_lists_the_commands_that_are_there_in_the_order_of_their_use(unblur: Command) -> None:
    ended = unblur("--help")
    assert ended.code == 0
    listed = re.findall(r"^    (\w+) ", ended.out, re.MULTILINE)
    assert tuple(listed) == COMMANDS
    for command in COMMANDS:
        about = unblur(command, "--help")
        assert (about.code, about.err) == (0, "")
        assert about.out.startswith(f"usage: unblur {command} ")


# -- models ------------------------------------------------------------------------------------------------------------


def test_models_lists_networks_and_the_weights_that_are_there(
    unblur: Command, keeps: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = weights.ShippedWeights(
        name="steady",
        file=keeps.name,
        sha256="",
        about="changes nothing",
        licence="CC0",
        trained_on="-",
        experiment="-",
    )
    monkeypatch.setattr(weights, "PRETRAINED", keeps.parent)
    monkeypatch.setattr(weights, "shipped", lambda: {"steady": entry})
    ended = unblur("models")
    assert (ended.code, ended.err) == (0, "")
    for word in ("steady", "changes nothing", *models.ARCHITECTURES):
        assert word in ended.out
    assert "changes nothing" in unblur("models", "steady").out


def test_models_tells_what_a_network_or_a_file_is(unblur: Command, here: Path, keeps: Path) -> None:
    assert "17,111,907" in unblur("models", "nafnet").out
    ended = unblur("models", keeps)
    assert re.search(r"^option width +4$", ended.out, re.MULTILINE)
    Path("text.safetensors").write_text("hello")
    assert "text.safetensors is not a readable" in unblur("models", "text.safetensors").error


def test_models_tells_what_an_authors_file_is_and_that_it_is_not_ours(unblur: Command, here: Path) -> None:
    torch.save({"params": models.create("nafnet", **TINY).state_dict()}, "net.pth")
    ended = unblur("models", "net.pth")
    assert ended.code == 0
    assert re.search(r"^network +nafnet$", ended.out, re.MULTILINE)
    assert re.search(r"^origin +not made by unblur", ended.out, re.MULTILINE)
    assert re.search(r"^licence of weights +MIT", ended.out, re.MULTILINE)
    torch.save({"params": {"weight": torch.ones(2)}}, "other.pth")
    assert "other.pth does not say which network it belongs to" in unblur("models", "other.pth").error


# -- export ------------------------------------------------------------------------------------------------------------


def test_an_authors_file_is_exported_to_one_of_ours_that_restores_the_same(unblur: Command, here: Path) -> None:
    network = models.create("nafnet", **TINY)
    torch.nn.init.constant_(network.get_parameter("ending.bias"), 0.1)
    torch.save({"params": network.state_dict()}, "net.pth")
    ended = unblur("export", "--model", "net.pth", "--format", "torch", "-o", "net.safetensors")
    assert (ended.code, ended.err) == (0, "")
    assert re.fullmatch(r"net\.pth -> net\.safetensors \([\d,]+ parameters\)\n", ended.out)
    assert "recognised in net.pth" in unblur("models", "net.safetensors").out
    write("photo.png")
    for model in ("net.pth", "net.safetensors"):
        assert unblur("restore", "photo.png", "--model", model, "-o", f"{model}.png").code == 0
    assert np.array_equal(pixels("net.pth.png"), pixels("net.safetensors.png"))
    assert not np.array_equal(pixels("net.pth.png"), pixels("photo.png"))


def test_export_keeps_what_a_training_wrote(unblur: Command, here: Path) -> None:
    weights.save(models.create("nafnet", **TINY), Path("best.safetensors"), {"step": 7})
    assert unblur("export", "--model", "best.safetensors", "--format", "torch", "-o", "new/copy.safetensors").code == 0
    assert weights.describe("new/copy.safetensors").facts == weights.describe("best.safetensors").facts


def test_export_replaces_no_file_unless_told_to(unblur: Command, here: Path, keeps: Path) -> None:
    Path("out.safetensors").write_text("precious")
    arguments = ("export", "--model", keeps, "--format", "torch", "-o", "out.safetensors")
    ended = unblur(*arguments)
    assert (ended.code, ended.out) == (1, "")
    assert "out.safetensors exists already; give --overwrite" in ended.error
    assert Path("out.safetensors").read_text() == "precious"
    assert unblur(*arguments, "--overwrite").code == 0
    assert weights.load("out.safetensors")
    assert files_in(here) == ["out.safetensors"]


# -- blur --------------------------------------------------------------------------------------------------------------


def test_blur_writes_one_picture_or_one_for_each_level(unblur: Command, here: Path) -> None:
    write("photo.png", smooth(0))
    ended = unblur("blur", "photo.png", "-o", "one.png", "--recipe", "gaussian-2.5")
    assert (ended.code, ended.out, ended.err) == (0, "photo.png -> one.png\n", "")
    assert not np.array_equal(pixels("one.png"), smooth(0))
    ended = unblur("blur", "photo.png", "-o", "levels", "--recipe", "gaussian-triple")
    assert files_in("levels") == [
        "photo-gaussian-11-1.6.png",
        "photo-gaussian-3-0.3.png",
        "photo-gaussian-7-1.png",
    ]
    assert len(ended.out.splitlines()) == 3


def test_blur_repeats_with_its_seed_and_differs_with_another(unblur: Command, here: Path) -> None:
    write("in/a.png", smooth(0))
    write("in/sub/b.png", smooth(1))
    Path("own.yaml").write_text("kinds: [{blur: shake, extent_px: [3, 9]}]")
    for out, seed in (("one", 5), ("again", 5), ("other", 6)):
        assert unblur("blur", "in", "-o", out, "--recipe", "own.yaml", "--seed", seed).code == 0
    for name in ("a.png", "sub/b.png"):
        assert Path("one", name).read_bytes() == Path("again", name).read_bytes()
        assert not np.array_equal(pixels(f"one/{name}"), pixels(f"other/{name}"))


def test_blur_replaces_a_file_only_if_asked_and_does_the_others(unblur: Command, here: Path) -> None:
    write("in/a.png", smooth(0))
    write("in/b.png", smooth(1))
    old = write("out/a.png").read_bytes()
    blur = ("blur", "in", "-o", "out", "--recipe", "defocus-2.5")
    ended = unblur(*blur)
    assert ended.code == 1
    assert "--overwrite" in ended.err.splitlines()[0]
    assert ended.err.splitlines()[1] == "unblur: 1 of 2 files failed, the others are done."
    assert Path("out/a.png").read_bytes() == old
    assert files_in("out") == ["a.png", "b.png"]
    assert unblur(*blur, "--overwrite").code == 0
    assert Path("out/a.png").read_bytes() != old


# -- score -------------------------------------------------------------------------------------------------------------


def shape_of_scores(scores: dict[str, Any]) -> None:
    """Check what the layout promises of `--json`."""
    assert {"n", "mean", "images", "protocol", "versions"} <= scores.keys()
    assert scores["n"] == len(scores["images"])
    for metric, mean in scores["mean"].items():
        assert mean == pytest.approx(np.mean([image[metric] for image in scores["images"]]), abs=1e-9)
        assert isinstance(scores["protocol"][metric], str)
    assert all(isinstance(image["name"], str) for image in scores["images"])
    assert {"unblur", "torch"} <= scores["versions"].keys()


def test_score_compares_two_files_or_two_folders(unblur: Command, here: Path) -> None:
    for index in range(2):
        write(f"sharp/{index}.png", smooth(index))
        write(f"restored/{index}.jpg", smooth(index))
    two_files = json.loads(unblur("score", "restored/0.jpg", "sharp/0.png", "--json").out)
    two_folders = json.loads(unblur("score", "restored", "sharp", "--json").out)
    for scores in (two_files, two_folders):
        shape_of_scores(scores)
        assert list(scores["mean"]) == ["psnr", "ssim-wang"]
    assert [image["name"] for image in two_folders["images"]] == ["0", "1"]
    assert two_folders["images"][0]["psnr"] == two_files["mean"]["psnr"]
    chosen = json.loads(unblur("score", "restored", "sharp", "--metrics", "mse", "psnr-float", "--json").out)
    assert list(chosen["mean"]) == ["mse", "psnr-float"]


def test_score_prints_a_table_for_people(unblur: Command, here: Path) -> None:
    write("a.png", smooth(0))
    ended = unblur("score", "a.png", "a.png")
    assert (ended.code, ended.err) == (0, "")
    assert "| psnr | 100.00 |" in ended.out


def test_score_fails_below_the_limit_and_only_there(unblur: Command, here: Path) -> None:
    write("a.png", smooth(0))
    write("b.jpg", smooth(0))
    db = json.loads(unblur("score", "b.jpg", "a.png", "--json").out)["mean"]["psnr"]
    assert 20 < db < 60
    above = unblur("score", "b.jpg", "a.png", "--fail-below", db - 0.01)
    assert (above.code, above.err) == (0, "")
    below = unblur("score", "b.jpg", "a.png", "--fail-below", db + 0.01, "--json")
    assert below.code == 1
    assert "is below" in below.error
    shape_of_scores(json.loads(below.out))


def test_score_finds_the_best_shift(unblur: Command, here: Path) -> None:
    write("a.png", smooth(0)[2:, :-1])
    write("b.png", smooth(0)[:-2, 1:])
    best = json.loads(unblur("score", "a.png", "b.png", "--shift", "2", "--json").out)
    assert best["mean"]["psnr"] == 100


def test_scoring_what_does_not_belong_together_is_an_error(unblur: Command, here: Path) -> None:
    write("a/1.png", smooth(0))
    write("b/2.png", smooth(0))
    write("small.png", smooth(0)[:-1])
    for one, other, says in (("a", "b", "no partner"), ("a/1.png", "small.png", "differs in size"), ("a", "c", "c ")):
        ended = unblur("score", one, other, "--json")
        assert (ended.code, ended.out) == (1, "")
        assert says in ended.error


# -- evaluate ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def sharp(here: Path) -> str:
    """A folder of two sharp pictures."""
    for index in range(2):
        write(f"photos/{index}.png", smooth(index))
    return "photos"


@pytest.mark.parametrize("several", [lambda a, b: ["--model", a, b], lambda a, b: ["--model", a, "--model", b]])
def test_evaluate_compares_models_with_the_blurred_input(
    unblur: Command, sharp: str, keeps: Path, brightens: Path, several: Callable[..., list[Any]]
) -> None:
    evaluate = ("evaluate", *several(keeps, brightens), "--data", sharp, "--recipe", "gaussian-triple")
    ended = unblur(*evaluate, "--size", "32x24", "--json")
    assert (ended.code, ended.err) == (0, "")
    assert len(ended.out.splitlines()) == 1
    scores = json.loads(ended.out)
    shape_of_scores(scores)
    nothing, kept, brightened = scores["rows"]
    assert [row["model"] for row in (nothing, kept)] == ["blurred input", f"{keeps.parent.name}/best"]
    assert nothing["mean"] == kept["mean"] == scores["mean"]
    assert brightened["mean"]["psnr"] < kept["mean"]["psnr"]
    assert scores["n"] == 6
    assert list(kept["levels"]) == ["gaussian-3-0.3", "gaussian-7-1", "gaussian-11-1.6"]


def test_evaluate_keeps_everything_in_its_folder_and_prints_the_same_table_again(
    unblur: Command, sharp: str, keeps: Path
) -> None:
    evaluate = ("evaluate", "--model", keeps, "--data", sharp, "--recipe", "motion-9", "--out", "scores", "--seed", 3)
    first = unblur(*evaluate)
    assert (first.code, first.err) == (0, "")
    assert first.out.splitlines()[2].startswith("| blurred input |")
    assert {"scores.csv", "summary.json", "settings.json", "blurred-input/0.png"} <= set(files_in("scores"))
    assert unblur(*evaluate).out == first.out
    other = unblur(*evaluate, "--seed", 4)
    assert other.code == 1
    assert "seed was 3, is 4" in other.error


def test_evaluate_takes_pairs_as_they_are(unblur: Command, here: Path, keeps: Path) -> None:
    write("set/sharp/a.png", smooth(0))
    write("set/blur/a.jpg", smooth(0))
    evaluated = json.loads(unblur("evaluate", "--model", keeps, "--data", "set", "--json").out)
    scored = json.loads(unblur("score", "set/blur", "set/sharp", "--json").out)
    assert evaluated["mean"] == scored["mean"]


def test_evaluate_says_what_is_missing(unblur: Command, sharp: str, keeps: Path, monkeypatch: Any) -> None:
    monkeypatch.delenv("UNBLUR_DATA", raising=False)
    cases = {
        ("--data", sharp): "blur/ and sharp/",
        ("--data", sharp, "--recipe", "motion-9", "--size", "big"): "448x256",
        ("--data", "sharp", "--recipe", "motion-9"): "--data-root",
        ("--data", "sharp", "--recipe", "motion-9", "--data-root", "photos"): "no folder 'sharp'",
    }
    for arguments, says in cases.items():
        ended = unblur("evaluate", "--model", keeps, *arguments)
        assert (ended.code, ended.out) == (1, "")
        assert says in ended.error


# -- train -------------------------------------------------------------------------------------------------------------

EXPERIMENT = """
model: {name: nafnet, width: 4, encoder_blocks: [1], middle_blocks: 1, decoder_blocks: [1]}
data: {train: sharp, valid: sharp, hold_out: 0.3, recipe: gaussian-2.5, crop_px: 16, batch_size: 2}
loss: {charbonnier: 1.0}
optimizer: {lr: 1e-3}
schedule: {steps: 100}
validation: {every_steps: 2, max_pictures: 2}
"""


def test_what_was_trained_goes_on_is_described_and_restores(unblur: Command, here: Path) -> None:
    pytest.importorskip("lightning")
    for index in range(12):
        write(f"data/sharp/{index:02}.png", smooth(index))
    Path("small.yaml").write_text(EXPERIMENT)
    train = ("train", "small.yaml", "--data-root", "data")
    first = unblur(*train, "--set", "schedule.steps=2", "seed=5")
    assert first.code == 0
    run = Path("runs/small")
    assert first.out.startswith(f"{run / 'best.safetensors'} (done at step 2 of 2, validation loss 0.")
    assert "step 2/2: validation loss" in first.err
    again = unblur(*train)
    assert again.code == 1
    assert "--resume" in again.error
    second = unblur(*train, "--resume", "-q", "--set", "schedule.steps=4", "--set", "seed=5")
    assert (second.code, second.err) == (0, "")
    assert "done at step 4 of 4" in second.out
    assert "gaussian-2.5" in unblur("models", run / "best.safetensors").out
    assert unblur("restore", "data/sharp/00.png", "-o", "out.png", "--model", run / "best.safetensors").code == 0
    assert pixels("out.png").shape == (48, 56, 3)


def test_a_wrong_key_in_an_experiment_is_named_with_the_nearest_before_anything_is_done(
    unblur: Command, here: Path
) -> None:
    Path("small.yaml").write_text(EXPERIMENT + "sed: 1\n")
    ended = unblur("train", "small.yaml")
    assert (ended.code, ended.out) == (1, "")
    assert "small.yaml: unknown key 'sed'. Did you mean 'seed'?" in ended.error
    Path("small.yaml").write_text(EXPERIMENT)
    cases = {
        ("data.batchsize=3",): "Did you mean 'batch_size'?",
        ("model.name=nafent",): "Did you mean 'nafnet'?",
        ("model.widht=8",): "Did you mean 'width'?",
        ("loss.charbonier=1",): "Did you mean 'charbonnier'?",
        ("seed",): "write key=value",
    }
    for changes, says in cases.items():
        ended = unblur("train", "small.yaml", "--set", *changes)
        assert (ended.code, ended.out) == (1, "")
        assert says in ended.error
    assert "lost.yaml does not exist" in unblur("train", "lost.yaml").error
    assert files_in(here) == ["small.yaml"]


# -- the weights that come with the package ----------------------------------------------------------------------------


def test_without_a_model_the_default_weights_restore(unblur: Command, here: Path) -> None:
    if "default" not in weights.shipped() or not weights.shipped()["default"].path.is_file():
        pytest.skip("the default weights are not there yet")
    write("photo.png", smooth(0))
    ended = unblur("restore", "photo.png")
    assert (ended.code, ended.err) == (0, "")
    assert pixels("photo-restored.png").shape == (48, 56, 3)


def test_a_warning_for_users_is_one_line_without_its_line_of_code(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with warnings_in_one_line():
        warnings.simplefilter("always")
        warnings.warn("skipped, the next picture takes its place: a.png is damaged", stacklevel=1)
    assert capsys.readouterr().err == "unblur: skipped, the next picture takes its place: a.png is damaged\n"
