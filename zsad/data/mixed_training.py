"""Bases of methods whose training changes the pictures of an epoch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from zsad.data.augment import InspectedConfig, inspected
from zsad.data.mosaic import MosaicConfig
from zsad.method import Method, TrainPhase
from zsad.types import Sample

MosaicConfigT = TypeVar("MosaicConfigT", bound=MosaicConfig)
InspectedConfigT = TypeVar("InspectedConfigT", bound=InspectedConfig)
TextT = TypeVar("TextT")


class MosaicTraining(Method[MosaicConfigT, TextT]):
    """Mixes mosaics in where the auxiliary dataset asks for them."""

    def epoch_samples(
        self, samples: Sequence[Sample], phase: TrainPhase, epoch: int, seed: int
    ) -> Sequence[Sample] | None:
        key = f"{phase.name}/{epoch}"
        return self.config.train.mosaic.mixed(samples, self.auxiliary, seed, key)

    @property
    def adds_anew(self) -> bool:
        return self.config.train.mosaic.pool == "fresh"


class InspectedTraining(Method[InspectedConfigT, TextT]):
    """Mixes mosaics of anomalous pictures in where the auxiliary dataset asks for them, and changes
    every picture where the config does (:func:`zsad.data.augment.inspection`)."""

    def epoch_samples(
        self, samples: Sequence[Sample], phase: TrainPhase, epoch: int, seed: int
    ) -> Sequence[Sample] | None:
        train, key = self.config.train, f"{phase.name}/{epoch}"
        mixed = train.mosaic.mixed(samples, self.auxiliary, seed, key, anomalous=True)
        return inspected(samples, mixed, train.augment, seed, key)

    @property
    def adds_anew(self) -> bool:
        return self.config.train.augment != "none" or self.config.train.mosaic.pool == "fresh"
