"""ALFA's prompts: the template's 72 per label, the bank's descriptions, the notice without one."""

from __future__ import annotations

import logging
import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.prompt_bank.server import serving
from zsad import registry
from zsad.cli.main import main
from zsad.data.catalog import load_spec, select_datasets
from zsad.errors import RequestError
from zsad.methods.alfa.prompts import (
    LABELS,
    build_prompts,
    stem,
    template_prompts,
    with_stem,
)
from zsad.prompt_bank.bank import bank
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


def test_without_the_suffix_a_model_s_own_texts_are_needed(bank_file: Path) -> None:
    """No text is rewritten, and no other row of Table 3 takes the place of this one."""
    free = replace(CONFIG.llm, suffix=False)
    for llm, category in (
        (replace(free, bank=str(bank_file)), GADGET),
        (free, Category("mvtec", "bottle", "bottle")),
        (free, Category("", "sprocket", "sprocket")),
    ):
        with pytest.raises(RequestError, match=r"suffix=false: .*`zsad prompts generate"):
            build_prompts(category, CONFIG.template, llm)
    values = yaml.safe_load(bank_file.read_text())
    plain = {f"{label}_plain": [f"{label} {i}" for i in (1, 2)] for label in LABELS}
    values["categories"]["blue_gadget"] |= plain
    bank_file.write_text(yaml.safe_dump(values))
    llm = replace(free, bank=str(bank_file), limit=1)
    assert build_prompts(GADGET, CONFIG.template, llm).llm == {
        "normal": ["normal 1"],
        "abnormal": ["abnormal 1"],
    }


@pytest.mark.parametrize(
    "category",
    [Category("elpv", "solar_cell", "solar cell"), Category("mine", "x", "gearbox cover")],
)
def test_the_command_of_the_refusal_makes_its_texts(
    category: Category, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    llm = replace(CONFIG.llm, suffix=False)
    with pytest.raises(RequestError) as caught:
        build_prompts(category, CONFIG.template, llm)
    found = re.search("`zsad (.*) && export (ZSAD_PROMPTS)=(.*)`", str(caught.value))
    assert found is not None

    def answer(n: int, body: dict[str, Any]) -> str:
        label = "abnormal" if "abnormal" in body["messages"][0]["content"] else "normal"
        what = "a jagged dark line" if label == "abnormal" else "an even bright surface"
        name = category.class_name
        if body["messages"][0]["content"].startswith("Q:"):
            return "\n".join(f"- dark line {n} {i}" for i in range(5))
        return f"1. Zone {n} of the {name} shows {what}.\n2. In zone {n} the {name} has {what}."

    monkeypatch.chdir(tmp_path)
    with serving(answer) as server:
        for name, value in (("BASE_URL", server.url), ("API_KEY", "none-needed")):
            monkeypatch.setenv(f"OPENAI_{name}", value)
        monkeypatch.setenv("ZSAD_LLM_MODEL", "m")
        assert main(shlex.split(found[1])) == 0
    monkeypatch.setenv(found[2], found[3])
    bank.cache_clear()
    try:
        prompts = build_prompts(category, CONFIG.template, llm)
    finally:
        bank.cache_clear()
    for label in LABELS:
        assert len(prompts.llm[label]) >= 16
        assert not any(t.startswith(stem(label, "")) for t in prompts.llm[label])


@pytest.mark.parametrize("name", [*select_datasets("extended,more"), "synthetic"])
def test_the_bundled_bank_describes_every_category(name: str) -> None:
    """Sentences of its own, none that every category could have; the counts of the README."""
    spec = load_spec(name)
    for category in map(spec.category, spec.categories):
        same = build_prompts(category, CONFIG.template, CONFIG.llm)
        assert same.origin == f"bank {name}/{category.key}"
        for label in LABELS:
            start = stem(label, category.class_name)
            assert all(t.startswith(start) for t in same.llm[label])
            assert 80 <= len(set(same.texts(label))) == len(same.texts(label)) <= 83
        assert len(same.descriptors) == 5


def test_no_sentence_of_the_bank_stands_for_everything() -> None:
    """A sentence that fits every product says nothing of any.  DAGM's ten classes look alike, and
    so do the woven textures; no sentence is shared by more categories than those."""
    shared: dict[str, set[str]] = {}
    for entry in bank().entries("alfa"):
        for texts in entry.texts.values():
            for text in texts:
                plain = text.replace(entry.class_name, "X")
                shared.setdefault(plain, set()).add(f"{entry.dataset}/{entry.category}")
    worst = max(shared, key=lambda text: len(shared[text]))
    assert len(shared[worst]) <= 10, (worst, shared[worst])


def test_an_unknown_category_gets_templates_and_a_notice(
    bank_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    unknown = Category("toy", "sprocket", "sprocket")
    with caplog.at_level(logging.WARNING):
        prompts = build_prompts(unknown, CONFIG.template, replace(CONFIG.llm, bank=str(bank_file)))
    assert len(prompts.texts("abnormal")) == 72
    assert prompts.origin == "template"
    assert "no generated prompts for toy/sprocket" in caplog.text
