"""Reviews the prompt bank: complete, of sensible length, consistent, free of labels' names.

No torch here; counting tokens loads open_clip's tokenizer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

from zsad import registry
from zsad.data.catalog import load_spec
from zsad.errors import counted
from zsad.prompt_bank.bank import BankEntry, PromptBank
from zsad.prompt_bank.kinds import PromptKind, TextList, find_kind
from zsad.prompt_bank.parsing import SUSPICIOUS, contradicts

CONTEXT = 77  # CLIP's positions, start and end of text included
# A defect folder's name in a text is a leak when it could come only from the folder: joined by an
# underscore, with a trailing number, or several words one to one (the papers' lists of anomaly
# types are quoted as printed and exempt).
FOLDER_FORM = re.compile(
    r"\b[a-z]+_[a-z_]+\b|\.(?:png|jpe?g|bmp|tiff?|ya?ml|json)\b", re.IGNORECASE
)


@dataclass
class DatasetReview:
    """One kind of texts of one dataset.  ``counts``: texts per category, by list.

    ``folders``: how many of the dataset's folders name a kind of defect, and ``named``, how many of
    those the texts about their category name, too; ``unnamed``: the others, ``category/folder``.
    Texts that name them were written by someone, or something, that knew the test images.
    """

    kind: str
    dataset: str
    categories: int
    counts: dict[str, list[int]] = field(default_factory=dict)
    longest: int = 0
    source: str = ""
    folders: int = 0
    named: int = 0
    unnamed: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def review(
    bank: PromptBank,
    kinds: Sequence[str],
    datasets: Iterable[str],
    tokens: Callable[[str], int],
) -> list[DatasetReview]:
    """Check every category of ``datasets``.  ``tokens``: length of a text, both ends counted."""
    out = []
    for kind in kinds:
        rules = find_kind(kind)
        entries = {(e.dataset, e.category): e for e in bank.entries(kind)}
        for name in datasets:
            spec = load_spec(name)
            found = DatasetReview(kind, name, len(spec.categories))
            for key, category in spec.categories.items():
                entry = entries.get((name, key))
                if entry is None:
                    found.problems.append(
                        f"{key}: no texts; make them with "
                        f"`zsad prompts generate --kind {kind} --datasets {name}`"
                    )
                    continue
                found.source = str(entry.provenance.get("source", ""))
                # The papers speak of a "pcb" where the spoken name here is longer.
                if found.source != "paper" and entry.class_name != category.prompt:
                    found.problems.append(
                        f"{key}: class_name '{entry.class_name}' is not '{category.prompt}'"
                    )
                _review_entry(entry, rules, found, tokens)
                _count_folders(entry, rules, spec.defects.get(key, {}), found)
            known = set(spec.categories)
            strangers = sorted(c for d, c in entries if d == name and c not in known)
            found.problems += [f"{c}: no such category of {name}" for c in strangers]
            out.append(found)
    return out


def _count_folders(
    entry: BankEntry,
    kind: PromptKind,
    folders: Mapping[str, Sequence[str]],
    found: DatasetReview,
) -> None:
    """Count the defect folders of a category that its texts about the abnormal name."""
    lists = [known.name for known in kind.lists if known.label == "abnormal"]
    texts = [t for name in lists for t in entry.texts.get(name, ())]
    for folder, words in folders.items():
        if words:
            found.folders += 1
            if names_defect(texts, folder, words):
                found.named += 1
            else:
                found.unnamed.append(f"{entry.category}/{folder}")


def names_defect(texts: Iterable[str], folder: str, words: Iterable[str]) -> bool:
    """Whether a text names the defect of a folder: by its name, or by one of ``words``.

    All words of a phrase have to begin words of the same text, in any order: "scratch" is named by
    "scratches".
    """
    phrases = [p.lower().split() for p in (folder.replace("_", " "), *words)]
    for text in texts:
        spoken = re.findall(r"[a-z]+", text.lower())
        if any(all(any(s.startswith(w) for s in spoken) for w in p) for p in phrases):
            return True
    return False


@cache
def folder_names() -> frozenset[str]:
    """The bundled datasets' defect folders of several words, as they are spoken."""
    specs = map(load_spec, registry.yaml_names("datasets"))
    folders = {f.replace("_", " ") for s in specs for d in s.defects.values() for f in d}
    return frozenset(name for name in folders if " " in name)


def _review_entry(
    entry: BankEntry, kind: PromptKind, found: DatasetReview, tokens: Callable[[str], int]
) -> None:
    paper = entry.provenance.get("source") == "paper"
    for known in kind.lists:
        if known.name not in entry.texts:  # a list that an entry may do without
            continue
        texts, where = entry.texts[known.name], f"{entry.category}.{known.name}"
        found.counts.setdefault(known.name, []).append(len(texts))
        least, most = known.least, known.most
        if not least <= len(texts) <= most:
            found.problems.append(
                f"{where}: {counted(len(texts), 'text')}, expected {least} to {most}"
            )
        plain = [" ".join(t.lower().split()).rstrip(".") for t in texts]
        for text in sorted({t for t in plain if plain.count(t) > 1}):
            found.problems.append(f"{where}: twice '{text}'")
        for text in texts:
            length = tokens(text)
            found.longest = max(found.longest, length)
            problems = form_problems(text, length)
            if not paper:
                problems += wording_problems(text, known, kind, entry.class_name)
            for problem in problems:
                found.problems.append(f"{where}: {problem}: '{text}'")


def form_problems(text: str, length: int) -> list[str]:
    """What is wrong with the form of a text.  ``length``: in CLIP tokens, both ends counted."""
    problems = []
    if length > CONTEXT:
        problems.append(f"{length} tokens, more than {CONTEXT}")
    if SUSPICIOUS.search(text):
        problems.append("not a description")
    return problems


def wording_problems(text: str, target: TextList, kind: PromptKind, class_name: str) -> list[str]:
    """What is wrong with the words of a text that is not quoted from a paper."""
    problems = []
    if FOLDER_FORM.search(text) or " ".join(text.lower().rstrip(".").split()) in folder_names():
        problems.append("spelt like a file or defect folder")
    if contradicts(text, target.label):
        problems.append(f"contradicts its label '{target.label}'")
    return problems + kind.problems(text, target, class_name)


def clip_tokens() -> Callable[[str], int]:
    """Return the length in CLIP tokens of a text, start and end included (imports open_clip)."""
    from zsad.torchvision_compat import open_clip

    tokenizer = open_clip.tokenizer.SimpleTokenizer()
    return lambda text: len(tokenizer.encode(text)) + 2
