"""CoOp and CoCoOp against their released trainers (KaiyangZhou/CoOp, ff61507), with two classes."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from tests.parity.baselines import PARITY, UNIT, Case, close, scored
from zsad import registry
from zsad.errors import WeightsError
from zsad.methods.coop import convert
from zsad.types import BackboneInfo, Tap

LOGITS = {"rtol": 0.0, "atol": 1e-5}
LOSS = {"rtol": 0.0, "atol": 1e-5}
GRADIENT = {"rtol": 1e-3, "atol": 1e-7}


@pytest.fixture(params=["coop", "cocoop"])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    name = request.param
    made = Case(f"{name}_train_a", tmp_path_factory.mktemp(name), "coop")
    made.method = name  # type: ignore[attr-defined]
    return made


def load(case: Any, **keywords: Any) -> Any:
    """From Dassl's file, with the buffers and the optimiser in it that nobody reads."""
    rest = {"token_prefix": torch.zeros(2, 1, 4), "token_suffix": torch.zeros(2, 9, 4)}
    checkpoint = case.folder / "model.pth.tar-50"
    torch.save(
        {"state_dict": {**case.learned, **rest}, "epoch": 50, "optimizer": {"state": {}}},
        checkpoint,
    )
    return case.load(case.method, checkpoint=checkpoint, **keywords)


def test_text_logits_and_scores(case: Any) -> None:
    z, loaded, name = case.arrays, load(case), case.spec["name"]
    features, context, _ = scored(loaded, case, name)
    tokens = loaded.method.tokens(name, context.text_encoder).ids
    lead = 1 + case.spec["n_ctx"]  # the learned words have placeholders
    close(tokens[:, lead:], z["tokens"][:, lead : tokens.shape[1]])
    assert not z["tokens"][:, tokens.shape[1] :].any()
    with torch.no_grad():
        cls, pair = loaded.method.embeddings(features, context)
        logits, _ = loaded.method.logits(features, cls, pair)
    close(F.normalize(features[Tap("cls")], dim=-1), z["image_feature"], **UNIT)
    close(pair, z["text"].repeat(len(pair) // len(z["text"]), 0), **UNIT)
    close(logits, z["logits"], **LOGITS)
    found = loaded.predict_tensor(case.images, name)
    wanted = torch.from_numpy(z["logits"]).softmax(-1)[:, 1]
    close([p.image_score for p in found], wanted, **LOGITS)
    assert loaded.report[-1] == "ignored 2 further entries: token_prefix, token_suffix"


def test_two_training_steps(case: Any) -> None:
    z, spec = case.arrays, case.spec
    loaded = load(case, overrides={"train.lr": spec["lr"]})
    method = loaded.method
    named = dict(method.named_parameters())
    order = [f"prompts.{n}" for n in z["param_names"].tolist()]
    before = {n: named[n].detach().clone() for n in order}
    optimizer = method.phases()[0].optimizer(named)
    assert optimizer.defaults["momentum"] == spec["momentum"]
    assert optimizer.defaults["weight_decay"] == spec["weight_decay"]
    for step in range(spec["steps"]):
        losses = loaded.losses(case.images, case.masks, case.labels, spec["name"])
        close(losses["total"].item(), z["losses"][step], **LOSS)
        optimizer.zero_grad()
        losses["total"].backward()
        close([named[n].grad.norm().item() for n in order], z["grad_norms"][step], **GRADIENT)
        if step == 0:
            close(named["prompts.ctx"].grad, z["grad_ctx"], 1e-3, 1e-6)
        optimizer.step()
    close(named["prompts.ctx"], z["after_ctx"], 0, 1e-6)
    close([named[n].norm().item() for n in order], z["param_norms_after"], 1e-5, 0)
    changes = [(named[n] - before[n]).norm().item() for n in order]
    close(changes, z["param_change_norms"], 1e-3, 1e-7)


@pytest.mark.parametrize("method", ["coop", "cocoop"])
def test_the_whole_key_set_of_a_released_file_is_taken(method: str) -> None:
    keys = json.loads((PARITY / "keys_coop.json").read_text())
    (layout,) = (v["state_dict"] for k, v in keys.items() if k.startswith(f"{method} "))
    state = {"state_dict": {k: torch.zeros(shape) for k, (shape, _) in layout.items()}}
    info = BackboneInfo(
        "vit-l-14", "", 224, 14, 24, 1024, 768, 768, 12, 77, (6, 12, 18, 24), (0, 0, 0), (1, 1, 1)
    )
    found = convert.import_official(state, method, method == "cocoop", info)
    config = registry.method(method).resolve(("file", found.config))
    made = registry.method(method).load()(config, info)
    assert {k: v.shape for k, v in made.state_dict().items()} == {
        k: v.shape for k, v in found.state.items()
    }
    with pytest.raises(WeightsError, match=r"ctx is \(2, 4, 768\), a context for each class"):
        convert.import_official(
            {"state_dict": {**state["state_dict"], "ctx": torch.zeros(2, 4, 768)}},
            method,
            method == "cocoop",
            info,
        )
