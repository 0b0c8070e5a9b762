"""What a reader who is new to the field has to know about the figures, in one line each."""

from __future__ import annotations

from typing import NamedTuple


class MetricWords(NamedTuple):
    """``key``: our name; ``question``: what it answers; ``chance``: what guessing gets."""

    key: str
    name: str
    question: str
    chance: str


METRIC_WORDS = (
    MetricWords(
        "image_auroc",
        "image AUROC",
        "How often does an anomalous image score higher than a normal one?",
        "50",
    ),
    MetricWords(
        "image_ap",
        "image AP",
        "Reading the list from the highest score down: what share of it is anomalous, on average "
        "over all finds?",
        "the share of anomalous images",
    ),
    MetricWords(
        "image_f1max",
        "image F1-max",
        "At the best possible threshold: the balance of images found and images rightly reported.",
        "67 where half of the images are anomalous",
    ),
    MetricWords(
        "pixel_auroc",
        "pixel AUROC",
        "How often does a pixel of a defect score higher than a sound pixel? High even for rough "
        "maps, since most pixels are sound.",
        "50",
    ),
    MetricWords(
        "pixel_ap",
        "pixel AP",
        "As image AP, for pixels: strict, since defects are small.",
        "the share of defect pixels, often 1 to 5",
    ),
    MetricWords(
        "pixel_f1max",
        "pixel F1-max",
        "As image F1-max, for pixels.",
        "about twice the share of defect pixels",
    ),
    MetricWords(
        "pixel_aupro",
        "pixel AUPRO",
        "How much of every defect, small ones counting as much as large ones, is covered before "
        "30\u00a0% of the sound pixels are reported by mistake?",
        "15",
    ),
)

DEMO = (
    "zsad-tiny is a small demonstration model that comes with zsad and was trained on generated "
    "pictures. It shows that everything works and what a report looks like. Its figures say "
    "nothing about how good a method is with the model that its paper used."
)
RANDOM = "The model's weights are random: the figures only show that everything runs."
