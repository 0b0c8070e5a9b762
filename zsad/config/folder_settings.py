"""What a folder of pictures cannot say of itself."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class FolderSettings:
    """``data.folder.*``: what a folder cannot say, for the ``folder:`` datasets of the command.

    ``class_name``: what prompts call the thing.  ``mask_threshold``: grey values above it (of 255)
    are anomalous; None: 0, and 127 for lossy masks.  ``bits``: that deep grey pictures use, such as
    12 in files of 16; 0: as the files say.  ``ignore``: what is not looked at: x,y,w,h in pixels of
    every picture, or a mask file or a folder of masks below the folder.  They enter the identity of
    those datasets.
    """

    class_name: str = ""
    mask_threshold: int | None = None
    bits: int = 0
    ignore: str = ""

    def __post_init__(self) -> None:
        check_reading(self.mask_threshold, self.bits)


def check_reading(mask_threshold: int | None, bits: int) -> None:
    """Raise ``ValueError`` for a threshold of masks, or a depth, that no file can have."""
    if mask_threshold is not None and not 0 <= mask_threshold <= 254:
        raise ValueError(f"mask_threshold={mask_threshold} must lie in 0..254")
    if not 0 <= bits <= 32:
        raise ValueError(f"bits={bits} must lie in 1..32, or be 0 (as the files say)")
