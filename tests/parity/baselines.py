"""What the parity tests of the baselines share: a case's weights and inputs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import zsad
from tests.parity import recipe, recipe_baselines
from zsad.inference.loaded_method import LoadedMethod
from zsad.inference.request import categories_of

PARITY = Path(__file__).parent
UNIT = {"rtol": 0.0, "atol": 5e-6}


def close(ours: Any, theirs: Any, rtol: float = 0.0, atol: float = 0.0) -> None:
    """Compare with the tolerance of a specification."""
    ours, theirs = (v.detach() if isinstance(v, Tensor) else v for v in (ours, theirs))
    np.testing.assert_allclose(np.asarray(ours), np.asarray(theirs), rtol=rtol, atol=atol)


class Case:
    """A stored case: ``arrays`` and ``spec`` of the authors' run, weights and images remade.

    ``kind``: the learned tensors, which the fingerprint covers, too: a name, or what makes them
    of the case.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        kind: str | Callable[[Case], Mapping[str, Tensor]] = "",
    ) -> None:
        with np.load(PARITY / f"{name}.npz", allow_pickle=False) as z:
            self.arrays = {k: z[k] for k in z.files}
        self.spec = json.loads(str(self.arrays["spec_json"]))
        self.size, self.seed = self.spec["image_size"], self.spec["seed"]
        self.dims = recipe.ClipDims(**self.spec["dims"])
        clip = recipe.clip_state(self.dims, self.seed)
        self.learned = self._learned(kind) if isinstance(kind, str) else kind(self)
        found = recipe.fingerprint([*clip.values(), *self.learned.values()])
        np.testing.assert_allclose(found, self.arrays["recipe_fingerprint"], rtol=1e-4)
        self.folder = folder
        self.weights = folder / f"{name}.pt"
        torch.save(clip, self.weights)
        labels = self.spec.get("labels") or [step[1] for step in self.spec.get("steps", ())]
        count = self.spec.get("n") or len(labels)
        self.labels = torch.tensor(labels)
        self.images = recipe.images(count, self.size, self.seed)
        self.masks = recipe.masks(labels, self.size, self.seed) if labels else None

    def _learned(self, kind: str) -> Mapping[str, Tensor]:
        if kind == "mvfa":
            return recipe_baselines.recipe_mvfa(self.dims, self.seed)
        if kind == "aprilgan":
            return recipe_baselines.recipe_aprilgan(self.dims, self.seed)
        if kind == "coop":
            spec = self.spec
            return recipe_baselines.recipe_coop(
                self.dims, self.seed, spec["n_ctx"], spec["conditional"]
            )
        return {}

    @property
    def names(self) -> list[str]:
        """The raw class name of every image."""
        return list(self.spec["names"])

    def references(self) -> dict[str, Tensor]:
        """The normal images of every class, [K, 3, S, S]."""
        names = list(dict.fromkeys(self.names))
        shots = self.spec["k_shot"]
        return {
            name: recipe_baselines.references(shots, self.size, self.seed + i)
            for i, name in enumerate(names)
        }

    def load(self, method: str, preset: str = "released", **keywords: Any) -> LoadedMethod:
        """Load a method on the case's weights, as a user does."""
        return zsad.load_method(
            method,
            backbone="file",
            weights=self.weights,
            image_size=self.size,
            preset=preset,
            device="cpu",
            **keywords,
        )


@torch.no_grad()
def scored(loaded: LoadedMethod, case: Case, names: Any = "object", **context: Any) -> Any:
    """Return the features, the context and the scores of the case's images, in one batch."""
    made = loaded.scorer.context(categories_of(names, len(case.images)))
    features = loaded.backbone.encode_image(case.images, loaded.request)
    for key, value in context.items():
        setattr(made, key, value)
    loaded.method.eval()
    return features, made, loaded.method.score(features, made)
