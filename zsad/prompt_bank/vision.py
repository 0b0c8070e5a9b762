"""A vision model's cached descriptions of training images.  No network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from zsad.data.images import image_digest
from zsad.prompt_bank import parsing
from zsad.prompt_bank.answers import AnswerStore, answers_root
from zsad.prompt_bank.checks import clip_tokens
from zsad.prompt_bank.kinds import find_kind
from zsad.types import Category, Sample


def cached_answers(
    query: Callable[[Category], str], root: Path | str | None = None
) -> Callable[[Sample, Category], list[str] | None]:
    """Return a look-up of an image's descriptions by its digest and query; None: not asked yet.

    ``query``: the question of a prompt kind (see :class:`zsad.prompt_bank.kinds.PromptKind`).
    One description per answer: its sentences, joined and cut to CLIP's 77 tokens; '' for an
    answer that names nothing abnormal.  Of several models' answers those of the smallest model
    name are taken.
    """
    store = AnswerStore(Path(root) if root is not None else answers_root())
    found = store.images()
    tokens = cache(clip_tokens)  # loads open_clip when the first answer is read

    def look_up(sample: Sample, category: Category) -> list[str] | None:
        if not found:
            return None
        records = found.get((image_digest(sample), query(category)))
        if records is None:
            return None
        texts = [parsing.description(r["answer"], "abnormal") for r in records]
        return [parsing.clipped(text, tokens()) if text else "" for text in texts]

    return look_up


def read_answers(
    kind: str, count: int, categories: Sequence[Category] | None = None
) -> list[str] | None:
    """Hashes of the cached answers about images that a training reads, sorted.

    The first ``count`` of an image, to the question of ``kind`` about ``categories`` (None: to any
    question).  None where no image was ever asked about; an empty list says that there are answers,
    to other questions.
    """
    answers = AnswerStore(answers_root()).images()
    if not answers:
        return None
    asked = None
    if categories is not None:
        query = find_kind(kind).image_query if kind else None
        asked = set() if query is None else set(map(query, categories))
    return sorted(
        record["sha256"]
        for (_, prompt), records in answers.items()
        if asked is None or prompt in asked
        for record in records[:count]
    )
