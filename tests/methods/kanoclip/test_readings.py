"""What KAnoCLIP's paper prints is what is asked and counted; what it leaves open has a row."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from zsad import registry
from zsad.config import identity, to_dict
from zsad.errors import RequestError
from zsad.methods.kanoclip.config import OWN_READINGS
from zsad.methods.kanoclip.method import general_descriptions
from zsad.methods.kanoclip.modules import ConvAdapter
from zsad.methods.kanoclip.prompts import KIND, image_query, queries
from zsad.protocols import load_protocol
from zsad.types import Category

PAPER = Path(__file__).resolve().parents[4] / "shared" / "papers" / "kanoclip.txt"
FABRIC = Category("", "fabric", "fabric")
SWITCHES = {"base", "KnPL", "KnPL + CLIP-VV", "KnPL + CLIP-VV + Bi-CMCI"}


def test_the_question_about_an_image_is_the_printed_one() -> None:
    """The paper's example is fabric: for that category the question is the template, verbatim."""
    assert image_query(FABRIC) == (
        "Identify anomalies in the input image of the specified class (e.g., fabric). Describe "
        "each anomaly's location, color, shape, size, and other characteristics."
    )
    assert "(e.g., metal nut)" in image_query(Category("", "metal_nut", "metal nut"))
    if not PAPER.is_file():
        pytest.skip("the paper's text is not at hand")
    # Sec. 2.2.1 hyphenates at the ends of lines
    printed = PAPER.read_text().replace("-\n", "").replace("\u2019", "'")
    assert image_query(FABRIC) in " ".join(printed.split())
    (query,) = queries(FABRIC)
    assert query.prompt == "Describe what an abnormal image of fabric looks like?"


def test_n_descriptions_of_a_category_are_read() -> None:
    bottle = Category("mvtec", "bottle", "bottle")
    five = general_descriptions(bottle, 5)
    assert len(five) == 5
    assert general_descriptions(bottle, 2) == five[:2]
    assert general_descriptions(Category("", "xyz", "xyz"), 9) == []
    with pytest.raises(
        RequestError, match=r"n=9: .* 5 .*--datasets mvtec --yes --out my-prompts &&"
    ):
        general_descriptions(bottle, 9)
    assert KIND.lists[0].most >= 9  # the bank has room for what the command makes


@pytest.mark.parametrize("key", ["n=-1", "m=0"])
def test_impossible_counts_are_refused(key: str) -> None:
    name, value = key.split("=")
    with pytest.raises(RequestError, match=r"knpl\.kb"):
        registry.method("kanoclip").resolve(("x", {"knpl": {"kb": {name: int(value)}}}))


def test_what_came_later_leaves_stored_cells_alone() -> None:
    entry = registry.method("kanoclip")
    plain = identity(entry.resolve())
    assert "d_bottle" not in plain
    assert set(plain["knpl"]["kb"]) == {"vqa", "vqa_images", "weighting"}
    other = identity(entry.resolve(("x", {"d_bottle": 7, "knpl": {"kb": {"m": 2, "n": 3}}})))
    assert other["d_bottle"] == 7
    assert (other["knpl"]["kb"]["m"], other["knpl"]["kb"]["n"]) == (2, 3)


def test_the_paper_s_preset_takes_the_printed_global_token() -> None:
    entry = registry.method("kanoclip")
    assert entry.resolve().global_token == "original"
    assert entry.resolve(("x", {"preset": "paper"})).global_token == "vv"


def test_the_bottleneck_s_width_is_a_key() -> None:
    assert ConvAdapter(16, "pointwise", False).down.weight.shape == (8, 16)
    adapter = ConvAdapter(16, "pointwise", False, 5)
    assert adapter.down.weight.shape == (5, 16)
    assert adapter(torch.zeros(2, 16)).shape == (2, 16)


def test_every_reading_has_a_row_of_its_own() -> None:
    entry = registry.method("kanoclip")
    protocol = load_protocol("kanoclip-ablation")
    base = ("protocol", protocol.overrides["kanoclip"])
    plain = flat(to_dict(entry.resolve(base)))
    assert set(OWN_READINGS) <= set(plain)
    readings = [r for r in protocol.rows if r.label not in SWITCHES]
    changed: set[str] = set()
    for row in readings:
        values = flat(to_dict(entry.resolve(base, (row.label, row.overrides))))
        keys = {key for key, value in values.items() if value != plain[key]}
        assert len(keys) == 1 or not row.overrides, (row.label, keys)
        changed |= keys
    assert set(OWN_READINGS) <= changed
    notes = Path(entry.origin).with_name("README.md").read_text()
    for key in OWN_READINGS:
        assert key.split(".")[-1] in notes or key.startswith("train."), key


def flat(values: dict[str, object], prefix: str = "") -> dict[str, str]:
    """Dotted keys; values as JSON."""
    found: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = json.dumps(value)
    return found
