"""Models of the package transformers with their weights, from a folder or from huggingface.co.

Two things of others come that way: the pre-trained encoder of `vit_deblur` and Segment Anything, which draws the masks
of `sam_deblur`. Files are safetensors or are opened without running code, as transformers does by default.
"""

import importlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from unblur.errors import WeightsError


def load_pretrained(kind: Any, name_or_folder: str, *, what: str, example: str, **options: Any) -> Any:
    """Return a model of the class `kind` with all of its weights, float32, in eval mode.

    `name_or_folder` is a folder that `save_pretrained` wrote, or a name on huggingface.co, where the files stay in the
    cache of transformers. `what` and `example`, a name there, are for messages. Raises `WeightsError` where the files
    cannot be had or are of another model: a weight that is missing would be a random one.
    """
    with _silence():
        try:
            model, report = kind.from_pretrained(
                name_or_folder,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are reported, and refused below
                **options,
            )
        except (OSError, ValueError) as error:
            raise WeightsError(
                f"No {what} could be had from '{name_or_folder}' ({str(error).splitlines()[0]}) Give a folder with its "
                f"config.json and model.safetensors, or a name on huggingface.co, such as {example}, where this "
                "machine reaches it."
            ) from None
    wrong = sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]]))
    if wrong:
        raise WeightsError(
            f"'{name_or_folder}' is no {what}: {len(wrong)} of its weights are missing or of another shape, such as "
            f"{wrong[0]}. One is {example}."
        )
    return model.float().eval()


@contextmanager
def _silence() -> Iterator[None]:
    """Keep what transformers says of its loading off the screen: retries, bars, tables of keys."""
    of_transformers: Any = importlib.import_module("transformers.utils.logging")

    hub = logging.getLogger("huggingface_hub")
    before = of_transformers.get_verbosity(), hub.level, of_transformers.is_progress_bar_enabled()
    of_transformers.set_verbosity(logging.CRITICAL)
    of_transformers.disable_progress_bar()
    hub.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        of_transformers.set_verbosity(before[0])
        hub.setLevel(before[1])
        if before[2]:
            of_transformers.enable_progress_bar()
