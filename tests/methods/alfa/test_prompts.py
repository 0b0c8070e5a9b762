"""ALFA's prompts: the template's 72 per label, the bank's descriptions, the notice without one."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from zsad import registry
from zsad.data.catalog import load_spec, select_datasets
from zsad.methods.alfa.prompts import (
    LABELS,
    build_prompts,
    stem,
    template_prompts,
    with_stem,
    without_stem,
)
from zsad.types import Category

CONFIG = registry.method("alfa").resolve()
GADGET = Category("toy", "blue_gadget", "blue gadget")


@pytest.mark.parametrize("domain", ["industrial", "medical"])
def test_72_distinct_prompts_per_label(domain: str) -> None:
    prompts = template_prompts("metal nut", domain, (6, 4, 3))
    for label in LABELS:
        assert len(set(prompts[label])) == 72
        assert all("metal nut" in p and "{" not in p for p in prompts[label])
    assert not set(prompts["normal"]) & set(prompts["abnormal"])


def test_wording_by_hand() -> None:
    industrial = template_prompts("cable", "industrial", (6, 4, 3))
    assert industrial["normal"][0] == "An industrial image of a normal cable"
    assert "A cropped image of an intact cable with no visible defect" in industrial["normal"]
    assert (
        "A close-up image of an abnormal cable with an irregular region" in industrial["abnormal"]
    )
    medical = template_prompts("brain", "medical", (6, 4, 3))
    assert "A clinical image of an unhealthy brain with a visible lesion" in medical["abnormal"]


def test_a_smaller_grid_takes_the_first_words() -> None:
    small = template_prompts("cable", "industrial", (2, 3, 1))
    assert len(small["normal"]) == 6
    assert set(small["normal"]) <= set(template_prompts("cable", "industrial", (6, 4, 3))["normal"])


def test_the_domain_comes_from_the_category() -> None:
    brain = Category("toy", "brain", "brain", domain="medical")
    llm = replace(CONFIG.llm, enabled=False)
    assert "A medical image" in build_prompts(brain, CONFIG.template, llm).template["normal"][0]
    forced = replace(CONFIG.template, domain="industrial")
    assert "An industrial image" in build_prompts(brain, forced, llm).template["normal"][0]


def test_stems() -> None:
    assert with_stem("with a deep scratch", "abnormal", "cable") == (
        "An abnormal image of cable with a deep scratch"
    )
    assert with_stem("torn insulation", "abnormal", "cable") == (
        "An abnormal image of cable, torn insulation"
    )
    complete = "A normal image of a cable with smooth insulation"
    assert with_stem(complete, "normal", "cable") == complete
    assert without_stem(complete, "normal", "cable") == "cable with smooth insulation"
    assert without_stem("torn insulation", "abnormal", "cable") == "torn insulation"


@pytest.fixture
def bank_file(tmp_path: Path) -> Path:
    texts = {
        "class_name": "blue gadget",
        "normal": ["A normal image of blue gadget with an even colour", "smooth edges"],
        "abnormal": [
            "An abnormal image of blue gadget with a crack",
            "An abnormal image of blue gadget with a stain",
            "An abnormal image of blue gadget with a crack",
        ],
        "descriptors": ["a crack across the face"],
    }
    path = tmp_path / "gadgets.yaml"
    path.write_text(
        yaml.safe_dump(
            {
                "kind": "alfa",
                "dataset": "toy",
                "provenance": {"source": "written for a test"},
                "categories": {"blue_gadget": texts},
            }
        )
    )
    return path


def test_the_banks_descriptions_follow_the_templates(bank_file: Path) -> None:
    prompts = build_prompts(GADGET, CONFIG.template, replace(CONFIG.llm, bank=str(bank_file)))
    assert len(prompts.texts("normal")) == 74
    assert prompts.texts("normal")[73] == "A normal image of blue gadget, smooth edges"
    assert prompts.llm["abnormal"] == [
        "An abnormal image of blue gadget with a crack",
        "An abnormal image of blue gadget with a stain",
    ]
    assert prompts.descriptors == ["a crack across the face"]
    assert prompts.digest


def test_without_the_suffix_the_stem_goes(bank_file: Path) -> None:
    llm = replace(CONFIG.llm, bank=str(bank_file), suffix=False, limit=1)
    prompts = build_prompts(GADGET, CONFIG.template, llm)
    assert prompts.llm == {
        "normal": ["blue gadget with an even colour"],
        "abnormal": ["blue gadget with a crack"],
    }


@pytest.mark.parametrize("name", [*select_datasets("extended"), "synthetic"])
def test_the_bundled_bank_has_both_forms_and_descriptors(name: str) -> None:
    """With the stem and without, as much of either; totals within the paper's 88 to 216."""
    spec = load_spec(name)
    for category in map(spec.category, spec.categories):
        same = build_prompts(category, CONFIG.template, CONFIG.llm)
        free = build_prompts(category, CONFIG.template, replace(CONFIG.llm, suffix=False))
        assert same.origin == f"bank {name}/{category.key}"
        for label in LABELS:
            start = stem(label, category.class_name)
            assert all(t.startswith(start) for t in same.llm[label])
            assert not any(label in t.split()[:2] for t in free.llm[label])
            assert len(same.llm[label]) == len(free.llm[label]) >= 16
            assert 88 <= len(set(same.texts(label))) == len(same.texts(label)) <= 216
        assert len(same.descriptors) >= 5
        assert not set(same.descriptors) & {t for label in LABELS for t in free.texts(label)}


def test_an_unknown_category_gets_templates_and_a_notice(
    bank_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    unknown = Category("toy", "sprocket", "sprocket")
    with caplog.at_level(logging.WARNING):
        prompts = build_prompts(unknown, CONFIG.template, replace(CONFIG.llm, bank=str(bank_file)))
    assert len(prompts.texts("abnormal")) == 72
    assert prompts.origin == "template"
    assert "no generated prompts for toy/sprocket" in caplog.text
