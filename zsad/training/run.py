"""The training of one method: phases, epochs, batches, and the hand-over to Lightning."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from zsad import checkpoints
from zsad.backbones import Backbone
from zsad.backbones.batch_size import is_out_of_memory
from zsad.backbones.devices import device_account
from zsad.backbones.engines import processor
from zsad.errors import CellError, RequestError, counted
from zsad.method import AnyMethod, TrainingInput, TrainPhase
from zsad.prompt_bank.captions import captions_for
from zsad.registry import methods
from zsad.torchvision_compat import lightning
from zsad.training.callback import Bookkeeping, TrainingStep
from zsad.training.images import TrainingImages
from zsad.training.loggers import log_row, make_loggers
from zsad.training.schedules import cut, derive, partner, share, shuffled
from zsad.training.state import TrainState, load_state
from zsad.types import Category, FeatureRequest, Sample, ScoreContext

log = logging.getLogger(__name__)
RESUME = "resume.pt"  # the state of an unfinished training, in a folder named like its checkpoint
# (training samples, source, normal images too) -> sentences by category; the source is one of
# MethodConfig.caption_source
Captions = Callable[[Sequence[Sample], str, bool], Mapping[str, Sequence[str]]]


@dataclass(frozen=True)
class FitOptions:
    """How to run, without effect on the result.  ``devices``, ``strategy``: Lightning's; with
    several devices each takes its own batches, so that the effective batch grows with them.

    ``logger``: ``csv``, ``tensorboard``, ``auto`` (CSV, and TensorBoard if installed), ``none``, or
    class paths: see :func:`zsad.training.loggers.make_loggers`.
    ``save_steps``: write the resume state every so many steps, 0 = every two minutes.
    """

    resume: bool = True
    devices: int | str = 1
    strategy: str = "auto"
    logger: str = "auto"
    save_steps: int = 0
    progress: Callable[[TrainingStep], None] | None = None


@dataclass(frozen=True)
class TrainResult:
    """``history``: one row per epoch with the means of the loss terms (empty when ``reused``: the
    checkpoint was there already).  ``seconds``: spent in steps, restarts included."""

    method: str
    checkpoint: Path
    history: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    reused: bool = False


@dataclass
class MethodRun:
    """Everything that the training of one method needs."""

    method: AnyMethod
    path: Path
    request: FeatureRequest
    categories: Mapping[str, Category]
    samples: Sequence[Sample]
    backbone: Backbone
    seed: int
    trained_on: checkpoints.TrainedOn
    identity: str
    captions: Captions | None = None
    contents: Callable[[], Sequence[str]] = tuple  # of the pictures; asked once all is trained
    normals: Mapping[str, Sequence[Sample]] = field(default_factory=dict)  # of methods that pair

    def finished(self) -> TrainResult | None:
        """Load what an earlier run left, if it is of this very training."""
        if not self.path.is_file():
            return None
        found = checkpoints.load_any(self.path)
        if found.meta is None or found.meta.identity != self.identity:
            return None
        self.method.load_state_dict(found.state)
        self.method.facts = dict(found.meta.facts)
        self.method.to(self.backbone.device).eval()
        return TrainResult(self.method.name, self.path, reused=True)

    def train(
        self, images: TrainingImages, company: FeatureRequest, options: FitOptions
    ) -> TrainResult:
        """Run all phases and write the checkpoint.

        ``company``: the merged request of all methods that share ``images``.
        """
        method, work = self.method, self.path.with_suffix("")
        resume_file = work / RESUME
        state = load_state(resume_file, self.identity) if options.resume else None
        state = state or TrainState(self.identity)
        if state.parameters:
            method.load_state_dict(state.parameters)
            log.info("%s goes on in epoch %d, step %d", method.name, state.epoch + 1, state.steps)
        images.group = state.group
        loggers = make_loggers(options.logger, work)
        for step, row in enumerate(state.history, start=1):  # loggers begin with an empty file
            loggers = log_row(loggers, row, step)
        self._begin()
        phases = method.phases()
        for number in range(state.phase, len(phases)):
            state.phase = number
            self._run_phase(phases[number], state, images, company, loggers, options, resume_file)
            state.epoch, state.steps, state.optimizer, state.random = 0, 0, None, []
        method.phase = ""
        method.facts = method.training_facts(state.history)
        method.to(self.backbone.device).eval()
        if getattr(lightning.pytorch.utilities.rank_zero_only, "rank", 0) == 0:
            meta = checkpoints.describe(
                method,
                seed=self.seed,
                epochs=sum(p.epochs for p in phases),
                trained_on=self.trained_on,
                identity=self.identity,
                facts=method.facts,
                contents=self.contents(),
                revision=entry.revision if (entry := methods().get(method.name)) else 1,
                cost=self._cost(state),
            )
            checkpoints.save(self.path, method.trained_state(), meta)
            resume_file.unlink(missing_ok=True)
        return TrainResult(method.name, self.path, list(state.history), state.seconds)

    def _cost(self, state: TrainState) -> dict[str, Any]:
        """What the training took, of the processor that it was on."""
        account = device_account(self.backbone.device)
        return {
            "batches": sum(row["steps"] for row in state.history),
            "seconds": round(sum(row["seconds"] for row in state.history), 3),
            "processor": account["name"] if account["kind"] != "cpu" else processor.name(),
            "threads": account["threads"],
        }

    def _begin(self) -> None:
        """Let the method prepare what depends on the training set as a whole."""
        method, config = self.method, self.method.config
        source = config.caption_source
        method.to(self.backbone.device)
        sentences: Mapping[str, Sequence[str]] = {}
        if source != "off":
            if self.captions is not None:
                sentences = self.captions(self.samples, source, config.caption_all)
            else:
                sentences = captions_for(config, self.samples, self.categories, config.prompt_kind)
        categories = [self.categories[c] for c in self.trained_on.categories]
        method.auxiliary = tuple(sorted({c.dataset for c in categories}))
        method.begin_training(
            categories,
            sentences,
            self.backbone.text_encoder(self.request.variant),
        )

    def _run_phase(
        self,
        phase: TrainPhase,
        state: TrainState,
        images: TrainingImages,
        company: FeatureRequest,
        loggers: list[lightning.pytorch.loggers.Logger],
        options: FitOptions,
        resume_file: Path,
    ) -> None:
        if state.epoch >= phase.epochs:
            return
        method = self.method
        method.phase = phase.name
        method.freeze_all_but(method.parameters_of_phase(phase))
        method.train()
        data = PhaseData(self, phase, state, images, company)
        books = Bookkeeping(
            state,
            resume_file,
            phase,
            batches=data.steps,
            save_steps=options.save_steps,
            progress=options.progress,
        )
        device = self.backbone.device
        trainer = lightning.Trainer(
            accelerator="gpu" if device.type == "cuda" else device.type,
            devices=_devices(options.devices, device),
            strategy=_strategy(options),
            max_epochs=phase.epochs - state.epoch,
            logger=loggers or False,
            callbacks=[books],
            gradient_clip_val=phase.gradient_clip or None,
            enable_checkpointing=False,  # the callback writes states that resume within an epoch
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            reload_dataloaders_every_n_epochs=1,
            limit_val_batches=0,
            num_sanity_val_steps=0,
            log_every_n_steps=1_000_000,  # the callback logs the means of every epoch
            default_root_dir=str(resume_file.parent),
        )
        # A method may draw random numbers; what it draws depends on seed, method and phase alone.
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(derive(self.seed, method.name, phase.name))
            try:
                _fit(trainer, method, data)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                raise CellError(
                    f"{method.name}: out of memory in phase {phase.name} with batches of "
                    f"{phase.batch_size}; lower {method.name}.train.batch_size or "
                    "run.feature_cache_gb, or choose a device with more memory"
                ) from error
        if state.epoch < phase.epochs:
            raise KeyboardInterrupt  # nothing unfinished may pass for a trained state


def _fit(trainer: lightning.Trainer, method: AnyMethod, data: PhaseData) -> None:
    """Run Lightning; Ctrl-C comes out as what it is, not as an exit with SIGINT ignored."""
    before = signal.getsignal(signal.SIGINT)
    try:
        trainer.fit(method, datamodule=data)
    except SystemExit:
        if not trainer.interrupted:
            raise
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, before)
        raise KeyboardInterrupt from None


class PhaseData(lightning.LightningDataModule):
    """The batches of one phase: features from the store, in the order of each epoch."""

    def __init__(
        self,
        run: MethodRun,
        phase: TrainPhase,
        state: TrainState,
        images: TrainingImages,
        company: FeatureRequest,
    ) -> None:
        super().__init__()
        self.run = run
        self.phase = phase
        self.state = state
        self.images = images
        self.company = company
        self._orders: dict[int, list[Sample]] = {}

    # ----------------------------------------------------------------------- Lightning's
    def setup(self, stage: str) -> None:
        """Encode what is not kept yet, on the device that Lightning gives this process."""
        device = self._trainer.strategy.root_device
        if not self.steps(self.state.epoch):
            raise RequestError(
                f"{self.run.method.name}: an epoch of {counted(len(self.run.samples), 'image')} "
                "has "
                f"fewer batches of {self.phase.batch_size} than there are devices "
                f"({self._trainer.world_size}); lower --devices or train.batch_size"
            )
        if self.images.device != device:
            self.run.backbone.to(device)
            self.images.device = device
            self.images.store.settle(device)
        known = {s.uid for s in self.run.samples}
        extra = {
            s.uid: s
            for epoch in range(self.phase.epochs)
            for s in self.order(epoch)
            if s.uid not in known
        }
        added = [extra[u] for u in sorted(extra)]
        anew = self.run.method.adds_anew
        near = [
            self.partner(s, epoch)
            for epoch in range(self.phase.epochs if self.run.method.needs_partners else 0)
            for s in self.order(epoch)
        ]
        self.images.prepare(
            self.run.samples,
            self.company,
            near if anew else [*added, *near],
            passing=added if anew else [],
            needs_masks=self.run.method.needs_masks,
        )
        self.state.group = self.images.group

    def train_dataloader(self) -> EpochBatches:
        """The rest of the epoch that the state was saved in."""
        epoch = self.state.epoch
        return EpochBatches(self, epoch, self._batches(epoch)[self.state.steps :])

    def transfer_batch_to_device(self, batch: Any, device: torch.device, index: int) -> Any:
        return batch  # it was made on the device

    # ------------------------------------------------------------------------- schedule
    def order(self, epoch: int) -> list[Sample]:
        """The images of an epoch in order."""
        if epoch not in self._orders:
            run, phase = self.run, self.phase
            own = run.method.epoch_samples(run.samples, phase, epoch, run.seed)
            chosen = shuffled(run.samples, run.seed, phase.name, epoch) if own is None else own
            self._orders[epoch] = list(chosen)
        return self._orders[epoch]

    def partner(self, sample: Sample, epoch: int) -> Sample:
        """The normal image that a sample is compared with in an epoch."""
        return partner(sample, self.run.normals, self.run.seed, self.phase.name, epoch)

    def steps(self, epoch: int) -> int:
        """Batches of an epoch in this process."""
        return len(self._batches(epoch))

    def _batches(self, epoch: int) -> list[Sequence[Sample]]:
        batches = cut(self.order(epoch), self.phase.batch_size)
        trainer = self._trainer
        return share(batches, trainer.global_rank, trainer.world_size)

    def assemble(self, samples: Sequence[Sample], epoch: int) -> TrainingInput:
        """Return features, targets and context of some samples of an epoch."""
        run = self.run
        features, targets = self.images.batch(samples, self.company, run.request.taps)
        paired = None
        if run.method.needs_partners:
            near = [self.partner(s, epoch) for s in samples]
            paired = self.images.batch(near, self.company, run.request.taps)[0]
        # Without text: in training a method encodes its prompts at every step, with gradients.
        context: ScoreContext[Any] = ScoreContext(
            categories=[run.categories[s.category] for s in samples],
            text={},
            text_encoder=run.backbone.text_encoder(run.request.variant),
            image_encoder=run.backbone.image_encoder(run.request.variant),
            uids=[s.uid for s in samples],
            paired=paired,
        )
        return features, targets, context

    @property
    def _trainer(self) -> lightning.Trainer:
        assert self.trainer is not None
        return self.trainer


class EpochBatches:
    """An iterable of batches that are assembled when they are asked for.

    Not a torch ``DataLoader``: that one draws from the global generator when it starts, and a
    training that resumes within an epoch would then differ from one that does not.
    """

    def __init__(self, data: PhaseData, epoch: int, batches: list[Sequence[Sample]]) -> None:
        self.data = data
        self.epoch = epoch
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[TrainingInput]:
        return (self.data.assemble(samples, self.epoch) for samples in self.batches)


def _strategy(options: FitOptions) -> str:
    """Plain ``ddp`` stops at a parameter without gradient, and there may be some: learned tokens
    for more text blocks than a small tower has."""
    several = str(options.devices) != "1" and options.strategy == "auto"
    if options.strategy == "ddp" or several:
        return "ddp_find_unused_parameters_true"
    return options.strategy


def _devices(wanted: int | str, device: torch.device) -> Any:
    """One device means the one that the backbone is on.

    Raises :class:`RequestError` for several and one that is named: Lightning takes the first."""
    if device.index is not None and str(wanted) != "1" and "LOCAL_RANK" not in os.environ:
        raise RequestError(
            f"--device {device} and --devices {wanted} contradict each other; give --device cuda, "
            "and choose the GPUs with CUDA_VISIBLE_DEVICES"
        )
    if device.type == "cuda" and str(wanted) == "1":
        return [device.index or 0]
    return wanted
