"""What the names of folders say, in any case and with any separator.  One list for all layouts."""

from __future__ import annotations

import contextlib
import re
from typing import Literal

Kind = Literal["normal", "anomalous", "train", "test", "val", "private", "mask", "neutral", "other"]

# Written without separators: "Not Good", "not_good" and "NOT-GOOD" are "notgood".
NORMAL = (
    "normal", "normals", "good", "goods", "ok", "okay", "io", "nominal", "healthy", "intact",
    "pass", "passed", "nodefect", "nodefects", "defectfree", "nondefective", "undamaged",
    "withoutdefect", "withoutdefects", "noanomaly", "noanomalies", "withoutanomaly",
)  # fmt: skip
ANOMALOUS = (
    "anomalous", "anomaly", "anomalies", "abnormal", "abnormals", "defective", "defect", "defects",
    "bad", "ng", "nok", "ko", "nio", "notok", "notgood", "ungood", "nogood", "faulty", "fault",
    "faults", "fail", "failed", "damaged", "broken", "reject", "rejected", "withdefect",
    "withdefects", "withanomaly", "withanomalies",
)  # fmt: skip
TRAIN = ("train", "training", "reference", "references")
TEST = ("test", "testing", "testpublic", "eval", "evaluation", "holdout")
VALIDATION = ("val", "valid", "validation", "dev", "development")
PRIVATE = ("testprivate", "testprivatemixed")  # MVTec AD 2: parts without labels
MASKS = (
    "mask", "masks", "groundtruth", "groundtruths", "gt", "label", "labels", "segmentation",
    "segmentations", "annotation", "annotations",
)  # fmt: skip
MASK_WORDS = ("mask", "masks", "gt")  # beside the name of a class
NEUTRAL = ("image", "images", "img", "imgs", "picture", "pictures", "photo", "photos", "data")

# Beside test/good: nobody knows of these whether they are another word for it.
UNSURE = (
    "clean", "fine", "perfect", "flawless", "sound", "negative", "neg", "unlabeled", "unlabelled",
    "unknown", "unsorted", "unclear", "unsure", "unchecked", "todo",
)  # fmt: skip

_LISTS: tuple[tuple[Kind, tuple[str, ...]], ...] = (
    ("normal", NORMAL),
    ("anomalous", ANOMALOUS),
    ("train", TRAIN),
    ("test", TEST),
    ("val", VALIDATION),
    ("private", PRIVATE),
    ("mask", MASKS),
    ("neutral", NEUTRAL),
)
_KINDS: dict[str, Kind] = {word: kind for kind, words in _LISTS for word in words}
# What may stand behind the word for a part of the data: "train_set", "Testing Data", "test_2".
_OF_PART = re.compile(r"(?P<part>.+?)(?:sets?|data|images|imgs|split)?[0-9]*")


def kind_of(name: str) -> Kind:
    """What a folder's name says: ``Ground Truth`` -> "mask"; "other" for all other names.

    A number behind a word for normal or for a part changes nothing (``good_2``, ``train_1``), nor
    does "set" or "data" behind that (``test_set``), and masks may say of which class they are
    (``bad_mask``)."""
    plain = re.sub(r"[^0-9a-z]+", "", name.casefold())
    if plain in _KINDS:
        return _KINDS[plain]
    if plain.rstrip("0123456789") in NORMAL:
        return "normal"
    part = _OF_PART.fullmatch(plain)
    kind = _KINDS.get(part["part"], "other") if part else "other"
    if kind in ("train", "test", "val"):
        return kind
    words = _words(name)
    rest = "".join(w for w in words if w not in MASK_WORDS)
    if len(rest) < len("".join(words)) and _KINDS.get(rest) in ("normal", "anomalous"):
        return "mask"
    return "other"


def mentions_normal(name: str) -> str:
    """The word for normal that is a part of a name (``good_old``), or a name that may mean it, or
    nothing yet (:data:`UNSURE`); "" for none."""
    if (words := _words(name)) and words[0] in UNSURE and len(words) == 1:
        return words[0]
    return next((word for word in words if word in NORMAL), "")


def part_of(name: str) -> Literal["train", "test", ""]:
    """Which part of the data a name may mean that begins with a word for it (``train_cam1``);
    "test" stands for the validation part, too, "" for none."""
    first = next(iter(_words(name)), "")
    kind = _KINDS.get(first, "other")
    return "train" if kind == "train" else "test" if kind in ("test", "val") else ""


def _words(name: str) -> list[str]:
    return [word for word in re.split(r"[^0-9a-z]+", name.casefold()) if word]


def says(name: str) -> Literal["normal", "anomalous"] | None:
    """The label that a word states, for tables of labels: also 0/1, yes/no and true/false (of the
    question whether something is wrong)."""
    with contextlib.suppress(ValueError):
        number = float(name)  # 0.0 as well, and neither -1 nor 10
        return "normal" if number == 0 else "anomalous" if number == 1 else None
    plain = re.sub(r"[^0-9a-z]+", "", name.casefold())
    if plain in ("false", "no"):
        return "normal"
    if plain in ("true", "yes"):
        return "anomalous"
    kind = kind_of(name)
    return kind if kind in ("normal", "anomalous") else None
