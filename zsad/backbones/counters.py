"""Counts what the encoders did, for the speed figures and for the tests of sharing."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields


@dataclass
class Counters:
    """Work done since the last :meth:`reset`.

    ``image_forwards``: calls of the image encoder on a batch; ``images``: images in them;
    ``resumed``: images whose upper blocks were run again on a changed stream;
    ``windows``: window passes; ``text_calls``: runs of the text tower; ``text_prompts``:
    prompts in them; ``text_tokens``: sequence positions that went through the tower.
    """

    image_forwards: int = 0
    images: int = 0
    resumed: int = 0
    windows: int = 0
    text_calls: int = 0
    text_prompts: int = 0
    text_tokens: int = 0

    def reset(self) -> None:
        """Set every count to 0."""
        for f in fields(self):
            setattr(self, f.name, 0)

    def as_dict(self) -> dict[str, int]:
        """Return the counts by name; ``image_encoder_forwards`` is what the document of ``zsad
        bench`` calls ``image_forwards``, and holds, too."""
        return {**asdict(self), "image_encoder_forwards": self.image_forwards}
