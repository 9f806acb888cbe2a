"""Make the weights that a training begins with out of trained ones of another shape: what was learnt is not lost.

    python scripts/begin_from.py default experiments/sharp/wiener_nafnet_everyday.yaml runs/begin.safetensors
    unblur train experiments/sharp/wiener_nafnet_everyday.yaml --set start_from=runs/begin.safetensors

NAFNets and WienerNAFNets are known, and what may differ:

* more blocks at a level: a fresh block returns its input, so that the network goes on as it was;
* a NAFNet becomes the refining part of a WienerNAFNet, which at first hardly trusts the deconvolved picture, and the
  coarser scale rather;
* a WienerNAFNet gets a small refining part for its finest scale, which begins at random.
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn

from unblur import create_model, experiment, weights

TRUST = (-2.0, 1.0)
"""What the refining part's trust in the deconvolved picture and in the coarser scale begin with, before the sigmoid."""


def main() -> None:
    """Write the weights."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trained", help="weights by name or file")
    parser.add_argument("experiment", type=Path, help="the training that is to begin with them")
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    settings = experiment.load(options.experiment).model
    trained = weights.load(options.trained)
    torch.manual_seed(0)
    begun = create_model(settings.name, **settings.options)
    taken = take_over(trained, begun)
    weights.save(begun, options.out, {"began_from": options.trained})
    total = sum(parameter.numel() for parameter in begun.parameters())
    print(f"{options.out}: {taken:,} of {total:,} parameters from {options.trained}, the others are fresh")


def take_over(trained: nn.Module, begun: nn.Module) -> int:
    """Put into `begun` what it can use of `trained`, and return how many parameters those are."""
    source = {_inner(name): value.float() for name, value in trained.state_dict().items()}
    target = begun.state_dict()
    taken = 0
    for name, value in target.items():
        old = source.get(_inner(name))
        if old is None:
            continue
        value.copy_(_fitted(_inner(name), old, value))
        taken += old.numel()
    begun.load_state_dict(target)
    return taken


def _inner(name: str) -> str:
    """Return the name that a parameter of either network has in the U-Net of its refining part."""
    return name.removeprefix("refiner.").replace("middle_blks.", "middle.")


def _fitted(name: str, old: Tensor, new: Tensor) -> Tensor:
    """Return the old values in the new shape, with further planes after those at the start, and before the picture's
    own at the end.
    """
    if old.shape == new.shape:
        return old
    fitted = torch.zeros_like(new)
    if name == "intro.weight" and new.shape[1] > old.shape[1]:
        fitted[:, : old.shape[1]] = old
    elif name.startswith("ending.") and len(new) > len(old):
        fitted[-len(old) :] = old
        if name == "ending.bias":
            fitted[: -len(old)] = torch.tensor(TRUST).repeat_interleave(4)
    else:
        raise SystemExit(f"{name} has shape {tuple(old.shape)} and cannot become {tuple(new.shape)}")
    return fitted


if __name__ == "__main__":
    main()
