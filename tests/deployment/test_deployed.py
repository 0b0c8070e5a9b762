"""Every method's score is one fixed sequence of operations, or says why it is none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import zsad
from zsad import registry
from zsad.backbones.engines.verification import pictures
from zsad.deployment.deployed import Deployed, recorded
from zsad.deployment.write import examples
from zsad.errors import RequestError
from zsad.inference.loaded_method import LoadedMethod

TRANSDUCTIVE = {"musc"}
# One of each kind: a fixed pair, windows, learned prompts, adapted towers, references, prompts that
# depend on the picture.  The others are slow.
KINDS = {"clip", "winclip", "anomalyclip", "mvfa", "patchcore", "cocoop"}
SIZE = 96


def loaded(method: str, **options: Any) -> LoadedMethod:
    entry = registry.method(method)
    given = {"untrained": entry.trained, "image_size": SIZE, **options}
    return zsad.load_method(method, "zsad-tiny", **given)


def reference() -> list[np.ndarray]:
    return [np.random.default_rng(0).integers(0, 256, (80, 90, 3), dtype=np.uint8)]


@pytest.mark.parametrize(
    "method",
    [
        pytest.param(name, marks=[] if name in KINDS else [pytest.mark.slow])
        for name in sorted(set(registry.methods()) - TRANSDUCTIVE)
    ],
)
@torch.no_grad()
def test_the_recording_equals_the_method(method: str) -> None:
    """Values that are read back from a tensor, and caches with tensor data as keys, would fix the
    first picture's answer."""
    one = loaded(method)
    module = Deployed(one, "metal nut", reference() if one.method.shots else ())
    run: Any = recorded(module).module()
    scores = set()
    for given in examples(module, SIZE):
        (score, values), (wanted, right) = run(*given.values()), module(**given)
        torch.testing.assert_close(score, wanted, rtol=0, atol=2e-6)
        torch.testing.assert_close(values, right, rtol=0, atol=2e-6)
        scores.add(float(values.std()))
    assert len(scores) == 3


def test_the_wrapper_is_predict() -> None:
    one = loaded("coop")
    images = pictures(SIZE)
    module = Deployed(one, "metal nut")
    with torch.no_grad():
        for image, wanted in zip(images, one.predict_tensor(images, "metal nut")):
            score, values = module(image[None])
            assert float(score) == pytest.approx(wanted.image_score, abs=1e-6)
            assert wanted.values is not None
            np.testing.assert_allclose(values[0].numpy(), wanted.values, atol=1e-6)


@pytest.mark.parametrize(
    ("method", "options", "reason"),
    [
        ("musc", {}, "compares the pictures of a call with each other"),
        ("clip", {"keep_aspect": True}, "sees 8-bit pictures in squares"),
        ("anovl", {"preset": "released"}, "cannot be exported"),
    ],
)
def test_what_scores_no_picture_by_itself_is_refused(
    method: str, options: dict[str, Any], reason: str
) -> None:
    with pytest.raises(RequestError, match=reason):
        Deployed(loaded(method, **options), "metal nut")
