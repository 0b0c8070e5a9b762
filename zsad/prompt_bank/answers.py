"""The cache of models' answers: one JSON file each, written whole or not at all."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import platformdirs

from zsad.errors import DataError
from zsad.io import dump_json, read_json, write_json
from zsad.io.bounds import ANSWER

FIELDS = ("question", "answer", "model", "date", "sha256")


def answers_root() -> Path:
    """The folder of generated prompts: ``$ZSAD_PROMPTS``, or one in the user's cache."""
    return Path(os.environ.get("ZSAD_PROMPTS") or platformdirs.user_cache_path("zsad") / "prompts")


class AnswerStore:
    """Answers below ``root/answers``, by what was asked.

    A question is a mapping of JSON values: the prompt, the model, sampling parameters, the
    number of the sample and, for image queries, the image's digest.
    """

    def __init__(self, root: Path) -> None:
        self.folder = root / "answers"

    def path(self, question: Mapping[str, Any]) -> Path:
        """Where the answer to a question lies."""
        key = hashlib.sha256(dump_json(question, None).encode()).hexdigest()[:32]
        return self.folder / key[:2] / f"{key}.json"

    def get(self, question: Mapping[str, Any]) -> str | None:
        """Return the cached answer.  A damaged file counts as missing: it is asked for again."""
        try:
            record = self._checked(self.path(question))
        except DataError:
            return None
        return str(record["answer"]) if record["question"] == dict(question) else None

    def put(self, question: Mapping[str, Any], answer: str) -> Path:
        """Keep an answer with its question, date and content hash."""
        record = {
            "question": dict(question),
            "answer": answer,
            "model": question.get("model", ""),
            "date": datetime.now(timezone.utc).date().isoformat(),
            "sha256": hashlib.sha256(answer.encode()).hexdigest(),
        }
        return write_json(self.path(question), record)

    def record(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """Return the whole record.  Raises :class:`DataError` for a missing or damaged one."""
        return self._checked(self.path(question))

    def images(self) -> dict[tuple[str, str], list[dict[str, Any]]]:
        """The answers about images, by (image digest, prompt), in the order in which they were
        asked for.  Of several models' answers those of the smallest model name are taken."""
        found: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for path in sorted(self.folder.glob("*/*.json")):
            try:
                record = self._checked(path)
            except DataError:
                continue
            question = record["question"]
            if question.get("image"):
                key = (str(question["image"]), str(question.get("prompt")))
                found.setdefault(key, []).append(record)
        return {key: _of_one_model(records) for key, records in found.items()}

    def broken(self) -> list[Path]:
        """The files that are not whole answers, sorted; each counts as missing."""
        found = []
        for path in sorted(self.folder.glob("*/*.json")):
            try:
                self._checked(path)
            except DataError:
                found.append(path)
        return found

    @staticmethod
    def _checked(path: Path) -> dict[str, Any]:
        record = read_json(path)
        whole = isinstance(record, dict) and all(k in record for k in FIELDS)
        if not whole or not isinstance(record["question"], dict):
            raise DataError(f"{path}: not a cached answer; delete it, it is asked for again")
        answer = record["answer"]
        if not isinstance(answer, str) or len(answer) > ANSWER.value():
            raise DataError(f"{path}: its answer is not a text within the limit; delete the file")
        # half of a character, which JSON can hold, is in no answer that was kept
        if hashlib.sha256(answer.encode("utf-8", "replace")).hexdigest() != record["sha256"]:
            raise DataError(f"{path}: the answer does not match its hash; delete the file")
        return dict(record)


def _of_one_model(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those of the smallest model name, in the order of their samples."""
    first = min(str(r["model"]) for r in records)
    chosen = [r for r in records if str(r["model"]) == first]
    return sorted(chosen, key=lambda r: str(r["question"].get("sample", 0)).zfill(9))
