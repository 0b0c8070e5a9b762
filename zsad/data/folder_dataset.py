"""A definition for a user's own folder of pictures, made from what lies in it."""

from __future__ import annotations

import glob
import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from zsad import registry
from zsad.config import FolderSettings
from zsad.data.account import Account
from zsad.data.definition import CategorySpec, DatasetSpec, Layout, VariantSpec
from zsad.data.ignored import inside
from zsad.data.indexers import INDEXERS, Indexing
from zsad.data.indexers.base import spoken
from zsad.data.indexers.lists import list_layout, strays_problem, unread
from zsad.data.indexers.mask_names import NAMING
from zsad.data.indexers.own_folder import NO_PICTURE, understand
from zsad.errors import RequestError, is_text
from zsad.io.names import at_home

VARIANT = "default"


@dataclass(frozen=True)
class Inferred:
    """What a folder was taken for.  ``account``: of every file, where the folders' names decide."""

    home: Path
    categories: Sequence[str]
    layout: Layout
    account: Account | None = None

    def spec(self, settings: FolderSettings) -> DatasetSpec:
        """The definition that stands for the folder, with what a folder cannot say."""
        return DatasetSpec(
            name=_free_name(self.home.name),
            title=self.home.name,
            categories={
                key: CategorySpec(settings.class_name or spoken(key)) for key in self.categories
            },
            variants={
                VARIANT: VariantSpec(
                    "as it lies",
                    (self.layout,),
                    mask_threshold=settings.mask_threshold,
                    bits=settings.bits,
                    ignore=settings.ignore,
                )
            },
            default_variant=VARIANT,
            root=str(self.home),
            modality="own pictures",
            licence="the user's own",
        )


def folder_spec(path: Path, settings: FolderSettings | None = None) -> DatasetSpec:
    """Define a dataset from a folder.

    The names of its folders say what is normal, anomalous, a training picture or a mask
    (:mod:`zsad.data.indexers.own_folder`); else a list does: ``meta.json``, COCO annotations or a
    table.  The folder's name, or that of each category's folder, is what prompts call the thing,
    unless ``settings`` name it.  Raises :class:`RequestError` where a picture has no role, with
    the first three and the way out.
    """
    settings = settings or FolderSettings()
    found = inferred(path, settings)
    spec = found.spec(settings)
    account, problems, wrong = found.account, unread(found.home), False
    if account is None:
        account, problems = _listed(found, spec)
        wrong = bool(problems)
    if account is not None:
        refuse_strays(found.home, account, problems, wrong)
    return spec


def account_of(path: Path, settings: FolderSettings) -> Account | None:
    """What every file of a folder is taken for, whatever is wrong with it."""
    found = inferred(path, settings)
    return found.account or _listed(found, found.spec(settings))[0]


def _listed(found: Inferred, spec: DatasetSpec) -> tuple[Account | None, list[str]]:
    """The account of a folder in which a list says what pictures are, and what is wrong with the
    list."""
    at = Indexing(spec, found.home, ignore_masks=inside(found.home, spec.variants[VARIANT].ignore))
    INDEXERS[found.layout.indexer](at, **found.layout.options)
    strays = strays_problem(at.account) if at.account else []
    return at.account, [p for p in at.problems if p not in strays]


def inferred(path: Path, settings: FolderSettings) -> Inferred:
    """What a folder is taken for, strays included.  Raises :class:`RequestError` where there is no
    folder, or none of the layouts in it."""
    home = at_home(path).resolve()
    if not home.is_dir():
        raise RequestError(f"folder:{path}: no such folder")
    found = understand(home, ignore_masks=inside(home, settings.ignore))
    if not found.pictures and (listed := list_layout(home)) is not None:
        return Inferred(home, *listed)
    categories = [key or home.name for key in found.categories]
    many = found.categories != [""]
    looks = "<category>/normal/ or the like" if many else "normal/ and anomalous/, or the like"
    if not found.recognised and not found.account.without_role:
        odd = "".join(f"; {why}" for why in unread(home)[:1])
        raise RequestError(
            f"folder:{home}: holds no pictures in normal/, anomalous/, train/ or test/, and no "
            f"list of pictures; sort the pictures into normal/ and anomalous/{odd}"
        )
    return Inferred(home, categories, Layout("folder", looks=looks), found.account)


def refuse_strays(
    home: Path, account: Account, problems: Sequence[str] = (), wrong: bool = False
) -> None:
    """Raise :class:`RequestError` if a picture has no role, with the way out.

    ``problems``: what is to be said of the lists that lie there; ``wrong``: whether that is wrong
    with the one that says what pictures are, and stays so in a definition."""
    folder = shlex.quote(str(home))
    masks = any(e.reason.startswith(NO_PICTURE) for e in account.without_role)
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    advice = [f"{problems[0]}{more}"] if problems else []
    advice += [NAMING] if masks else []
    if not wrong:
        advice.append("sort the pictures into normal/ and anomalous/")
    counts = account.counts()
    if counts["normal"] + counts["anomalous"] and not wrong:
        advice.append(
            f"`zsad data check {folder} --write my.yaml` writes a definition that leaves them out"
        )
    advice.append(f"`zsad data check {folder}` shows what every file was taken for")
    account.refuse("; ".join(advice))


def _texts(value: Any) -> Iterator[str]:
    """All texts in nested containers."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from (text for item in value.items() for part in item for text in _texts(part))
    elif isinstance(value, (list, tuple)):
        yield from (text for part in value for text in _texts(part))


def definition(found: Inferred, settings: FolderSettings, target: Path) -> str:
    """The text of a YAML file that says what was inferred; pictures without a role are ignored in
    it by name.  ``target``: where the file will lie.  Raises :class:`RequestError` where there is
    nothing to define, or a name that is not UTF-8: YAML holds none."""
    spec = found.spec(settings)
    account = found.account or _listed(found, spec)[0]
    counts = account.counts() if account else None
    if counts and not counts["normal"] + counts["anomalous"] + counts["training"]:
        raise RequestError(
            f"{found.home}: no picture in it is known to be normal or anomalous; sort the pictures "
            "into normal/ and anomalous/ first"
        )
    layout = spec.variants[VARIANT].layouts[0]
    options = dict(layout.options)
    if account and (ignore := _patterns(account)):
        options["ignore"] = ignore
    variant: dict[str, Any] = {"title": "as it lies"}
    if settings.mask_threshold is not None:
        variant["mask_threshold"] = settings.mask_threshold
    if settings.bits:
        variant["bits"] = settings.bits
    if settings.ignore:
        variant["ignore"] = settings.ignore
    indexer = "own_folder" if layout.indexer == "folder" else layout.indexer
    variant["layouts"] = [
        {"indexer": indexer, "looks": layout.looks, **({"options": options} if options else {})}
    ]
    values = {
        "name": spec.name,
        "title": spec.title,
        "root": _relative(found.home, target),
        "categories": {
            key: {"prompt": c.prompt, "kind": c.kind} for key, c in spec.categories.items()
        },
        "default_variant": VARIANT,
        "variants": {VARIANT: variant},
    }
    for name in _texts(values):
        if not is_text(name):
            raise RequestError(
                f"{found.home}: the name '{name}' is not UTF-8, and a definition cannot hold it; "
                f"rename it (`convmv -f latin1 -t utf8` does, if it is Latin-1)"
            )
    head = "# What the folder was taken for; `prompt` is what methods call a category, and `kind`\n"
    head += "# is object or texture.  docs/add-a-dataset.md explains every key.\n"
    return head + yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=100)


def _patterns(account: Account) -> list[str]:
    """What to ignore: the pictures without a role, a whole folder where it holds nothing else."""
    out: list[str] = []
    for folder, entries in account.folders().items():
        strays = [e.path for e in entries if e.role == "no role"]
        inside = [e for e in account.entries if e.path.startswith(f"{folder}/")]
        if strays and all(e.role in ("no role", "left out") for e in inside) and folder != ".":
            out.append(f"{glob.escape(folder)}/*")
        else:
            out += [glob.escape(path) for path in strays]
    return out


def _relative(home: Path, target: Path) -> str:
    try:
        return Path(os.path.relpath(home, target.absolute().parent)).as_posix()
    except ValueError:  # on another drive of Windows
        return str(home)


def _free_name(folder: str) -> str:
    """A dataset name made from a folder's name that no bundled dataset has."""
    name = re.sub(r"[^A-Za-z0-9_.-]+", "_", folder).strip("._") or "folder"
    return f"{name}-folder" if name in registry.yaml_names("datasets") else name
