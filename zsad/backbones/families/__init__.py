"""Families of backbones beside CLIP: a file each, found here or in a folder of plug-ins.  No torch.

A file is a module with ``FAMILY``, an :class:`zsad.backbones.families.image_family.ImageFamily`.
Those in this folder are found by themselves; further ones lie in ``DIR/backbones/`` of
``--plugins DIR``.  ``docs/add-a-backbone.md`` writes one.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from zsad.backbones.backbone_spec import BackboneSpec
from zsad.errors import RequestError, reason

if TYPE_CHECKING:
    from zsad.backbones.families.image_family import ImageFamily

BASE = "image_family"  # the module here that holds no family
FOLDER = "backbones"  # of plug-ins
_FILES: list[Path] = []


def plugin_files(folder: Path) -> list[Path]:
    """The files of families in a folder of plug-ins."""
    return sorted((folder / FOLDER).glob("[!_]*.py"))


def add_folder(folder: Path) -> None:
    """Also know the families in a folder of plug-ins."""
    _FILES.extend(path for path in plugin_files(folder) if path not in _FILES)
    _known.cache_clear()


def forget() -> None:
    """Know the families of zsad alone, as a new process does."""
    _FILES.clear()
    _known.cache_clear()


def family(name: str) -> ImageFamily:
    """One family by the name that specs have.  Raises ``KeyError``."""
    return _known()[name]


def specs() -> dict[str, BackboneSpec]:
    """The backbones of all families by name.

    Raises :class:`RequestError` for a file that cannot be imported, holds no family, or repeats a
    name.
    """
    return {one.name: one for found in _known().values() for one in found.specs()}


@cache
def _known() -> dict[str, ImageFamily]:
    modules = [
        importlib.import_module(f"{__name__}.{found.name}")
        for found in pkgutil.iter_modules(__path__)
        if found.name != BASE
    ]
    known: dict[str, ImageFamily] = {}
    names: set[str] = set()
    for module in [*modules, *map(_imported, _FILES)]:
        found: ImageFamily | None = getattr(module, "FAMILY", None)
        if found is None:
            raise RequestError(
                f"{module.__file__}: defines no FAMILY; see docs/add-a-backbone.md, or move the "
                f"file out of the folder {FOLDER}"
            )
        own = [spec.name for spec in found.specs()]
        if repeated := (names & set(own)) | ({found.name} & set(known)):
            raise RequestError(f"{module.__file__}: '{min(repeated)}' is defined elsewhere, too")
        names.update(own)
        known[found.name] = found
    return known


def _imported(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"zsad_backbones_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # the author's own code: whatever it raises
        raise RequestError(f"{path}: cannot be imported ({reason(error)})") from None
    return module
