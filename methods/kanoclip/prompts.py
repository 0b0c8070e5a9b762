"""What KAnoCLIP asks language models: about a category, and about a training image.  Torch-free."""

from __future__ import annotations

from zsad.prompt_bank import parsing
from zsad.prompt_bank.kinds import PromptKind, Query, TextList
from zsad.types import Category


def queries(category: Category) -> list[Query]:
    """The general knowledge of a category (Sec. 2.2.1), asked for five times."""
    prompt = f"Describe what an abnormal image of {category.class_name} looks like?"
    return [Query(prompt, "abnormal", 5, 0.7)]


def image_query(category: Category) -> str:
    """The question that goes with an image, as printed (Sec. 2.2.1, Fig. 2), where the category
    takes the place of the paper's example "fabric"."""
    return (
        "Identify anomalies in the input image of the specified class (e.g., "
        f"{category.class_name}). Describe each anomaly's location, color, shape, size, and other "
        "characteristics."
    )


def read_answer(answer: str, target: TextList, category: Category) -> list[str]:
    """Whole sentences."""
    return parsing.sentences(answer, target.label)


KIND = PromptKind(
    name="kanoclip",
    lists=(TextList("abnormal", 5, 20),),  # knpl.kb.n of them are read
    queries=queries,
    read=read_answer,
    image_query=image_query,
)
"""Sentences about what is abnormal, five or more."""
