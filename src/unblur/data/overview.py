"""The catalogue in words: what `unblur data list` prints, and the tables of `docs/data-sets.md`."""

from collections.abc import Iterator

from unblur.data.catalog import DATA_SETS, DataSet, Split


def listing() -> str:
    """Return a line for each set with its splits and counts, and below it whose it is and where to get it."""
    return "\n".join(line for dataset in DATA_SETS.values() for line in _lines(dataset))


def facts_table() -> str:
    """Return a Markdown table of the sets: splits, counts, variants, licence, where to get them."""
    lines = [
        "| id | what | splits (pairs or pictures) | variants | licence | where to get it |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for entry in DATA_SETS.values():
        splits = ", ".join(f"`{split.name}` {_count(split)}" for split in entry.splits if split.name) or "any folder"
        variants = ", ".join(f"`{variant}`" for variant in entry.variants if variant)
        about = entry.about + ("" if entry.aligned else "; **not aligned**")
        lines.append(f"| `{entry.name}` | {about} | {splits} | {variants} | {entry.licence} | {entry.source} |")
    return "\n".join(lines)


def layouts_table() -> str:
    """Return a Markdown table of every layout of every split, relative to the set's folder.

    Selections from another split (REDS' val-300) lie as that one does.
    """
    lines = ["| set | blurred | sharp | only for |", "| --- | --- | --- | --- |"]
    for entry in DATA_SETS.values():
        for split in entry.splits:
            if split.only is not None:
                continue
            name = f"{entry.name}/{split.name}".rstrip("/")
            for layout in split.layouts:
                blurred, sharp = (f"`{row}`" if row else "" for row in layout.rows)
                variants = ", ".join(f"`{variant}`" for variant in layout.variants or ())
                lines.append(f"| `{name}` | {blurred} | {sharp} | {variants} |")
    return "\n".join(lines)


def _lines(entry: DataSet) -> Iterator[str]:
    splits = ", ".join(f"{split.name} {_count(split)}" for split in entry.splits if split.name)
    yield f"{entry.name:<12} {splits or 'any folder'}"
    indent = " " * 13
    yield f"{indent}{entry.about}{'' if entry.aligned else '; not aligned'}"
    if len(entry.variants) > 1:
        yield f"{indent}variants: {', '.join(entry.variants)}"
    yield f"{indent}layout: {entry.layout}"
    yield f"{indent}licence: {entry.licence}. From: {entry.source}"


def _count(split: Split) -> str:
    return f"{split.count:,}" if split.count is not None else ""
