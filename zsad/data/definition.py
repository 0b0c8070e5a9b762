"""What a dataset's definition says: the schema of its YAML file.  No torch."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from zsad.config import DEFAULTS, MetricSettings
from zsad.config.folder_settings import check_reading
from zsad.config.sections import PROTOCOL
from zsad.errors import unknown
from zsad.types import Category

Counts = tuple[int, int]  # (normal, anomalous)


@dataclass(frozen=True)
class CategorySpec:
    """One evaluation category.  ``prompt``: its spoken name.  ``test`` and ``train``: published
    counts of the default variant; ``also``: other test counts known to circulate.
    ``group``: ``train`` keeps the category out of evaluation (it is trained on)."""

    prompt: str
    kind: Literal["object", "texture"] = "object"
    test: Counts | None = None
    train: Counts | None = None
    also: tuple[Counts, ...] = ()
    group: Literal["train", "test"] = "test"


@dataclass(frozen=True)
class Layout:
    """One way in which a variant lies on disk.  ``looks``: how, in words, for messages.
    ``within``: usual wrapping folders below the dataset's folder, tried in order.
    ``only_counts``: the layout is meant only if its test counts are these.  ``package``: the
    installed Python package that holds the files.  ``generated``: there are no files."""

    indexer: str
    options: dict[str, Any] = field(default_factory=dict)
    looks: str = ""
    within: tuple[str, ...] = ()
    only_counts: Counts | None = None
    package: str = ""
    generated: bool = False


@dataclass(frozen=True)
class VariantSpec:
    """A preparation of a dataset that changes its samples or masks.

    ``test``: published (normal, anomalous).  ``certainty``: ``published`` figures must match;
    ``unconfirmed`` ones come from no source at hand, so a difference is only reported.
    ``mask_threshold``: grey values above it (of 255) are anomalous; None leaves it to the layout,
    which takes 0 unless it says otherwise.  ``bits``: that deep pictures use, such as 12 in files
    of 16; 0 takes them as their files say.  ``ignore``: what is not looked at, (x, y, w, h) in
    pixels of every picture, or a mask file or a folder of masks below the dataset's folder.
    ``numbered``: the layout option that the number at the end of the variant's name sets, so that
    ``seed-0`` stands for ``seed-1``, ``seed-2``, ... as well.
    """

    title: str
    layouts: tuple[Layout, ...]
    test: Counts | None = None
    certainty: Literal["published", "unconfirmed"] = "published"
    mask_threshold: int | None = None
    bits: int = 0
    ignore: str = ""
    numbered: str = ""

    def __post_init__(self) -> None:
        check_reading(self.mask_threshold, self.bits)

    def with_number(self, number: int) -> VariantSpec:
        """The same preparation with another number in title and layouts."""
        layouts = tuple(
            replace(x, options={**x.options, self.numbered: number}) for x in self.layouts
        )
        return replace(self, title=re.sub(r"(?<!\d)\d+$", str(number), self.title), layouts=layouts)


@dataclass(frozen=True)
class Archive:
    """Where the data comes from.  ``files``: names of the archives; ``sha256`` where known;
    ``how``: what a person has to do; ``package``: a PyPI package that holds the data."""

    how: str
    url: str = ""
    files: tuple[str, ...] = ()
    sha256: dict[str, str] = field(default_factory=dict)
    package: str = ""


@dataclass(frozen=True)
class DatasetSpec:
    """A dataset as its YAML file describes it.

    ``order``: rank in tables (the papers' rows).  ``levels``: what can be evaluated.
    ``auxiliary``: the dataset that learned methods are trained on when this one is the target.
    ``folders``: usual names of its folder below ``--data-root``.  ``training_split``: the part
    that others are trained on ("test" is the published practice).  ``root``: a fixed folder, for
    a user's own dataset.  ``module``: a Python module that registers the indexer and reader that
    the layouts name.  ``revision``: raised whenever the rules change by which images are decoded
    or masks are read while the files stay as they are; above 1 it enters the fingerprint, and
    everything that depends on the dataset is computed again.  ``defects``: by category, the folders
    that its defects lie in, each with words for the same defect; without words a folder
    ("combined") names no kind of defect.  They measure texts (``zsad prompts check``); no method
    reads them.  ``fpr_limit``: up to which false positive rate its publisher's AUPRO goes, where
    that is not what protocols say; it holds unless a user sets ``metrics.fpr_limit``.
    ``figure_notes``: what figures on it are and are not, told wherever they are shown.
    """

    name: str
    title: str
    categories: dict[str, CategorySpec]
    variants: dict[str, VariantSpec]
    default_variant: str
    groups: tuple[str, ...] = ()
    order: int = 1000
    domain: Literal["industrial", "medical"] = "industrial"
    modality: str = ""
    levels: tuple[Literal["image", "pixel"], ...] = ("image", "pixel")
    auxiliary: str = "mvtec"
    folders: tuple[str, ...] = ()
    training_split: Literal["test", "train"] = "test"
    root: str = ""
    module: str = ""
    licence: str = ""
    redistributable: bool = False
    home: str = ""
    citation: str = ""
    archive: Archive | None = None
    notes: tuple[str, ...] = ()
    revision: int = 1
    defects: dict[str, dict[str, tuple[str, ...]]] = field(default_factory=dict)
    fpr_limit: float | None = None
    figure_notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.revision < 1:
            raise ValueError(f"revision={self.revision} must be a whole number from 1 up")
        if self.fpr_limit is not None and not 0 < self.fpr_limit <= 1:
            raise ValueError(f"fpr_limit={self.fpr_limit} must be above 0 and at most 1")
        if self.default_variant not in self.variants:
            raise ValueError(
                f"default_variant '{self.default_variant}' is not one of its variants: "
                f"{', '.join(self.variants)}"
            )
        if strangers := sorted(set(self.defects) - set(self.categories)):
            raise ValueError(f"defects: there is no category '{strangers[0]}'")
        empty = [name for name, variant in self.variants.items() if not variant.layouts]
        if empty:
            raise ValueError(f"variant '{empty[0]}' names no layout")

    def metric_settings(self, settings: MetricSettings, set_by: str) -> MetricSettings:
        """``metrics.*`` for this dataset: its publisher's ``fpr_limit`` in place of the schema's or
        a protocol's.  ``set_by``: the layer that set ``metrics.fpr_limit``; a user's word is
        stronger."""
        general = set_by == DEFAULTS or set_by.startswith(PROTOCOL)
        if self.fpr_limit is None or not general:
            return settings
        return replace(settings, fpr_limit=self.fpr_limit)

    def category(self, key: str) -> Category:
        """The category as methods see it."""
        spec = self.categories[key]
        return Category(self.name, key, spec.prompt, self.domain, spec.kind)

    def variant(self, name: str) -> VariantSpec:
        """A variant by name, or an error that suggests the nearest."""
        found = self.find_variant(name)
        if found is None:
            hint = f"see `zsad show {self.name}`"
            raise unknown(f"variant of dataset {self.name}", name, self.variants, hint)
        return found

    def find_variant(self, name: str) -> VariantSpec | None:
        """A variant by name, or None; a numbered one answers to every number (at most 9 digits)."""
        if name in self.variants:
            return self.variants[name]
        if match := re.fullmatch(r"(.*\D)(\d{1,9})", name):
            for known, variant in self.variants.items():
                if variant.numbered and re.fullmatch(re.escape(match[1]) + r"\d+", known):
                    return variant.with_number(int(match[2]))
        return None

    @property
    def folder_names(self) -> tuple[str, ...]:
        """Folder names to look for, the dataset's own name first."""
        return tuple(dict.fromkeys((self.name, *self.folders)))
