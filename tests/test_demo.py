"""The demonstration runs offline, and what it shows is better than what it was given."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_demonstration_improves_every_picture_whose_truth_is_known(tmp_path: Path) -> None:
    command = [sys.executable, "scripts/demo.py", "--out", str(tmp_path)]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    lines = shown.splitlines()
    assert len(lines) == 5
    for line in lines[:-1]:
        for before, after in re.findall(r"([\d.]+) -> ([\d.]+)", line):
            assert float(after) > float(before), line
    for line in lines:
        assert Path(line.split()[-1]).is_file()
    assert lines[-1].startswith("clock-really-moved")
