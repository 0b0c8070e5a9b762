"""What the names of folders say, in any case and with any separator.  One list for all layouts."""

from __future__ import annotations

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
TEST = ("test", "testing", "testpublic")
VALIDATION = ("val", "valid", "validation")
PRIVATE = ("testprivate", "testprivatemixed")  # MVTec AD 2: parts without labels
MASKS = (
    "mask", "masks", "groundtruth", "groundtruths", "gt", "label", "labels", "segmentation",
    "segmentations", "annotation", "annotations",
)  # fmt: skip
MASK_WORDS = ("mask", "masks", "gt")  # beside the name of a class
NEUTRAL = ("image", "images", "img", "imgs", "picture", "pictures", "photo", "photos", "data")

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


def kind_of(name: str) -> Kind:
    """What a folder's name says: ``Ground Truth`` -> "mask"; "other" for all other names.

    A number behind a word for normal changes nothing (``good_2``), and masks may say of which class
    they are (``bad_mask``)."""
    plain = re.sub(r"[^0-9a-z]+", "", name.casefold())
    if plain in _KINDS:
        return _KINDS[plain]
    if plain.rstrip("0123456789") in NORMAL:
        return "normal"
    words = _words(name)
    rest = "".join(w for w in words if w not in MASK_WORDS)
    if len(rest) < len("".join(words)) and _KINDS.get(rest) in ("normal", "anomalous"):
        return "mask"
    return "other"


def mentions_normal(name: str) -> str:
    """The word for normal that is a part of a name (``good_old``); "" for none."""
    return next((word for word in _words(name) if word in NORMAL), "")


def _words(name: str) -> list[str]:
    return [word for word in re.split(r"[^0-9a-z]+", name.casefold()) if word]


def says(name: str) -> Literal["normal", "anomalous"] | None:
    """The label that a word states, for tables of labels: also 0/1, yes/no and true/false (of the
    question whether something is wrong)."""
    plain = re.sub(r"[^0-9a-z]+", "", name.casefold())
    if plain in ("0", "false", "no", "00"):
        return "normal"
    if plain in ("1", "true", "yes", "10"):
        return "anomalous"
    kind = kind_of(name)
    return kind if kind in ("normal", "anomalous") else None
