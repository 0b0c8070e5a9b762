"""AnoVL against its released code (3a70bfd), the script for MVTec: with and without its adapter."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from tests.parity import recipe_baselines
from tests.parity.baselines import UNIT, Case, close, scored
from zsad.methods.anovl.adapter import Start
from zsad.methods.anovl.prompts import ANOMALOUS_STATES, NORMAL_STATES, STATES, templates
from zsad.methods.anovl.views import further_views
from zsad.types import Category

PATCHES = {"rtol": 0.0, "atol": 1e-5}
MAP = {"rtol": 0.0, "atol": 2e-6}  # probabilities lie within 1e-2 of one half
ADAPTED_MAP = {"rtol": 0.0, "atol": 2e-5}
ADAPTED_PATCHES = {"rtol": 0.0, "atol": 1e-3}  # AdamW amplifies tiny gradients
LOSSES = {"rtol": 1e-5, "atol": 1e-6}
RELEASED_ARTICLES = (
    *(("cropped", "the a"), ("close-up", "a the"), ("bright", "a the"), ("dark", "the a")),
    *(("jpeg corrupted", "a the"), ("blurry", "the a"), ("plain", "a the"), ("small", "a the")),
    *(("large", "a the"), ("for visual inspection", "the a"), ("for anomaly detection", "the a")),
)


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case("anovl_infer_a", tmp_path_factory.mktemp("anovl"))


@pytest.fixture(scope="module")
def plain(case: Case) -> Any:
    """Without the adapter."""
    loaded = case.load("anovl", overrides={"adapter.enabled": False})
    return (loaded, *scored(loaded, case, case.names, views=loaded.pictures.views(case.images)))


def released_order(kind: str, ours: tuple[str, ...]) -> list[int]:
    """Where the released list of templates has those of ``ours``."""
    found = []
    for first in range(0, 66, 22):  # of each kind of picture
        group = {i: ours[i] for i in range(first, first + 22)}
        for what, articles in RELEASED_ARTICLES:
            for article in articles.split():
                found += [
                    i
                    for i, template in group.items()
                    if f" of {article} " in template and words_of(template) == what
                ]
    assert sorted(found) == list(range(66)), kind
    return found


def words_of(template: str) -> str:
    """What a template says beside its kind of picture."""
    for what, _ in RELEASED_ARTICLES:
        if what != "plain" and what in template:
            return what
    return "plain"


class RecipeDraws:
    """The recipe's random numbers; its rows are template-major in the released order, ours go by
    state."""

    def __init__(self, case: Case) -> None:
        self.case = case
        index = released_order("object", templates(Category("", "bottle", "bottle"), "industrial"))
        self.rows = []  # of the recipe, in our order
        for side, states in enumerate((NORMAL_STATES, ANOMALOUS_STATES)):
            for state in range(len(states)):
                self.rows += [side * 462 + index.index(t) * 7 + state for t in range(66)]
        self.image = 0

    def __call__(self, image: int, prompts: int, length: int, width: int) -> Start:
        spec = self.case.spec
        weight, bias = recipe_baselines.recipe_anovl_adapter(prompts, width, self.case.seed)
        side = round(length**0.5)
        noises = [
            recipe_baselines.recipe_anovl_noise(self.image, step, side, width, self.case.seed)
            for step in range(spec["epoch"])
        ]
        self.image += 1
        weights = torch.cat([weight, bias[:, None]], 1)[self.rows]
        return Start(weights, torch.cat(noises).flatten(1, 2))


def test_text(case: Case, plain: Any) -> None:
    loaded, _, context, _ = plain
    pairs = torch.stack([context.text[name].states.pair for name in case.names])
    close(pairs, case.arrays["text"], **UNIT)
    name = case.names[0]
    sentences = [
        t.format(s.format(name))
        for side in STATES
        for s in side
        for t in templates(Category("", name, name), "industrial", "released")
    ]
    with torch.no_grad():
        found = loaded.backbone.text_encoder(loaded.request.variant).encode_texts(sentences)
    close(F.normalize(found.float(), dim=-1).sum(0), case.arrays["text_list"], 0, 1e-4)


def test_views(case: Case) -> None:
    z, views = case.arrays, [case.images, *further_views(case.images)]
    assert len(views) == 22
    means = torch.stack([v.mean((1, 2, 3)) for v in views], 1)
    close(means, z["view_means"], 0, 1e-5)
    for number, name in ((1, "view_1_rotated"), (9, "view_9_shifted"), (20, "view_20_rot90")):
        close(views[number][0, :, ::3, ::3], z[name], 0, 1e-4)


def test_patches_and_scores_of_the_views(case: Case, plain: Any) -> None:
    loaded, features, _, scores = plain
    assert loaded.method.dense.start == 1
    encoder = loaded.backbone.image_encoder(loaded.request.variant)
    close(encoder.positions(features.grid), case.arrays["pos_embed_used"], 0, 1e-6)
    patches = F.normalize(features.patches(loaded.method.dense)[:3], dim=-1)
    close(patches, case.arrays["patch_unit"], **PATCHES)
    close(scores.parts["views"], case.arrays["view_probability"], **MAP)


def test_the_public_route_without_the_adapter(case: Case, plain: Any) -> None:
    found = plain[0].predict_tensor(case.images, case.names)
    close([p.anomaly_map for p in found], case.arrays["map_final"], **MAP)
    close([p.image_score for p in found], case.arrays["image_score"], **MAP)


@pytest.mark.parametrize(("state", "prefix"), [("kept", "adapter"), ("fresh", "adapter_fresh")])
def test_the_adapter(case: Case, state: str, prefix: str) -> None:
    """Optimiser state that is kept over a category, as released, and a fresh one per image."""
    z = case.arrays
    loaded = case.load("anovl")
    assert loaded.method.carries
    draws = RecipeDraws(case)
    loaded.method.draw = draws
    if state == "fresh":  # every image is the first of a category of its own
        parts = [case.images[[i]] for i in range(len(case.images))]
        found = [loaded.predict_tensor(p, n)[0] for p, n in zip(parts, case.names)]
    else:
        found = loaded.predict_tensor(case.images, case.names)
    close([p.anomaly_map for p in found], z[f"{prefix}_map_final"], **ADAPTED_MAP)
    close([p.image_score for p in found], z["image_score"], **MAP)


def test_losses_and_state_from_batch_to_batch(case: Case) -> None:
    loaded = case.load("anovl", overrides={"views": 1})
    loaded.method.draw = RecipeDraws(case)
    features, context, _ = scored(loaded, case, case.names)
    loaded.method.draw = RecipeDraws(case)
    losses, patches = [], []
    with torch.no_grad():
        for i in range(len(case.images)):  # one image a batch
            one = context.__class__(
                **{**vars(context), "categories": [context.categories[i]], "uids": []}
            )
            scores = loaded.method.score(features.select([i]), one)
            context.carry = {**context.carry, **scores.carry}
            losses.append(scores.parts["losses"])
            patches.append(scores.parts["patches"])
    close(torch.cat(losses), case.arrays["adapter_losses"], **LOSSES)
    adapted = F.normalize(torch.cat(patches)[:3], dim=-1)
    close(adapted, case.arrays["adapter_patch_unit"], **ADAPTED_PATCHES)
    assert {k: v.images for k, v in context.carry.items()} == {"bottle": 2, "carpet": 2}
