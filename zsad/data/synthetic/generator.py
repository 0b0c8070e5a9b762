"""Draws one picture of the generated benchmark: scene, then defect or not, then photograph.

A picture is a pure function of (seed, split, category, index, label, size).  The same scene,
nuisances and camera are drawn with and without the defect; only the defect step differs.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from zsad.data.synthetic import built, defects, families, finish, objects, textures
from zsad.data.synthetic.fields import F32, Array, Rng
from zsad.data.synthetic.palette import colour_name
from zsad.data.synthetic.scene import Flaw, Maker

SIZE = 224  # pixels
VISIBLE = 0.06  # least mean change of a defect's pixels, of a range of 1
Group = Literal["train", "test"]


@dataclass(frozen=True)
class Kind:
    """One category: its maker, its group, and the structural defects its maker knows."""

    key: str
    class_name: str
    kind: Literal["object", "texture"]
    group: Group
    make: Maker
    structural: tuple[str, ...] = ()
    outline: bool = False  # it has an edge on the picture that can break

    @property
    def defects(self) -> tuple[str, ...]:
        """Names of the defects it can have, all of its own group."""
        overlays = defects.TRAIN_DEFECTS if self.group == "train" else defects.TEST_DEFECTS
        names = [d for d in overlays if d != "broken edge" or self.outline]
        return (*names, *self.structural)


_TABLE: tuple[Kind, ...] = (
    Kind("wood", "wood", "texture", "test", textures.wood),
    Kind("leather", "leather", "texture", "test", textures.leather),
    Kind(
        "perforated_sheet",
        "perforated sheet",
        "texture",
        "test",
        textures.perforated,
        ("missing part",),
    ),
    Kind("tile", "tile", "texture", "test", textures.tile, ("missing part",)),
    Kind("capsule", "capsule", "object", "test", objects.capsule, (), True),
    Kind("metal_nut", "metal nut", "object", "test", objects.metal_nut, ("missing part",), True),
    Kind("bottle", "bottle", "object", "test", objects.bottle, ("missing part",), True),
    Kind("zipper", "zipper", "object", "test", objects.zipper, ("missing part", "bent")),
    Kind("fabric", "woven fabric", "texture", "train", textures.woven),
    Kind("wire_grid", "wire grid", "texture", "train", textures.wire_grid, ("misplaced",)),
    Kind("brushed_metal", "brushed metal", "texture", "train", textures.brushed_metal),
    Kind("marble", "marble", "texture", "train", textures.marble),
    Kind("carpet", "carpet", "texture", "train", textures.carpet),
    Kind("screw", "screw", "object", "train", objects.screw, (), True),
    Kind("pill", "pill", "object", "train", objects.pill, (), True),
    Kind("cable", "cable", "object", "train", objects.cable, ("misplaced",), True),
    Kind(
        "circuit_board", "circuit board", "object", "train", objects.circuit_board, ("misplaced",)
    ),
    Kind("button", "button", "object", "train", objects.button, (), True),
)
CATEGORIES: dict[str, Kind] = {k.key: k for k in _TABLE}

ODD = ("misplaced", "mismatched")  # structural defects of things that are built of equal parts
# Open families of the train group: only the training script of zsad-tiny draws from them.
FAMILIES: dict[str, Kind] = {
    "any_texture": Kind("any_texture", "surface", "texture", "train", families.any_texture),
    "any_object": Kind(
        "any_object", "part", "object", "train", families.any_object, ("misplaced",), True
    ),
    "many_parts": Kind("many_parts", "parts", "object", "train", families.many_parts, (), True),
    "wire_bundle": Kind("wire_bundle", "wires", "texture", "train", objects.wire_bundle),
    "patterned_sheet": Kind(
        "patterned_sheet", "sheet", "texture", "train", built.patterned_sheet, ODD
    ),
    "strip": Kind("strip", "strip", "object", "train", built.strip, ODD),
    "turned_part": Kind(
        "turned_part", "workpiece", "object", "train", built.turned_part, ODD, True
    ),
    "rod": Kind("rod", "component", "object", "train", built.rod, (), True),
    "printed_thing": Kind(
        "printed_thing", "product", "object", "train", built.printed_thing, (), True
    ),
}
ANY_DEFECT = "any"  # families.any_defect; training script only


@dataclass
class Picture:
    """``image`` uint8 [n, n, 3]; ``mask`` bool [n, n]; ``clean``: the same picture without the
    defect step, where it was asked for.  ``defect``, ``colour`` and ``nuisances`` are what a
    caption can say."""

    image: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    defect: str
    colour: str
    nuisances: list[str]
    clean: NDArray[np.uint8] | None = None


def stream(*parts: object) -> Rng:
    """A random stream that belongs to ``parts``; the same on every machine."""
    words = [zlib.crc32(f"{i}|{p}".encode()) for i, p in enumerate(parts)]
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(words)))


def choose_defect(kind: Kind, seed: int, split: str, index: int) -> str:
    """The defect of an anomalous picture: the kinds take turns, from a random start."""
    names = kind.defects
    start = zlib.crc32(f"{seed}|{split}|{kind.key}".encode())
    return names[(start + index) % len(names)]


def draw(
    kind: Kind,
    *,
    seed: int,
    split: str,
    index: int,
    label: int,
    size: int = SIZE,
    defect: str | None = None,
    with_clean: bool = False,
) -> Picture:
    """Draw picture ``index`` of a category; ``defect`` overrides the one whose turn it is."""
    key = (seed, split, kind.key, index, label)
    name = (defect or choose_defect(kind, seed, split, index)) if label else ""
    mask = np.zeros((size, size), bool)
    scene = kind.make(stream(*key, "scene"), size, None)
    picture = scene.picture
    if label:
        name, picture, mask = _damage(kind, name, key, picture, scene.support, size)

    def develop(raw: Array) -> tuple[NDArray[np.uint8], list[str]]:
        lit, added = finish.nuisances(stream(*key, "nuisance"), raw)
        return finish.photograph(stream(*key, "camera"), lit), added

    image, added = develop(picture)
    clean = develop(scene.picture)[0] if with_clean else None
    return Picture(image, mask, name, colour_name(scene.colour), added, clean)


def _damage(
    kind: Kind, name: str, key: tuple[object, ...], clean: Array, support: Array, size: int
) -> tuple[str, Array, NDArray[np.bool_]]:
    """The defect's name, the picture with it, and its exact mask.

    A defect that cannot be seen (a part that a thing happens not to have) is drawn again, and in
    the end replaced by the plainest one of the group."""
    best: tuple[float, Array, NDArray[np.bool_]] | None = None
    for attempt in range(8):
        if attempt == 4:
            if best is not None:
                break
            name = "contamination" if kind.group == "train" else "hole"
        rng = stream(*key, "defect", attempt)
        if name in kind.structural:
            changed = kind.make(stream(*key, "scene"), size, Flaw(name, rng)).picture
            # Grain drawn after the flaw is the same, so what differs is the flaw.
            mask = np.abs(changed - clean).max(2) > 0.02
        else:
            overlay = families.any_defect if name == ANY_DEFECT else _OVERLAYS[name]
            changed, alpha = overlay(rng, clean, support)
            mask = alpha > 0.08
        changed = np.where(mask[..., None], np.clip(changed, 0, 1), clean).astype(F32)
        area = int(mask.sum())
        if area:
            contrast = float(np.abs(changed - clean)[mask].mean())
            seen = contrast * min(1.0, area / (size * size * 0.002))
            if best is None or seen > best[0]:
                best = (seen, changed, mask)
            if seen > 0.07:
                break
    assert best is not None, f"no visible {name} on {kind.key}"
    _, changed, mask = best
    contrast = float(np.abs(changed - clean)[mask].mean())
    if contrast < VISIBLE:  # a shade on a nearly black thing
        lift = F32(min(6.0, VISIBLE / max(contrast, 1e-3)))
        lifted: Array = np.clip(clean + (changed - clean) * lift, 0, 1)
        if float(np.abs(lifted - clean)[mask].mean()) < VISIBLE / 2:
            lifted = clean + F32(VISIBLE)
        changed = np.where(mask[..., None], lifted, clean)
    return name, changed, mask


_OVERLAYS = {**defects.TEST_DEFECTS, **defects.TRAIN_DEFECTS}
