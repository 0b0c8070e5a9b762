"""What every image tower does alike, whatever its family."""

from __future__ import annotations

import pytest
import torch

from zsad.backbones import Backbone
from zsad.backbones.counters import Counters
from zsad.backbones.image_only import ImageOnlyTower, States
from zsad.backbones.towers import ImageTower
from zsad.types import EncoderVariant, Tap


@pytest.fixture(params=["CLIP", "another family"])
def tower(request: pytest.FixtureRequest, backbone: Backbone) -> ImageTower:
    """A tower that was asked for pictures of 40 pixels, and has counted nothing."""
    variant = EncoderVariant(image_size=40)
    if request.param == "CLIP":
        clip = backbone.image_encoder(variant)
        clip.counters.reset()
        return clip
    module = torch.nn.Linear(1, 1)
    return ImageOnlyTower(
        module, lambda *_: States({}, torch.zeros(2, 1)), backbone.info, variant, Counters()
    )


def test_a_pass_is_counted_and_has_the_grid_of_its_pictures(tower: ImageTower) -> None:
    found = tower.encode(torch.zeros(2, 3, 40, 40), [Tap("cls")])
    assert found.grid == (40 // tower.patch,) * 2
    assert (tower.counters.image_forwards, tower.counters.images) == (1, 2)


@pytest.mark.parametrize("size", [(32, 40), (48, 48)])
def test_pictures_of_another_size_are_refused_and_not_counted(
    tower: ImageTower, size: tuple[int, int]
) -> None:
    with pytest.raises(ValueError, match=rf"images are \({size[0]}, {size[1]}\), .* 40 pixels"):
        tower.encode(torch.zeros(2, 3, *size), [Tap("cls")])
    assert tower.counters.image_forwards == 0
