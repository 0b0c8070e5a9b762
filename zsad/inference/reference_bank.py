"""A reference bank: what a method remembers of normal pictures, kept in a file.

The file is in the safetensors format: the features of the pictures, and in its header what they
were made for and a digest of their values.  Nothing in it is ever executed.  It serves a method
that compares with references, and one that compares pictures with each other: those of the bank are
among the others then, unscored.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zsad.errors import DataError, RequestError
from zsad.io import atomic_write_bytes, parse_json

if TYPE_CHECKING:
    from zsad.types import ImageFeatures

FORMAT = "zsad-reference-bank-1"


@dataclass(frozen=True)
class Account:
    """What a bank says about itself.  ``made_for``: method, backbone, weights, class, layers and
    how pictures were shown; ``shots``: how many pictures; ``pictures``: a digest of their pixels;
    ``names``: what they were called; ``grid``: patches, rows and columns; ``sha256``: of the
    values."""

    made_for: Mapping[str, Any]
    shots: int
    pictures: str
    names: tuple[str, ...]
    grid: tuple[int, int]
    sha256: str


@dataclass(frozen=True)
class Bank:
    """A bank in use: features of pictures of a class, with their ``names`` if all are known."""

    class_name: str
    features: ImageFeatures
    names: tuple[str, ...] = ()


def read_account(path: Path | str) -> Account:
    """Read the header alone, without torch.  Raises :class:`DataError` for another file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="np") as file:
            header = file.metadata() or {}
    except FileNotFoundError:
        raise DataError(f"--bank {path}: no such file") from None
    except (SafetensorError, OSError, ValueError) as error:
        reason = (str(error).splitlines() or ["unreadable"])[0]
        raise DataError(
            f"--bank {path}: not a reference bank, or damaged ({reason}); make it again with "
            f"--save-bank"
        ) from None
    if header.get("format") != FORMAT:
        raise DataError(
            f"--bank {path}: not a reference bank of this version (format "
            f"{header.get('format', 'unknown')}); make one with --save-bank"
        )
    try:
        raw = parse_json(header["account"], "account")
        rows, columns = (int(side) for side in raw["grid"])
        names = tuple(str(name) for name in raw["names"])
        found = Account(
            dict(raw["made_for"]), int(raw["shots"]), str(raw["pictures"]), names,
            (rows, columns), str(raw["sha256"]),
        )  # fmt: skip
    except (DataError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise _damaged(path, f"its header: {error!r}") from None
    if found.shots < 1 or min(found.grid) < 1:
        raise _damaged(path, "its header")
    return found


def load(path: Path | str, made_for: Mapping[str, Any]) -> tuple[Account, ImageFeatures]:
    """Read a bank.  Raises :class:`DataError` for a damaged file, :class:`RequestError` for one
    that was made for something else than ``made_for``."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from zsad.backbones.tensor_files import values_digest
    from zsad.types import ImageFeatures, Tap

    account = read_account(path)
    wanted = json.loads(json.dumps(made_for))
    for key in {**wanted, **account.made_for}:
        if account.made_for.get(key) != wanted.get(key):
            raise RequestError(
                f"--bank {path}: was made for {key} {account.made_for.get(key)!r}, not "
                f"{wanted.get(key)!r}; make another with --save-bank"
            )
    try:
        tensors = load_file(str(path))
        taps = {_tap_of(name): value for name, value in tensors.items()}
    except (SafetensorError, OSError, ValueError) as error:
        raise _damaged(path, str(error).splitlines()[0]) from None
    if values_digest(tensors) != account.sha256:
        raise _damaged(path, "its values do not match their digest")
    return account, ImageFeatures(account.grid, {Tap(*tap): v for tap, v in taps.items()})


def save(
    path: Path | str,
    features: ImageFeatures,
    made_for: Mapping[str, Any],
    shots: int,
    pictures: str,
    names: tuple[str, ...] = (),
) -> Path:
    """Write a bank, whole or not at all.  Raises :class:`RequestError` where that fails."""
    from safetensors.torch import save as to_bytes

    from zsad.backbones.tensor_files import values_digest

    tensors = {
        f"{t.kind}.{t.layer}.{t.start}": v.detach().cpu().contiguous().clone()
        for t, v in sorted(features.data.items())
    }
    account = {
        "made_for": dict(made_for), "shots": shots, "pictures": pictures, "names": names,
        "grid": features.grid, "sha256": values_digest(tensors),
    }  # fmt: skip
    header = {"format": FORMAT, "account": json.dumps(account, sort_keys=True)}
    try:
        return atomic_write_bytes(path, to_bytes(tensors, header))
    except OSError as error:
        raise RequestError(f"--save-bank {path}: cannot be written ({error.strerror})") from None


def _tap_of(name: str) -> tuple[str, int, int]:
    kind, layer, start = name.split(".")
    return kind, int(layer), int(start)


def _damaged(path: Path | str, why: str) -> DataError:
    return DataError(f"--bank {path}: damaged ({why}); make it again with --save-bank")
