"""The sentences of AA-CLIP's released prompts, and the phrases that its code gives known classes.
Torch-free."""

from __future__ import annotations

from zsad.types import Category, Names

NORMAL_STATES = ("{}", "a {}", "the {}")
ANOMALOUS_STATES = (
    "a damaged {}",
    "a broken {}",
    "a {} with flaw",
    "a {} with defect",
    "a {} with damage",
)
STATES = (NORMAL_STATES, ANOMALOUS_STATES)
TEMPLATES = ("{}.", "a photo of {}.")
NORMAL = len(NORMAL_STATES) * len(TEMPLATES)
"""How many of the sentences of an object are normal ones; they come first."""

# They describe the pictures of the datasets, test pictures included: what they say was seen there.
_MVTEC = {
    "bottle": "dark bottle",
    "cable": "top view of three cables",
    "capsule": "black and orange capsule",
    "carpet": "gray carpet",
    "grid": "metal or plastic mesh",
    "hazelnut": "single brown hazelnut",
    "leather": "brown leather",
    "metal_nut": "metal nut which has four notched edges",
    "pill": "oval white pill with small red speckles and the letters 'FF' engraved",
    "screw": "screw",
    "tile": "speckled tile surface",
    "transistor": "a three-legged transistor placed vertically",
    "toothbrush": "toothbrush head",
    "wood": "wood surface",
    "zipper": "a black zipper",
}
_VISA = {
    "candle": "candle",
    "pcb1": "dual ultrasonic distance sensor pcb module",
    "pcb2": "integrated circuits board",
    "pcb3": "infrared sensor pcb module",
    "pcb4": "battery charging pcb module",
    "macaroni1": "orange macaroni",
    "macaroni2": "scattered yellow macaroni",
    "capsules": "capsules",
    "cashew": "cashew nut",
    "chewinggum": "chewing gum",
    "fryum": "wheel-shaped fryum snack",
    "pipe_fryum": "pipe-shaped fryum",
}
_MPDD = {
    "connector": "metal clamps with black adjustment knobs",
    "tubes": "scattered metal objects",
    "metal_plate": "blue rectangular metal plate with a notch on one side",
    "bracket_white": "white, elongated triangular metal bracket with a smooth, matte finish",
    "bracket_brown": "brown L-shaped metal bracket with smooth, glossy finish and multiple "
    "mounting holes along its arms",
    "bracket_black": "black ornamental metal bracket with spiral design attached to a rectangular "
    "frame",
}
_BTAD = {
    "01": "Bright concentric rings in neon yellow and blue tones against a dark blue background, "
    "resembling a stylized wave or energy field radiating outward.",
    "02": "vertical fabric lines in warm, dusty pink and beige tones",
    "03": "oval concentric circular rings in gradient shades of blue and white",
}
_SCAN, _COLON = "scan", "colon endoscopy image"
TABLES = {  # by dataset and category, in our names
    "mvtec": _MVTEC,
    "visa": _VISA,
    "mpdd": _MPDD,
    "btad": _BTAD,
    "brainmri_bmad": {"brain": _SCAN},
    "liverct": {"liver": _SCAN},
    "resc": {"retina": _SCAN},
    **{name: {"colon": _COLON} for name in ("cvc_clinicdb", "cvc_colondb", "kvasir")},
}
OWN = {  # pictures that belong to no dataset
    **_MVTEC,
    **_VISA,
    **_MPDD,
    **_BTAD,
    **dict.fromkeys(("brain", "liver", "retina"), _SCAN),
    **dict.fromkeys(
        ("clinicdb", "cvc-clinicdb", "colondb", "cvc-colondb", "kvasir", "cvc-300"), _COLON
    ),
}


def word(category: Category, names: Names) -> str:
    """Return the name of a category that the prompts say; released: its phrase, where the authors
    gave it one."""
    if names == "spoken":
        return category.class_name
    table = TABLES.get(category.dataset, {}) if category.dataset else OWN
    return table.get(category.key.lower().replace(" ", "_"), category.class_name)
