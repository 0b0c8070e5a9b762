"""What FiLo's prompts say (section 3.2): states, descriptions, positions.  Torch-free.

Normal:   [context] {state of the class}.
Abnormal: [context] {state of the class} at {position}.

The state words are those of the released code (the paper names the slots, not the words).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from zsad.components.templates import BROKEN_STATES, NORMAL_STATES
from zsad.errors import RequestError
from zsad.methods.filo.config import Prompt
from zsad.prompt_bank import bank, parsing
from zsad.prompt_bank.kinds import PromptKind, Query, TextList
from zsad.types import Category

POSITIONS = (
    "top left",
    "top",
    "top right",
    "left",
    "center",
    "right",
    "bottom left",
    "bottom",
    "bottom right",
)
"""The nine cells of a 3x3 grid, in raster order."""

DETECTOR_WORDS = ("anomaly", "damage", "broken", "defect", "contamination")
NO_CLASS = "object"  # the noun where prompt.class_name is off, as in AnomalyCLIP


def queries(category: Category) -> list[Query]:
    """The one question about a category's kinds of anomalies."""
    prompt = (
        f"Which kinds of visible anomalies can occur on {category.class_name} in "
        f"{category.domain} images? Answer with a JSON list of 4 to 10 short phrases in English, "
        "each of at most eight words, and nothing else."
    )
    return [Query(prompt, "anomaly_types", 1, 0.0)]


def read_answer(answer: str, target: TextList, category: Category) -> list[str]:
    """Short phrases."""
    return parsing.anomaly_types(answer, target.most)


KIND = PromptKind(
    name="filo",
    lists=(TextList("anomaly_types", 4, 10),),
    queries=queries,
    read=read_answer,
)
"""Fine-grained anomaly types of a category (section 3.2; Tables 9 and 10 print some)."""


@dataclass(frozen=True)
class Wording:
    """The prompts of one category.

    ``normal`` [Tn]; ``abnormal`` [Ta * P], index = state * P + position, with P = 9, or 1 where
    prompts name no position; ``reasons`` [Ta]: what an explanation calls each abnormal state;
    ``described``: how many of them are fine-grained descriptions; ``asked``: what a detector is
    asked for; ``source``: bank, file or generic.
    """

    normal: tuple[str, ...]
    abnormal: tuple[str, ...]
    reasons: tuple[str, ...]
    described: int
    n_positions: int
    asked: tuple[str, ...]
    source: str
    digest: str


def find_entry(category: Category, descriptions: str) -> bank.BankEntry:
    """Return the descriptions of a category.

    ``descriptions``: ``bank``, where an unknown category gets the generic list; ``generate``,
    where only what a language model was asked for counts; or a file of the bank's format.
    Raises :class:`RequestError` or :class:`zsad.errors.DataError` for a file that cannot be read,
    and for a category that nobody asked about.
    """
    if descriptions == "bank":
        found = bank.bank().find("filo", category)
    elif descriptions == "generate":
        answers = [
            e for e in bank.bank().entries("filo") if e.provenance.get("source") == "generated"
        ]
        found = bank.find_entry(answers, category)
        if found is None:
            raise RequestError(
                f"filo.descriptions=generate: no language model was asked about "
                f"'{category.class_name}'; `zsad prompts generate --kind filo --datasets "
                f"{category.dataset or 'NAME'} --out DIR`, then set ZSAD_PROMPTS=DIR"
            )
    elif descriptions.endswith((".yaml", ".yml")):
        found = bank.find_entry(bank.read_entries(descriptions, "filo"), category)
    else:
        raise RequestError(
            f"filo.descriptions={descriptions!r} is neither 'bank' nor 'generate' nor a .yaml file "
            f"of descriptions; `zsad prompts generate` writes such a file"
        )
    return found or bank.generic_entry("filo", category)


def word(category: Category, entry: bank.BankEntry, config: Prompt) -> Wording:
    """Write the prompts of a category, without the learned context."""
    spoken = category.class_name if config.names == "dataset" else entry.class_name
    name = spoken.replace("_", " ") if config.class_name else NO_CLASS
    types = entry.texts["anomaly_types"]
    normal, abnormal, described = _states(types, config)
    reasons = [*types[:described], *(s.replace("{}", "").strip() for s in abnormal[described:])]
    states = [s.format(name) for s in abnormal]
    positions = [""] if config.positions == "none" else [f" at {p}" for p in POSITIONS]
    return Wording(
        normal=tuple(_sentence(s.format(name), config) for s in normal),
        abnormal=tuple(_sentence(s + p, config) for s in states for p in positions),
        reasons=tuple(" ".join(r.split()) or "abnormal" for r in reasons),
        described=described,
        n_positions=len(positions),
        asked=(*DETECTOR_WORDS, *entry.texts.get("detector_types", types)),
        source=str(entry.provenance.get("source", "bank")),
        digest=entry.digest,
    )


def _states(types: Sequence[str], config: Prompt) -> tuple[list[str], list[str], int]:
    """Templates of both labels, and how many abnormal ones are descriptions."""
    if config.details == "none":
        if config.learner == "fixed":
            return ["normal {}"], ["anomalous {}"], 0
        return ["{}"], ["{}"], 0  # Table 3: all words but the class are learned
    fine = [f"abnormal {{}} with {_literal(t)}" for t in types] if config.details == "fine" else []
    return list(NORMAL_STATES), [*fine, *BROKEN_STATES], len(fine)


def _literal(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


def _sentence(state: str, config: Prompt) -> str:
    if config.learner != "fixed":
        return f"{' '.join(['X'] * config.n_ctx)} {state}."
    return f"A photo of {bank.article(state)} {state}."
