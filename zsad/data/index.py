"""From a definition and a folder to a sorted list of samples; no image is opened.  No torch."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from zsad.data.account import Account
from zsad.data.catalog import is_folder, list_specs, load_spec, origin_of, typed
from zsad.data.definition import DatasetSpec, Layout
from zsad.data.ignored import Ignored, inside
from zsad.data.images import WIDE, own_range
from zsad.data.indexers import INDEXERS, Indexing, NotThisLayout
from zsad.data.indexers.base import checked_options, find_folder, natural, spoken, subfolders
from zsad.errors import DataError, RequestError, counted, reason, unknown
from zsad.types import Category, Names, Sample

# Every dataset may lie in the layout of an index file that is prepared already.
PREPARED = Layout("meta_json", looks="meta.json at its root")
PREPARED_VARIANT = "prepared"
# Indexers of which spoken names belong to the fingerprint.  Results of the others are stored
# without them: their definitions raise `revision`.
NAMED = ("own_folder", "coco", "csv")


@dataclass(frozen=True)
class DatasetIndex:
    """The samples of a dataset as it was found.

    ``variant`` and ``layout`` say what was found; ``root`` is None for generated data.
    ``fingerprint`` hashes names, labels, file sizes and the revision of the rules.  ``problems``
    is empty unless the index was made with ``strict=False``; ``missing`` are categories that have
    no samples.  ``account``: what every file was taken for, of a folder of one's own;
    ``masks_of_normal``: its (mask, normal picture) pairs, whose masks should mark nothing.
    """

    spec: DatasetSpec
    samples: list[Sample]
    categories: dict[str, Category]
    variant: str
    fingerprint: str
    root: Path | None
    layout: str = ""
    notes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    account: Account | None = None
    masks_of_normal: tuple[tuple[str, str], ...] = ()

    @property
    def ignore(self) -> str:
        """What the definition says is not looked at; "" for nothing."""
        known = self.spec.find_variant(self.variant)
        return known.ignore if known else ""

    @property
    def figure_rules(self) -> dict[str, Any]:
        """What records of the dataset say of how its figures are to be read; empty for most."""
        limit, notes = self.spec.fpr_limit, self.spec.figure_notes
        found: dict[str, Any] = {} if limit is None else {"dataset_fpr_limit": limit}
        return {**found, "figure_notes": list(notes)} if notes else found

    def calling(self, names: Names) -> DatasetIndex:
        """The same with categories whose prompts say another name (:meth:`Category.said`)."""
        if names == "spoken":
            return self
        called = {k: replace(c, class_name=c.said(names)) for k, c in self.categories.items()}
        return replace(self, categories=called)

    @property
    def training_categories(self) -> tuple[str, ...]:
        """Categories that others are trained on: those of group ``train``, else all."""
        own = [k for k in self.categories if self.spec.categories[k].group == "train"]
        return tuple(own or self.categories)

    def counts(self, split: str = "test", category: str | None = None) -> tuple[int, int]:
        """(normal, anomalous) samples of a part."""
        chosen = [
            s.label
            for s in self.samples
            if s.split == split and (category is None or s.category == category)
        ]
        return len(chosen) - sum(chosen), sum(chosen)


def load_index(
    name: str | DatasetSpec,
    data_root: Path | str | None = None,
    variant: str | None = None,
    *,
    strict: bool = True,
) -> DatasetIndex:
    """Find a dataset below ``data_root`` and list its samples.

    ``data_root`` holds one folder per dataset, or is the dataset itself.  Without ``variant``
    the default one is looked for first, then the others, then a ``meta.json``.  Raises
    :class:`DataError` when nothing is found, or (if ``strict``) when something is wrong with
    what is found, in one line, and :class:`RequestError` for an ``ignore`` that does not fit.
    """
    spec = load_spec(name)
    if spec.module:
        _import_module(spec)
    bare: DatasetIndex | None = None  # something was recognised, but it holds no image
    for variant_name, layout in _candidates(spec, variant):
        for root in _roots(spec, layout, data_root):
            known, home = spec.find_variant(variant_name), root or Path(".")
            indexing = Indexing(
                spec, home, ignore_masks=inside(home, known.ignore if known else "")
            )
            try:
                samples = _run(indexing, layout)
            except NotThisLayout:
                continue
            index = _finish(indexing, samples, variant_name, layout, root)
            if layout.only_counts and index.counts() != layout.only_counts:
                continue
            if samples:
                return _accepted(index, strict, _check_command(spec, variant, data_root))
            bare = bare or index
    if bare is not None and bare.problems:
        return _accepted(bare, strict, _check_command(spec, variant, data_root))
    raise _not_found(spec, variant, data_root)


def _import_module(spec: DatasetSpec) -> None:
    """Import what a definition names; a module beside its YAML file is found, too."""
    origin = origin_of(spec)
    beside = str(Path(origin).parent) if origin else ""
    try:
        if beside:
            sys.path.insert(0, beside)
        importlib.import_module(spec.module)
    except Exception as error:  # the user's own code: whatever it raises
        raise RequestError(
            f"{origin or spec.name}: module '{spec.module}' cannot be imported ({reason(error)}); "
            "put it beside the YAML file, or its folder into PYTHONPATH"
        ) from None
    finally:
        if beside:
            sys.path.remove(beside)


def _check_command(spec: DatasetSpec, variant: str | None, data_root: Path | str | None) -> str:
    """The command that lists what is wrong, ready to be pasted."""
    words = ["zsad", "data", "check", typed(spec)]
    if data_root is not None and not spec.root:
        words += ["--data-root", shlex.quote(str(data_root))]
    if variant is not None:
        words += ["--variant", shlex.quote(variant)]
    return " ".join(words)


def _accepted(index: DatasetIndex, strict: bool, command: str) -> DatasetIndex:
    """The index, or if ``strict`` the first of its problems as a :class:`DataError`."""
    if strict and index.problems:
        more = f" (and {len(index.problems) - 1} more)" if len(index.problems) > 1 else ""
        raise DataError(
            f"dataset {index.spec.name} in {index.root}: {index.problems[0]}{more}; "
            f"`{command}` lists everything"
        )
    return index


def _candidates(spec: DatasetSpec, variant: str | None) -> Iterator[tuple[str, Layout]]:
    """Variants and layouts in the order in which they are tried."""
    if variant == PREPARED_VARIANT:
        yield PREPARED_VARIANT, PREPARED
        return
    if variant is not None:
        yield from ((variant, layout) for layout in spec.variant(variant).layouts)
        return
    names = [spec.default_variant, *(v for v in spec.variants if v != spec.default_variant)]
    yield from ((name, layout) for name in names for layout in spec.variants[name].layouts)
    yield PREPARED_VARIANT, PREPARED


def _roots(
    spec: DatasetSpec, layout: Layout, data_root: Path | str | None
) -> Iterator[Path | None]:
    """Folders that may hold the dataset, most specific first."""
    if layout.generated:
        yield None
        return
    bases: list[Path] = []
    if layout.package:
        found = importlib.util.find_spec(layout.package)
        if found is not None and found.submodule_search_locations:
            bases = [Path(p) for p in found.submodule_search_locations]
    elif spec.root:
        bases = [Path(spec.root)]
    elif data_root is not None:
        top = Path(data_root).absolute()
        named = [f for n in spec.folder_names if (f := find_folder(top, n)) is not None]
        wrappers = [w for f in named if (w := _only_folder(f)) is not None]
        bases = [f for f in (*named, *wrappers) if not _claimed_by_another(spec, f)]
        bases = list(dict.fromkeys(bases))
        if not _claimed_by_another(spec, top):
            bases.append(top)
    for base in bases:
        wrapped = [f for n in spec.folder_names if (f := find_folder(base, n)) is not None]
        within = [f for w in layout.within if (f := base / w).is_dir()]
        yield from dict.fromkeys((base, *within, *wrapped))


def _only_folder(folder: Path) -> Path | None:
    """The one folder in ``folder``: archives often wrap everything once more."""
    inner = list(subfolders(folder).values())
    return inner[0] if len(inner) == 1 else None


def _claimed_by_another(spec: DatasetSpec, top: Path) -> bool:
    """Whether the folder's own name is that of another dataset: its content is not ours then."""
    own = {n.lower() for n in spec.folder_names}
    if top.name.lower() in own:
        return False
    others = (load_spec(n) for n in list_specs() if n != spec.name)
    return any(top.name.lower() in {n.lower() for n in s.folder_names} for s in others)


def _run(indexing: Indexing, layout: Layout) -> list[Sample]:
    function = INDEXERS.get(layout.indexer)
    origin = f"dataset {indexing.spec.name}"
    if function is None:
        raise unknown("indexer", layout.indexer, INDEXERS, origin)
    try:
        checked_options(function, layout.options)
    except ValueError as error:
        raise RequestError(f"{origin}, indexer {layout.indexer}: {error}") from None
    try:
        return function(indexing, **layout.options)
    except OSError as error:
        raise DataError(f"{origin}: {error.filename}: cannot be read ({error.strerror})") from None


def _finish(
    indexing: Indexing, samples: list[Sample], variant: str, layout: Layout, root: Path | None
) -> DatasetIndex:
    spec = indexing.spec
    known = spec.find_variant(variant)
    if known and known.mask_threshold is not None:
        cut = known.mask_threshold
        samples = [replace(s, mask_threshold=cut) if s.mask else s for s in samples]
    if is_folder(spec) or layout.indexer in NAMED:
        # What methods read; before, a category was always called what its folder is called.
        indexing.identity += [
            f"{key}: {c.kind} {c.prompt}"
            for key, c in spec.categories.items()
            if c.prompt != spoken(key) or c.kind != "object"
        ]
    if known and known.bits:
        samples = [replace(s, bits=known.bits) for s in samples]
        indexing.identity.append(f"bits {known.bits}")
    elif is_folder(spec) or layout.indexer in NAMED:
        samples = _of_one_range(indexing, samples)
    if known and known.ignore:
        samples = _ignoring(indexing, samples, known.ignore)
    rank = {key: i for i, key in enumerate(spec.categories)}
    samples = sorted(samples, key=lambda s: (rank[s.category], s.split, natural(s.uid)))
    present = {s.category for s in samples}
    missing = tuple(k for k in spec.categories if k not in present)
    notes = list(indexing.notes)
    if missing:
        notes.append(
            f"{len(missing)} of {counted(len(rank), 'category', 'categories')} not there: "
            f"{', '.join(missing)}"
        )
    fingerprint = _fingerprint(indexing, samples, variant)
    return DatasetIndex(
        spec,
        samples,
        {k: spec.category(k) for k in spec.categories if k in present},
        variant,
        fingerprint,
        root,
        layout.indexer,
        tuple(notes),
        tuple(indexing.problems),
        missing,
        indexing.account,
        tuple(indexing.masks_of_normal),
    )


def _of_one_range(indexing: Indexing, samples: list[Sample]) -> list[Sample]:
    """The samples, where their 32-bit pictures would be divided by different values, all with the
    bits of the largest of these: exposures of one camera keep their brightness."""
    paths = dict.fromkeys(s.image for s in samples if s.image.lower().endswith(WIDE))
    found = {path: full for path in paths if (full := own_range(path)) is not None}
    if len(set(found.values())) < 2:
        return samples
    low, high = (pick(found, key=lambda p: found[p]) for pick in (min, max))
    bits = int(found[high]).bit_length()  # fractions of one: 1
    indexing.identity.append(f"32-bit pictures of {bits} bits")
    indexing.notes.append(
        f"{counted(len(found), '32-bit picture')} taken to use {counted(bits, 'bit')}, as the "
        f"values of {indexing.relative(high)} suggest ({indexing.relative(low)} alone would be "
        f"divided by {found[low]:g}); data.folder.bits=N says otherwise (in a definition: "
        "`bits: N`)"
    )
    return [replace(s, bits=bits) if s.image in found else s for s in samples]


def _ignoring(indexing: Indexing, samples: list[Sample], text: str) -> list[Sample]:
    """The samples with what is not looked at of each.  The masks and the size of every picture are
    read here, so that nothing is run in vain.  Raises :class:`RequestError` as
    :meth:`Ignored.check` does."""
    rule = Ignored.parse(text, f"dataset {indexing.spec.name}, ignore", indexing.root)
    without = rule.check(dict.fromkeys(Path(s.image) for s in samples))
    indexing.identity.append(f"ignore {rule.digest}")
    if rule.masks and without:
        indexing.notes.append(
            f"ignore {text}: {len(without)} of {counted(len(samples), 'picture')} without a "
            "mask there, "
            f"{indexing.relative(str(without[0]))} the first; nothing of them is ignored"
        )
    ignore = {s.image: rule.rectangle or rule.file_of(s.image) for s in samples}
    return [
        replace(s, ignore=v if v is None or isinstance(v, tuple) else str(v))
        for s in samples
        for v in [ignore[s.image]]
    ]


def _fingerprint(indexing: Indexing, samples: list[Sample], variant: str) -> str:
    """Hash what the samples are: names, labels, splits, crops, the sizes of their files, and a
    revision of the rules above 1."""
    sizes: dict[str, int] = {}
    absent: list[str] = []
    head = f"{indexing.spec.name}/{variant}"
    if indexing.spec.revision > 1:  # results of the first revision were stored without it
        head += f"/revision {indexing.spec.revision}"
    if indexing.identity:
        head += f"/{sorted(indexing.identity)!r}"
    digest = hashlib.sha256(head.encode())
    for s in samples:
        files = [s.image, *([s.mask] if s.mask else []), *s.extra_masks]
        for path in files:
            if path not in sizes:
                sizes[path] = _size(path, absent)
        line = (
            s.uid,
            s.category,
            s.label,
            s.split,
            s.crop,
            s.mask_threshold,
            [sizes[p] for p in files],
        )
        digest.update(repr(line).encode())
    if absent:
        indexing.problems.append(
            f"{len(absent):,} of {counted(len(sizes), 'file')} missing "
            f"(first: {indexing.relative(absent[0])})"
        )
    return digest.hexdigest()[:16]


def _size(path: str, absent: list[str]) -> int:
    if "://" in path:
        return 0
    try:
        return os.stat(path).st_size
    except OSError:
        absent.append(path)
        return -1


def _not_found(spec: DatasetSpec, variant: str | None, data_root: Path | str | None) -> DataError:
    what = f"dataset {spec.name}" + (f", variant {variant}" if variant else "")
    known = spec.find_variant(variant) if variant else None
    shown = (known or spec.variants[spec.default_variant]).layouts
    looks = shown[0].looks or shown[0].indexer
    help_line = f"`zsad data prepare {spec.name}` says where to get it"
    packages = [layout.package for v in spec.variants.values() for layout in v.layouts]
    if package := next(filter(None, packages), ""):
        help_line = f"`pip install {package.replace('_', '-')}` brings it; {help_line}"
    if spec.root:  # a user's own: there is nothing to get
        help_line = f"`zsad show {typed(spec)}` shows the definition"
    if data_root is None and not spec.root:
        return DataError(f"{what} needs its files: give --data-root DIR ({looks}); {help_line}")
    place = spec.root or data_root
    if not Path(str(place)).is_dir():
        return DataError(f"{what}: {place}: no such folder; {help_line}")
    if spec.root:
        return DataError(f"{what}: no pictures in {place}; expected {looks}; {help_line}")
    return DataError(
        f"{what}: not found in {place}; expected {looks} in a folder {spec.folder_names[0]} there; "
        f"{help_line}"
    )
