"""Parts of pictures that are not looked at: a rectangle, a mask for all, or a mask for each.

What is ignored leaves the map, the mask, the regions and what a method's score takes from its map.
It cannot leave what a method read before there was a map (a class token sees the whole picture):
:func:`without` says when that is so.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from zsad.data.images import image_size, is_picture, mask_values
from zsad.errors import DataError, RequestError
from zsad.results.heatmaps import shrunk

if TYPE_CHECKING:
    from zsad.types import Scored

Rectangle = tuple[int, int, int, int]
SUFFIXES = ("", "_mask", "_ignore", ".mask", ".ignore")  # between a picture's name and ".png"


@dataclass(frozen=True)
class Ignored:
    """``rectangle``: (x, y, w, h) in pixels of every picture; ``mask``: a file for all pictures;
    ``masks``: a folder with one for each, by the picture's name.  White is ignored."""

    rectangle: Rectangle | None = None
    mask: Path | None = None
    masks: Path | None = None

    @classmethod
    def parse(cls, text: str | Path) -> Ignored:
        """``x,y,w,h``, a mask file or a folder of masks.  Raises :class:`RequestError`."""
        path = Path(text)
        if path.is_dir():
            if not any(is_picture(p.name) for p in path.iterdir()):
                raise RequestError(f"--ignore {text}: no masks there")
            return cls(masks=path)
        if path.is_file():
            return cls(mask=path)
        if match := re.fullmatch(r"\s*(\d+)\s*,\s*(\d+)\s*,\s*(\d+)\s*,\s*(\d+)\s*", str(text)):
            x, y, w, h = (int(number) for number in match.groups())
            if w and h:
                return cls(rectangle=(x, y, w, h))
        raise RequestError(
            f"--ignore {text}: give a mask file, a folder of masks, or x,y,w,h in pixels, such as "
            f"0,0,200,80"
        )

    @property
    def digest(self) -> str:
        """What thresholds depend on: the rectangle, or the content of the masks."""
        if self.rectangle is not None:
            return ",".join(map(str, self.rectangle))
        files = [self.mask] if self.mask else sorted(self._files().values())
        digest = hashlib.sha256()
        for path in files:
            assert path is not None
            digest.update(path.read_bytes())
        return digest.hexdigest()[:16]

    def check(self, pictures: Iterable[Path]) -> list[Path]:
        """Look at every picture that can be read and its mask; return those that have none.

        Raises :class:`RequestError` for a mask of another size than its picture, where nothing is
        left to look at, and for a folder without a mask of any of the pictures.
        """
        without: list[Path] = []
        count = 0
        for path in pictures:
            count += 1
            try:
                size = image_size(path)
            except DataError:
                continue  # told when it is read
            if self.of(path, size) is None:
                without.append(path)
        if self.masks and count and len(without) == count:
            raise RequestError(
                f"--ignore {self.masks}: holds no mask of these pictures; "
                f"{without[0].name} would have {without[0].stem}.png"
            )
        return without

    def of(self, path: str | Path | None, size: tuple[int, int]) -> NDArray[np.bool_] | None:
        """What to ignore of a picture of ``size`` (H, W), bool [H, W]; None: nothing.

        Raises :class:`RequestError` as :meth:`check` does.
        """
        found = self._of(path, size)
        if found is not None and found.all():
            raise RequestError(f"--ignore: nothing is left of {path or 'a picture'} to look at")
        return found if found is not None and found.any() else None

    def _of(self, path: str | Path | None, size: tuple[int, int]) -> NDArray[np.bool_] | None:
        if self.rectangle is not None:
            x, y, w, h = self.rectangle
            if x + w > size[1] or y + h > size[0]:
                raise RequestError(
                    f"--ignore {self.digest}: reaches out of {path or 'a picture'}, which has "
                    f"{size[1]}x{size[0]} pixels"
                )
            found = np.zeros(size, dtype=bool)
            found[y : y + h, x : x + w] = True
            return found
        file = self.mask or (self._files().get(Path(path).stem.lower()) if path else None)
        if file is None:
            return None
        values = mask_values(file)
        if values.shape != tuple(size):
            raise RequestError(
                f"--ignore {file}: has {values.shape[1]}x{values.shape[0]} pixels, "
                f"{path or 'a picture'} has {size[1]}x{size[0]}; give a mask of its size"
            )
        # Half of the brightest: masks of 0 and 1 count, the ringing of JPEG does not.
        white: NDArray[np.bool_] = values > values.max() / 2
        return white

    def _files(self) -> dict[str, Path]:
        """The masks of the folder by the name of their picture, in lower case."""
        assert self.masks is not None
        found: dict[str, Path] = {}
        for path in sorted(p for p in self.masks.iterdir() if is_picture(p.name)):
            stem = path.stem.lower()
            name = next(stem.removesuffix(s) for s in reversed(SUFFIXES) if stem.endswith(s))
            if name in found:
                raise RequestError(
                    f"--ignore {self.masks}: {found[name].name} and {path.name} are both masks of "
                    f"'{name}'; leave one"
                )
            found[name] = path
        return found


def without(
    image_score: Callable[[Any, Any], Any],
    scored: Scored[Any],
    masks: Sequence[NDArray[np.bool_] | None],
) -> tuple[Scored[Any], bool]:
    """The batch with ``masks`` [H, W] of its pictures out of maps and scores, and whether the
    method's score sees the ignored pixels nevertheless.

    Ignored pixels take the lowest value that their map has elsewhere, and the method's
    ``image_score`` is asked again.  A score that moves with :attr:`Scores.image` still sees them.
    """
    import torch

    size = (scored.maps.final.shape[-2], scored.maps.final.shape[-1])
    planes = [np.zeros(size, dtype=bool) if m is None else shrunk(m, size) for m in masks]
    where = torch.from_numpy(np.stack(planes)).to(scored.maps.final.device)

    def emptied(maps: torch.Tensor) -> torch.Tensor:
        low = maps.masked_fill(where, torch.inf).flatten(1).amin(1)
        return torch.where(where, low[:, None, None].to(maps.dtype), maps)

    maps = replace(
        scored.maps,
        final=emptied(scored.maps.final),
        unsuppressed=emptied(scored.maps.unsuppressed),
    )
    with torch.no_grad():
        scores = image_score(scored.scores, maps).float()
        moved = image_score(replace(scored.scores, image=scored.scores.image + 1), maps).float()
    return replace(scored, maps=maps, image_scores=scores), not torch.equal(scores, moved)
