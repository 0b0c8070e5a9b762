"""A table with a line for each picture, columns by name."""

from __future__ import annotations

import contextlib
import csv
import re
from collections.abc import Mapping, Sequence
from typing import Literal

from zsad.data.indexers.base import Indexing, NotThisLayout, indexer
from zsad.data.indexers.lists import (
    Resolver,
    check_listed,
    cut_lossy,
    listed_account,
    strays_problem,
    table,
    without_validation,
)
from zsad.data.indexers.words import kind_of, says
from zsad.errors import nearest
from zsad.types import Sample

NO_DEFECT = ("none", "n/a", "na", "nan", "null", "-", "0")  # in a column of types of defects


@indexer("csv")
def csv_list(
    at: Indexing,
    *,
    file: str = "labels.csv",
    image: str = "image",
    label: str = "label",
    mask: str = "",
    category: str = "",
    split: str = "",
    defect: str = "",
    images: str = "",
    normal: Sequence[str] = (),
    anomalous: Sequence[str] = (),
    delimiter: str = "",
    ignore: Sequence[str] = (),
) -> list[Sample]:
    """A table of pictures: ``image``, ``label``, ``mask``, ... name its columns.

    Labels are 0 and 1, or words such as good, ok, bad, ng; ``normal`` and ``anomalous`` add others.
    ``images``: the folder that paths are relative to.  ``split``: a column with train, val or test;
    val is tested where there is no test.
    Without a mask column, or with empty cells in it, anomalous pictures have no mask.
    ``ignore``: patterns of pictures that are not listed and left out.
    """
    path = at.root / file
    if not path.is_file():
        raise NotThisLayout(f"{path} is missing")
    try:
        header, rows = table(path, delimiter)
    except (OSError, ValueError, csv.Error) as error:
        at.problems.append(f"{path}: cannot be read ({error})")
        return []
    named = {"image": image, "label": label, "mask": mask, "category": category, "split": split}
    named["defect"] = defect
    wanted = {role: column for role, column in named.items() if column}
    absent = [f"'{c}'{nearest(c, header)}" for c in wanted.values() if c not in header]
    if absent:
        at.problems.append(
            f"{path}: no column {', '.join(absent)}; it has {', '.join(header) or 'none'}"
        )
        return []
    words = {w.casefold(): 0 for w in normal} | {w.casefold(): 1 for w in anomalous}
    resolve = Resolver(at.root, images)
    listed: list[tuple[Sample, bool]] = []
    for number, row in enumerate(rows, start=2):
        cells = dict(zip(header, row))
        line = {role: cells.get(column, "") for role, column in wanted.items()}
        try:
            sample = _sample(at, line, words, resolve)
        except ValueError as error:
            at.problems.append(f"{path}, line {number}: {error}")
            with contextlib.suppress(ValueError):
                refused = at.relative(resolve(line["image"]))
                why = str(error).partition("; ")[0]
                at.refused.setdefault(refused, f"{file}, line {number}: {why}")
            continue
        listed.append((sample, kind_of(line.get("split", "")) == "val"))
        if line.get("mask") and not sample.label:
            at.masks_of_normal.append((resolve(line["mask"]), sample.image))
    samples = without_validation(at, listed)
    check_listed(at, path, samples)
    at.account = listed_account(at, samples, file, ignore)
    at.problems += strays_problem(at.account)
    return samples


def _sample(
    at: Indexing, line: Mapping[str, str], words: Mapping[str, int], resolve: Resolver
) -> Sample:
    """The sample of one line.  Raises ``ValueError`` that says what is wrong with it."""
    word = line["label"]
    label = words.get(word.casefold())
    if label is None:
        said = says(word)
        if said is None:
            raise ValueError(
                f"label '{word}' is neither 0 nor 1, nor a word for normal or anomalous; name it "
                "in the options `normal: [...]` or `anomalous: [...]`"
            )
        label = int(said == "anomalous")
    mask = line.get("mask", "") if label else ""
    named = line.get("defect", "")
    if named and (named.casefold() in NO_DEFECT or kind_of(named) == "normal") == bool(label):
        raise ValueError(f"label '{word}' and defect '{named}' contradict each other")
    kind = named or ("anomaly" if re.fullmatch(r"[\d.]+", word) else word)
    return cut_lossy(
        at.sample(
            resolve(line["image"]),
            label,
            _category(at, line),
            mask=resolve(mask) if mask else None,
            defect=kind if label else "good",
            split=_split(line),
        )
    )


def _category(at: Indexing, line: Mapping[str, str]) -> str:
    if "category" not in line:
        return at.only_category
    known = {n.casefold(): n for n in at.spec.categories}
    found = known.get(line["category"].casefold())
    if found is None:
        raise ValueError(f"'{line['category']}' is not a category of {at.spec.name}")
    return found


def _split(line: Mapping[str, str]) -> Literal["train", "test"]:
    word = line.get("split", "")
    kind = kind_of(word) if word else "test"
    if kind not in ("train", "test", "val"):
        raise ValueError(f"split '{word}' is not train, val or test")
    return "train" if kind == "train" else "test"
