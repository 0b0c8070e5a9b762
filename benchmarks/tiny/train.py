"""Trains zsad-tiny from nothing on the pool, and writes the weights that the package ships.

    python -m zsad.benchmarks.tiny.pool  --folder POOL
    python -m zsad.benchmarks.tiny.train --pool POOL --run RUN --minutes 60 [--threads 2]

The schedule runs on the clock: ``--minutes`` is the training time, and the picture size (112, 160,
then 224 pixels), learning rate and weight average follow the share of it that is spent.  Started
again on the same ``--run`` it goes on from the last checkpoint.
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
import re
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from zsad.backbones import tiny
from zsad.benchmarks.tiny import captions
from zsad.benchmarks.tiny.batches import Batch, Pool, cut_windows
from zsad.benchmarks.tiny.model import TinyClip, read_config
from zsad.benchmarks.tiny.validate import validate
from zsad.data.synthetic.generator import CATEGORIES

log = logging.getLogger("zsad.tiny")

# share of the time up to which a picture size is used, and pairs of pictures per step
STAGES = ((0.18, 112, 20), (0.4, 160, 14), (1.01, 224, 12))
PEAK, FLOOR, WARM_UP = 1e-3, 2e-5, 0.02
# Weight of the losses of the class token by picture size: first patches, then what they add up to.
IMAGE_LEVEL = {112: 1.0, 160: 1.5, 224: 2.0}
MUON = 2.0  # learning rate of the blocks' matrices, in units of the others'
DENSE_WEIGHTS = {
    "last": 1.0,
    "v-v": 0.7,
    "values": 0.3,
    "layer 6": 0.5,
    "layer 4": 0.3,
    "layer 2": 0.1,
}
DENSE_LAYERS = (2, 4, 6, 8)


class Tokens:
    """CLIP's tokenizer, cut to the longest text, and which of its tokens are trained."""

    def __init__(self) -> None:
        from zsad.torchvision_compat import open_clip

        self.tokenizer = open_clip.SimpleTokenizer()
        known = [k.class_name for k in CATEGORIES.values() if k.group == "train"]
        held_out = {
            w for k in CATEGORIES.values() if k.group == "test" for w in k.class_name.split()
        }
        phrases = [
            *captions.GENERAL,
            *captions.NORMAL,
            *captions.ANOMALOUS,
            *captions.TEMPLATES,
            *known,
        ]
        phrases += [w for words in captions.DEFECT_WORDS.values() for w in words]
        phrases += ["at in on the top bottom left right center parts wires surface a , ."]
        phrases += ["black grey white brown beige red green blue yellow orange silver"]
        ids = {i for p in phrases for i in self.tokenizer.encode(p.replace("{}", " "))}
        self.trained = torch.tensor(sorted(ids | {49406, 49407}))
        words = sorted(w[:-4] for w in self.tokenizer.encoder if re.fullmatch(r"[a-z]{3,}</w>", w))
        self.strangers = [
            w for w in words if w not in held_out and not set(self.tokenizer.encode(w)) & ids
        ]

    def __call__(self, texts: list[str]) -> Tensor:
        rows = [[49406, *self.tokenizer.encode(t), 49407] for t in texts]
        out = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
        for i, row in enumerate(rows):
            out[i, : len(row)] = torch.tensor(row)
        return out


class Probe(nn.Module):
    """Learned directions "anomalous", one for the class token and one for patches, that stand in
    for the text.  They are written in the text tower's last layer, before its projection, so that
    a learned prompt can point the same way.  They are not exported."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.direction = nn.Parameter(torch.randn(2, width) * width**-0.5)  # class token, patches
        self.bias = nn.Parameter(torch.tensor((0.0, -2.0)))

    def forward(self, which: int, features: Tensor, projection: Tensor) -> Tensor:
        """Logits [...] of features [..., E] of any length: only their direction counts."""
        length = features.norm(dim=-1).clamp(min=1e-6)
        logits: Tensor = 10 * (features @ (self.direction[which] @ projection)) / length
        return logits + self.bias[which]


class SparseEmbedding(nn.Module):
    """Word embeddings of which only the rows ``trained`` are parameters."""

    table: Tensor
    place: Tensor

    def __init__(self, width: int, trained: Tensor) -> None:
        super().__init__()
        table = tiny.start_embeddings(width)
        self.rows = nn.Parameter(table[trained].clone())
        place = torch.full((len(table),), -1)
        place[trained] = torch.arange(len(trained))
        self.register_buffer("table", table, persistent=False)
        self.register_buffer("place", place, persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        at = self.place[ids]
        return torch.where((at >= 0)[..., None], self.rows[at.clamp(min=0)], self.table[ids])


class Pupil(TinyClip):
    """The model with what only its training has: the probe, and few trained words."""

    def __init__(self, trained: Tensor) -> None:
        config = read_config()
        super().__init__(config)
        width = config["text_cfg"]["width"]
        self.token_embedding = SparseEmbedding(width, trained)
        self.probe = Probe(width)


def cosines(shape: torch.Size) -> Tensor:
    """First patch filters [D, 3, P, P]: the lowest cosines of the block transform, three in four
    of brightness, the rest of two colour differences.  High frequencies, which pictures have less
    of, are given more weight, so that detail counts from the first step."""
    width, _, side, _ = shape
    at = np.arange(side)
    waves = np.cos(np.pi * np.outer(at, at + 0.5) / side) * np.sqrt(2 / side)
    waves[0] /= np.sqrt(2)
    order = sorted(np.ndindex(side, side), key=lambda k: k[0] ** 2 + k[1] ** 2)
    colours = np.array([[1, 1, 1], [1, 0, -1], [1, -2, 1]]) / np.sqrt([[3], [2], [6]])
    counts = (width - 2 * (width // 8), width // 8, width // 8)
    filters = [
        0.06
        * (1 + np.hypot(*k)) ** 0.7
        * colour[:, None, None]
        * np.outer(waves[k[0]], waves[k[1]])
        for colour, count in zip(colours, counts, strict=True)
        for k in order[:count]
    ]
    return torch.from_numpy(np.stack(filters)).float()


def build(tokens: Tokens) -> Pupil:
    model = Pupil(tokens.trained)
    with torch.no_grad():
        model.visual.conv1.weight.copy_(cosines(model.visual.conv1.weight.shape))
        model.logit_scale.fill_(float(np.log(30)))
    return model


def full_state(state: dict[str, Tensor], trained: Tensor) -> dict[str, Tensor]:
    """State dict in OpenAI's naming, with the whole embedding table."""
    out = {k: v for k, v in state.items() if not k.startswith(("token_embedding.", "probe."))}
    table = tiny.start_embeddings(state["token_embedding.rows"].shape[1])
    table[trained] = state["token_embedding.rows"].float()
    out["token_embedding.weight"] = table
    return out


# ---------------------------------------------------------------------------------- loss
def contrastive(images: Tensor, texts: Tensor, own: Tensor, scale: Tensor) -> Tensor:
    """CLIP's loss over [B, E] and the distinct captions [T, E]; ``own`` [B]: each image's caption.
    Images of the same caption share the text's target evenly."""
    logits = scale * images @ texts.T
    match = F.one_hot(own, len(texts)).float()
    to_text = F.cross_entropy(logits, own)
    to_image = -(F.log_softmax(logits, 0) * match / match.sum(0, keepdim=True)).sum(0).mean()
    return (to_text + to_image) / 2


def losses(
    model: Pupil, batch: Batch, tokens: Tokens, words: captions.Words, rng: np.random.Generator
) -> dict[str, Tensor]:
    """Named loss terms of a batch."""
    texts = [
        words.caption(rng, f, bool(d), p)
        for f, d, p in zip(batch.facts, batch.defective, batch.positions, strict=True)
    ]
    distinct = sorted(set(texts))
    place = {t: i for i, t in enumerate(distinct)}
    names = sorted({f["class"] for f in batch.facts})
    pairs = [words.pair(rng, names) for _ in range(8)]
    encoded = F.normalize(
        model.encode_text(tokens(distinct + [t for p in pairs for t in p])).float(), dim=-1
    )
    caption, prompts = (
        encoded[: len(distinct)],
        encoded[len(distinct) :].view(-1, 2, encoded.shape[1]),
    )
    direction = prompts[:, 1] - prompts[:, 0]  # [G, E]
    scale = model.logit_scale.exp().clamp(max=100.0)

    embedded = model.visual.embed(batch.images)
    cls, dense = model.visual(embedded, DENSE_LAYERS)
    cls = F.normalize(cls.float(), dim=-1)
    own = torch.tensor([place[t] for t in texts])
    out = {"contrastive": 0.5 * contrastive(cls, caption, own, scale)}

    label = batch.defective.float()[:, None].expand(-1, len(direction))
    certain = batch.certain.float()[:, None]
    logits = scale * cls @ direction.T
    image = F.binary_cross_entropy_with_logits(logits, label, reduction="none")
    out["image"] = (image * certain).sum() / (certain.sum() * len(direction))
    # The pictures of a pair differ in the defect only: their order is the clearest signal there is.
    clean, bad = logits[0::2], logits[1::2]
    shown = (batch.defective & batch.certain)[1::2].float()[:, None]
    order = F.softplus(clean - bad) * shown
    out["order"] = 0.5 * order.sum() / (shown.sum() * len(direction)).clamp(min=1)
    projection = model.text_projection
    probed = F.binary_cross_entropy_with_logits(
        model.probe(0, cls, projection).float(), label[:, 0], reduction="none"
    )
    out["image probe"] = 0.5 * (probed * certain[:, 0]).sum() / certain.sum()

    level = IMAGE_LEVEL[batch.images.shape[-1]]
    out = {name: level * value for name, value in out.items()}

    target = batch.cover.flatten(1)  # [B, L]
    attention = dense.pop("attention")[:, :, 0].float()  # one head of the last two layers
    found = (attention * target[:, None]).sum(-1).clamp(min=1e-4).log().mean(1)
    seen = ((target.amax(1) > 0.3) & batch.defective & batch.certain).float()
    out["attention"] = -0.1 * (found * seen).sum() / seen.sum().clamp(min=1)
    weight = 1 + 3 * target
    for name, patches in dense.items():
        probed = F.binary_cross_entropy_with_logits(
            model.probe(1, patches, projection).float(), target, weight, reduction="sum"
        )
        out[name] = 2 * DENSE_WEIGHTS[name] * probed / weight.sum()
    if batch.images.shape[-1] == 224:
        rows, hit = cut_windows(rng, batch)
        window, _ = model.visual(
            torch.gather(embedded, 1, rows[..., None].expand(-1, -1, embedded.shape[2]))
        )
        logits = scale * F.normalize(window.float(), dim=-1) @ direction.T
        loss = F.binary_cross_entropy_with_logits(logits, hit[:, None].expand_as(logits))
        out["window"] = 0.3 * loss
    return out


# ------------------------------------------------------------------------------ training
def optimizers(model: TinyClip) -> list[torch.optim.Optimizer]:
    """Muon for the blocks' matrices, AdamW for all else."""
    inner: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for name, p in model.named_parameters():
        (inner if p.ndim == 2 and "resblocks" in name else rest).append(p)
    groups: list[dict[str, Any]] = [
        {"params": [p for p in rest if p.ndim >= 2], "weight_decay": 0.05, "times": 1.0},
        {"params": [p for p in rest if p.ndim < 2], "weight_decay": 0.0, "times": 1.0},
    ]
    blocks: list[dict[str, Any]] = [{"params": inner, "times": MUON}]
    return [
        torch.optim.AdamW(groups, lr=PEAK, betas=(0.9, 0.98), fused=True),
        torch.optim.Muon(blocks, lr=PEAK, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
    ]


class Run:
    """A training run in a folder: model, optimiser, weight average, clock, curve."""

    def __init__(self, folder: Path, seed: int) -> None:
        torch.manual_seed(seed)
        self.folder = folder
        self.tokens = Tokens()
        self.model = build(self.tokens)
        self.average = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        self.optimizers = optimizers(self.model)
        self.step, self.seen, self.seconds = 0, 0, 0.0
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / "checkpoint.pt").exists():
            saved = torch.load(folder / "checkpoint.pt", weights_only=True)
            self.model.load_state_dict(saved["model"])
            for optimizer, state in zip(self.optimizers, saved["optimizers"], strict=True):
                optimizer.load_state_dict(state)
            self.average = saved["average"]
            self.step, self.seen, self.seconds = saved["step"], saved["seen"], saved["seconds"]
            log.info("going on from step %d, %.1f minutes", self.step, self.seconds / 60)

    def learn(
        self, batch: Batch, words: captions.Words, rng: np.random.Generator, lr: float
    ) -> dict[str, float]:
        """Take one step at learning rate ``lr``; return the loss terms."""
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = lr * group["times"]
            optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16):
            parts = losses(self.model, batch, self.tokens, words, rng)
            total = torch.stack(list(parts.values())).sum()
        total.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
        self.step, self.seen = self.step + 1, self.seen + len(batch.images)
        self.update_average()
        return {k: v.item() for k, v in parts.items()}

    def update_average(self) -> None:
        decay = min(0.999, (1 + self.step) / (20 + self.step))
        now = self.model.state_dict()
        torch._foreach_lerp_([self.average[k] for k in now], list(now.values()), 1 - decay)

    def save(self) -> None:
        saved = {
            "model": self.model.state_dict(),
            "optimizers": [o.state_dict() for o in self.optimizers],
            "average": self.average,
            "step": self.step,
            "seen": self.seen,
            "seconds": self.seconds,
        }
        torch.save(saved, self.folder / "checkpoint.new")
        (self.folder / "checkpoint.new").replace(self.folder / "checkpoint.pt")
        packed = tiny.pack(full_state(self.average, self.tokens.trained), self.tokens.trained)
        save_file(packed, self.folder / "weights.new")
        (self.folder / "weights.new").replace(self.folder / "weights.safetensors")

    def record(self, terms: dict[str, float]) -> None:
        """Validate the averaged weights and append a row to the curve."""
        model = build(self.tokens)
        model.load_state_dict(self.average)
        row = {"minutes": round(self.seconds / 60, 2), "step": self.step, "images": self.seen}
        row |= {k: round(v, 4) for k, v in validate(model.eval(), self.tokens).items()}
        log.info("%s | %s", json.dumps(row), json.dumps({k: round(v, 3) for k, v in terms.items()}))
        path = self.folder / "curve.csv"
        new = not path.exists()
        with path.open("a", newline="", encoding="utf-8") as out:
            writer = csv.DictWriter(out, row)
            if new:
                writer.writeheader()
            writer.writerow(row)


def rate(spent: float) -> float:
    """Learning rate at a share of the training time: warm-up, then a half cosine."""
    if spent < WARM_UP:
        return PEAK * max(spent, 1e-4) / WARM_UP
    along = min(1.0, (spent - WARM_UP) / (1 - WARM_UP))
    return FLOOR + (PEAK - FLOOR) * 0.5 * (1 + float(np.cos(np.pi * along)))


def train(run: Run, pool: Pool, minutes: float, every: float) -> None:
    words = captions.Words(run.tokens.strangers)
    mark, terms = run.seconds, dict[str, float]()
    ahead = ThreadPoolExecutor(1)  # the next batch is cut while this one is learned
    coming: Future[Batch] | None = None
    while run.seconds < minutes * 60:
        began = time.monotonic()
        spent = run.seconds / (minutes * 60)
        _, side, pairs = next(s for s in STAGES if spent < s[0])
        rng = np.random.default_rng((7, run.step))
        batch = (
            coming.result()
            if coming
            else pool.draw(np.random.default_rng((8, run.step)), pairs, side)
        )
        coming = ahead.submit(pool.draw, np.random.default_rng((8, run.step + 1)), pairs, side)
        now = run.learn(batch, words, rng, rate(spent))
        terms = {k: 0.95 * terms.get(k, v) + 0.05 * v for k, v in now.items()}
        run.seconds += time.monotonic() - began
        if run.step % 50 == 0:
            log.info(
                "step %d, %.1f min, %d px, scale %.1f, %s",
                run.step,
                run.seconds / 60,
                side,
                float(run.model.logit_scale.exp()),
                {k: round(v, 3) for k, v in terms.items()},
            )
        if run.seconds - mark >= every * 60:
            mark = run.seconds
            pool.reload()
            run.save()
            run.record(terms)
    ahead.shutdown()
    run.save()
    run.record(terms)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pool", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--every", type=float, default=5, help="minutes between validations")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(args.threads)
    train(Run(args.run, args.seed), Pool(args.pool), args.minutes, args.every)


if __name__ == "__main__":
    main()
