"""Authors' checkpoints: from the keys and shapes of a file alone, which network it is of, and with which options.

Authors store their weights in files that do not say what they are of, under one wrapper or another (`params`,
`state_dict`, `module.`). Each family has a small function here that reads options off the shapes of a file: how wide
the first convolution is, how many blocks a level has. Whether they are right is then seen without doubt: the network
is built with them, without memory for its weights, and every key and shape of the file must be the network's.

Options that leave no trace in the shapes, such as dropout, are those of the published configuration of these shapes,
or else the network's defaults.

No code is unpickled, whoever made the file. All of this is for files of others: ours say what they are (weights.py).
"""

import argparse
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from unblur import models
from unblur.errors import WeightsError

WRAPPERS = (
    *("params_ema", "state_dict_ema", "model_ema", "ema"),
    *("params", "state_dict", "state_dict_G", "model", "G", "generator"),
)
"""Entries that hold weights, the best first: averaged over the training (EMA) before raw ones. They may be nested."""

HARMLESS: list[Any] = [
    *((np.float64(0).__reduce__()[0], f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    *(np.dtype, *(type(np.dtype(name)) for name in ("float32", "float64", "int64", "bool"))),
    argparse.Namespace,
]
"""What trainings keep beside weights, and torch does not read by itself: scores as NumPy's numbers, and settings."""

PARALLEL = "module."
"""What torch's DataParallel puts before every key, sometimes twice."""

TENSORFLOW = re.compile(r"(g_net/.+/(?:weights|biases))(?::0)?")
"""The names of SRN's variables."""

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class PublishedWeights:
    """Weights in a file of others, and what they turned out to be."""

    path: Path
    entry: str
    """The wrappers that the weights lay in, such as `params`; empty where the file is the state dict itself."""
    architecture: str
    options: Mapping[str, Any]
    """All options of the network."""
    state: Mapping[str, Tensor]
    """A tensor for every key of the network."""
    configurations: tuple[str, ...]
    """The published configurations (`Arch.published`) that have these shapes; none where the options are others."""


def recognise(path: Path) -> PublishedWeights:
    """Return the weights in a file of others with the network and all of its options.

    Takes safetensors files, and torch's under any suffix. Raises `WeightsError` where the file is damaged, would run
    code when it is opened, or belongs to no network known here; the last with the nearest one and what did not fit.
    """
    misfits = []
    states = list(_states(_read(path)))
    for entry, state in states:
        shapes = {key: tuple(value.shape) for key, value in state.items()}
        for candidate in _candidates(shapes):
            if not candidate.differences(shapes):
                return PublishedWeights(
                    path,
                    entry,
                    candidate.architecture,
                    candidate.options,
                    candidate.fill(state),
                    candidate.configurations,
                )
            misfits.append((candidate, shapes))
    if not states:
        raise WeightsError(f"{path} holds no weights: no tensor lies in it, nor in {', '.join(WRAPPERS)} in it.")
    raise WeightsError(
        f"{path} does not say which network it belongs to, and its weights fit none that unblur knows. "
        + _nearest(misfits, {key: tuple(value.shape) for key, value in states[0][1].items()})
    )


def is_safetensors(path: Path) -> bool:
    """Return whether a file is a safetensors file, or says so by its suffix."""
    if path.suffix == ".safetensors":
        return True
    try:
        with open(path, "rb") as file:
            return file.read(9)[8:] == b"{"  # after the length of the head, the head: a JSON object
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror}.") from None


# -- reading files ---------------------------------------------------------------------------------------------------


def _read(path: Path) -> Any:
    """Return what a file holds: tensors, numbers, texts, and dicts and lists of them."""
    if is_safetensors(path):
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise WeightsError(f"{path} is not a readable .safetensors file: {error}") from None
    try:
        with torch.serialization.safe_globals(HARMLESS):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what torch raises on a damaged file can be nearly anything
        code = re.search(r"GLOBAL ([\w.]+)", str(error))
        if code:
            raise WeightsError(
                f"{path} would run code when it is opened ({code[1]}), so it is not opened. "
                "Save the state dict alone, with the code it came from, and open that."
            ) from None
        raise WeightsError(f"{path} is no readable file of weights: it is damaged, or of another kind.") from None


def _states(content: Any, entry: str = "", depth: int = 0) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Yield all state dicts in a file and the wrappers they lie in, the best first.

    Keys come without `module.`; those that all begin alike, such as with `net_g.`, come again without that.
    """
    if not isinstance(content, Mapping) or depth > 4:
        return
    for wrapper in WRAPPERS:
        yield from _states(content.get(wrapper), f"{entry}/{wrapper}".lstrip("/"), depth + 1)
    state = {
        _without_parallel(key): value
        for key, value in content.items()
        if isinstance(key, str) and isinstance(value, Tensor)
    }
    while state:
        yield entry, _torch_layout(state)
        beginnings = {key.partition(".")[0] for key in state}
        alike = len(beginnings) == 1 and all("." in key for key in state)
        state = {key.partition(".")[2]: value for key, value in state.items()} if alike else {}


def _without_parallel(key: str) -> str:
    while key.startswith(PARALLEL):
        key = key.removeprefix(PARALLEL)
    return key


def _torch_layout(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return SRN's tensors as torch has them, also where they are as TensorFlow has them; other networks' as they are.

    TensorFlow has height and width first, may number a variable's outputs (`:0`), and keeps its optimiser's beside.
    """
    variables = {match[1]: value for key, value in state.items() if (match := TENSORFLOW.fullmatch(key))}
    first = variables.get("g_net/enc1_1/weights")
    if first is None:
        return state
    if first.ndim != 4 or first.shape[0] != first.shape[1] or first.shape[2] == first.shape[3]:
        return variables
    return {key: value.permute(3, 2, 0, 1) if value.ndim == 4 else value for key, value in variables.items()}


# -- comparing with a network ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Candidate:
    """A network that a file could be of."""

    architecture: str
    options: Mapping[str, Any]
    configurations: tuple[str, ...]
    layout: Mapping[str, tuple[tuple[int, ...], torch.dtype]]
    """Shape and dtype of every key of the network's state dict."""

    def differences(self, shapes: Shapes) -> list[str]:
        """Return what keeps a file from being of this network, in words; nothing where it fits."""
        wanted = {key: shape for key, (shape, _) in self.layout.items() if not self._may_differ(key)}
        found = {key: shape for key, shape in shapes.items() if not self._may_differ(key)}
        missing = [key for key in wanted if key not in found]
        unknown = [key for key in found if key not in wanted]
        others = [
            f"{key} is {_size(found[key])} and not {_size(shape)}"
            for key, shape in wanted.items()
            if key in found and found[key] != shape
        ]
        said = [(f"{len(missing)} missing", missing), (f"{len(unknown)} unknown to it", unknown)]
        said.append((f"{len(others)} of another shape", others))
        return [f"{text} ({_some(keys)})" for text, keys in said if keys]

    def share(self, shapes: Shapes) -> float:
        """Return how much of file and network is the same key with the same shape, from 0 to 1."""
        same = sum(shapes.get(key) == shape for key, (shape, _) in self.layout.items())
        return same / len(shapes.keys() | self.layout.keys())

    def fill(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return a tensor for each key: the file's, or zeros where it may do without and does."""
        return {
            key: state[key] if key in state and tuple(state[key].shape) == shape else torch.zeros(shape, dtype=dtype)
            for key, (shape, dtype) in self.layout.items()
        }

    def _may_differ(self, key: str) -> bool:
        """Return whether no result depends on a key; files from before 2018 do not count batches."""
        return key.startswith(models.find(self.architecture).unused) or key.endswith(".num_batches_tracked")


def _candidates(shapes: Shapes) -> Iterator[_Candidate]:
    """Yield the networks, with options, that the keys of a file point to."""
    for name, read in READERS.items():
        try:
            candidate = _candidate(name, read(shapes))
        except (LookupError, ValueError, ArithmeticError, RuntimeError):
            continue  # a key is missing that options are read from, or such a network cannot be built
        yield candidate


def _candidate(name: str, visible: Mapping[str, Any]) -> _Candidate:
    """Return the network with these options, and those that leave no trace as its authors had them."""
    arch = models.find(name)
    published = {label: models.full_options(name, **options) for label, options in arch.published.items()}
    same = [label for label, options in published.items() if visible.items() <= options.items()]
    alike = [published[label] for label in same] or [models.full_options(name, **visible)]
    options = min(alike, key=lambda options: sum(options[key] != arch.options[key] for key in options))
    with torch.device("meta"):
        network = models.create(name, **options)
    layout = {key: (tuple(value.shape), value.dtype) for key, value in network.state_dict().items()}
    return _Candidate(name, options, tuple(same), layout)


def _nearest(misfits: Sequence[tuple[_Candidate, Shapes]], shapes: Shapes) -> str:
    """Return the sentence that says which network came nearest and what did not fit.

    `misfits` are the networks that were tried, each with the shapes it was tried on; `shapes` those of the file.
    """
    if all(candidate.share(seen) < 0.5 for candidate, seen in misfits):  # keys that tell options may be missing
        misfits = [*misfits, *((_candidate(name, {}), shapes) for name in READERS)]
    candidate, shapes = max(misfits, key=lambda misfit: misfit[0].share(misfit[1]))
    share = candidate.share(shapes)
    if share == 0:
        return f"It has {len(shapes)} keys ({_some([*shapes])}), none of them in any network."
    differences = ", ".join(candidate.differences(shapes))
    return f"Nearest is {candidate.architecture}, with {math.floor(100 * share)}% of the keys the same: {differences}."


def _some(keys: list[str], count: int = 3) -> str:
    return ", ".join(keys[:count]) + (", ..." if len(keys) > count else "")


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(str(length) for length in shape) or "a single number"


# -- reading options off shapes --------------------------------------------------------------------------------------
#
# Each of these takes the shapes of a file and returns those options of its network that can be seen in them, as if the
# file were of that network. A key that is not there is a KeyError, and then it is not.


def _nafnet(shapes: Shapes) -> dict[str, Any]:
    planes = shapes["intro.weight"][1]
    return {"width": shapes["intro.weight"][0], **_naf_blocks(shapes), "unshuffle": max(1, math.isqrt(planes // 3))}


def _sam_deblur(shapes: Shapes) -> dict[str, Any]:
    options = {"width": shapes["intro.weight"][0], **_naf_blocks(shapes)}
    if "pre_seg.weight" in shapes:
        return {"masks": "averaged", "region_planes": shapes["pre_seg.weight"][0], **options}
    if shapes["intro.weight"][1] != 4:
        raise KeyError("pre_seg.weight")
    return {"masks": "labels", **options}


def _naf_blocks(shapes: Shapes) -> dict[str, Any]:
    levels = range(_count(shapes, "downs."))
    return {
        "encoder_blocks": [_count(shapes, f"encoders.{level}.") for level in levels],
        "middle_blocks": _count(shapes, "middle_blks."),
        "decoder_blocks": [_count(shapes, f"decoders.{level}.") for level in levels],
    }


def _restormer(shapes: Shapes) -> dict[str, Any]:
    stacks = ("encoder_level1", "encoder_level2", "encoder_level3", "latent")
    attention = "attn.temperature"
    return {
        "width": shapes["patch_embed.proj.weight"][0],
        "blocks": [_count(shapes, f"{stack}.") for stack in stacks],
        "heads": [shapes[f"{stack}.0.{attention}"][0] for stack in stacks],
        "refinement_blocks": _count(shapes, "refinement."),
        "expansion": _expansion(shapes, models.find("restormer").options["expansion"]),
        "norm": "full" if "encoder_level1.0.norm1.body.bias" in shapes else "scale-only",
        "conv_bias": "output.bias" in shapes,
    }


def _fftformer(shapes: Shapes) -> dict[str, Any]:
    return {
        "width": shapes["patch_embed.proj.weight"][0],
        "blocks": [_count(shapes, f"encoder_level{level}.") for level in (1, 2, 3)],
        "refinement_blocks": _count(shapes, "refinement."),
        "expansion": _expansion(shapes, models.find("fftformer").options["expansion"]),
    }


def _expansion(shapes: Shapes, published: float) -> float:
    """Return how much wider feed-forward parts are inside: as published where that fits, else with few digits."""
    sizes = [
        shape[:2]
        for key, shape in shapes.items()
        if key.endswith(".ffn.project_out.weight") and not key.startswith("fuse")
    ]
    lowest = max(hidden / channels for channels, hidden in sizes)
    highest = min((hidden + 1) / channels for channels, hidden in sizes)  # itself too much
    rounded = (math.ceil(lowest * 10**digits) / 10**digits for digits in range(9))
    return next((value for value in (published, *rounded) if lowest <= value < highest), lowest)


def _mprnet(shapes: Shapes) -> dict[str, Any]:
    first, second = (shapes[f"stage1_encoder.encoder_level{level}.0.body.0.weight"][0] for level in (1, 2))
    last = shapes["concat23.weight"][0]
    attentions = [shape[:2] for key, shape in shapes.items() if key.endswith(".CA.conv_du.0.weight")]
    published = models.find("mprnet").options["reduction"]
    reductions = (published, *range(1, first + 1))
    return {
        "width": first,
        "level_growth": second - first,
        "last_growth": last - first,
        "blocks": _count(shapes, "stage3_orsnet.orb1.body.") - 1,
        "reduction": next((r for r in reductions if all(c // r == inner for inner, c in attentions)), published),
    }


def _mimo_unet(shapes: Shapes) -> dict[str, Any]:
    return {
        "width": shapes["feat_extract.0.main.0.weight"][0],
        "blocks": _count(shapes, "Encoder.0.layers."),
    }


def _uformer(shapes: Shapes) -> dict[str, Any]:
    levels = range(_count(shapes, "encoderlayer_"))
    distances = shapes["conv.blocks.0.attn.relative_position_bias_table"][0]  # (2 * window - 1)²
    return {
        "width": shapes["input_proj.proj.0.weight"][0],
        "encoder_blocks": [_count(shapes, f"encoderlayer_{level}.blocks.") for level in levels],
        "middle_blocks": _count(shapes, "conv.blocks."),
        "decoder_blocks": [_count(shapes, f"decoderlayer_{level}.blocks.") for level in levels],
        "window": (math.isqrt(distances) + 1) // 2,
    }


def _stripformer(shapes: Shapes) -> dict[str, Any]:
    return {
        "widths": [shapes[f"encoder.en_layer{level}_1.0.weight"][0] for level in (1, 2, 3)],
        "decoder_width": shapes["decoder.de_layer3_1.0.weight"][1],
        "bottleneck_blocks": _count(shapes, "Trans_block_"),
        "decoder_blocks": _count(shapes, "decoder.de_block_"),
    }


def _blur_to_video(shapes: Shapes) -> dict[str, Any]:
    options = {"width": shapes["conv1_B.weight"][0], "colour_width": shapes["conv2.weight"][0]}
    pairs = [pair for pair in ("3", "2_6", "1_7") if f"generateFrame{pair}.conv1_B.weight" in shapes]
    if pairs:
        options["neighbour_width"] = 2 * shapes["generateFrame3.conv1_B.weight"][0]
    return {**options, "frames": 1 + 2 * len(pairs)}


def _deblurgan(shapes: Shapes) -> dict[str, Any]:
    blocks = {key.split(".")[1] for key in shapes if ".conv_block." in key}
    return {
        "channels": shapes["model.1.weight"][0],
        "blocks": len(blocks),
        "convs_per_block": 2 if any(".conv_block.6." in key for key in shapes) else 1,
    }


def _deblurgan_v2(shapes: Shapes) -> dict[str, Any]:
    coarsest = shapes["fpn.lateral4.weight"][1]
    if "fpn.inception.conv2d_1a.conv.weight" in shapes:
        backbone, full_width = "inception_resnet_v2", 2080
    else:
        separable = "fpn.features.0.0.depthwise.weight" in shapes
        backbone, full_width = "mobilenet_dsc" if separable else "mobilenet_v2", 160
    return {
        "backbone": backbone,
        "backbone_width": coarsest / full_width,
        "channels": shapes["fpn.lateral4.weight"][0] // 2,
    }


def _srn(shapes: Shapes) -> dict[str, Any]:
    width, _, kernel_px, _ = shapes["g_net/enc1_1/weights"]
    blocks = _count(shapes, "g_net/enc1_") - 1
    return {
        "planes": shapes["g_net/dec1_0/biases"][0],
        "width": width,
        "blocks": blocks,
        "kernel_px": kernel_px,
        "convlstm": "g_net/convLSTM/LSTM_conv/weights" in shapes,
        "halving": shapes[f"g_net/dec2_{blocks + 1}/weights"][3] != kernel_px,
    }


def _red_net(shapes: Shapes) -> dict[str, Any]:
    width, planes, *_ = shapes["conv1.weight"]
    return {"layers": 2 * _count(shapes, "conv"), "width": width, "planes": planes}


def _deepdeblur(shapes: Shapes) -> dict[str, Any]:
    return {
        "width": shapes["body_models.0.body.0.weight"][0],
        "blocks": _count(shapes, "body_models.0.body.") - 2,
    }


def _count(shapes: Shapes, beginning: str) -> int:
    """Return how many different numbers follow this beginning of a key."""
    number = re.compile(re.escape(beginning) + r"(\d+)")
    return len({match[1] for key in shapes if (match := number.match(key))})


READERS: dict[str, Callable[[Shapes], dict[str, Any]]] = {
    "blur_to_video": _blur_to_video,
    "deblurgan": _deblurgan,
    "deblurgan_v2": _deblurgan_v2,
    "deepdeblur": _deepdeblur,
    "fftformer": _fftformer,
    "mimo_unet": _mimo_unet,
    "mprnet": _mprnet,
    "nafnet": _nafnet,
    "red_net": _red_net,
    "restormer": _restormer,
    "sam_deblur": _sam_deblur,
    "srn": _srn,
    "stripformer": _stripformer,
    "uformer": _uformer,
}
"""What reads the options of each network of which authors' files are about."""
