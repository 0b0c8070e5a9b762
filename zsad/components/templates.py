"""WinCLIP's compositional prompt ensemble: every state phrase in every template (154 and 88
prompts).  Others take its states, its templates or both.  Torch-free."""

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

BROKEN_STATES = ("damaged {}", "broken {}", "{} with flaw", "{} with defect", "{} with damage")
"""The anomalous states of APRIL-GAN, and of those that take them over."""

_LOOKS = ("cropped", "close-up", "bright", "dark", "jpeg corrupted", "blurry")
_SIZES = ("small", "large")
_TASKS = ("visual inspection", "anomaly detection")

TEMPLATES = (
    *(f"a {look} photo of {the} {{}}." for look in _LOOKS for the in ("a", "the")),
    *(f"a photo of {the} {{}}." for the in ("a", "the")),
    *(f"a photo of {the} {size} {{}}." for size in _SIZES for the in ("a", "the")),
    *(f"a photo of {the} {{}} for {task}." for task in _TASKS for the in ("a", "the")),
)

_QUALITIES = ("bright", "blurry", "jpeg corrupted", "low resolution", "black and white", "cropped")
_MORE = ("bad", "dark", "good", "close-up")

SCENE_TEMPLATES = (
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
"""The 35 of the released code of APRIL-GAN and MVFA-AD, in another order, which changes no mean."""
