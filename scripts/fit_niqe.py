"""Fit the model of `niqe-unblur` to a folder of free, sharp photographs and write it beside the metric.

    python scripts/fit_niqe.py FOLDER

FOLDER holds the photographs and a `manifest.csv` with the columns file, permissive, licence, source and category.
Taken are those that may be passed on (`permissive` is yes), but no screenshots, text or enlarged details.
"""

import argparse
import csv
import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from unblur.data.pairs import to_batch
from unblur.images import read_rgb8
from unblur.inference import keep_freed_memory
from unblur.metrics.niqe import MODEL_FILE, PATCH_PX, patch_features

LEFT_OUT = ("detail-tile", "screenshot", "text")


def main() -> None:
    """Fit and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    with (folder / "manifest.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["permissive"] == "yes" and row["category"] not in LEFT_OUT]
    keep_freed_memory()
    features = []
    for row in rows:
        picture = to_batch([read_rgb8(folder / row["file"])])[0]
        if min(picture.shape[1:]) >= PATCH_PX:
            features.append(patch_features(picture, sharpest=True))
    patches = torch.cat(features)
    licences = sorted({row["licence"] for row in rows})
    about = {
        "what": f"mean and covariance of the NIQE features of {len(patches)} patches of {len(features)} photographs",
        "licence": f"Apache-2.0; fitted on photographs under free licences: {', '.join(licences)}",
        "sources": ", ".join(sorted({row["source"] for row in rows})),
    }
    tensors = {"mean": patches.mean(0), "covariance": torch.cov(patches.T)}
    save_file(tensors, MODEL_FILE, {"unblur": json.dumps(about)})
    print(json.dumps(about, indent=1))


if __name__ == "__main__":
    main()
