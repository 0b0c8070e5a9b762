"""Prompts of ``clip``: two sentences, or templates of the ImageNet kind around state phrases."""

from __future__ import annotations

from typing import NamedTuple

from zsad.components.templates import STATES
from zsad.methods.clip.config import Config
from zsad.prompt_bank.bank import article
from zsad.torchvision_compat import open_clip

# the 80 that CLIP's authors recommend for ImageNet
TEMPLATES = open_clip.OPENAI_IMAGENET_TEMPLATES


class PromptPair(NamedTuple):
    """Prompts of one category, by label."""

    normal: list[str]
    anomalous: list[str]


def build_prompts(config: Config, class_name: str) -> PromptPair:
    """Return the prompts of ``class_name`` that ``config.prompts`` asks for.

    ``ac-ensemble`` takes the state level of WinCLIP's compositional ensemble.
    """
    words = (config.normal_word, config.anomalous_word)
    if config.prompts == "two":
        return PromptPair(*([f"a photo of {article(w)} {w} {class_name}."] for w in words))
    if config.prompts == "ac":
        states: list[tuple[str, ...]] = [(f"{word} {{}}",) for word in words]
    else:
        states = list(STATES)
    return PromptPair(
        *(
            [template(state.format(class_name)) for state in label for template in TEMPLATES]
            for label in states
        )
    )
