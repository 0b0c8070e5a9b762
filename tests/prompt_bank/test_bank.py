"""The prompt bank: whom it finds, what it refuses, and which folder wins."""

from __future__ import annotations

from pathlib import Path

import pytest

from zsad.errors import DataError, RequestError
from zsad.prompt_bank.bank import PromptBank, article, bank, read_entries
from zsad.types import Category

FILE = """kind: filo
dataset: {dataset}
provenance: {{source: curated}}
categories:
  metal_nut: {{class_name: metal nut, anomaly_types: [{types}]}}
"""


def write(root: Path, types: str, dataset: str = "toy") -> Path:
    path = root / "filo" / f"{dataset}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(FILE.format(dataset=dataset, types=types))
    return path


def test_the_nearest_entry_is_found(tmp_path: Path) -> None:
    write(tmp_path, "bent tooth", "toy")
    write(tmp_path, "rust", "another")
    own = PromptBank(tmp_path)

    def types(*words: str) -> list[str]:
        found = own.find("filo", Category(*words))
        return found.texts["anomaly_types"] if found else []

    assert types("toy", "metal_nut", "metal nut") == ["bent tooth"]
    assert types("another", "metal_nut", "metal nut") == ["rust"]
    assert types("elsewhere", "part7", "Metal-Nut") == ["rust"]  # by class name, first file
    assert types("elsewhere", "washer", "washer") == []


def test_an_overlay_wins(tmp_path: Path) -> None:
    write(tmp_path / "bundled", "bent tooth")
    write(tmp_path / "own", "my own words")
    both = PromptBank(tmp_path / "bundled", tmp_path / "own")
    found = both.find("filo", Category("toy", "metal_nut", "metal nut"))
    assert found is not None
    assert found.texts["anomaly_types"] == ["my own words"]
    assert len(both.entries("filo")) == 1


@pytest.mark.parametrize(
    ("types", "message"),
    [("", "must be a list of texts"), ("3", "must be a list of texts"), ("' '", "an empty text")],
)
def test_broken_files_are_named(tmp_path: Path, types: str, message: str) -> None:
    path = write(tmp_path, types)
    with pytest.raises(DataError, match=f"categories.metal_nut.anomaly_types.*{message}") as error:
        read_entries(path, "filo")
    assert str(path) in str(error.value)


def test_an_unknown_kind_suggests_the_nearest() -> None:
    with pytest.raises(RequestError, match="did you mean 'filo'"):
        bank().entries("fillo")


def test_the_article_follows_the_first_letter() -> None:
    words = ("industrial photo", "photo", "Abnormal nut", "")
    assert [article(w) for w in words] == ["an", "a", "an", "a"]


def test_an_entry_says_which_file_it_stands_in() -> None:
    bottle = bank().find("alfa", Category("", "bottle", "bottle"))
    assert bottle is not None
    assert bottle.origin == "prompts_cache/alfa/mvtec.yaml"
