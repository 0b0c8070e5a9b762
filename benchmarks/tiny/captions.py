"""Words for generated pictures: captions, and pairs of prompts (normal, anomalous).

Names of held-out categories and defects do not occur.  What a class is called is often replaced by
a general word or by any word of the vocabulary, so that the state of a thing is read from the words
for its state, whatever the thing is called.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Rng = np.random.Generator

GENERAL = (
    "object",
    "product",
    "item",
    "part",
    "thing",
    "sample",
    "surface",
    "workpiece",
    "material",
    "component",
)

NORMAL = (
    "{}",
    "normal {}",
    "flawless {}",
    "perfect {}",
    "unblemished {}",
    "good {}",
    "intact {}",
    "undamaged {}",
    "clean {}",
    "healthy {}",
    "{} without flaw",
    "{} without defect",
    "{} without damage",
    "{} in good condition",
    "{} with no anomaly",
    "faultless {}",
    "spotless {}",
    "ordinary {}",
    "regular {}",
    "{} in perfect state",
    "typical {}",
    "defect-free {}",
    "{} of good quality",
    "new {}",
    "pristine {}",
    "complete {}",
)
ANOMALOUS = (
    "damaged {}",
    "abnormal {}",
    "anomalous {}",
    "broken {}",
    "defective {}",
    "flawed {}",
    "imperfect {}",
    "bad {}",
    "blemished {}",
    "faulty {}",
    "unhealthy {}",
    "{} with flaw",
    "{} with defect",
    "{} with damage",
    "{} with a defect",
    "{} with an anomaly",
    "{} in bad condition",
    "{} with damage on it",
    "spoiled {}",
    "irregular {}",
    "deformed {}",
    "ruined {}",
    "dirty {}",
    "{} of poor quality",
    "incomplete {}",
    "worn {}",
    "{} with something wrong",
    "{} with an irregularity",
    "corroded {}",
    "marred {}",
)
TEMPLATES = (
    "{}",
    "{}.",
    "a photo of a {}",
    "a photo of the {}",
    "a photo of a {}.",
    "a photo of the {} for visual inspection.",
    "a photo of the {} for anomaly detection.",
    "a close-up photo of a {}.",
    "a cropped photo of the {}.",
    "a bright photo of a {}.",
    "a dark photo of the {}.",
    "a blurry photo of a {}.",
    "a photo of a large {}.",
    "a photo of a small {}.",
    "a low resolution photo of the {}.",
    "a photo of my {}.",
    "a black and white photo of a {}.",
    "a jpeg corrupted photo of the {}.",
    "there is a {} in the scene.",
    "this is a {} in the scene.",
    "this is one {} in the scene.",
    "a good photo of a {}.",
    "an image of a {}",
    "a picture of the {}",
    "a bad photo of the {}.",
    "a photo of one {}.",
    "a photo of a cool {}.",
    "a clean photo of the {}.",
)

# Words of a caption for each defect of the train group.
DEFECT_WORDS: dict[str, tuple[str, ...]] = {
    "scratch": (
        "scratch",
        "scratches",
        "scrape",
        "groove",
        "long scratch",
        "scuff",
        "cut",
        "gouge",
    ),
    "contamination": (
        "contamination",
        "foreign matter",
        "dirt",
        "particles",
        "residue",
        "debris",
        "impurity",
        "lump",
    ),
    "discoloration": (
        "discoloration",
        "faded area",
        "colour change",
        "uneven color",
        "bleached patch",
        "tarnish",
    ),
    "broken edge": (
        "broken edge",
        "chip",
        "chipped edge",
        "broken off piece",
        "breakage",
        "fracture",
    ),
    "scorch": ("scorch mark", "burn", "burnt area", "burn mark"),
    "fold": ("fold", "crease", "wrinkle", "ridge"),
    "bubble": ("bubble", "blister", "bump", "bulge", "swelling"),
    "abrasion": ("abrasion", "rubbed patch", "wear", "smear", "rough patch"),
    "misplaced": (
        "misplaced part",
        "misalignment",
        "displacement",
        "part out of place",
        "shifted part",
    ),
    "mismatched": (
        "mismatched part",
        "wrong part",
        "odd part",
        "part of another kind",
        "wrong size",
        "wrong color",
    ),
    "any": (
        "defect",
        "anomaly",
        "flaw",
        "irregularity",
        "damage",
        "blemish",
        "fault",
        "lesion",
        "mark",
        "deviation",
    ),
}


def where(x: float, y: float) -> str:
    """A position (0..1 from the top left) in words, as prompts with positions say it."""
    row = "top" if y < 1 / 3 else "bottom" if y > 2 / 3 else ""
    column = "left" if x < 1 / 3 else "right" if x > 2 / 3 else ""
    if not row and not column:
        return "center"
    return " ".join(filter(None, (row, column)))


def pick(rng: Rng, items: Sequence[str]) -> str:
    return items[int(rng.integers(len(items)))]


class Words:
    """Draws captions.  ``strangers``: words that may stand for any class."""

    def __init__(self, strangers: Sequence[str]) -> None:
        self.strangers = strangers

    def name(self, rng: Rng, class_name: str) -> str:
        """The class's own name, a general word, or a stranger."""
        kind = rng.random()
        return class_name if kind < 0.7 else pick(rng, GENERAL)

    def pair(self, rng: Rng, class_names: Sequence[str]) -> tuple[str, str]:
        """A pair of prompts that differ in the state only."""
        kind = rng.random()
        if kind < 0.4:
            name = pick(rng, GENERAL)
        elif kind < 0.85:
            name = " ".join(pick(rng, self.strangers) for _ in range(int(rng.integers(1, 3))))
        else:
            name = pick(rng, class_names)
        template, other = pick(rng, TEMPLATES), None
        if rng.random() < 0.3:
            other = pick(rng, TEMPLATES)
        bad = pick(rng, ANOMALOUS)
        if rng.random() < 0.35:
            word = pick(rng, DEFECT_WORDS[pick(rng, tuple(DEFECT_WORDS))])
            bad = pick(
                rng,
                (
                    "{} with " + word,
                    "{} with a " + word,
                    "abnormal {} with " + word,
                    word + " on {}",
                ),
            )
        return template.format(pick(rng, NORMAL).format(name)), (other or template).format(
            bad.format(name)
        )

    def caption(
        self, rng: Rng, facts: dict[str, str], defective: bool, position: tuple[float, float] | None
    ) -> str:
        """A caption of one picture from its facts."""
        name = self.name(rng, facts["class"])
        if rng.random() < 0.3:
            name = f"{facts['colour']} {name}"
        if not defective:
            return pick(rng, TEMPLATES).format(pick(rng, NORMAL).format(name))
        words = DEFECT_WORDS[facts["defect"]]
        kind = rng.random()
        if kind < 0.4:
            return pick(rng, TEMPLATES).format(pick(rng, ANOMALOUS).format(name))
        text = pick(rng, ("{} with {}", "{} with a {}", "abnormal {} with {}")).format(
            name, pick(rng, words)
        )
        if position is not None and kind > 0.7:
            text += pick(rng, (" at the {}", " in the {}", " on the {}")).format(where(*position))
        return pick(rng, TEMPLATES[:8]).format(text)
