"""Detections on disk, so that every image is looked at once per prompt and detector."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path

from zsad.errors import DataError
from zsad.io import read_json, write_json
from zsad.io.caches import cache_folder
from zsad.types import Boxes


def default_folder() -> Path:
    """``$ZSAD_CACHE/boxes``, else below the user's cache folder."""
    return cache_folder() / "boxes"


class BoxCache:
    """Answers of one detector.  ``identity`` covers its weights and options."""

    def __init__(self, identity: str, folder: Path | None = None) -> None:
        short = hashlib.sha256(identity.encode()).hexdigest()[:20]
        self.folder = (folder or default_folder()) / short

    def path(self, image_digest: str, phrases: Sequence[str]) -> Path:
        """The file of one image and prompt."""
        prompt = hashlib.sha256("\n".join(phrases).encode()).hexdigest()[:16]
        return self.folder / image_digest[:2] / f"{image_digest[:40]}-{prompt}.json"

    def get(self, image_digest: str, phrases: Sequence[str]) -> Boxes | None:
        """Return a stored answer; a file that cannot be read counts as absent."""
        path = self.path(image_digest, phrases)
        if not path.is_file():
            return None
        try:
            return Boxes.from_dict(read_json(path))
        except (DataError, ValueError):
            return None

    def put(self, image_digest: str, phrases: Sequence[str], boxes: Boxes) -> None:
        """Store an answer atomically."""
        write_json(self.path(image_digest, phrases), dataclasses.asdict(boxes))
