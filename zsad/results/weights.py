"""What a record says of the weights behind its figures.

Records carry the grade of their weights (:mod:`zsad.backbones.known_weights`) and the sentence
that every output has to say of them.  Those written before there were grades say a source that
was the name of a file, and a hash: what their weights were follows from the hash.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zsad.backbones import known_weights
from zsad.backbones.known_weights import UNKNOWN, Origin


def banner_of(info: Mapping[str, Any]) -> str:
    """What has to be said of the weights wherever a record's figures are shown, or ""."""
    said = str(info.get("banner") or "")
    digest = str(info.get("weights_sha256") or "")
    source = str(info.get("weights_source") or "")
    if "weights_grade" in info or source in ("random", "bundled") or not digest:
        return said
    if digest in known_weights.by_hash():
        return said
    unknown = known_weights.banner(Origin("unknown"), False, source, digest)
    return "; ".join(filter(None, [said, unknown]))


def differences(info: Mapping[str, Any]) -> list[str]:
    """In what the weights of a record are not those that its backbone's name stands for."""
    if info.get("weights_source") == "random":
        return ["random backbone weights"]
    said = banner_of(info)
    parts = said.split("; ")
    others = [part for part in parts if part.startswith((UNKNOWN, known_weights.OTHERS))]
    return ["demonstration backbone"] * ("demonstration" in said) + others
