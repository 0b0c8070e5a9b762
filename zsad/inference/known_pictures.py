"""The normal pictures that a loaded method compares with: given with a call, or of a bank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from zsad.config.method_config import ALL_SHOTS
from zsad.errors import RequestError, counted
from zsad.inference import reference_bank
from zsad.inference.picture_run import Pictures
from zsad.inference.reference_bank import Bank
from zsad.inference.references import digest, refuse_bank
from zsad.inference.request import References, references_of
from zsad.method import AnyMethod
from zsad.types import Category, ImageFeatures


class KnownPictures:
    """Encodes references, and keeps those of a bank: ``bank``, None until one is loaded."""

    def __init__(self, method: AnyMethod, pictures: Pictures) -> None:
        self.method, self.pictures = method, pictures
        self.bank: Bank | None = None

    def save(self, path: Path | str, pictures: Sequence[Any], made_for: Mapping[str, Any]) -> Path:
        """Write a bank of ``pictures``; ``made_for``: what its features depend on.

        Raises :class:`RequestError` for a method that compares with no pictures, and where the
        file cannot be written.
        """
        self._check()
        if not pictures:
            raise RequestError("--save-bank: there are no pictures to keep; give references")
        features = self.pictures.encode_all(pictures)
        names = tuple(str(p) for p in pictures if isinstance(p, (str, Path)))
        pixels = digest(pictures, self.pictures.framing.bits)
        return reference_bank.save(path, features, made_for, len(pictures), pixels, names)

    def load(self, path: Path | str, class_name: str, made_for: Mapping[str, Any]) -> str:
        """Compare with the pictures of a bank from now on; return the digest of its pictures.

        Raises :class:`zsad.errors.DataError` for a file that is damaged or not a bank, and
        :class:`RequestError` for one that was made for something else.
        """
        self._check()
        account, features = reference_bank.load(path, made_for)
        shots = self.method.shots
        whole = self.method.transductive or shots == ALL_SHOTS
        if not whole and account.shots != shots:
            raise RequestError(
                f"--bank {path}: holds {counted(account.shots, 'picture')}, and "
                f"{self.method.name}.shots is {shots}; leave shots out"
            )
        names = account.names if len(account.names) == features.batch_size else ()
        self.bank = Bank(class_name, features.to(self.pictures.device), names)
        return account.pictures

    def _check(self) -> None:
        compares = self.method.transductive and not self.method.stretches
        if not (self.method.shots or compares):
            raise refuse_bank(self.method.name, type(self.method.config))

    def _of_bank(self, references: References, categories: Sequence[Category]) -> Bank | None:
        """The bank, where the references are its.  Raises :class:`RequestError` for others beside
        it, and for another class."""
        if self.bank is None:
            return None
        if len(references):
            raise RequestError("--bank holds the references: leave --reference out")
        for category in categories:
            if category.class_name != self.bank.class_name:
                raise RequestError(
                    f"--bank: is of '{self.bank.class_name}', not of '{category.class_name}'"
                )
        return self.bank

    def encoded(
        self, references: References, categories: Sequence[Category]
    ) -> dict[str, ImageFeatures]:
        """The features of a few-shot method's references by category, the same ones encoded once;
        {} for zero shots."""
        if (bank := self._of_bank(references, categories)) is not None:
            return {} if self.method.transductive else {c.key: bank.features for c in categories}
        encoded: dict[int, ImageFeatures] = {}
        found: dict[str, ImageFeatures] = {}
        for key, pictures in references_of(references, categories, self.method).items():
            which = id(pictures)  # alive as long as the mapping that is gone through
            if which not in encoded:
                encoded[which] = self.pictures.encode_all(pictures)
            found[key] = encoded[which]
        return found
