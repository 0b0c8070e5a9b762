"""The prompts of ALFA (Sec. 4.2): state templates and descriptions by a language model.

Template: "A {domain} image of a {state} {class} [with {details}]", 6 x 4 x 3 = 72 per label.  The
paper prints the template and the count, not the words; the words are [ours].
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from zsad.errors import RequestError
from zsad.methods.alfa.config import Llm, Template
from zsad.prompt_bank import parsing
from zsad.prompt_bank.bank import (
    BankEntry,
    article,
    bank,
    find_entry,
    generation_command,
    read_entries,
)
from zsad.prompt_bank.kinds import PromptKind, Query, TextList
from zsad.types import Category

log = logging.getLogger(__name__)

LABELS = ("normal", "abnormal")

DOMAINS = {
    "industrial": (
        "industrial",
        "manufacturing",
        "quality-inspection",
        "close-up",
        "cropped",
        "high-resolution",
    ),
    "medical": ("medical", "clinical", "diagnostic", "close-up", "cropped", "high-resolution"),
}
STATES = {
    ("industrial", "normal"): ("normal", "flawless", "perfect", "intact"),
    ("industrial", "abnormal"): ("abnormal", "damaged", "defective", "flawed"),
    ("medical", "normal"): ("normal", "healthy", "unremarkable", "intact"),
    ("medical", "abnormal"): ("abnormal", "diseased", "pathological", "unhealthy"),
}
DETAILS = {
    "normal": ("", "with no visible {flaw}", "with a uniform appearance"),
    "abnormal": ("", "with a visible {flaw}", "with an irregular region"),
}
FLAW = {"industrial": "defect", "medical": "lesion"}

_CONNECTIVE = re.compile(r"(with|without|showing|that|where|whose|which|in|having|of|,|:)\b", re.I)


@dataclass(frozen=True)
class PromptSet:
    """Prompts of one category: ``template`` and ``llm`` by label, and the ``descriptors`` of the
    interpretability query (Sec. 5.4), if the bank has them."""

    template: dict[str, list[str]]
    llm: dict[str, list[str]] = field(default_factory=lambda: {label: [] for label in LABELS})
    descriptors: list[str] = field(default_factory=list)
    digest: str = ""
    origin: str = "template"

    def texts(self, label: str) -> list[str]:
        """All prompts of a label, templates first."""
        return [*self.template[label], *self.llm[label]]


def template_prompts(
    class_name: str, domain: str, grid: tuple[int, int, int]
) -> dict[str, list[str]]:
    """Return the contrastive-state prompts of both labels."""
    out = {}
    for label in LABELS:
        prompts = []
        for place in DOMAINS[domain][: grid[0]]:
            for state in STATES[domain, label][: grid[1]]:
                for detail in DETAILS[label][: grid[2]]:
                    image = f"{article(place).capitalize()} {place} image"
                    ending = f" {detail.format(flaw=FLAW[domain])}" if detail else ""
                    prompts.append(f"{image} of {article(state)} {state} {class_name}{ending}")
        out[label] = prompts
    return out


def stem(label: str, class_name: str) -> str:
    """Return the opening that syntactic consistency asks for (Sec. 5.3)."""
    return f"{article(label).capitalize()} {label} image of {class_name}"


def with_stem(text: str, label: str, class_name: str) -> str:
    """Return ``text`` so that it begins with the stem."""
    if re.match(rf"an? {label} image of", text, re.I):
        return text
    joint = " " if _CONNECTIVE.match(text) else ", "
    return f"{stem(label, class_name)}{joint}{text}"


def llm_prompts(entry: BankEntry, category: Category, config: Llm) -> dict[str, list[str]]:
    """Return the bank's descriptions of both labels in the form that ``config`` asks for.

    Without the suffix the lists ``normal_plain`` and ``abnormal_plain`` are taken, which a model
    wrote when it was asked without it.  Raises :class:`RequestError` where there are none.
    """
    out = {}
    for label in LABELS:
        if config.suffix:
            texts = [with_stem(t, label, category.class_name) for t in entry.texts[label]]
        elif (plain := entry.texts.get(f"{label}_plain")) is None:
            raise _no_plain_texts(config, category)
        else:
            texts = list(plain)
        out[label] = list(dict.fromkeys(texts))[: config.limit]
    return out


def _no_plain_texts(config: Llm, category: Category) -> RequestError:
    """Why Table 3's row without syntactic consistency cannot be computed, and what to do."""
    where = config.bank or "the prompt bank"
    return RequestError(
        f"alfa.llm.suffix=false: {where} holds no texts about {category.class_name} that were "
        f"asked for without syntactic consistency; have a language model write some: "
        f"`{generation_command('alfa', category)}`"
        + (" and leave out alfa.llm.bank" if config.bank else "")
    )


def find_bank_entry(config: Llm, category: Category) -> BankEntry | None:
    """Return the category's entry of the bundled bank, or of the file ``config.bank``."""
    if config.bank:
        return find_entry(read_entries(Path(config.bank), "alfa"), category)
    return bank().find("alfa", category)


def build_prompts(category: Category, template: Template, llm: Llm) -> PromptSet:
    """Return all prompts of a category; without a bank entry templates only, with a notice.

    Raises :class:`RequestError` where descriptions without the suffix are wanted and not there.
    """
    domain = category.domain if template.domain == "auto" else template.domain
    base = template_prompts(category.class_name, domain, template.grid)
    if not llm.enabled:
        return PromptSet(base)
    entry = find_bank_entry(llm, category)
    if entry is None and not llm.suffix:
        raise _no_plain_texts(llm, category)
    if entry is None:
        _notice(category.dataset or "-", category.key)
        return PromptSet(base)
    return PromptSet(
        base,
        llm_prompts(entry, category, llm),
        list(entry.texts.get("descriptors", ())),
        entry.digest,
        f"bank {entry.dataset}/{entry.category}",
    )


@cache
def _notice(dataset: str, category: str) -> None:
    """Say once per category that nothing was generated for it."""
    log.warning(
        "alfa: no generated prompts for %s/%s; using templates only (`zsad prompts generate` "
        "makes some)",
        dataset,
        category,
    )


# ------------------------------------------------------------- what a language model is asked
ASKED = (
    "How to identify {thing} in an image?",
    "What does {thing} look like in an image?",
    "Which visual signs show {thing} in an image?",
    "How do color, shape and surface of {thing} appear in an image?",
    "What does an inspector notice in an image of {thing}?",
)
"""Five questions per label (Sec. 4.2)."""


def queries(category: Category) -> list[Query]:
    """Every question with syntactic consistency (Sec. 5.3) and without, and the interpretability
    query (Sec. 5.4)."""
    name = category.class_name
    asked = []
    for label in LABELS:
        thing = f"{article(label)} {label} {name}"
        for question in (q.format(thing=thing) for q in ASKED):
            ending = f'begin every item with "{stem(label, name)}".'
            same = f"{question} Answer with a list; {ending}"
            asked.append(Query(same, label, 3, 0.7))
            asked.append(Query(f"{question} Answer with a list.", f"{label}_plain", 3, 0.7))
    reasons = (
        f"Q: What are useful descriptions for distinguishing an anomaly {name} in a photo?\n"
        f"A: There are several key descriptions to tell there is an anomaly {name} in a photo:\n-"
    )
    return [*asked, Query(reasons, "descriptors", 3, 0.7)]


def read_answer(answer: str, target: TextList, category: Category) -> list[str]:
    """Sentences, with the stem where the list is asked for with it; descriptors are phrases."""
    if target.name == "descriptors":
        return parsing.anomaly_types(parsing.continued(answer), target.most)
    found = parsing.sentences(answer, target.label)
    return found if target.name != target.label else _stemmed(found, target, category.class_name)


def _stemmed(sentences: list[str], target: TextList, class_name: str) -> list[str]:
    """Sentences about the class, with the stem added where it is missing."""
    opening = stem(target.label, "").lower()
    found = [
        t
        if t.lower().startswith(opening)
        else f"{stem(target.label, class_name)}: {t[0].lower()}{t[1:]}"
        for t in sentences
    ]
    return parsing.distinct([t for t in found if class_name.lower() in t.lower()])


def text_problems(text: str, target: TextList, class_name: str) -> list[str]:
    """What the bank's check says about a text besides what it says about all."""
    problems = []
    opening = stem(target.label, class_name)
    if target.name == target.label and not text.startswith(opening):
        problems.append(f"does not begin with '{opening}'")
    least, most = (1, 10) if target.name == "descriptors" else (4, 40)
    if not least <= len(text.split()) <= most:
        problems.append(f"not of {least} to {most} words")
    return problems


KIND = PromptKind(
    name="alfa",
    lists=(
        # A model is asked for 16 of each: 88 prompts per label are the least, as in the paper.
        TextList("normal", 8, 144, "normal", asked=16),
        TextList("abnormal", 8, 144, asked=16),
        # Asked for without syntactic consistency, and the answers to the interpretability query.
        TextList("normal_plain", 16, 144, "normal", required=False),
        TextList("abnormal_plain", 16, 144, required=False),
        TextList("descriptors", 5, 20, required=False),
    ),
    queries=queries,
    read=read_answer,
    problems=text_problems,
)
"""Descriptions of both labels (Sec. 4.2)."""
