"""``zsad data check``: what lies on disk, against what is published."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from zsad.data import plausible
from zsad.data.account import Account
from zsad.data.catalog import is_folder, load_spec
from zsad.data.definition import Counts, DatasetSpec
from zsad.data.ignored import of_sample
from zsad.data.images import (
    image_digest,
    image_range,
    image_size,
    mask_values,
    read_image,
    read_mask,
)
from zsad.data.index import DatasetIndex, load_index
from zsad.data.lossy import LOSSY_CUT, is_lossy
from zsad.errors import DataError, ZsadError, counted, reason
from zsad.types import Sample

MIDDLE = (
    "data.folder.mask_threshold=127 cuts them in the middle (in a definition: "
    "`mask_threshold: 127`)"
)
# An error makes a check fail.
Severity = Literal["error", "warning", "note"]


class Finding(NamedTuple):
    """Something worth saying.  Errors make the check fail."""

    severity: Severity
    text: str


class OtherVariant(NamedTuple):
    """A variant, besides the one that was found, that the same files can be read as."""

    name: str
    title: str
    test: Counts
    published: Counts | None
    confirmed: bool


class CategoryCount(NamedTuple):
    """Counts (normal, anomalous) of one category; ``published`` is None where none is known."""

    category: str
    test: Counts
    train: Counts
    published: Counts | None
    agrees: bool


@dataclass
class CheckReport:
    """The outcome of a check.  ``ok`` decides the exit code; :meth:`lines` is what to print.

    ``variant`` and ``layout`` say what was found, ``title`` what the variant is; ``confirmed``:
    whether a source prints its counts; ``others``: what else the files can be read as;
    ``account``: what every file was taken for, of a user's own dataset; ``ignore``: what the
    definition says is not looked at.
    """

    dataset: str
    variant: str
    layout: str
    root: Path | None
    counts: list[CategoryCount]
    published: Counts | None
    title: str = ""
    confirmed: bool = True
    others: list[OtherVariant] = field(default_factory=list)
    opened: int = 0
    masks: int = 0
    sizes: tuple[str, ...] = ()
    modes: dict[str, int] = field(default_factory=dict)
    mask_threshold: int = 0
    findings: list[Finding] = field(default_factory=list)
    account: Account | None = None
    ignore: str = ""

    @property
    def total(self) -> Counts:
        """(normal, anomalous) test images."""
        return sum(c.test[0] for c in self.counts), sum(c.test[1] for c in self.counts)

    @property
    def ok(self) -> bool:
        """Whether the dataset is what the papers tested on, and every file is sound."""
        return not any(f.severity == "error" for f in self.findings)

    def lines(self) -> list[str]:
        """The report as lines of text."""
        place = self.root if self.root is not None else "generated"
        out = [f"{self.dataset}: variant {self.variant} (layout {self.layout}) in {place}"]
        out += [f"  {self.variant}: {self.title}"] if self.title else []
        out += [f"  {line}" for line in self.account.lines()] if self.account else []
        for c in self.counts if len(self.counts) > 1 else ():
            out.append(f"  {c.category}: {_said(c.test, c.published)}")
        out.append(f"  test: {_said(self.total, self.published, self.confirmed)}")
        train = sum(c.train[0] for c in self.counts), sum(c.train[1] for c in self.counts)
        if any(train):
            out.append(f"  train: {train[0]} normal, {train[1]} anomalous")
        for v in self.others:
            counts = _said(v.test, v.published, v.confirmed)
            out.append(f"  --variant {v.name}: {v.title}; test: {counts}")
        if self.opened:
            modes = ", ".join(f"{n} {m}" for m, n in sorted(self.modes.items()))
            out.append(
                f"  opened {counted(self.opened, 'file')}; sizes {' to '.join(self.sizes)}; "
                f"modes {modes}"
            )
        if self.masks:
            out.append(
                f"  {counted(self.masks, 'mask')}: grey values above {self.mask_threshold} are "
                "anomalous"
            )
        out += [f"  not looked at: {self.ignore}"] if self.ignore else []
        out += [f"  {f.severity}: {f.text}" for f in self.findings]
        out.append(f"{self.dataset}: {'ok' if self.ok else 'NOT ok'}")
        return out


def _said(found: Counts, published: Counts | None, confirmed: bool = True) -> str:
    text = f"{found[0]} normal, {found[1]} anomalous"
    what = "published" if confirmed else "expected"
    if published is None:
        return text
    if published == found:
        return f"{text} (as {what})"
    return f"{text} ({what}: {published[0]} and {published[1]})"


def check(
    name: str | DatasetSpec,
    root: Path | str | None = None,
    variant: str | None = None,
    *,
    open_files: bool = True,
    workers: int = 2,
) -> CheckReport:
    """Find a dataset, count it, compare with the published counts and open every file.

    ``open_files=False`` only counts.  Raises :class:`DataError` when nothing is found.
    """
    spec = load_spec(name)
    index = load_index(spec, root, variant, strict=False)
    known = spec.find_variant(index.variant)
    report = CheckReport(
        dataset=spec.name,
        variant=index.variant,
        layout=index.layout,
        root=index.root,
        counts=_counts(index),
        published=known.test if known else None,
        title=known.title if known else "",
        confirmed=known is None or known.certainty == "published",
        others=_others(index, root),
        masks=sum(s.mask is not None for s in index.samples),
        mask_threshold=max((s.mask_threshold for s in index.samples), default=0),
        account=index.account,
        ignore=index.ignore,
    )
    say = report.findings.append
    for problem in index.problems:
        say(Finding("error", problem))
    # What a definition states must be there; of a folder it is only said what it holds.
    grave: Severity = "warning" if is_folder(spec) else "error"
    for note in index.notes:
        absent = index.missing and note.endswith(index.missing[-1])
        say(Finding(grave if absent else "note", note))
    _compare(report, spec)
    _one_class(report, spec)
    if open_files:
        present = [s for s in index.samples if _is_there(s)]  # what is absent is a problem above
        _open_all(report, present, workers)
        _masks_of_normal(report, index)
        _duplicates(report, present, workers)
    return report


def _others(index: DatasetIndex, root: Path | str | None) -> list[OtherVariant]:
    """The other variants that lie in the same files."""
    found = []
    for name, variant in index.spec.variants.items():
        if name == index.variant or index.root is None:  # generated data have every variant
            continue
        try:
            other = load_index(index.spec, root, name, strict=False)
        except DataError:
            continue
        if other.root == index.root:
            confirmed = variant.certainty == "published"
            found.append(OtherVariant(name, variant.title, other.counts(), variant.test, confirmed))
    return found


def _is_there(sample: Sample) -> bool:
    files = (sample.image, *([sample.mask] if sample.mask else []), *sample.extra_masks)
    return all("://" in path or os.path.exists(path) for path in files)


def _counts(index: DatasetIndex) -> list[CategoryCount]:
    """Per category; published counts hold for the default variant only."""
    default = index.variant == index.spec.default_variant
    found: dict[str, dict[str, list[int]]] = defaultdict(lambda: {"train": [0, 0], "test": [0, 0]})
    for s in index.samples:
        found[s.category][s.split][s.label] += 1
    rows = []
    for key in index.categories:
        spec = index.spec.categories[key]
        test = found[key]["test"][0], found[key]["test"][1]
        train = found[key]["train"][0], found[key]["train"][1]
        published = spec.test if default else None
        agrees = published is None or test == published or test in spec.also
        if default and spec.train is not None and any(train):
            agrees = agrees and train == spec.train
        rows.append(CategoryCount(key, test, train, published, agrees))
    return rows


def _compare(report: CheckReport, spec: DatasetSpec) -> None:
    severity: Literal["error", "warning"] = "error" if report.confirmed else "warning"
    wrong = [c for c in report.counts if not c.agrees]
    for c in wrong:
        expected = spec.categories[c.category]
        text = f"{c.category}: counts differ from the published ones ({_said(c.test, c.published)}"
        if expected.train is not None and c.train != expected.train:
            text += f"; train: {_said(c.train, expected.train)}"
        report.findings.append(Finding(severity, text + ")"))
    alternatives = any(c.test != c.published and c.agrees for c in report.counts if c.published)
    if not wrong and report.published not in (None, report.total) and not alternatives:
        known = "published" if report.confirmed else "expected (unconfirmed)"
        text = f"{report.total[0]} normal and {report.total[1]} anomalous test images, {known}: "
        text += "{} and {}".format(*(report.published or (0, 0)))
        report.findings.append(Finding(severity, text))


def _one_class(report: CheckReport, spec: DatasetSpec) -> None:
    """Say which categories have one class only, where image-level figures are expected."""
    single = [c.category for c in report.counts if 0 in c.test and any(c.test)]
    if not single:
        return
    severity: Literal["warning", "note"] = "warning" if "image" in spec.levels else "note"
    text = f"one class only, image-level figures are undefined: {', '.join(single)}"
    report.findings.append(Finding(severity, text))


class _Opened(NamedTuple):
    size: tuple[int, int]
    mode: str
    errors: tuple[str, ...]
    marked: float | None = None  # share of the picture that its mask marks
    grey_mask: bool = False
    widened: float = 1.0  # by a soft edge
    dark: float = 0  # the brightest value of a deep picture that comes out nearly black
    deep: bool = False  # whether it holds more than 8 bits
    hidden: bool = False  # whether every pixel that its mask marks is ignored
    scaled: bool = False  # whether its mask has another size


def _open(sample: Sample) -> _Opened:
    """Open an image and its masks once."""
    try:
        size = read_image(sample.image, sample.crop, sample.bits).size
        mode, high, full = image_range(sample.image, sample.bits)
    except Exception as error:  # whatever a decoder raises is the end of this file alone
        return _Opened((0, 0), "", (_told(sample.image, error),))
    dark = high if plausible.is_dark(high, full) else 0
    found = _Opened(size, mode, (), dark=dark, deep=mode.startswith(("I", "F")) or "16" in mode)
    if sample.mask is None:
        return found
    try:
        marked = read_mask(sample, (size[1], size[0]))
        values = mask_values(sample.mask)
        ignored = of_sample(sample, (size[1], size[0]))
    except Exception as error:
        return found._replace(errors=(_told(sample.mask, error),))
    return found._replace(
        marked=float(marked.mean()),
        hidden=ignored is not None and bool(marked.any()) and bool(ignored[marked].all()),
        grey_mask=len(np.unique(values)) > 2,
        scaled=sorted(values.shape) != sorted(image_size(sample.image)),
        widened=plausible.widened(values, sample.mask_threshold),
    )


def _told(path: str, error: Exception) -> str:
    """What is wrong with a file."""
    return str(error) if isinstance(error, ZsadError) else f"{path}: {reason(error)}"


def _open_all(report: CheckReport, samples: list[Sample], workers: int) -> None:
    with ThreadPoolExecutor(max(1, workers)) as pool:
        opened = list(pool.map(_open, samples))
    sound = [o for o in opened if o.mode]
    report.opened = len(samples) + sum(s.mask is not None for s in samples)
    report.modes = dict(Counter(o.mode for o in sound))
    if sound:
        low = min(o.size for o in sound)
        high = max(o.size for o in sound)
        shown = [low] if low == high else [low, high]
        report.sizes = tuple(f"{w}x{h}" for w, h in shown)
    errors = [e for o in opened for e in o.errors]
    say = report.findings.append
    report.findings += [Finding("error", e) for e in errors[:20]]
    if len(errors) > 20:
        say(
            Finding(
                "error",
                f"and {counted(len(errors) - 20, 'more file like this', 'more files like these')}",
            )
        )
    shares = {s.uid: o.marked for s, o in zip(samples, opened) if o.marked is not None}
    report.findings += [Finding("warning", text) for text in plausible.findings(shares)]
    if some := plausible.few_full(shares):
        say(Finding("note", some))
    if soft := [(s.uid, o.widened) for s, o in zip(samples, opened) if o.widened > 1]:
        text = (
            f"{counted(len(soft), 'mask has', 'masks have')} a soft edge, which the threshold "
            "widens up to "
            f"{max(w for _, w in soft):.1f} times (first: {soft[0][0]}); {MIDDLE}"
        )
        say(Finding("warning", text))
    if hidden := [s.uid for s, o in zip(samples, opened) if o.hidden]:
        text = (
            f"of {counted(len(hidden), 'anomalous picture')} every marked pixel is ignored (first: "
            f"{hidden[0]}); each still counts as anomalous at the image level"
        )
        say(Finding("warning", text))
    if scaled := [s.uid for s, o in zip(samples, opened) if o.scaled]:
        text = (
            f"{counted(len(scaled), 'mask has', 'masks have')} another size than the picture, and "
            f"{'is' if len(scaled) == 1 else 'are'} scaled to it (first: {scaled[0]})"
        )
        say(Finding("note", text))
    if grey := sum(o.grey_mask for o in opened):
        holds = counted(grey, "mask holds", "masks hold")
        say(Finding("note", f"{holds} more than two grey values; the threshold decides"))
    bits = max((s.bits for s in samples), default=0)
    if bits and sound and not any(o.deep for o in opened):
        say(Finding("warning", f"bits={bits} changes nothing: no picture is deeper than 8 bits"))
    if dark := [(s.uid, o.dark) for s, o in zip(samples, opened) if o.dark]:
        bits = plausible.bits_used(max(high for _, high in dark))
        text = (
            f"{counted(len(dark), 'deep picture uses', 'deep pictures use')} at most a sixteenth "
            f"of the range and would be nearly black (first: {dark[0][0]}); if the camera gives "
            f"{bits} bits, say so: "
            f"data.folder.bits={bits} (in a definition: `bits: {bits}`)"
        )
        say(Finding("warning", text))


def _masks_of_normal(report: CheckReport, index: DatasetIndex) -> None:
    """Masks of normal pictures should mark nothing."""
    marking = []
    for mask, picture in index.masks_of_normal:
        try:
            cut = LOSSY_CUT if is_lossy(mask) else 0
            if (mask_values(mask) > cut).any():
                marking.append(os.path.relpath(picture, index.root))
        except DataError as error:
            report.findings.append(Finding("error", str(error)))
    if marking:
        one, more = "mask of a normal picture marks", "masks of normal pictures mark"
        marks = counted(len(marking), one, more)
        text = (
            f"{marks} something (first: that of {marking[0]}), which counts for nothing: are "
            "labels or masks mixed up?"
        )
        report.findings.append(Finding("warning", text))


def _duplicates(report: CheckReport, samples: list[Sample], workers: int) -> None:
    """Report byte-identical images: surplus copies, and those that cross labels or parts."""
    readable = [s for s in samples if not s.crop]
    groups: dict[str, list[Sample]] = defaultdict(list)
    with ThreadPoolExecutor(max(1, workers)) as pool:
        for sample, digest in zip(readable, pool.map(_digest, readable)):
            groups[digest].append(sample)
    groups.pop("", None)
    copies = [g for g in groups.values() if len(g) > 1]
    if not copies:
        return
    surplus = sum(len(g) - 1 for g in copies)
    text = f"{counted(surplus, 'surplus byte-identical image')} in {counted(len(copies), 'group')}"
    text += f" (first: {_names(copies[0])})"
    report.findings.append(Finding("warning", text))
    for what, crossing in (
        ("labels", [g for g in copies if len({s.label for s in g}) > 1]),
        ("train and test", [g for g in copies if len({s.split for s in g}) > 1]),
    ):
        if crossing:
            of = "of identical images"
            crosses = counted(len(crossing), f"group {of} crosses", f"groups {of} cross")
            text = f"{crosses} {what} (first: {_names(crossing[0])})"
            report.findings.append(Finding("warning", text))


def _digest(sample: Sample) -> str:
    try:
        return image_digest(sample)
    except Exception:  # said by :func:`_open` already
        return ""


def _names(group: Iterable[Sample]) -> str:
    return ", ".join(s.uid for s in list(group)[:3])
