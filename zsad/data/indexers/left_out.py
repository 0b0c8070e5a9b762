"""Files of a folder that are not pictures of it, each with the reason in a few words."""

from __future__ import annotations

import os
import re
from collections.abc import Container
from pathlib import Path, PurePosixPath

from zsad.data.images import HEIF, decodable, endings, is_picture
from zsad.data.own_outputs import is_own_output

ANNOTATIONS = (".json", ".csv", ".tsv", ".txt", ".xml", ".yaml", ".yml", ".md", ".log", ".jsonl")
UNREADABLE = (".cr2", ".cr3", ".nef", ".arw", ".dng", ".psd", ".svg", ".tga")
DISGUISED = "a picture, but not named like one: rename it"
SYSTEM = ("thumbs.db", "desktop.ini", "ehthumbs.db")
# What `zsad predict --out` writes beside a record `x.json`.
_HEAT = re.compile(r"(?P<name>.+)\.heat\.[a-z]+", re.IGNORECASE)
_MASK = re.compile(r"(?P<name>.+)\.mask\.[a-z]+", re.IGNORECASE)


def left_out(home: Path, path: str, files: Container[str], ignore_masks: str = "") -> str | None:
    """Why a file is not a picture of the dataset; None where it is one.

    ``path``: below ``home``; ``files``: all of them; ``ignore_masks``: a file or folder below it
    that says what is not looked at.  A file with another ending is opened: where
    it holds a picture nevertheless, the reason is :data:`DISGUISED`.
    """
    parts = PurePosixPath(path).parts
    if is_hidden(path):
        return "hidden"
    if ignore_masks and PurePosixPath(path).is_relative_to(ignore_masks):
        return "says what is not looked at"
    if any(_is_results(home, "/".join(parts[:i]), files) for i in range(1, len(parts))):
        return "own output (a results folder of zsad)"
    name = parts[-1]
    if _own_output(home, path, files):
        return "own output (of zsad predict)"
    if is_picture(path):
        # What is called a picture and is something else is found out where it is opened.
        return None
    ending = os.path.splitext(name)[1].lower()
    if name.lower() in SYSTEM:
        return "not a picture"
    if ending in ANNOTATIONS:
        return "annotation or text"
    if ending in HEIF:
        return f"not read without the extra `heic` ({ending}; pip install 'zsad[heic]')"
    if ending in UNREADABLE:
        return f"not a picture that is read here ({ending}; convert it to PNG or JPEG)"
    return DISGUISED if decodable(home / path) else "not a picture"


def is_hidden(path: str) -> bool:
    """Whether a name on the way begins with a dot, or is what macOS leaves in archives."""
    return any(part.startswith((".", "__MACOSX")) for part in PurePosixPath(path).parts)


def _own_output(home: Path, path: str, files: Container[str]) -> bool:
    """Whether ``zsad predict`` wrote a file: it says so, or lies beside what it was made of."""
    if heat := _HEAT.fullmatch(path):
        name = heat["name"]
        beside = name in files or any(f"{name}{e}" in files for e in endings())
        return beside or is_own_output(home / path)
    mask = _MASK.fullmatch(path)
    heats = () if mask is None else (f"{mask['name']}.heat.{e}" for e in ("png", "webp", "jpg"))
    return any(heat in files for heat in heats) or is_own_output(home / path)


def _is_results(home: Path, folder: str, files: Container[str]) -> bool:
    return f"{folder}/manifest.json" in files and (home / folder / "cells").is_dir()
