"""Parts of pictures that are not looked at: a rectangle, a mask for all, or a mask for each.

What is ignored leaves the map, the mask, the regions, the metrics of pixels and what a method's
score takes from its map.  It cannot leave what a method read before there was a map (a class token
sees the whole picture): :func:`zsad.scoring.without` says when that is so.  No torch.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from zsad.data.images import image_size, is_picture, mask_values, nearest, whole_size
from zsad.errors import DataError, RequestError
from zsad.types import Sample

OPTION = "--ignore"  # what the user wrote the rule after
Rectangle = tuple[int, int, int, int]
SUFFIXES = ("", "_mask", "_ignore", ".mask", ".ignore")  # between a picture's name and ".png"


@dataclass(frozen=True)
class Ignored:
    """``rectangle``: (x, y, w, h) in pixels of every picture; ``mask``: a file for all pictures;
    ``masks``: a folder with one for each, by the picture's name.  White is ignored."""

    rectangle: Rectangle | None = None
    mask: Path | None = None
    masks: Path | None = None
    said: str = OPTION

    @classmethod
    def parse(cls, text: str | Path, said: str = OPTION, below: Path | str = "") -> Ignored:
        """``x,y,w,h``, or the path of a mask file or a folder of masks, ``below`` a folder.
        ``said``: what messages call it.  Raises :class:`RequestError`."""
        path = Path(below, text)
        if path.is_dir():
            if not any(is_picture(p.name) for p in path.rglob("*")):
                raise RequestError(f"{said} {text}: no masks there")
            return cls(masks=path, said=said)
        if path.is_file():
            return cls(mask=path, said=said)
        if match := re.fullmatch(r"\s*(\d+)\s*,\s*(\d+)\s*,\s*(\d+)\s*,\s*(\d+)\s*", str(text)):
            x, y, w, h = (int(number) for number in match.groups())
            if w and h:
                return cls(rectangle=(x, y, w, h), said=said)
        where = f" in {below}" if str(below) and not Path(text).is_absolute() else ""
        raise RequestError(
            f"{said} {text}: is neither a file nor a folder{where}; give a mask file, a folder of "
            "masks, or x,y,w,h in pixels, such as 0,0,200,80"
        )

    @property
    def digest(self) -> str:
        """What thresholds depend on: the rectangle, or the content of the masks."""
        if self.rectangle is not None:
            return ",".join(map(str, self.rectangle))
        digest = hashlib.sha256()
        if self.mask is not None:
            digest.update(self.mask.read_bytes())
        else:
            for name, path in sorted(self._files.items()):
                digest.update(f"{name}\0".encode(errors="surrogateescape") + path.read_bytes())
        return digest.hexdigest()[:16]

    def check(self, pictures: Iterable[Path]) -> list[Path]:
        """Look at every picture that can be read and its mask; return those that have none.

        Raises :class:`RequestError` for a mask of another size than its picture, where nothing is
        left to look at, for a folder without a mask of any of the pictures, and for a mask in it
        that two pictures share.
        """
        without: list[Path] = []
        taken: dict[Path, Path] = {}  # by mask of the folder: the picture that it belongs to
        count = 0
        for path in pictures:
            count += 1
            file = self.file_of(path) if self.masks else None
            if file is not None and taken.setdefault(file, path) != path:
                raise RequestError(
                    f"{self.said} {self.masks}: {file.name} would be the mask of {taken[file]} and "
                    f"of {path}; put the masks into folders as the pictures lie in theirs"
                )
            try:
                size = image_size(path)
            except DataError:
                continue  # told when it is read
            if self.of(path, size) is None:
                without.append(path)
        if self.masks and count and len(without) == count:
            raise RequestError(
                f"{self.said} {self.masks}: holds no mask of these pictures; "
                f"{without[0].name} would have {without[0].stem}.png"
            )
        return without

    def of(self, path: str | Path | None, size: tuple[int, int]) -> NDArray[np.bool_] | None:
        """What to ignore of a picture of ``size`` (H, W), bool [H, W]; None: nothing.

        Raises :class:`RequestError` as :meth:`check` does.
        """
        found = self._of(path, size)
        if found is not None and found.all():
            raise RequestError(f"{self.said}: nothing is left of {path or 'a picture'} to look at")
        return found if found is not None and found.any() else None

    def _of(self, path: str | Path | None, size: tuple[int, int]) -> NDArray[np.bool_] | None:
        if self.rectangle is not None:
            x, y, w, h = self.rectangle
            if x + w > size[1] or y + h > size[0]:
                raise RequestError(
                    f"{self.said} {self.digest}: reaches out of {path or 'a picture'}, which has "
                    f"{size[1]}x{size[0]} pixels"
                )
            found = np.zeros(size, dtype=bool)
            found[y : y + h, x : x + w] = True
            return found
        file = self.file_of(path)
        if file is None:
            return None
        values = mask_values(file)
        if values.shape != tuple(size):
            raise RequestError(
                f"{self.said} {file}: has {values.shape[1]}x{values.shape[0]} pixels, "
                f"{path or 'a picture'} has {size[1]}x{size[0]}; give a mask of its size"
            )
        # Half of the brightest: masks of 0 and 1 count, the ringing of JPEG does not.
        white: NDArray[np.bool_] = values > values.max() / 2
        return white

    @cached_property
    def _files(self) -> dict[str, Path]:
        """The masks of the folder by the name of their picture: its path below the folder in lower
        case, without ending."""
        assert self.masks is not None
        found: dict[str, Path] = {}
        for path in sorted(p for p in self.masks.rglob("*") if p.is_file()):
            below = path.relative_to(self.masks)
            if not is_picture(below):
                continue
            stem = path.stem.lower()
            name = next(stem.removesuffix(s) for s in reversed(SUFFIXES) if stem.endswith(s))
            name = below.with_name(name).as_posix().lower()
            if name in found:
                raise RequestError(
                    f"{self.said} {self.masks}: {found[name].name} and {path.name} are both masks "
                    f"of '{name}'; leave one"
                )
            found[name] = path
        return found

    def file_of(self, path: str | Path | None) -> Path | None:
        """The mask file of a picture; None where there is none, and for a rectangle.

        Of a folder, the mask that shares most of the picture's path: ``bad/0.png`` comes before
        ``0.png`` for ``photos/bad/0.jpg``."""
        if self.masks is None or path is None:
            return self.mask
        parts = Path(path).with_suffix("").parts
        names = ("/".join(parts[i:]).lower() for i in range(len(parts)))
        return next((self._files[name] for name in names if name in self._files), None)


def inside(home: Path, text: str) -> str:
    """Where the masks of an ``ignore`` lie below ``home``, with forward slashes; "" where they lie
    elsewhere, or there are none."""
    path = Path(home, text)
    return path.relative_to(home).as_posix() if text and path.is_relative_to(home) else ""


def of_sample(sample: Sample, size: tuple[int, int]) -> NDArray[np.bool_] | None:
    """What to ignore of a sample's picture, bool [H, W] of its (cropped) ``size``; None: nothing.

    Raises :class:`RequestError` for a mask of another size than the picture, and where nothing is
    left to look at.
    """
    if sample.ignore is None:
        return None
    if isinstance(sample.ignore, str):
        rule = Ignored(mask=Path(sample.ignore), said="ignore")
    else:
        rule = Ignored(rectangle=sample.ignore, said="ignore")
    found = rule.of(sample.image, whole_size(sample, size))
    if found is None or sample.crop is None:
        return found
    left, top, right, bottom = sample.crop
    found = found[top:bottom, left:right]
    if found.all():
        raise RequestError(f"ignore: nothing is left of {sample.uid} to look at")
    return found if found.any() else None


def shrunk(mask: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    """A mask [H, W] at the ``size`` (h, w) of a map; what is not set altogether stays so."""
    small = np.array(nearest(mask, size))
    if small.all() and not mask.all():
        row, column = np.unravel_index(int(np.argmin(mask)), mask.shape)
        small[row * size[0] // mask.shape[0], column * size[1] // mask.shape[1]] = False
    return small
