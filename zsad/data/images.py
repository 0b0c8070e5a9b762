"""Files to pixels: images by their content, masks by a stated rule.  No torch.

Every rule that changes a pixel is in :data:`DECODING_RULES`, which goes into the record of a run.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import io
import logging
import math
import operator
from collections.abc import Callable
from functools import cache
from pathlib import Path, PurePath

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from zsad.data import deep_colour, plausible
from zsad.data.picture_file import has_metadata, read_bytes
from zsad.data.pixel_values import DEEP, eight_bit, guessed_range, kept_levels, mask_levels, to_rgb
from zsad.errors import DataError, ZsadError, gist
from zsad.io import foreign
from zsad.io.bounds import PICTURE
from zsad.runtime.pictures import holds_more
from zsad.types import Sample

# The one list of what a picture is: Pillow's name of a format, and how its files' names end.  A
# file is *looked for* by its ending, *read* by its first bytes.  None whose reading starts a
# program (PostScript) or that any content passes for (TGA).
FORMATS: dict[str, tuple[str, ...]] = {
    "PNG": (".png", ".apng"),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "MPO": (".mpo",),
    "BMP": (".bmp",),
    "DIB": (".dib",),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
    "JPEG2000": (".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
    "AVIF": (".avif", ".avifs"),
    "ICO": (".ico",),
    "PCX": (".pcx",),
    "SGI": (".sgi", ".rgb", ".rgba", ".bw"),
}
HEIF = (".heic", ".heics", ".heif", ".heifs", ".hif")  # read where the extra `heic` is installed
if importlib.util.find_spec("pillow_heif") is not None:
    FORMATS["HEIF"] = HEIF
WIDE = (*FORMATS["TIFF"], ".pfm")  # endings of files that may hold pictures of 32 bits

DECODING_RULES: dict[str, str] = {
    "format": "by content; the file's ending is ignored",
    "alpha": "composited on black",
    "deep_grey": "16-bit values divided by 257, 32-bit ones by their range, rounded",
    "orientation": "EXIF orientation applied",
    "animation": "first frame",
    "mask": "grey value (of 255) above the dataset's threshold, 0 unless stated, is anomalous; "
    "palette masks by index where index 0 is black",
    "mask_size": "a mask of the image's proportions is scaled to it by nearest neighbour; "
    "any other size is an error",
}

# Reading of URIs "scheme://...": each function returns the image or the mask that a URI denotes.
Reader = Callable[[str], Image.Image]
READERS: dict[str, Reader] = {}

Crop = tuple[int, int, int, int]

_ORIENTATION = 0x0112  # EXIF tag
_BROKEN = (Exception,)  # decoders raise whatever they like, and no list of types is complete


def register_reader(scheme: str, reader: Reader) -> None:
    """Let ``reader`` answer for URIs that start with ``scheme://``."""
    READERS[scheme] = reader


def endings() -> list[str]:
    """How the names of picture files end (lower case, with the dot), sorted."""
    return sorted(ending for known in FORMATS.values() for ending in known)


def is_picture(name: str | Path) -> bool:
    """Whether a file is taken for a picture where a folder is searched, judged by its name alone.

    ``name``: the file's name, or its path below that folder.  Case makes no difference.  What is
    hidden (a name or a folder on the way that begins with a dot, as in ``._0.jpg``) is not one.
    """
    path = PurePath(name)
    suffix = path.suffix.lower()
    hidden = any(part.startswith(".") for part in path.parts)
    return not hidden and any(suffix in known for known in FORMATS.values())


def decodable(path: str | Path) -> bool:
    """Whether the first bytes of a file are those of a picture of :data:`FORMATS`."""
    try:
        with Image.open(path, formats=_formats()):
            return True
    except Exception:  # whatever a decoder raises
        try:  # what Pillow refuses and tifffile reads
            with open(path, "rb") as file:
                return file.read(4) in _TIFF
        except OSError:
            return False


def read_image(
    uri: str | Path, crop: Crop | None = None, bits: int = 0, stored: bool = False
) -> Image.Image:
    """Read an image as 8-bit RGB, upright.  ``crop`` = (left, top, right, bottom) in pixels.

    ``bits``: how many a deep picture uses, such as 12 of 16; 0: as many as its type holds.
    ``stored``: in the mode that the file has (palette, grey, with alpha) unless that is deep.
    Raises :class:`DataError` that names the file.
    """
    text = str(uri)
    try:
        image = _open(text, bits)
        if not stored or image.mode.startswith(("I", "F")):
            image = to_rgb(image, text, bits)
    except ZsadError:
        raise
    except Exception as error:  # each decoder raises types of its own
        raise _unreadable(text, error) from None
    return image if crop is None else image.crop(_inside(crop, image.size, text))


def image_size(uri: str | Path) -> tuple[int, int]:
    """(height, width) as :func:`read_image` returns it, from the file's header."""
    text = str(uri)
    if "://" in text:
        width, height = _open(text).size
        return height, width
    shape = _shape(text)
    return (shape[1], shape[0]) if shape[2] else shape[:2]


def image_range(uri: str | Path, bits: int = 0) -> tuple[str, float, float]:
    """(mode, brightest value, largest possible value) of a file; the values are 0 for 8 bits."""
    text = str(uri)
    if "://" not in text:
        content = read_bytes(text)
        with contextlib.suppress(*_BROKEN), open_header(io.BytesIO(content)) as opened:
            if deep_colour.is_deep(opened):
                high = float(deep_colour.values(opened, content).max(initial=0))
                return f"{opened.mode};16", high, float(2 ** (bits or 16) - 1)
    image = _open(text, bits)
    if not image.mode.startswith("I"):
        return image.mode, 0.0, 0.0
    sixteen = "16" in image.mode or image.format == "PPM"
    full = float(2 ** (bits or (16 if sixteen else 32)) - 1)
    return image.mode, float(np.asarray(image).max(initial=0)), full


def own_range(uri: str | Path) -> float | None:
    """What a 32-bit grey picture is divided by where nobody says how many bits it uses; None for
    any other picture, of which the header is read alone."""
    with contextlib.suppress(*_BROKEN), open_header(str(uri)) as image:
        if image.mode in ("I", "F") and image.format != "PPM":
            values = np.asarray(image)
            return guessed_range(image.mode == "F", float(values.max(initial=0)))
    return None


def read_mask(
    sample: Sample,
    size_hw: tuple[int, int] | None = None,
    seen_hw: tuple[int, int] | None = None,
) -> np.ndarray:
    """The binary mask of a sample, bool [H, W], in the geometry of its (cropped) image.

    ``size_hw``: wanted (height, width), by nearest neighbour; None keeps the image's own size.
    ``seen_hw``: the image's own, where it was read already.  Without a mask there are zeros;
    ``extra_masks`` are united.  Raises :class:`DataError` when a file is broken or its
    proportions are not the image's.
    """
    if sample.mask is None:
        return np.zeros(size_hw or seen_hw or sample_size(sample), dtype=bool)
    image_hw = whole_size(sample, seen_hw)
    marked = np.zeros(image_hw, dtype=bool)
    for uri in (sample.mask, *sample.extra_masks):
        values = mask_values(uri)
        plausible.look_at_mask(uri, values, sample.mask_threshold)
        values = _aligned(values, uri, sample.image, image_hw)
        marked |= values > sample.mask_threshold
    if sample.crop is not None:
        left, top, right, bottom = _inside(sample.crop, image_hw[::-1], sample.image)
        marked = marked[top:bottom, left:right]
    return marked if size_hw is None else nearest(marked, size_hw)


def mask_values(uri: str | Path) -> np.ndarray:
    """The grey values of a mask file, uint8 [H, W] (deep ones scaled up to keep any nonzero)."""
    text = str(uri)
    image = _open(text, mask=True)
    try:
        return mask_levels(image)
    except Exception as error:  # each decoder raises types of its own
        raise _unreadable(text, error) from None


def nearest(mask: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """Resize a bool mask [H, W] by nearest neighbour."""
    if mask.shape == tuple(size_hw):
        return mask
    image = Image.fromarray(mask.astype(np.uint8) * 255)
    resized = image.resize((size_hw[1], size_hw[0]), Image.Resampling.NEAREST)
    return np.asarray(resized) > 127


def image_digest(sample: Sample) -> str:
    """SHA-256 that identifies the picture: of the file's bytes and the crop.

    For a generated image it is that of its pixels, so that it follows the generator.
    """
    if "://" in sample.image:
        image = read_image(sample.image, sample.crop)
        content = repr(image.size).encode() + image.tobytes()
        return hashlib.sha256(content).hexdigest()
    digest = hashlib.sha256(read_bytes(sample.image))
    if sample.crop is not None:
        digest.update(repr(sample.crop).encode())
    return digest.hexdigest()


# ------------------------------------------------------------------------------- opening
def _open(uri: str, bits: int = 0, mask: bool = False) -> Image.Image:
    """The first frame of a file or URI, decoded, in its own mode, upright.

    Of a picture in colour with 16 bits each Pillow keeps the upper eight; where ``bits`` say that
    the lower ones count, or it is a mask, they are read, too."""
    scheme, separator, _ = uri.partition("://")
    if separator:
        if scheme not in READERS:
            raise DataError(f"{uri}: no reader is registered for '{scheme}://'")
        try:
            return READERS[scheme](uri)
        except ZsadError:
            raise
        except _BROKEN as error:  # a reader may be foreign code
            raise _unreadable(uri, error) from None
    content = read_bytes(uri)
    if not content:
        raise DataError(f"{uri}: the file is empty")
    try:
        if content[:4] in _TIFF and _needs_tifffile(content):
            return _from_tifffile(content, uri, bits, mask)
        with open_header(io.BytesIO(content)) as image:
            _check_size(image.size, uri)
            if holds_more(image, content):
                plausible.tell_of_more(uri)
            deep = deep_colour.is_deep(image)
            if deep and (bits or mask):
                return _lower_bits_too(image, content, uri, bits, mask)
            image.load()
            if deep and _maybe_dark(image):
                high = float(deep_colour.values(image, content).max(initial=0))
                plausible.look_at_range(uri, high, DEEP, chosen=False)
            turned = image.getexif().get(_ORIENTATION, 1) != 1
            return ImageOps.exif_transpose(image) if turned else image
    except DataError:
        raise
    except UnidentifiedImageError:
        words = foreign.describe(content[: foreign.HEAD])
        raise DataError(
            f"{uri}: not an image of a known format{f' (it is {words})' if words else ''}"
        ) from None
    except Image.DecompressionBombError:
        raise DataError(
            f"{uri}: more pixels than the limit of {PICTURE.value():,}; {PICTURE.raised()}"
        ) from None
    except _BROKEN as error:
        raise _unreadable(uri, error) from None


def _turned(image: Image.Image, orientation: int) -> Image.Image:
    """The image as an EXIF orientation says."""
    image.getexif()[_ORIENTATION] = orientation
    return ImageOps.exif_transpose(image)


def _maybe_dark(image: Image.Image) -> bool:
    """Whether the upper bytes of a picture in colour, which may be rounded, are nearly black."""
    upper = np.asarray(image.getextrema(), dtype=np.float64)[:3, 1].max()
    return bool(plausible.DARK * (upper - 0.5) <= 255)


def _lower_bits_too(
    image: Image.Image, content: bytes, uri: str, bits: int, mask: bool
) -> Image.Image:
    """A picture in colour with 16 bits each, opened and not loaded, as one of 8 bits, upright."""
    orientation = image.getexif().get(_ORIENTATION, 1)
    values = deep_colour.values(image, content)
    made = Image.fromarray(kept_levels(values, DEEP) if mask else eight_bit(values, uri, bits))
    made = _turned(made, orientation)
    if image.mode == "RGBA":
        image.load()
        turned = image.getexif().get(_ORIENTATION, 1) != 1
        made.putalpha((ImageOps.exif_transpose(image) if turned else image).getchannel("A"))
    return made


def open_header(file: str | Path | io.BytesIO) -> Image.Image:
    """Open a picture of :data:`FORMATS`; nothing but its header is read."""
    if PICTURE.value() > (Image.MAX_IMAGE_PIXELS or math.inf):
        Image.MAX_IMAGE_PIXELS = PICTURE.value()  # Pillow's own limit, of twice as many
    return Image.open(file, formats=_formats())


@cache
def _formats() -> tuple[str, ...]:
    """Those of :data:`FORMATS` that this Pillow can read."""
    Image.init()
    if "HEIF" in FORMATS:
        with contextlib.suppress(ImportError):  # built for another Pillow or libheif
            import pillow_heif

            pillow_heif.register_heif_opener(thumbnails=False)
    return tuple(f for f in FORMATS if f in Image.OPEN)


def _shape(path: str) -> tuple[int, int, bool]:
    """(height, width, turned) from the header; ``turned``: EXIF swaps the two."""
    try:
        with open_header(path) as image:
            # Pillow decodes a whole PNG for what may stand behind its pixels
            told = image.format != "PNG" or has_metadata(path)
            turned = told and image.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8)
            # Pillow swaps the size of a turned TIFF by itself, that of other formats not.
            tags = getattr(image, "tag_v2", None)
            height, width = (tags[257], tags[256]) if tags else (image.height, image.width)
            return operator.index(height), operator.index(width), turned
    except _BROKEN:
        decoded = _open(path)  # the slow way: multi-sample TIFF, or a clear error
        return decoded.height, decoded.width, False


def _check_size(size: tuple[int, int], uri: str) -> None:
    if size[0] * size[1] > PICTURE.value():
        raise DataError(
            f"{uri}: {size[0]}x{size[1]} pixels, more than the limit of {PICTURE.value():,}; "
            f"{PICTURE.raised()}"
        )


def _unreadable(uri: str, error: BaseException) -> DataError:
    if isinstance(error, MemoryError):
        return DataError(f"{uri}: too little memory to decode it")
    return DataError(f"{uri}: broken or truncated image ({gist(error)})")


_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def _needs_tifffile(content: bytes) -> bool:
    """Whether a TIFF has several samples per pixel under a greyscale tag (CVC-ClinicDB), or colour
    that is deep in separate planes or deeper than 16 bits.

    Pillow refuses such files or reads other pixels; OpenCV repeats the first sample three times.
    """
    import tifffile

    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # a file that is odd is said once
    with tifffile.TiffFile(io.BytesIO(content)) as file:
        page = file.pages.first
        grey = page.photometric in (
            tifffile.PHOTOMETRIC.MINISBLACK,
            tifffile.PHOTOMETRIC.MINISWHITE,
        )
        colour = page.photometric == tifffile.PHOTOMETRIC.RGB
        planes = page.planarconfig == tifffile.PLANARCONFIG.SEPARATE and page.bitspersample > 8
        wide = page.bitspersample > 16  # 32-bit and floating-point colour
        return bool(page.samplesperpixel >= 3 and (grey or (colour and (planes or wide))))


def _from_tifffile(content: bytes, uri: str, bits: int, mask: bool) -> Image.Image:
    import tifffile

    with tifffile.TiffFile(io.BytesIO(content)) as file:
        page = file.pages.first
        _check_size((page.imagewidth, page.imagelength), uri)
        # samples beyond the third, and planes behind the first one, are decoded, too
        _check_size((1, page.size // 4), uri)
        array = np.asarray(page.asarray())
        if page.planarconfig == tifffile.PLANARCONFIG.SEPARATE and array.ndim == 3:
            array = np.moveaxis(array, 0, -1)
    array = array[..., :3]
    if mask and array.dtype == np.uint16:
        return Image.fromarray(kept_levels(array, DEEP))
    return Image.fromarray(eight_bit(array, uri, bits))


# --------------------------------------------------------------------------------- masks
def _aligned(values: np.ndarray, uri: str, image_uri: str, image_hw: tuple[int, int]) -> np.ndarray:
    """A mask in the image's size: equal, in the image's stored (unturned) frame, or scaled."""
    height, width = values.shape
    if (height, width) == image_hw:
        return values
    turned = "://" not in image_uri and _shape(image_uri)[2]
    if turned and (width, height) == image_hw:
        return _turned_like(values, image_uri)
    if abs(height * image_hw[1] - width * image_hw[0]) <= 0.02 * height * image_hw[1]:
        scaled = Image.fromarray(values).resize(image_hw[::-1], Image.Resampling.NEAREST)
        return np.asarray(scaled)
    raise DataError(
        f"{uri}: mask of {width}x{height} pixels does not fit its image of "
        f"{image_hw[1]}x{image_hw[0]} ({image_uri})"
    )


def _turned_like(values: np.ndarray, image_uri: str) -> np.ndarray:
    """The mask turned as the EXIF orientation of its image says."""
    try:
        with open_header(image_uri) as image:
            orientation = image.getexif().get(_ORIENTATION, 1)
        return np.asarray(_turned(Image.fromarray(values), orientation))
    except _BROKEN as error:
        raise _unreadable(image_uri, error) from None


def _inside(crop: Crop, size_wh: tuple[int, int], uri: str) -> Crop:
    left, top, right, bottom = crop
    if not (0 <= left < right <= size_wh[0] and 0 <= top < bottom <= size_wh[1]):
        raise DataError(f"{uri}: the piece {crop} lies outside of {size_wh[0]}x{size_wh[1]} pixels")
    return crop


def whole_size(sample: Sample, seen_hw: tuple[int, int] | None = None) -> tuple[int, int]:
    """(height, width) of the whole picture; ``seen_hw``: the sample's, where it is known."""
    return seen_hw if seen_hw and sample.crop is None else image_size(sample.image)


def sample_size(sample: Sample) -> tuple[int, int]:
    """(height, width) of a sample's picture, of its piece where it is one of a larger picture."""
    if sample.crop is not None:
        left, top, right, bottom = sample.crop
        return bottom - top, right - left
    return image_size(sample.image)
