"""Transductive: an image's score is its distance to the mean of all images of the category."""

from __future__ import annotations

from raises.method import Config, Plain

from zsad.types import ImageFeatures, ScoreContext, Scores, Tap

__all__ = ["Config", "Odd"]


class Odd(Plain):
    name = "crowd"

    @property
    def transductive(self) -> bool:
        return True

    def score(self, features: ImageFeatures, context: ScoreContext[None]) -> Scores:
        assert context.population is not None
        assert len(set(context.population_uids)) == context.population.batch_size
        assert set(context.uids) <= set(context.population_uids)
        scores = super().score(features, context)
        centre = context.population[Tap("cls")].mean(0)
        scores.image = (features[Tap("cls")] - centre).norm(dim=-1)
        return scores
