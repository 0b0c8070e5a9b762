"""The 35 templates of APRIL-GAN's state prompt ensemble.  Torch-free."""

from __future__ import annotations

_QUALITIES = ("bright", "blurry", "jpeg corrupted", "low resolution", "black and white", "cropped")
_MORE = ("bad", "dark", "good", "close-up")
TEMPLATES = (
    *(f"a {how} photo of {the} {{}}." for how in (*_QUALITIES, *_MORE) for the in ("a", "the")),
    *(f"a photo of {the} {size} {{}}." for size in ("large", "small") for the in ("a", "the")),
    *(f"a photo of {the} cool {{}}." for the in ("a", "the")),
    *(f"a photo of {who} {{}}." for who in ("a", "the", "my", "one")),
    *(
        f"{what} {the} {{}} in the scene."
        for what in ("there is", "this is")
        for the in ["a", "the"]
    ),
    "this is one {} in the scene.",
)
"""The 35 templates of the released code, in another order: their mean does not depend on it."""
