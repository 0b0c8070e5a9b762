"""Small flaws in pictures of 12 megapixels stand out with tiles, and not without them."""

from __future__ import annotations

import pytest

from zsad.benchmarks.large_pictures import FLAW, calibrated, loaded, measure, picture


@pytest.mark.slow
def test_tiles_find_what_the_whole_picture_does_not_show() -> None:
    """A part of the benchmark, which docs/own-photos.md has figures of."""
    method = loaded("auto")
    with_tiles = measure(method, calibrated(method, 4, 0.05), 2)
    assert with_tiles.found == 2
    assert min(with_tiles.flawed) > max(with_tiles.sound)
    method = loaded("none")
    assert measure(method, calibrated(method, 4, 0.05), 2).found == 0


def test_the_flaw_is_where_it_is_said_to_be() -> None:
    whole, (x, y) = picture(1, True)
    sound, _ = picture(1, False)
    assert whole.size == (4000, 3000)
    middle = (x + FLAW // 2, y + FLAW // 2)
    assert whole.getpixel(middle) == (25, 20, 18)
    assert sound.getpixel(middle) != (25, 20, 18)
