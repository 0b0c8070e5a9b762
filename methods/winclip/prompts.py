"""The compositional prompt ensemble: every state phrase in every template (154 and 88 prompts)."""

from __future__ import annotations

NORMAL_STATES = (
    "{}",
    "flawless {}",
    "perfect {}",
    "unblemished {}",
    "{} without flaw",
    "{} without defect",
    "{} without damage",
)
ANOMALOUS_STATES = ("damaged {}", "{} with flaw", "{} with defect", "{} with damage")

_LOOKS = ("cropped", "close-up", "bright", "dark", "jpeg corrupted", "blurry")
_SIZES = ("small", "large")
_TASKS = ("visual inspection", "anomaly detection")

TEMPLATES = (
    *(f"a {look} photo of {the} {{}}." for look in _LOOKS for the in ("a", "the")),
    *(f"a photo of {the} {{}}." for the in ("a", "the")),
    *(f"a photo of {the} {size} {{}}." for size in _SIZES for the in ("a", "the")),
    *(f"a photo of {the} {{}} for {task}." for task in _TASKS for the in ("a", "the")),
)


def states(class_name: str) -> tuple[list[str], list[str]]:
    """Return the normal and the anomalous state phrases of ``class_name``."""
    return (
        [state.format(class_name) for state in NORMAL_STATES],
        [state.format(class_name) for state in ANOMALOUS_STATES],
    )


def prompts(phrase: str) -> list[str]:
    """Return ``phrase`` in all 22 templates."""
    return [template.format(phrase) for template in TEMPLATES]
