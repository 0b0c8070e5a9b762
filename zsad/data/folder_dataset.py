"""A definition for a user's own folder of pictures, made from what lies in it."""

from __future__ import annotations

import json
import re
from pathlib import Path

from zsad import registry
from zsad.data.definition import CategorySpec, DatasetSpec, Layout, VariantSpec
from zsad.data.indexers.base import find_folder, subfolders
from zsad.data.indexers.folders import is_plain
from zsad.errors import RequestError
from zsad.io.names import at_home


def folder_spec(path: Path) -> DatasetSpec:
    """Define a dataset from a folder.

    Recognised, in this order: ``normal/`` and ``anomalous/``; ``test/<type>/`` with
    ``ground_truth/<type>/``; a folder for each category with either of these; a ``meta.json``.
    The folder's name is what prompts call the thing.  Raises :class:`RequestError` that says
    what was expected.
    """
    home = at_home(path).resolve()
    if not home.is_dir():
        raise RequestError(f"folder:{path}: no such folder")
    categories, layout = _recognised(home)
    return DatasetSpec(
        name=_free_name(home.name),
        title=home.name,
        categories={key: CategorySpec(spoken(key)) for key in categories},
        variants={"default": VariantSpec("as it lies", (layout,))},
        default_variant="default",
        root=str(home),
        modality="own pictures",
        licence="the user's own",
    )


def _recognised(home: Path) -> tuple[list[str], Layout]:
    folders = subfolders(home)
    if is_plain(home):
        return [home.name], Layout("folder", looks="normal/ and anomalous/")
    if find_folder(home, "test") is not None:
        options = {"folders": {home.name: ["."]}, **_masks(home)}
        return [home.name], Layout("mvtec_like", options, looks="test/good/ and test/<type>/")
    if any(is_plain(f) for f in folders.values()):
        names = [n for n, f in folders.items() if is_plain(f)]
        return names, Layout("folder", looks="<category>/normal/ and <category>/anomalous/")
    tested = [n for n, f in folders.items() if find_folder(f, "test") is not None]
    if tested:
        return tested, Layout(
            "mvtec_like", _masks(folders[tested[0]]), looks="<category>/test/good/"
        )
    if (home / "meta.json").is_file():
        return _meta_classes(home / "meta.json"), Layout("meta_json", looks="meta.json")
    raise RequestError(
        f"folder:{home}: holds neither normal/ and anomalous/, nor test/, nor a meta.json "
        "(nor folders of these); sort the pictures into normal/ and anomalous/"
    )


def _masks(home: Path) -> dict[str, str | None]:
    return {} if find_folder(home, "ground_truth") is not None else {"masks": None}


def _meta_classes(path: Path) -> list[str]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return sorted({str(name) for part in content.values() for name in part})
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise RequestError(f"{path}: not a meta.json ({error})") from None


def spoken(key: str) -> str:
    """How prompts call a folder: ``metal_nut`` -> ``metal nut``."""
    return re.sub(r"[_\-\s]+", " ", key).strip() or "object"


def _free_name(folder: str) -> str:
    """A dataset name made from a folder's name that no bundled dataset has."""
    name = re.sub(r"[^A-Za-z0-9_.-]+", "_", folder).strip("._") or "folder"
    return f"{name}-folder" if name in registry.yaml_names("datasets") else name
