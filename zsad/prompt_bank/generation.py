"""Asks about categories or training images, and composes the answers into files of the bank.

Every answer is kept as soon as it is there; asking again costs nothing.  Texts come from the
cached answers alone, so that the parser can be improved without new requests.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from zsad import config as cfg
from zsad.data.catalog import load_spec
from zsad.data.images import image_digest, read_image
from zsad.data.index import DatasetIndex, load_index
from zsad.errors import RequestError, counted
from zsad.io import atomic_write_text
from zsad.prompt_bank import parsing
from zsad.prompt_bank.answers import AnswerStore
from zsad.prompt_bank.checks import clip_tokens
from zsad.prompt_bank.endpoint import BudgetSpent, Endpoint, EndpointOptions, NoAnswer
from zsad.prompt_bank.kinds import PromptKind, TextList, find_kind, image_query_of
from zsad.types import Category, Sample

IMAGE_SIDE = 768  # pixels: images are sent no larger
OWN = "default"  # the temperature of an answer whose model takes none
MORE = 0.7  # temperature of a second answer about an image, and of further ones
EXTRA_ROUNDS = 2  # ask again this often when too few texts are left


@dataclass(frozen=True)
class ImageOptions:
    """Which training images are asked about.  ``limit``: at most so many per category, anomalous
    ones first, 0 = all.  ``normal``: normal ones, too.  ``answers``: how many per image."""

    limit: int = 0
    normal: bool = False
    answers: int = 1

    def __post_init__(self) -> None:
        if self.limit < 0 or self.answers < 1:
            raise ValueError("limit must be 0 or more, answers 1 or more")


def generate(
    kind: str,
    datasets: Sequence[str],
    out: Path,
    options: EndpointOptions,
    *,
    images: ImageOptions | None = None,
    data_root: Path | str | None = None,
) -> dict[str, Any]:
    """Ask what is not cached yet and write ``out/<kind>/<dataset>.yaml``.

    ``images``: ask about training images instead.
    Returns ``{"requests", "cached", "files", "failed", "notes"}``.  Raises :class:`RequestError`
    for a kind that does not exist or that asks nothing about images, and when the endpoint refuses
    key or model; answers until then are kept.
    """
    wanted = find_kind(kind)
    about_images = image_query_of(wanted) if images else None
    asker = Asker(options, AnswerStore(out))
    failed: list[str] = []
    files: list[str] = []
    notes: list[str] = []
    for name in datasets:
        if images is not None and about_images is not None:
            index = load_index(name, Path(data_root) if data_root else None)
            failed += ask_images(asker, about_images, index, images, notes)
            continue
        spec = load_spec(name)
        categories = [spec.category(key) for key in spec.categories]
        _describe(asker, wanted, name, categories, out, files, failed)
    return _report(asker, files, failed, notes)


def generate_words(
    kinds: Sequence[str], class_names: Sequence[str], out: Path, options: EndpointOptions
) -> dict[str, Any]:
    """Ask for texts about products of one's own and write ``out/<kind>/<product>.yaml``: with
    ``$ZSAD_PROMPTS=out`` methods find them by the class name.  Returns and raises as
    :func:`generate` does."""
    asker = Asker(options, AnswerStore(out))
    failed: list[str] = []
    files: list[str] = []
    for kind in kinds:
        for category in map(product, class_names):
            _describe(asker, find_kind(kind), category.key, [category], out, files, failed)
    return _report(asker, files, failed)


def product(class_name: str) -> Category:
    """The category of a product's spoken name; its key, which names a file, has plain letters,
    digits and underscores.  Raises :class:`RequestError` for a name without any."""
    spoken = " ".join(class_name.replace("_", " ").split())
    key = "_".join(re.findall(r"\w+", spoken.lower()))
    if not key:
        raise RequestError(
            f"--class-name {class_name!r}: say what pictures show, such as 'gearbox cover'"
        )
    return Category(key[:100], key[:100], spoken)


def questions_left(
    kinds: Sequence[str], categories: Sequence[Category], out: Path, options: EndpointOptions
) -> int:
    """How many requests the texts of categories take at first: what is cached is not asked again;
    what comes back unusable or too short is."""
    store = AnswerStore(out)
    left = 0
    for kind in map(find_kind, kinds):
        for category in categories:
            for query in kind.queries(category):
                asked = [_question(options, query.prompt, query.temperature, s)
                         for s in range(query.samples)]  # fmt: skip
                left += sum(_cached(store, question) is None for question in asked)
    return left


def _describe(
    asker: Asker,
    kind: PromptKind,
    dataset: str,
    categories: Sequence[Category],
    out: Path,
    files: list[str],
    failed: list[str],
) -> None:
    """Ask about the categories of one file and write it; add to ``files`` and ``failed``."""
    made: dict[str, Any] = {}
    for category in categories:
        texts, errors = _category(asker, kind, category)
        failed += [f"{dataset}/{category.key}: {e}" for e in errors]
        if texts is not None:
            made[category.key] = {"class_name": category.class_name, **texts}
    if made:
        files.append(str(_write(out, kind, dataset, asker, made)))


def _report(
    asker: Asker, files: list[str], failed: list[str], notes: Sequence[str] = ()
) -> dict[str, Any]:
    return {
        "requests": asker.endpoint.requests,
        "cached": asker.cached,
        "files": files,
        "failed": failed,
        "notes": list(notes),
    }


class Asker:
    """An endpoint with a memory."""

    def __init__(self, options: EndpointOptions, store: AnswerStore) -> None:
        self.options = options
        self.store = store
        self.endpoint = Endpoint(options)
        self.cached = 0
        self.own_sampling = False  # whether an answer's model took no temperature

    def question(
        self, prompt: str, temperature: float, sample: int = 0, image: str = ""
    ) -> dict[str, Any]:
        """What identifies an answer."""
        return _question(self.options, prompt, temperature, sample, image)

    def ask_all(
        self,
        questions: Sequence[dict[str, Any]],
        good: Callable[[str], bool],
        picture: Callable[[int], str] | None = None,
    ) -> tuple[list[str | None], list[str]]:
        """Answers in order (None: none), and the reasons for those that are missing.

        ``good``: whether an answer is worth keeping.  ``picture``: the data URL of question i.
        """
        found = [_cached(self.store, q) for q in questions]
        self.cached += sum(a is not None for a in found)
        self.own_sampling |= any(self.store.get(_own_sampling(q)) is not None for q in questions)
        missing = [i for i, a in enumerate(found) if a is None]
        errors: list[str] = []

        def work(i: int) -> str:
            question = questions[i]
            url = picture(i) if picture else None
            for _ in range(1 + EXTRA_ROUNDS):
                answer = self.endpoint.ask(question["prompt"], question["temperature"], url)
                if good(answer):
                    sent = self.endpoint.shape.temperature
                    self.own_sampling |= not sent
                    self.store.put(question if sent else _own_sampling(question), answer)
                    return answer
            raise NoAnswer("the answers hold no usable description")

        with ThreadPoolExecutor(self.options.concurrency) as pool:
            futures = [(i, pool.submit(work, i)) for i in missing]
            try:
                for i, future in futures:
                    try:
                        found[i] = future.result()
                    except (BudgetSpent, NoAnswer) as error:
                        errors.append(str(error))
            except RequestError:
                pool.shutdown(cancel_futures=True)
                raise
        return found, list(dict.fromkeys(errors))


def _question(
    options: EndpointOptions, prompt: str, temperature: float, sample: int = 0, image: str = ""
) -> dict[str, Any]:
    return {
        "prompt": prompt,
        "model": options.model,
        "temperature": temperature if options.temperature else OWN,
        "max_tokens": options.max_tokens,
        "sample": sample,
        "image": image,
    }


def _own_sampling(question: dict[str, Any]) -> dict[str, Any]:
    """The question as it was asked of a model that takes no temperature."""
    return {**question, "temperature": OWN}


def _cached(store: AnswerStore, question: dict[str, Any]) -> str | None:
    found = store.get(question)
    return store.get(_own_sampling(question)) if found is None else found


def _category(
    asker: Asker, kind: PromptKind, category: Category
) -> tuple[dict[str, list[str]] | None, list[str]]:
    """The lists of one category, or None and why."""
    texts: dict[str, list[str]] = {}
    errors: list[str] = []
    tokens = clip_tokens()
    for target in kind.lists:
        least = max(target.least, target.asked)
        asked = [q for q in kind.queries(category) if q.target == target.name]
        found: list[str] = []
        for round_number in range(1 + EXTRA_ROUNDS):
            questions = [
                asker.question(q.prompt, q.temperature, round_number * q.samples + s)
                for q in asked
                for s in range(q.samples)
            ]
            answers, why = asker.ask_all(questions, partial(_holds_texts, kind, target, category))
            errors += why
            lists = [kind.read(a, target, category) for a in answers if a is not None]
            found = list(dict.fromkeys([*found, *_interleaved(lists)]))
            if len(found) >= least or why:
                break
        found = parsing.distinct([parsing.clipped(t, tokens) for t in found])
        if len(found) >= least:
            texts[target.name] = spread(found, target.most)
        else:
            errors.append(
                f"{target.name}: {counted(len(found), 'usable text')}, at least {least} needed"
            )
    complete = all(name in texts for name in kind.required)
    return (texts if complete else None), list(dict.fromkeys(errors))


def _holds_texts(kind: PromptKind, target: TextList, category: Category, answer: str) -> bool:
    return bool(kind.read(answer, target, category))


def spread(texts: Sequence[str], most: int) -> list[str]:
    """At most ``most`` texts, each the farthest (in words shared) from those chosen before.

    Ours: the choice needs no encoder, so that the files do not depend on a backbone.
    """
    if len(texts) <= most:
        return list(texts)
    words = [set(t.lower().split()) for t in texts]
    chosen = [0]
    nearest = [_overlap(words[0], w) for w in words]
    while len(chosen) < most:
        taken = set(chosen)
        best = min((i for i in range(len(texts)) if i not in taken), key=lambda i: (nearest[i], i))
        chosen.append(best)
        nearest = [max(n, _overlap(words[best], w)) for n, w in zip(nearest, words)]
    return [texts[i] for i in sorted(chosen)]


def _overlap(a: set[str], b: set[str]) -> float:
    return len(a & b) / max(1, len(a | b))


def _interleaved(lists: Sequence[Sequence[str]]) -> list[str]:
    """The first of every list, then the second ones, and so on."""
    longest = max(map(len, lists), default=0)
    return [texts[i] for i in range(longest) for texts in lists if i < len(texts)]


def _write(out: Path, kind: PromptKind, dataset: str, asker: Asker, made: dict[str, Any]) -> Path:
    sampling = {"temperature": OWN} if asker.own_sampling else {}
    values = {
        "kind": kind.name,
        "dataset": dataset,
        "provenance": {
            "source": "generated",
            "model": asker.options.model,
            **sampling,
            "date": datetime.now(timezone.utc).date().isoformat(),
            "samples": {q.target: q.samples for q in kind.queries(Category(dataset, "x", "x"))},
            "sha256": cfg.digest(made),
        },
        "categories": made,
    }
    text = yaml.safe_dump(values, sort_keys=False, width=100, allow_unicode=True)
    return atomic_write_text(out / kind.name / f"{dataset}.yaml", text)


# -------------------------------------------------------------------------------- images
def ask_images(
    asker: Asker,
    query: Callable[[Category], str],
    index: DatasetIndex,
    wanted: ImageOptions,
    notes: list[str],
) -> list[str]:
    """Ask about every image that could be trained on; return what failed.

    An answer that names nothing abnormal is kept: the image was asked about, and adds no text.
    ``notes`` says how many there are.
    """
    failed = []
    for key, category in index.categories.items():
        chosen = [s for s in index.samples if s.category == key and (s.label or wanted.normal)]
        chosen = sorted(chosen, key=lambda s: (not s.label, s.uid))[: wanted.limit or None]
        prompt = query(category)
        pairs = [(s, image_digest(s), n) for s in chosen for n in range(wanted.answers)]
        # further answers to the same question differ only if they are sampled
        questions = [asker.question(prompt, MORE if n else 0.0, n, d) for _, d, n in pairs]
        answers, errors = asker.ask_all(
            questions, parsing.answered, partial(_picture, [s for s, _, _ in pairs])
        )
        failed += [f"{index.spec.name}/{key}: {e}" for e in errors]
        silent = [a for a in answers if a is not None and not parsing.description(a, "abnormal")]
        if silent:
            notes.append(
                f"{index.spec.name}/{key}: {len(silent)} of {counted(len(answers), 'answer')} "
                f"name{'s' * (len(answers) == 1)} nothing abnormal and add no text"
            )
    return failed


def data_url(sample: Sample) -> str:
    """The image as a PNG data URL, its longest side at most :data:`IMAGE_SIDE` pixels."""
    image = read_image(sample.image, sample.crop, sample.bits)
    image.thumbnail((IMAGE_SIDE, IMAGE_SIDE))
    content = io.BytesIO()
    image.save(content, "PNG")
    return "data:image/png;base64," + base64.b64encode(content.getvalue()).decode()


def _picture(samples: Sequence[Sample], i: int) -> str:
    return data_url(samples[i])
