"""Words for what wears out: asked for, read and checked by rules that only this method knows."""

from __future__ import annotations

from zsad.prompt_bank import parsing
from zsad.prompt_bank.kinds import PromptKind, Query, TextList
from zsad.types import Category


def queries(category: Category) -> list[Query]:
    return [
        Query(f"How does a worn {category.class_name} look?", "worn", 2, 0.5),
        Query(f"Which makers of a {category.class_name} are known?", "makers", 1, 0.0),
    ]


def read(answer: str, target: TextList, category: Category) -> list[str]:
    """One text after each ``*``; names keep their case."""
    if parsing.tainted(answer):
        return []
    found = [part.strip() for part in answer.split("*")[1:]]
    return found if target.name == "makers" else [text.lower() for text in found]


def problems(text: str, target: TextList, class_name: str) -> list[str]:
    return ["names the thing"] if target.name == "worn" and class_name in text else []


KIND = PromptKind(
    name="wear",
    lists=(TextList("worn", 2, 3), TextList("makers", 1, 2, "normal", required=False)),
    queries=queries,
    read=read,
    problems=problems,
    image_query=lambda category: f"How worn is this {category.class_name}?",
)
