"""How many of a dataset's defect folders the texts name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from zsad.data.catalog import load_spec
from zsad.data.synthetic.generator import CATEGORIES
from zsad.prompt_bank.bank import bank
from zsad.prompt_bank.checks import folder_names, names_defect, review


def test_a_text_names_a_folder_by_its_name_or_by_other_words() -> None:
    texts = ["Fine scratches dull the shell.", "One half is squeezed, so that it buckles."]
    assert names_defect(texts, "scratch", ["scrape"])
    assert names_defect(texts, "gray_stroke", ["half squeeze"])  # in any order
    assert not names_defect(texts, "gray_stroke", ["scratches squeezed"])  # in different texts
    assert not names_defect(texts, "crack", ["split"])
    assert not names_defect(["an etched line"], "scratch", ["tch"])  # the beginnings of words


def test_folders_are_counted_by_dataset_and_kind() -> None:
    reviews = {
        (r.kind, r.dataset): r
        for r in review(bank(), ["alfa", "filo", "kanoclip"], ["mvtec", "visa"], lambda text: 5)
    }
    assert {r.folders for r in reviews.values() if r.dataset == "mvtec"} == {68}
    # Written by people who know the folders, and by GPT-4 for FiLo's authors.
    assert reviews["alfa", "mvtec"].unnamed == ["cable/cut_inner_insulation"]
    assert reviews["alfa", "mvtec"].named == 67
    assert reviews["filo", "mvtec"].named == 17
    visa = reviews["alfa", "visa"]  # its folders name no kind of defect
    assert (visa.folders, visa.named, visa.unnamed) == (0, 0, [])


def test_folders_of_several_words_are_leaks() -> None:
    assert {"broken large", "bent lead", "parts mismatch", "cut selvage"} <= folder_names()
    assert "crack" not in folder_names()


def test_definitions_hold_the_folders_that_there_are(shared_dir: Path) -> None:
    leather = load_spec("mvtec").defects["leather"]
    found = {p.name for p in (shared_dir / "data/mvtec/leather/test").iterdir() if p.is_dir()}
    assert set(leather) == found - {"good"}


def test_the_generated_dataset_lists_what_it_draws() -> None:
    drawn = {
        name: {d.replace(" ", "_") for d in kind.defects}
        for name, kind in CATEGORIES.items()
        if kind.group == "test"
    }
    assert {c: set(d) for c, d in load_spec("synthetic").defects.items()} == drawn


def test_a_folder_of_a_category_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="no category 'botle'"):
        replace(load_spec("mvtec"), defects={"botle": {"crack": ("split",)}})
