"""Settings beside those of methods: which first words of KEY=VALUE name them, and their layers.

``zsad bench`` and ``zsad predict`` read ``backbone.precision=bf16`` by the same rules.  No torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from zsad import config as cfg
from zsad.config import Settings

SECTIONS = ("backbone", "data", "metrics", "run", "ray")
COMMAND_LINE = "the command line"
PROTOCOL = "protocol "  # before a protocol's name, where it is the origin of a key


def resolve_settings(layers: Sequence[cfg.Layer]) -> cfg.Resolved[Settings]:
    """Build :class:`Settings` from the section layers; each is checked under its own origin."""
    chosen = [(o, {k: v for k, v in values.items() if k in SECTIONS}) for o, values in layers]
    return cfg.resolve(Settings, chosen)


def read_overrides(given: Mapping[str, Any] | Sequence[str] | None) -> dict[str, Any]:
    """Nested keys of what a caller wrote: nested mappings, dotted keys, or KEY=VALUE words."""
    if not given:
        return {}
    if isinstance(given, Mapping):
        nested = {k: v for k, v in given.items() if "." not in str(k)}
        dotted = [f"{k}={v}" for k, v in given.items() if "." in str(k)]
    else:
        nested, dotted = {}, list(given)
    return cfg.merge(nested, cfg.parse_dotlist(dotted) if dotted else {})
