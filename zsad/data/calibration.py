"""The pictures that an encoder's 8-bit ranges are measured on: of ``synthetic``'s training group.

The first normal and the first anomalous picture of every category of that group, in the order of
the catalogue.  Nothing of it is ever evaluated.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files

from torch import Tensor

from zsad import config as cfg
from zsad.backbones.engines.interface import Examples
from zsad.data.synthetic.dataset import address, read
from zsad.data.synthetic.generator import CATEGORIES
from zsad.data.transforms import Preprocess
from zsad.types import BackboneInfo, EncoderVariant

SEED = 0
LABELS = (0, 1)
_NAMES = [name for name, kind in CATEGORIES.items() if kind.group == "train"]


def addresses() -> list[str]:
    """The addresses of the pictures, in order."""
    return [address(name, SEED, "train", 0, label) for name in _NAMES for label in LABELS]


def _images(info: BackboneInfo, variant: EncoderVariant) -> Iterator[Tensor]:
    prepare = Preprocess.for_variant(info, variant)
    return (prepare(read(uri))[None] for uri in addresses())


def _drawn_by() -> str:
    """Hash of the code that draws and prepares them."""
    drawing = files("zsad.data") / "synthetic"
    sources = [p for p in drawing.iterdir() if p.name.endswith(".py")]
    sources.append(files("zsad.data") / "transforms.py")
    texts = {p.name: p.read_text(encoding="utf-8") for p in sources}
    return cfg.digest([dict(sorted(texts.items())), addresses()], 16)


EXAMPLES = Examples(
    of={"dataset": "synthetic", "group": "train", "pictures": len(addresses())},
    drawn_by=_drawn_by,
    images=_images,
)
