"""Take a checkpoint of a run into the package: as fp16, with its checksum in `weights.yaml`.

    python scripts/ship_weights.py runs/wiener_nafnet_everyday/best.safetensors default

The entry of that name must be in `weights.yaml` already (file, about, licence, trained_on, experiment, measured).
"""

import argparse
import re
from pathlib import Path

from unblur import weights


def main() -> None:
    """Write the file and put its SHA-256 into the entry."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("name")
    options = parser.parse_args()
    entry = weights.shipped()[options.name]
    checkpoint = weights.describe(options.checkpoint)
    weights.save(weights.load(options.checkpoint), entry.path, checkpoint.facts, half=True)
    source = Path(weights.__file__).with_name("weights.yaml")
    text = source.read_text(encoding="utf-8")
    place = re.compile(rf"^(  {re.escape(options.name)}:\n(?:    .*\n)*?    sha256: ).*$", re.MULTILINE)
    text, count = place.subn(rf"\g<1>{weights.sha256(entry.path)}", text)
    assert count == 1, f"{source} has no sha256 line for {options.name}"
    source.write_text(text, encoding="utf-8", newline="\n")
    print(f"{entry.path.name}: {entry.path.stat().st_size / 1e6:.2f} MB, {weights.sha256(entry.path)}")


if __name__ == "__main__":
    main()
