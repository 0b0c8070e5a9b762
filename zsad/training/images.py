"""Training images as frozen features: encoded in fixed groups, read back in any order."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from zsad import config as cfg
from zsad.backbones import Backbone
from zsad.backbones.batch_size import estimate_batch
from zsad.backbones.devices import decoding_threads, free_memory
from zsad.config import Settings
from zsad.data.ignored import of_sample, shrunk
from zsad.data.images import image_digest, read_image
from zsad.data.loader import ImageBatch, batches
from zsad.data.transforms import MaskPolicy, Preprocess
from zsad.errors import DataError, counted
from zsad.on_device import gathered, uploaded
from zsad.training.feature_store import GIB, FeatureStore, part_of, space_of
from zsad.training.sharing import Form, Shares, form
from zsad.types import FeatureRequest, ImageFeatures, Sample, Tap, TrainBatch

log = logging.getLogger(__name__)
MOST = 16  # images per encoder pass
TAPS = 12  # taps that an estimate of memory reckons with


class TrainingImages:
    """Features and targets of training samples, by way of a :class:`FeatureStore`.

    Floating-point sums depend on how images share a batch.  So that an image has the same
    features whenever it is encoded (first epoch, after eviction, after a restart), the samples
    are cut into fixed groups once, and always encoded by whole groups.  ``group``: images per
    group, 0 = chosen from the memory, and 1 where the store cannot hold all.
    """

    def __init__(
        self,
        backbone: Backbone,
        settings: Settings,
        store: FeatureStore,
        *,
        group: int = 0,
        device: torch.device | None = None,
    ) -> None:
        self.backbone = backbone
        self.settings = settings
        self.store = store
        self.group = group
        self.device = device or backbone.device
        resize = settings.data.mask_resize
        # Losses live on the working size, so native masks are of no use here.
        self.mask_policy = MaskPolicy("bilinear" if resize == "native" else resize)
        self._group_of: dict[str, list[Sample]] = {}
        self._digests: dict[str, str] = {}
        self._unmasked: frozenset[str] = frozenset()  # uids of images whose mask is unknown
        self._passing: frozenset[str] = frozenset()  # uids of images that are used once
        self._list = ""
        self._shares = Shares()  # who encodes with this process
        self._dealer = 0  # who encodes the next group

    # ------------------------------------------------------------------------- warming up
    def prepare(
        self,
        samples: Iterable[Sample],
        request: FeatureRequest,
        extra: Iterable[Sample] = (),
        *,
        passing: Iterable[Sample] = (),
        needs_masks: bool = True,
    ) -> None:
        """Encode all samples for ``request`` once, as far as the store has room.

        ``extra``: samples that one method adds (mosaics); they are grouped apart, so that the
        others' groups do not depend on them.  ``passing``: those that it adds for a single use;
        each is encoded by itself when it is asked for, and not kept.
        Raises :class:`DataError` for an image that cannot be read, or with ``needs_masks`` for an
        anomalous one whose mask is missing.
        """
        base = _unique(samples)
        if not base:
            raise DataError(
                "there is no image to train on; choose another auxiliary dataset or part"
            )
        known = {s.uid for s in base}
        self._shares = Shares.running()
        added = [s for s in _unique(extra) if s.uid not in known]
        single = [s for s in _unique(passing) if s.uid not in known]
        self._passing = frozenset(s.uid for s in single)
        self._unmasked = _unmasked([*base, *added, *single], needs_masks)
        fresh = [s for s in (*base, *added) if s.uid not in self._digests]
        for found in self._shares.together(
            lambda: {s.uid: image_digest(s) for s in self._shares.own(fresh)}
        ):
            self._digests |= found
        self._list = cfg.digest([s.uid for s in base])
        if not self.group:
            self._choose_group(base, len(base) + len(added), request)
        self.store.hold([self._space(request), self._mask_space(self._size(request))])
        parts = [
            [part[i : i + self.group] for i in range(0, len(part), self.group)]
            for part in (base, added)
        ]
        self._group_of = {s.uid: g for groups in parts for g in groups for s in g}
        for groups in parts:
            if not self._encode_shares(self._lacking(groups, request), request):
                return  # full: the rest is encoded when it is asked for

    def _lacking(self, groups: list[list[Sample]], request: FeatureRequest) -> list[list[Sample]]:
        """The groups that one of the processes does not keep."""
        mine = [not all(self._has(s, request) for s in g) for g in groups]
        every = self._shares.together(lambda: mine)
        return [group for group, *lacks in zip(groups, *every) if any(lacks)]

    def _encode_shares(self, groups: list[list[Sample]], request: FeatureRequest) -> bool:
        """Encode groups and keep them, in all processes; False: one of them is full."""
        refused, world = self.store.refused, self._shares.world
        for number, (features, masks) in enumerate(self._dealt(groups, request), 1):
            self._keep(groups[number - 1], request, features, masks)
            turn_ends = number % world == 0 or number == len(groups)
            if turn_ends and self._shares.any(self.store.refused > refused):
                return False
        return True

    def _dealt(
        self, groups: list[list[Sample]], request: FeatureRequest
    ) -> Iterator[tuple[ImageFeatures, Tensor]]:
        """Yield features and masks of groups in order, in every process; each encodes its share."""
        shares, taps = self._shares, sorted(request.taps)
        grid = self.backbone.info.grid(self._size(request))
        first, self._dealer = self._dealer, (self._dealer + len(groups)) % shares.world
        own = shares.own(groups, first)
        batches = self._decoded([s for g in own for s in g], request)
        made: list[Tensor] = []

        def work() -> list[Form]:
            if (batch := next(batches, None)) is not None:
                features = self._encode(batch, request)
                made.extend([_targets(batch), *(features[tap] for tap in taps)])
            return form(made)

        for turn in range(0, len(groups), shares.world):
            made.clear()
            forms = shares.together(work)
            for place in range(min(shares.world, len(groups) - turn)):
                sender = (first + place) % shares.world
                masks, *values = shares.sent(sender, made, forms[sender], self.device)
                yield ImageFeatures(grid, dict(zip(taps, values))), masks

    def _choose_group(self, samples: list[Sample], count: int, request: FeatureRequest) -> None:
        """Encode a first group: whole groups pay only if what comes along can be kept."""
        size, shares = self._size(request), self._shares
        # The same for every set of methods: a method's features must not depend on its company.
        most = estimate_batch(self.backbone.info, size, TAPS, self.device)
        self.group = max(1, min(MOST, *shares.together(lambda: most)))
        first = samples[: self.group]
        if shares.all(all(self._has(s, request) for s in first)):
            return  # another method chose it before
        ((features, masks),) = self._dealt([first], request)
        total = sum(v.numel() * v.element_size() for v in features.data.values())
        needed = (total / len(first) + size * size) * count
        if shares.all(needed <= self.store.budget):
            self._keep(first, request, features, masks)
            return
        self.group = 1
        log.warning(
            "the features of %s need %.2f GiB, the cache has %.2f; the rest is encoded in every "
            "epoch (raise run.feature_cache_gb)",
            counted(count, "image"),
            needed / GIB,
            self.store.budget / GIB,
        )

    # ---------------------------------------------------------------------------- reading
    def batch(
        self, samples: Sequence[Sample], request: FeatureRequest, taps: Iterable[Tap]
    ) -> tuple[ImageFeatures, TrainBatch]:
        """Return the features (restricted to ``taps``) and the targets of samples, in order."""
        wanted = FeatureRequest(frozenset(taps), request.variant)
        size = self._size(request)
        grid = self.backbone.info.grid(size)
        features = None
        if all(self._has(s, wanted) for s in samples):
            space, digests = self._space(request), [self._digests[s.uid] for s in samples]
            features = self.store.get_batch(space, digests, wanted.taps, grid, self.device)
        if features is None:
            features = self._recompute(samples, request).restrict(wanted.taps)
        masks = gathered([self._mask(s, size) for s in samples], self.device)
        labels = uploaded(torch.tensor([s.label for s in samples]), self.device)
        known = None
        if self._unmasked:
            told = torch.tensor([s.uid not in self._unmasked for s in samples])
            known = uploaded(told, self.device)
        return features, TrainBatch(masks[:, None].float(), labels, known)

    def _recompute(self, samples: Sequence[Sample], request: FeatureRequest) -> ImageFeatures:
        """Read what is kept, encode the groups of what is not."""
        space, grid = self._space(request), self.backbone.info.grid(self._size(request))
        rows: dict[str, ImageFeatures] = {}
        for sample in samples:
            if sample.uid in rows:
                continue
            if sample.uid in self._passing:
                rows[sample.uid] = self._encode(next(self._decoded([sample], request)), request)
                continue
            digest = self._digests[sample.uid]
            found = self.store.get_batch(space, [digest], request.taps, grid, self.device)
            if found is not None:
                rows[sample.uid] = found
                continue
            batch = next(self._decoded(self._group_of[sample.uid], request))
            features = self._encode(batch, request)
            self._keep(batch.samples, request, features, _targets(batch))
            rows.update({s.uid: features.select([i]) for i, s in enumerate(batch.samples)})
        return ImageFeatures.concat([rows[s.uid] for s in samples])

    def _mask(self, sample: Sample, size: int) -> Tensor:
        kept = self.store.get(self._mask_space(size), sample.uid, "mask")
        if kept is not None:
            return kept
        mask = torch.from_numpy(self._seen_mask(sample, size))
        if sample.uid not in self._passing:
            self.store.put(self._mask_space(size), sample.uid, "mask", mask)
        return mask

    def _seen_mask(self, sample: Sample, size: int) -> np.ndarray:
        """The mask of a sample [S, S]; what is not looked at is not a defect to learn."""
        mask = self.mask_policy.read(sample, size).copy()
        if sample.ignore is not None:
            hidden = of_sample(sample, read_image(sample.image, sample.crop).size[::-1])
            if hidden is not None:
                mask &= ~shrunk(hidden, (size, size))
        return mask

    # --------------------------------------------------------------------------- internal
    def _decoded(self, samples: Sequence[Sample], request: FeatureRequest) -> Iterator[ImageBatch]:
        """Yield decoded groups; ``samples`` is a run of whole groups."""
        for batch in batches(
            samples,
            Preprocess.for_variant(self.backbone.info, request.variant),
            self.mask_policy,
            batch_size=self.group or 1,
            workers=decoding_threads(self.settings.data.workers, self.device),
            pinned=self.device.type == "cuda",
        ):
            if batch.failures:
                raise batch.failures[0]
            yield batch

    def _encode(self, batch: ImageBatch, request: FeatureRequest) -> ImageFeatures:
        with self.backbone.engines.torch_unless_asked():
            prepared = Preprocess.for_variant(self.backbone.info, request.variant)
            return self.backbone.encode_image(prepared.brought(batch.images, self.device), request)

    def _keep(
        self,
        samples: Sequence[Sample],
        request: FeatureRequest,
        features: ImageFeatures,
        masks: Tensor,
    ) -> None:
        digests = [self._digests[s.uid] for s in samples]
        self.store.put_batch(self._space(request), digests, features)
        space = self._mask_space(self._size(request))
        for sample, mask in zip(samples, masks):
            self.store.put(space, sample.uid, "mask", mask)

    def _has(self, sample: Sample, request: FeatureRequest) -> bool:
        if sample.uid in self._passing:
            return False
        parts = [part_of(t) for t in request.taps]
        return self.store.has(self._space(request), self._digests[sample.uid], parts)

    def _space(self, request: FeatureRequest) -> str:
        info, chosen = self.backbone.info, self.settings.backbone
        computed = "-".join(dict.fromkeys(filter(None, (chosen.figures, chosen.trained_by))))
        return f"{space_of(info, request.variant, computed)}-{self._list}-{self.group}"

    def _size(self, request: FeatureRequest) -> int:
        return request.variant.image_size or self.backbone.info.image_size

    def _mask_space(self, size: int) -> str:
        return f"mask-{self.mask_policy.resize}-{size}"


def _targets(batch: ImageBatch) -> Tensor:
    """What there is to learn of a batch: its masks [B, S, S], without what is not looked at."""
    assert isinstance(batch.masks, Tensor)
    if isinstance(batch.ignored, Tensor):
        return batch.masks & ~batch.ignored
    return batch.masks


def _unique(samples: Iterable[Sample]) -> list[Sample]:
    """Return the samples without repetition."""
    return list({s.uid: s for s in samples}.values())


def _unmasked(samples: Sequence[Sample], needs_masks: bool) -> frozenset[str]:
    """Return the names of the images whose mask is unknown.

    Those are the anomalous ones without a mask; in a dataset that has no mask at all the normal
    ones, too: no pixel of it is labelled.  Raises :class:`DataError` for any with ``needs_masks``.
    """
    anomalous = [s for s in samples if s.label == 1]
    bare = [s for s in anomalous if s.mask is None]
    if bare and needs_masks:
        one = "anomalous training image"
        raise DataError(
            f"{counted(len(bare), f'{one} has', f'{one}s have')} no mask (of "
            f"{counted(len(samples), 'image')}, first: {bare[0].uid}); train on a dataset with "
            f"pixel masks"
        )
    return frozenset(s.uid for s in (samples if bare and len(bare) == len(anomalous) else bare))


def default_store(settings: Settings, device: torch.device, folder: Path) -> FeatureStore:
    """Build the store that the settings ask for: device, then host, then disk below ``folder``.

    On CUDA a third of the free memory is used.  The disk may take four times the host's budget,
    but at most half of what is free there.
    """
    host = int(settings.run.feature_cache_gb * GIB)
    on_device = 0
    if device.type == "cuda":
        on_device = free_memory(device) // 3
    folder.mkdir(parents=True, exist_ok=True)
    disk = min(4 * host, shutil.disk_usage(folder).free // 2)
    return FeatureStore(
        host_bytes=host, device_bytes=on_device, disk_bytes=disk, device=device, folder=folder
    )
