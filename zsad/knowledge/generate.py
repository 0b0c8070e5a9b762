"""Asks about categories or training images, and composes the answers into files of the bank.

Every answer is kept as soon as it is there; asking again costs nothing.  Texts come from the
cached answers alone, so that the parser can be improved without new requests.
"""

from __future__ import annotations

import base64
import io
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
from zsad.errors import RequestError
from zsad.io import atomic_write_text
from zsad.knowledge import parse
from zsad.knowledge.answers import AnswerStore
from zsad.knowledge.check import COUNTS, clip_tokens, label_of
from zsad.knowledge.endpoint import BudgetSpent, Endpoint, EndpointOptions, NoAnswer
from zsad.knowledge.vision import vision_query
from zsad.prompts import KINDS
from zsad.types import Category, Sample

IMAGE_SIDE = 768  # pixels: images are sent no larger
EXTRA_ROUNDS = 2  # ask again this often when too few texts are left


@dataclass(frozen=True)
class Query:
    """One question about a category.  ``target``: the list that its answer goes into."""

    prompt: str
    target: str
    samples: int
    temperature: float


def queries(kind: str, category: Category) -> list[Query]:
    """The questions of a kind; see the methods' papers and READMEs for what each asks."""
    name = category.class_name
    if kind == "filo":
        return [
            Query(
                f"Which kinds of visible anomalies can occur on {name} in {category.domain} "
                "images? Answer with a JSON list of 4 to 10 short phrases in English, each of at "
                "most eight words, and nothing else.",
                "anomaly_types",
                1,
                0.0,
            )
        ]
    if kind == "kanoclip":
        prompt = f"Describe what an abnormal image of {name} looks like?"
        return [Query(prompt, "abnormal", 5, 0.7)]
    return _alfa_queries(name)


def _alfa_queries(name: str) -> list[Query]:
    """ALFA's: five per label (Sec. 4.2), with syntactic consistency (Sec. 5.3) and without, and
    the interpretability query (Sec. 5.4)."""
    asked = []
    for label, article in (("normal", "a"), ("abnormal", "an")):
        thing = f"{article} {label} {name}"
        start = f"{article.capitalize()} {label} image of {name}"
        for question in (
            f"How to identify {thing} in an image?",
            f"What does {thing} look like in an image?",
            f"Which visual signs show {thing} in an image?",
            f"How do color, shape and surface of {thing} appear in an image?",
            f"What does an inspector notice in an image of {thing}?",
        ):
            same = f'{question} Answer with a list; begin every item with "{start}".'
            asked.append(Query(same, label, 3, 0.7))
            asked.append(Query(f"{question} Answer with a list.", f"{label}_plain", 3, 0.7))
    reasons = (
        f"Q: What are useful descriptions for distinguishing an anomaly {name} in a photo?\n"
        f"A: There are several key descriptions to tell there is an anomaly {name} in a photo:\n-"
    )
    return [*asked, Query(reasons, "descriptors", 3, 0.7)]


def generate(
    kind: str,
    datasets: Sequence[str],
    out: Path,
    options: EndpointOptions,
    *,
    images: bool = False,
    limit: int = 0,
    data_root: Path | str | None = None,
) -> dict[str, Any]:
    """Ask what is not cached yet and write ``out/<kind>/<dataset>.yaml``.

    ``images``: ask about anomalous training images instead, at most ``limit`` per category.
    Returns ``{"requests", "cached", "files", "failed"}``.  Raises :class:`RequestError` when
    the endpoint refuses key or model; answers until then are kept.
    """
    asker = Asker(options, AnswerStore(out))
    failed: list[str] = []
    files: list[str] = []
    for name in datasets:
        if images:
            failed += _ask_images(asker, name, limit, data_root)
            continue
        spec = load_spec(name)
        made: dict[str, Any] = {}
        for key in spec.categories:
            texts, errors = _category(asker, kind, spec.category(key))
            failed += [f"{name}/{key}: {e}" for e in errors]
            if texts is not None:
                made[key] = {"class_name": spec.categories[key].prompt, **texts}
        if made:
            files.append(str(_write(out, kind, name, options, made)))
    return {
        "requests": asker.endpoint.requests,
        "cached": asker.cached,
        "files": files,
        "failed": failed,
    }


class Asker:
    """An endpoint with a memory."""

    def __init__(self, options: EndpointOptions, store: AnswerStore) -> None:
        self.options = options
        self.store = store
        self.endpoint = Endpoint(options)
        self.cached = 0

    def question(
        self, prompt: str, temperature: float, sample: int = 0, image: str = ""
    ) -> dict[str, Any]:
        """What identifies an answer."""
        return {
            "prompt": prompt,
            "model": self.options.model,
            "temperature": temperature,
            "max_tokens": self.options.max_tokens,
            "sample": sample,
            "image": image,
        }

    def ask_all(
        self,
        questions: Sequence[dict[str, Any]],
        good: Callable[[str], bool],
        picture: Callable[[int], str] | None = None,
    ) -> tuple[list[str | None], list[str]]:
        """Answers in order (None: none), and the reasons for those that are missing.

        ``good``: whether an answer is worth keeping.  ``picture``: the data URL of question i.
        """
        found = [self.store.get(q) for q in questions]
        self.cached += sum(a is not None for a in found)
        missing = [i for i, a in enumerate(found) if a is None]
        errors: list[str] = []

        def work(i: int) -> str:
            question = questions[i]
            url = picture(i) if picture else None
            for _ in range(1 + EXTRA_ROUNDS):
                answer = self.endpoint.ask(question["prompt"], question["temperature"], url)
                if good(answer):
                    self.store.put(question, answer)
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


def _category(
    asker: Asker, kind: str, category: Category
) -> tuple[dict[str, list[str]] | None, list[str]]:
    """The lists of one category, or None and why."""
    texts: dict[str, list[str]] = {}
    errors: list[str] = []
    tokens = clip_tokens()
    for target, (least, most) in COUNTS[kind].items():
        asked = [q for q in queries(kind, category) if q.target == target]
        found: list[str] = []
        for round_number in range(1 + EXTRA_ROUNDS):
            questions = [
                asker.question(q.prompt, q.temperature, round_number * q.samples + s)
                for q in asked
                for s in range(q.samples)
            ]
            answers, why = asker.ask_all(questions, partial(_holds_texts, kind, target, category))
            errors += why
            lists = [read(kind, a, target, category) for a in answers if a is not None]
            found = list(dict.fromkeys([*found, *_interleaved(lists)]))
            if len(found) >= least or why:
                break
        found = [parse.clipped(t, tokens) for t in found]
        found = list({t.lower().rstrip("."): t for t in reversed(found)}.values())[::-1]
        if len(found) >= least:
            texts[target] = spread(found, most)
        else:
            errors.append(f"{target}: {len(found)} usable texts, at least {least} are needed")
    complete = all(target in texts for target in KINDS[kind])
    return (texts if complete else None), list(dict.fromkeys(errors))


def read(kind: str, answer: str, target: str, category: Category) -> list[str]:
    """The usable texts of one answer."""
    if kind == "filo":
        return parse.anomaly_types(answer)
    if kind == "alfa":
        if target == "descriptors":
            return parse.anomaly_types(parse.continued(answer), COUNTS[kind][target][1])
        if target.endswith("_plain"):
            return parse.sentences(answer, label_of(target))
        return parse.descriptions(answer, target, category.class_name)
    return parse.sentences(answer, target)


def _holds_texts(kind: str, target: str, category: Category, answer: str) -> bool:
    return bool(read(kind, answer, target, category))


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


def _write(
    out: Path, kind: str, dataset: str, options: EndpointOptions, made: dict[str, Any]
) -> Path:
    values = {
        "kind": kind,
        "dataset": dataset,
        "provenance": {
            "source": "generated",
            "model": options.model,
            "date": datetime.now(timezone.utc).date().isoformat(),
            "samples": {q.target: q.samples for q in queries(kind, Category(dataset, "x", "x"))},
            "sha256": cfg.digest(made),
        },
        "categories": made,
    }
    text = yaml.safe_dump(values, sort_keys=False, width=100, allow_unicode=True)
    return atomic_write_text(out / kind / f"{dataset}.yaml", text)


# -------------------------------------------------------------------------------- images
def _ask_images(asker: Asker, dataset: str, limit: int, data_root: Path | str | None) -> list[str]:
    """Ask about every anomalous image that could be trained on; return what failed."""
    from zsad.data.index import load_index

    index = load_index(dataset, Path(data_root) if data_root else None)
    failed = []
    for key, category in index.categories.items():
        chosen = [s for s in index.samples if s.category == key and s.label]
        chosen = sorted(chosen, key=lambda s: s.uid)[: limit or None]
        prompt = vision_query(category)
        digests = [image_digest(s) for s in chosen]
        questions = [asker.question(prompt, 0.0, 0, d) for d in digests]
        _, errors = asker.ask_all(
            questions,
            lambda a: bool(parse.sentences(a, "abnormal")),
            partial(_picture, chosen),
        )
        failed += [f"{dataset}/{key}: {e}" for e in errors]
    return failed


def data_url(sample: Sample) -> str:
    """The image as a PNG data URL, its longest side at most :data:`IMAGE_SIDE` pixels."""
    image = read_image(sample.image, sample.crop)
    image.thumbnail((IMAGE_SIDE, IMAGE_SIDE))
    content = io.BytesIO()
    image.save(content, "PNG")
    return "data:image/png;base64," + base64.b64encode(content.getvalue()).decode()


def _picture(samples: Sequence[Sample], i: int) -> str:
    return data_url(samples[i])
