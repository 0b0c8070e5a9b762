"""Kills its own process, as ``kill -9`` does from outside, while it scores one category."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zsad.config.method_config import MethodConfig
from zsad.method import Method
from zsad.types import Category, FeatureRequest, ImageFeatures, MapSpec, ScoreContext, Scores, Tap

CLS = Tap("cls")


@dataclass(frozen=True)
class Config(MethodConfig):
    """``once``: a file that the first death leaves, and that prevents others; '': die always.
    ``meet``: a folder in which every process that scores signs, and waits for a second one."""

    preset: str = "default"
    category: str = "cloth"
    once: str = ""
    meet: str = ""


class Mortal(Method[Config, None]):
    """Score: mean of the class token; map: the same value everywhere."""

    name = "mortal"

    def feature_request(self) -> FeatureRequest:
        return FeatureRequest.of(CLS)

    def prepare_text(self, categories: Sequence[Category], text: Any) -> dict[str, None]:
        return {c.key: None for c in categories}

    def score(self, features: ImageFeatures, context: ScoreContext[None]) -> Scores:
        if self.config.meet:
            self._wait_for_another(Path(self.config.meet))
        if context.categories[0].key == self.config.category and self._dies():
            os.kill(os.getpid(), signal.SIGKILL)
        image = features[CLS].float().mean(-1)
        height, width = features.grid
        return Scores([image[:, None, None].expand(-1, height, width)], image, "values")

    def _wait_for_another(self, folder: Path) -> None:
        (folder / str(os.getpid())).touch()
        deadline = time.monotonic() + 120
        while len(list(folder.iterdir())) < 2 and time.monotonic() < deadline:
            time.sleep(0.02)

    def _dies(self) -> bool:
        if not self.config.once:
            return True
        try:
            Path(self.config.once).touch(exist_ok=False)
        except FileExistsError:
            return False
        return True

    def map_spec(self) -> MapSpec:
        return MapSpec()
