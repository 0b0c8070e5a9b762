"""Pictures in colour with 16 bits of each: Pillow keeps the upper eight, which are 0 where a camera
fills the lower 8, 10 or 12.  No torch.

What Pillow decodes is decoded by Pillow here, too: twice, once for the upper and once for the lower
bytes.  TIFF files are read by tifffile.
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, TiffImagePlugin

_PNG = {"RGB;16B": "RGB;16L", "RGBA;16B": "RGBA;16L"}  # upper bytes: lower bytes
_BITS_PER_SAMPLE = 258  # a tag of TIFF


def is_deep(image: Image.Image) -> bool:
    """Whether an opened picture, whose pixels are not loaded, is in colour with 16 bits each."""
    if image.mode not in ("RGB", "RGBA"):
        return False
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return set(image.tag_v2.get(_BITS_PER_SAMPLE, ())) == {16}
    tile = image.tile[0].args if getattr(image, "tile", None) else ""  # type: ignore[attr-defined]
    return tile in _PNG or tile == ("RGB", 65535)


def values(image: Image.Image, content: bytes) -> np.ndarray:
    """uint16 [H, W, 3] of a picture that is deep, from the ``content`` of its file."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return _of_tiff(content)
    if image.format == "PPM":
        return _of_ppm(content)
    upper, lower = (_plane(content, low) for low in (False, True))
    joined: np.ndarray = (upper.astype(np.uint16) << 8) | lower
    return joined


def _plane(content: bytes, low: bool) -> np.ndarray:
    """The upper or lower bytes of a PNG file, uint8 [H, W, 3]."""
    with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
        if low:
            image.tile = [t._replace(args=_PNG[str(t.args)]) for t in image.tile]
        return np.asarray(image)[..., :3]


def _of_tiff(content: bytes) -> np.ndarray:
    import tifffile

    with tifffile.TiffFile(io.BytesIO(content)) as file:
        page = file.pages.first
        array = np.asarray(page.asarray())
        if page.planarconfig == tifffile.PLANARCONFIG.SEPARATE:
            array = np.moveaxis(array, 0, -1)
    return array[..., :3]


def _of_ppm(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content), formats=["PPM"]) as image:
        start, (width, height) = image.tile[0].offset, image.size
    found = np.frombuffer(content, ">u2", count=width * height * 3, offset=start)
    return found.reshape(height, width, 3).astype(np.uint16)
