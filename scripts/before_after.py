"""Make README's picture from what `make demo` left: the same crop blurred, restored and sharp, side by side."""

import argparse
from pathlib import Path

from PIL import Image

GAP_PX = 8


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--demo", type=Path, default=Path("demo"))
    parser.add_argument("--name", default="astronaut-gaussian-2.5")
    parser.add_argument("--crop", type=int, nargs=4, default=(130, 30, 390, 290), metavar=("L", "T", "R", "B"))
    parser.add_argument("--out", type=Path, default=Path("docs/images/before-after.png"))
    options = parser.parse_args()
    parts = []
    for kind in ("blurred", "restored", "sharp"):
        with Image.open(options.demo / f"{options.name}-{kind}.png") as image:
            parts.append(image.convert("RGB").crop(tuple(options.crop)))
    width, height = parts[0].size
    picture = Image.new("RGB", (3 * width + 2 * GAP_PX, height), "white")
    for index, part in enumerate(parts):
        picture.paste(part, (index * (width + GAP_PX), 0))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    picture.save(options.out, optimize=True)


if __name__ == "__main__":
    main()
