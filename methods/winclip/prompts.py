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
STATES = (NORMAL_STATES, ANOMALOUS_STATES)

_LOOKS = ("cropped", "close-up", "bright", "dark", "jpeg corrupted", "blurry")
_SIZES = ("small", "large")
_TASKS = ("visual inspection", "anomaly detection")

TEMPLATES = (
    *(f"a {look} photo of {the} {{}}." for look in _LOOKS for the in ("a", "the")),
    *(f"a photo of {the} {{}}." for the in ("a", "the")),
    *(f"a photo of {the} {size} {{}}." for size in _SIZES for the in ("a", "the")),
    *(f"a photo of {the} {{}} for {task}." for task in _TASKS for the in ("a", "the")),
)

_DOUBLED = "a jpeg corrupted photo of the {}."
_MISSING = ("a cropped photo of a {}.", "a jpeg corrupted photo of a {}.")
REPRODUCTION = (*(t for t in TEMPLATES if t not in _MISSING), _DOUBLED)
"""The 21 of the re-implementation by AnomalyCLIP's authors (Accurate-WinCLIP, eef4f8c): two of the
paper's are missing, and one counts twice."""
