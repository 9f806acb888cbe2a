"""Small trees of files that lie as the known data sets do, with real pictures in them."""

import io
import pickle
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

ALIKE = (24, 40)
"""Height and width of the pictures, unless they are meant to differ."""


def pixels(seed: int, size: tuple[int, int] = ALIKE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


def put(path: Path, seed: int = 0, size: tuple[int, int] = ALIKE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels(seed, size)).save(path)
    return path


def put_pair(folder: Path, blurred: str, sharp: str, seed: int) -> None:
    put(folder / blurred, 1000 + seed)
    put(folder / sharp, seed)


# What is opened -> (blurred file, sharp file, name) of each pair. Several entries of one set lie in one folder.
PAIRED: dict[str, list[tuple[str, str, str]]] = {
    "gopro/train": [
        (f"train/{s}/blur/{f}.png", f"train/{s}/sharp/{f}.png", f"{s}/{f}")
        for s in ("GOPR0372_07_00", "GOPR0374_11_01")
        for f in ("000047", "000048")
    ],
    "gopro/train/blur_gamma": [
        (f"train/{s}/blur_gamma/{f}.png", f"train/{s}/sharp/{f}.png", f"{s}/{f}")
        for s in ("GOPR0372_07_00", "GOPR0374_11_01")
        for f in ("000047", "000048")
    ],
    "gopro/test": [
        (f"test/GOPR0384_11_00/blur/{f}.png", f"test/GOPR0384_11_00/sharp/{f}.png", f"GOPR0384_11_00/{f}")
        for f in ("000001", "000002")
    ],
    "hide/train": [(f"train/{n}fromGOPR.png", f"GT/{n}fromGOPR.png", f"{n}fromGOPR") for n in (4, 5)],
    "hide/test": [
        ("test/test-close-ups/6fromGOPR.png", "GT/6fromGOPR.png", "6fromGOPR"),
        ("test/test-long-shot/7fromGOPR.png", "GT/7fromGOPR.png", "7fromGOPR"),
    ],
    "realblur-j/test": [
        (f"RealBlur-J_ECC/scene230/blur/blur_{n}.png", f"RealBlur-J_ECC/scene230/gt/gt_{n}.png", f"scene230/blur_{n}")
        for n in (1, 2)
    ],
    "realblur-r/train": [
        (f"RealBlur-R_BM3D/scene001/blur/blur_{n}.png", f"RealBlur-R_BM3D/scene001/gt/gt_{n}.png", f"scene001/blur_{n}")
        for n in (1, 2)
    ],
    "reds/train": [
        (f"train_blur/{s}/{f}.png", f"train_sharp/{s}/{f}.png", f"{s}/{f}")
        for s in ("000", "023", "024", "239")
        for f in ("00000009", "00000050", "00000099")
    ],
    "reds/train/blur_comp": [
        (f"train_blur_comp/{s}/{f}.png", f"train_sharp/{s}/{f}.png", f"{s}/{f}")
        for s in ("000", "023", "024", "239")
        for f in ("00000009", "00000050", "00000099")
    ],
    "reds/half-train": [
        (f"train_blur/{s}/{f}.png", f"train_sharp/{s}/{f}.png", f"{s}/{f}")
        for s in ("024", "239")
        for f in ("00000050", "00000099")
    ],
    "reds/half-test": [
        (f"train_blur/{s}/{f}.png", f"train_sharp/{s}/{f}.png", f"{s}/{f}")
        for s in ("000", "023")
        for f in ("00000050", "00000099")
    ],
    "reds/val": [
        (f"val/val_blur/000/{f}.png", f"val/val_sharp/000/{f}.png", f"000/{f}")
        for f in ("00000000", "00000009", "00000090", "00000099")
    ],
    "reds/val-300": [
        (f"val/val_blur/000/{f}.png", f"val/val_sharp/000/{f}.png", f"000/{f}") for f in ("00000009", "00000099")
    ],
    "reds/val/blur_bicubic": [
        (f"val/val_blur_bicubic/000/{f}.png", f"val/val_sharp_bicubic/000/{f}.png", f"000/{f}")
        for f in ("00000000", "00000009")
    ],
    "kaggle-blur": [
        (f"motion_blurred/{n}_IPHONE-SE_M.JPG", f"sharp/{n}_IPHONE-SE_S.JPG", f"{n}_IPHONE-SE") for n in (0, 1, 10)
    ],
    "kaggle-blur/all/defocus": [
        (f"defocused_blurred/{n}_IPHONE-SE_F.jpg", f"sharp/{n}_IPHONE-SE_S.JPG", f"{n}_IPHONE-SE") for n in (0, 1, 10)
    ],
    "dpdd/test": [(f"test_c/source/1P0A{n}.png", f"test_c/target/1P0A{n}.png", f"1P0A{n}") for n in (17, 18)],
    "dpdd/val/l": [("val/inputL/1P0A1.png", "val/target/1P0A1.png", "1P0A1")],
    "kohler": [(f"BlurryImages/Blurry1_{n}.png", f"sharp/1_{n}.png", f"1_{n}") for n in (1, 12)],
    "rsblur/val": [(f"val/0007/blur/{n}.png", f"val/0007/gt/{n}.png", f"0007/{n}") for n in (1, 2)],
    "pairs": [("blur/a.png", "sharp/a.png", "a"), ("blur/deep/b.png", "sharp/deep/b.jpg", "deep/b")],
}

LISTS = {
    "realblur-j/test": "RealBlur_J_test_list.txt",
    "realblur-r/train": "RealBlur_R_train_list.txt",
}


def make_set(root: Path, name: str) -> list[tuple[str, str, str]]:
    """Write the files of one entry of PAIRED below `root` and return them."""
    folder = root / name.split("/")[0]
    for seed, (blurred, sharp, _) in enumerate(PAIRED[name]):
        put_pair(folder, blurred, sharp, seed)
    if name in LISTS:
        lines = [f"{sharp} {blurred} {sharp}" for blurred, sharp, _ in PAIRED[name]]
        (folder / LISTS[name]).write_text("\n".join(lines) + "\n")
    return PAIRED[name]


def make_shard(path: Path, members: dict[str, np.ndarray | bytes], mode: str = "w") -> Path:
    """Write a tar file of pictures, or of bytes as they are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, content in members.items():
            if not isinstance(content, bytes):
                buffer = io.BytesIO()
                Image.fromarray(content).save(buffer, {"jpg": "JPEG"}.get(name.rpartition(".")[2], "PNG"))
                content = buffer.getvalue()
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return path


def cifar_rows(count: int, seed: int = 0) -> np.ndarray:
    """Return pictures (N, 32, 32, 3)."""
    return np.random.default_rng(seed).integers(0, 256, (count, 32, 32, 3), np.uint8)


def make_cifar_pickle(path: Path, rows: np.ndarray) -> None:
    """Write a batch as CIFAR-10's Python archive has it: keys are bytes, planes one after the other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    batch = {
        b"data": rows.transpose(0, 3, 1, 2).reshape(len(rows), -1),
        b"labels": [1] * len(rows),
        b"batch_label": b"x",
    }
    path.write_bytes(pickle.dumps(batch, protocol=2))


def make_cifar_binary(path: Path, rows: np.ndarray) -> None:
    """Write a batch as CIFAR-10's binary archive has it: a label before each picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    planes = rows.transpose(0, 3, 1, 2).reshape(len(rows), -1)
    path.write_bytes(np.concatenate([np.full((len(rows), 1), 7, np.uint8), planes], axis=1).tobytes())


def make_cifar_atlas(folder: Path, split: str, rows: np.ndarray, indices: list[int]) -> None:
    """Write a lossless atlas, 64 pictures a row, the last row filled up with black."""
    folder.mkdir(parents=True, exist_ok=True)
    tall = -(-len(rows) // 64)
    tiles = np.zeros((tall * 64, 32, 32, 3), np.uint8)
    tiles[: len(rows)] = rows
    atlas = tiles.reshape(tall, 64, 32, 32, 3).transpose(0, 2, 1, 3, 4).reshape(tall * 32, 2048, 3)
    Image.fromarray(atlas).save(folder / f"{split}_exact.webp", lossless=True)
    np.savez(folder / "exact_labels.npz", **{f"{split}_index": np.array(indices, np.int32)})
