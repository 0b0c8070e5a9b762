"""Why FiLo gave a score: the most similar descriptions, and the boxes with their phrases."""

from __future__ import annotations

from torch import Tensor

from zsad.methods.filo.boxes import Located
from zsad.methods.filo.prompts import POSITIONS, Wording
from zsad.on_device import told
from zsad.types import Boxes, Explanation

BOXES = 3  # shown per image, best first
SOURCES = {"paper": "bank", "generic list": "template", "generated": "llm", "llm": "llm"}


def explain_image(
    wording: Wording, similarities: Tensor, place: Located, k: int
) -> list[Explanation]:
    """Rank the abnormal states of one image by ``similarities`` [Ta] (cosines with the adapted
    image vector, mean over the positions in use) and list its boxes, highest score first."""
    where = "" if place.position is None else f"at {POSITIONS[place.position]}"
    best = similarities.topk(min(k, len(similarities)))
    reasons = [
        Explanation(
            text=wording.reasons[i],
            similarity=value,
            source=_source(wording, i),
            rank=rank,
            note=where,
        )
        for rank, (value, i) in enumerate(zip(*told(best.values, best.indices)), start=1)
    ]
    return reasons + _regions(place.kept)


def normal_reason(class_name: str, cosine: float) -> Explanation:
    """The reason for a picture that is called normal; ``cosine``: with the normal states' mean."""
    return Explanation(
        text=f"a flawless {class_name}",
        similarity=cosine,
        label="normal",
        source="template",
        rank=1,
        note="mean over the words for what is normal",
    )


def _source(wording: Wording, state: int) -> str:
    if state >= wording.described:
        return "template"
    return SOURCES.get(wording.source, "bank")


def _regions(boxes: Boxes | None) -> list[Explanation]:
    if boxes is None:
        return []
    order = sorted(range(len(boxes.boxes)), key=lambda i: -boxes.scores[i])
    order = [i for i in order if boxes.boxes[i][2] > 0 and boxes.boxes[i][3] > 0]
    found = []
    for rank, i in enumerate(order[:BOXES], start=1):
        cx, cy, w, h = boxes.boxes[i]
        corners = (cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2)
        left, top, right, bottom = (min(1.0, max(0.0, c)) for c in corners)
        found.append(
            Explanation(
                text=" ".join(boxes.phrases[i].split()),
                similarity=boxes.scores[i],
                label="region",
                source="detector",
                rank=rank,
                region=(left, top, right, bottom),
                note="found by the detector; the similarity is its score",
            )
        )
    return found
