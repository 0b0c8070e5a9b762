"""A dataset, a backbone and the commands that the tests of faults run on them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests import small_clip
from tests.fault.process import Done
from tests.runner.conftest import DEFINITION, SIZE, write_dataset

CATEGORIES = ("bolt", "cloth")


@dataclass(frozen=True)
class Place:
    """``root``: the folder of the dataset ``things``, its definition and the weights."""

    root: Path

    @property
    def images(self) -> Path:
        return self.root / "things"

    @classmethod
    def make(cls, root: Path, recipe: ModuleType, count: int = 4) -> Place:
        root.mkdir(parents=True, exist_ok=True)
        write_dataset(root / "things", CATEGORIES, count=count)
        text = DEFINITION.format(name="faulty", root=root / "things")
        (root / "faulty.yaml").write_text(text)
        small_clip.write(recipe, root / "clip.pt")
        return cls(root)

    def _common(self, results: Path) -> list[str]:
        return [
            *("--backbone", "file", "--results", str(results), "--device", "cpu", "--json"),
            *(f"backbone.weights={self.root / 'clip.pt'}", f"backbone.image_size={SIZE}"),
        ]

    def bench(self, results: Path, *more: str, methods: str = "clip,winclip") -> list[str]:
        """``zsad bench`` in batches of two images."""
        names = ["bench", "--methods", methods, "--datasets", str(self.root / "faulty.yaml")]
        return [*names, *self._common(results), "run.batch_size=2", *more]

    def predict(self, out: Path, *more: str) -> list[str]:
        """``zsad predict`` of eight pictures, with all files."""
        names = ["predict", "--method", "winclip", "--class-name", "bolt", "--out", str(out)]
        file = [f"backbone.weights={self.root / 'clip.pt'}", f"backbone.image_size={SIZE}"]
        where = [str(self.images / "bolt" / "test"), "--backbone", "file", "--device", "cpu"]
        return [*names, *where, *file, *more]

    def train(self, results: Path, *more: str) -> list[str]:
        """``zsad train`` of one method with two seeds, two epochs each."""
        names = ["train", "--methods", "anomalyclip", "--on", str(self.root / "faulty.yaml")]
        small = ("epochs=2", "batch_size=6")
        settings = [*(f"anomalyclip.train.{s}" for s in small), "anomalyclip.deep.depth=2"]
        return [*names, *self._common(results), "--seeds", "0,1", *settings, *more]


def document(done: Done) -> dict[str, Any]:
    """The JSON document that a command printed."""
    found: dict[str, Any] = json.loads(done.out)
    return found


def numbers(done: Done) -> dict[tuple[str, str], dict[str, float | None]]:
    """The metrics of every cell of ``zsad bench --json``."""
    return {(c["method"], c["category"]): c["metrics"] for c in document(done)["cells"]}


def assert_same(found: dict[Any, Any], expected: dict[Any, Any]) -> None:
    """Equal cells with equal metrics.

    Not to the bit: a resumed run merges fewer requests for features, and sums may be taken in
    another order.
    """
    assert found.keys() == expected.keys()
    for key, metrics in expected.items():
        assert found[key] == pytest.approx(metrics, abs=1e-5), key


def written(results: Path, pattern: str) -> dict[Path, int]:
    """Files of a results folder with the time at which they were written."""
    return {p: p.stat().st_mtime_ns for p in results.glob(pattern)}


def leftovers(results: Path) -> list[Path]:
    """What only a process that was killed leaves behind."""
    names = ("*.tmp", "*.lock", "zsad-features-*", "resume.pt")
    return sorted(p for name in names for p in results.rglob(name))
