"""What a method says that it reads of a thing besides its name is what changes its figures."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

import zsad
from zsad import registry

FACTS = {"kind": ("kinds", "texture"), "domain": ("domains", "medical")}


def pictures() -> list[Image.Image]:
    random = np.random.default_rng(3)
    return [Image.fromarray(random.integers(0, 255, (96, 96, 3), np.uint8)) for _ in range(3)]


@pytest.mark.parametrize("name", sorted(registry.methods()))
def test_a_method_says_which_facts_change_its_figures(name: str) -> None:
    """``zsad predict --kind`` says that it changes nothing where the method does not read it."""
    entry = registry.method(name)
    few: dict[str, Any] = {"overrides": {"shots": 1}} if name == "patchcore" else {}
    method = zsad.load_method(
        name, backbone="zsad-tiny", device="cpu", image_size=64, untrained=True, **few
    )
    *images, near = pictures()
    given = {"references": [near]} if few else {}

    def figures(**facts: str) -> list[float]:
        found = method.predict(images, "carpet", explanations=0, **given, **facts)
        return [v for p in found for v in (p.image_score, float(p.anomaly_map.sum()))]

    plain = figures()
    read = {fact for fact, (key, value) in FACTS.items() if figures(**{key: value}) != plain}
    assert read == set(entry.reads)
