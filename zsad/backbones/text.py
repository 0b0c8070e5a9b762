"""The text encoder: fixed prompts, learned context, deep prompts, shared prefixes.

The tower is causal and a prompt's feature is read at its end-of-text position (EOT).  Hence

* nothing after the longest EOT of a batch is computed (*truncation*), and in the last block
  only the EOT row is;
* the states of a shared prefix [SOT, context] do not depend on what follows: its keys and
  values are computed once per prefix and read by all prompts that begin with it (*reuse*);
* more generally, prompts given as tokens share all that they begin with (*tree*, see
  ``prompt_tree.py``).

All change nothing but the order of floating-point sums.  Weights are frozen; gradients flow to
the embeddings, prefixes, suffixes and deep prompts that a caller passes in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zsad.backbones import tree_attention
from zsad.backbones.blocks import (
    Adapters,
    Block,
    Linear,
    RowModule,
    activation_of,
    adapted,
    attend,
    layer_norm,
)
from zsad.backbones.counters import Counters
from zsad.backbones.prompt_tree import PromptTree, tree_of
from zsad.backbones.text_blocks import (
    deep_rows,
    join,
    last_block,
    last_suffix_block,
    overwrite,
    suffix_block,
)
from zsad.on_device import constant, picked, uploaded
from zsad.types import EncoderVariant

TREES = 256  # that an encoder keeps; a tree of 500 nodes takes 0.3 MB
RUN_NUMBERS = 768 * 1024  # of positions run at once: what a layer makes of them fits a cache


class PromptTokens(NamedTuple):
    """``ids`` [T, context length] and the position of the end-of-text token, ``eot`` [T].

    ``rows``: the ids of every prompt up to its end of text as Python numbers, where they are
    known: a method whose pass is recorded must not read numbers back from a tensor.
    """

    ids: Tensor
    eot: Tensor
    rows: tuple[tuple[int, ...], ...] = ()

    @property
    def ends(self) -> tuple[int, ...]:
        """``eot`` as Python numbers."""
        return tuple(len(row) - 1 for row in self.rows) if self.rows else _numbers(self.eot)

    def at(self, index: Sequence[int]) -> PromptTokens:
        """Some of the prompts, in that order."""
        chosen = list(index)
        rows = tuple(self.rows[i] for i in chosen) if self.rows else ()
        return PromptTokens(picked(self.ids, chosen), picked(self.eot, chosen), rows)


class TextEncoder:
    """The text tower under one activation variant.  Holds no weights of its own.

    ``truncate`` and ``reuse`` switch the identities off, for tests and benchmarks.
    ``chunk_tokens``: sequence positions per run without gradients.  ``linear``: who multiplies.
    """

    def __init__(
        self,
        tower: Any,
        tokenizer: Callable[[list[str]], Tensor],
        variant: EncoderVariant | None = None,
        counters: Counters | None = None,
        *,
        truncate: bool = True,
        reuse: bool = True,
        chunk_tokens: int = 4096,
        cache_size: int = 65536,
        linear: Linear = F.linear,
    ) -> None:
        self.tower = tower
        self.tokenizer = tokenizer
        self.counters = counters or Counters()
        self.truncate = truncate
        self.reuse = reuse
        self.chunk_tokens = chunk_tokens
        self.cache_size = cache_size
        activation = activation_of((variant or EncoderVariant()).activation)
        self.blocks = [Block(b, activation, linear) for b in self.tower.transformer.resblocks]
        self.width: int = self.tower.token_embedding.embedding_dim
        self.context_length: int = self.tower.positional_embedding.shape[0]
        self._linear = linear
        # by what rounds otherwise: packed weights, and attention run by run
        self._cache: dict[tuple[tuple[bool, bool], str], Tensor] = {}
        self._trees: dict[tuple[Any, ...], PromptTree] = {}
        self._tokens: dict[tuple[str, ...], PromptTokens] = {}

    @property
    def embed(self) -> int:
        """E, the width of the features."""
        projection = self.tower.text_projection
        if isinstance(projection, nn.Linear):
            return projection.out_features
        return int(projection.shape[1])

    @property
    def dtype(self) -> torch.dtype:
        table: Tensor = self.tower.token_embedding.weight
        return table.dtype

    @property
    def device(self) -> torch.device:
        table: Tensor = self.tower.token_embedding.weight
        return table.device

    # -------------------------------------------------------------------------- tokens
    def tokenize(self, texts: Sequence[str]) -> PromptTokens:
        """Tokenise; a text that is too long is cut and keeps its end-of-text token.

        The latest answers are kept."""
        key = tuple(texts)
        found = self._tokens.get(key)
        if found is None or found.ids.device != self.device:
            ids = self.tokenizer(list(texts))
            # the end-of-text token has the highest id of the vocabulary
            eot = ids.argmax(-1)
            rows = tuple(tuple(row[: end + 1]) for row, end in zip(ids.tolist(), eot.tolist()))
            device = self.device
            found = PromptTokens(uploaded(ids, device), uploaded(eot, device), rows)
            while len(self._tokens) >= TREES:
                self._tokens.pop(next(iter(self._tokens)))
            self._tokens[key] = found
        return found

    def embed_tokens(self, tokens: PromptTokens) -> Tensor:
        """Return the frozen word embeddings [T, S, W], without positions; S ends at the longest
        end-of-text."""
        with torch.no_grad():
            embedded: Tensor = self.tower.token_embedding(
                tokens.ids[:, : self._length(tokens.ends)]
            )
        return embedded

    @torch.no_grad()
    def nearest_words(self, vectors: Tensor) -> list[str]:
        """Return for each of the vectors [K, W] the word (or piece of one) of the vocabulary whose
        embedding has the smallest Euclidean distance."""
        from zsad.torchvision_compat import open_clip

        table = self.tower.token_embedding.weight.float()
        found = torch.cdist(vectors.to(table), table).argmin(1)
        return [str(open_clip.tokenizer.decode(i)).strip() for i in found[:, None]]

    # ------------------------------------------------------------------------ encoding
    @torch.no_grad()
    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Return the features [T, E] of fixed prompts, not normalised; cached by content."""
        if not texts:
            return torch.zeros(0, self.embed, dtype=self.dtype, device=self.device)
        way = (bool(getattr(self._linear, "on", False)), tree_attention.wanted(self.device))
        missing = [t for t in dict.fromkeys(texts) if (way, t) not in self._cache]
        fresh: dict[str, Tensor] = {}
        if missing:
            tokens = self.tokenize(missing)
            # alphabetically, so that prompts with the same beginning share a tree
            order = sorted(range(len(missing)), key=tokens.rows.__getitem__)
            start = 0
            while start < len(order):
                count = max(1, self.chunk_tokens // self.context_length)
                rows = order[start : start + count]
                features = self.encode_tokens(tokens.at(rows))[0]
                fresh.update((missing[i], f) for i, f in zip(rows, features))
                start += count
        kept = {t: self._cache[way, t] for t in texts if (way, t) in self._cache}
        self._cache.update({(way, t): f for t, f in fresh.items()})
        while len(self._cache) > self.cache_size:
            self._cache.pop(next(iter(self._cache)))
        found = kept | fresh
        return torch.stack([found[t] for t in texts])

    def encode_embeddings(
        self,
        embeddings: Tensor,
        eot: Tensor | Sequence[int],
        deep: Sequence[Tensor] | None = None,
        *,
        adapters: Adapters | None = None,
        before_final: RowModule | None = None,
        projection: RowModule | None = None,
    ) -> Tensor:
        """Return the features [*, T, E] of prompts given as embeddings [*, T, S, W].

        ``eot`` [T], a tensor or numbers; ``deep[i]`` [n, W], or one for each row [*, T, n, W] (an
        axis may be 1), overwrites positions 1..n at the input of block i+2 (counted from 1; the
        first block keeps the prompt's own), surplus ones are ignored.

        ``adapters``: a function ``(layer, x_l) -> x_l`` called after every block, or such functions
        of x_l alone by layer (1-based); of the last block it sees the end-of-text rows only.
        ``before_final`` maps those rows [N, W] before the tower's last norm, ``projection`` takes
        the place of the tower's own.  All three must treat every row by itself.
        Raises ``ValueError`` for deep tokens of another shape.
        """
        ends = _numbers(eot)
        eot = _as_tensor(eot, embeddings.device)
        length = self._fitting_length(ends, embeddings.shape[-2])
        x = embeddings[..., :length, :].to(self.dtype)
        lead = x.shape[:-2]
        x = (x + self.positions(0, length)).flatten(0, -3)  # [N, S, W]
        deep = deep and [deep_rows(tokens, lead) for tokens in deep]
        self._count(prompts=len(x), tokens=len(x) * length)
        rows = eot.expand(lead).flatten()
        for i, block in enumerate(self.blocks):
            x = overwrite(x, deep, i, first=0)
            if i + 1 < len(self.blocks) or not self.truncate:
                x = block(x, causal=True)
            else:
                mask = torch.arange(length, device=x.device) <= rows[:, None]
                x = last_block(block, x, rows, mask[:, None, None])
            x = adapted(adapters, i + 1, x)
        if not self.truncate:
            x = x[torch.arange(len(x), device=x.device), rows][:, None]
        features: Tensor = self._project(x[:, 0], before_final, projection).unflatten(0, lead)
        return features

    def encode_prefixed(
        self,
        prefix: Tensor,
        suffix: Tensor,
        eot: Tensor | Sequence[int],
        deep: Sequence[Tensor] | None = None,
        *,
        before_final: RowModule | None = None,
        projection: RowModule | None = None,
    ) -> Tensor:
        """Return the features [B, T, E] of prompts that share a prefix per batch row.

        ``prefix`` [Bp, p, W]: start token and learned context; ``suffix`` [Bs, T, s, W]: the
        rest of every prompt, end-of-text included; Bp and Bs are 1 or B.  ``eot`` [T], a tensor or
        numbers, counts positions of the whole prompt; ``deep`` [n, W] each, ``before_final`` and
        ``projection`` as in :meth:`encode_embeddings`.
        Equal to encoding the joined prompts; the prefix is run once per row.
        """
        p = prefix.shape[-2]
        if any(tokens.dim() != 2 for tokens in deep or ()):
            raise ValueError("deep tokens of prompts with a shared prefix are [n, W] for all rows")
        ends = _numbers(eot)
        if not self.reuse or min(ends) < p:
            joined = join(prefix, suffix)
            return self.encode_embeddings(
                joined, eot, deep, before_final=before_final, projection=projection
            )
        eot = _as_tensor(eot, suffix.device)
        length = self._fitting_length(ends, p + suffix.shape[-2])
        head = prefix.to(self.dtype) + self.positions(0, p)  # [Bp, p, W]
        tail = suffix[:, :, : length - p].to(self.dtype) + self.positions(p, length)
        batch = max(len(head), len(tail))
        self._count(
            prompts=batch * tail.shape[1],
            tokens=len(head) * p + batch * tail.shape[1] * (length - p),
        )
        rows = (eot - p).repeat(batch)
        at = torch.arange(length, device=tail.device)
        causal = at <= at[p:, None]  # [s, p+s]: the whole prefix, then up to oneself
        for i, block in enumerate(self.blocks):
            last = i + 1 == len(self.blocks)
            head, tail = overwrite(head, deep, i, first=0), overwrite(tail, deep, i, first=p)
            q, k, v = block.project_in(block.norm(head), "qkv")
            keys = (k, v)
            if not last:  # nobody reads the prefix's own output of the last block
                head = block.after(head, attend(q, k, v, causal=True))
            if last and self.truncate:
                x = tail.expand(batch, -1, -1, -1).flatten(0, 1)
                tail = last_suffix_block(block, x, keys, rows, rows[:, None] + p >= at)
                continue
            tail = suffix_block(block, tail, keys, causal)
        if not self.truncate:
            tail = tail.expand(batch, -1, -1, -1).flatten(0, 1)
            tail = tail[torch.arange(len(rows), device=tail.device), rows][:, None]
        out: Tensor = self._project(tail[:, 0], before_final, projection).unflatten(0, (batch, -1))
        return out

    def encode_tokens(self, tokens: PromptTokens, context: Tensor | None = None) -> Tensor:
        """Return the features [B, T, E] of tokenised prompts, not normalised.

        ``context`` [B, K, W] takes the places 1..K of every prompt of a batch row; without one,
        B is 1 and the words are the prompts' own.  What prompts begin with is run once per row.
        """
        if context is None:
            context = self.tower.token_embedding.weight.new_zeros(1, 0, self.width)
        if not (self.reuse and self.truncate):
            words = self.embed_tokens(tokens)  # [T, S, W]
            suffix = words[None, :, 1 + context.shape[1] :]
            prefix = torch.cat([words[:1, :1].expand(len(context), -1, -1), context.to(words)], 1)
            return self.encode_embeddings(join(prefix, suffix), tokens.ends)
        tree = self._tree(tokens, context.shape[1])
        if torch.is_grad_enabled():
            return self._encode_tree(tree, context)
        in_a_cache = RUN_NUMBERS // self.width
        most = self.chunk_tokens if tree.runs is None else min(self.chunk_tokens, in_a_cache)
        rows = max(1, most // len(tree.ids))
        return torch.cat([self._encode_tree(tree, part) for part in context.split(rows)])

    # ------------------------------------------------------------------------- helpers
    def _tree(self, tokens: PromptTokens, learned: int) -> PromptTree:
        """The tree of some prompts; the latest ones are kept."""
        rows = tokens.rows
        if not rows:
            both = zip(tokens.ids.tolist(), tokens.eot.tolist())
            rows = tuple(tuple(row[: end + 1]) for row, end in both)
        in_runs = tree_attention.wanted(self.device)
        key = (rows, learned, in_runs)
        if key not in self._trees:
            while len(self._trees) >= TREES:
                self._trees.pop(next(iter(self._trees)))
            made = tree_of(rows, learned)
            self._trees[key] = (made.in_runs() if in_runs else made).to(self.device)
        return self._trees[key]

    def _encode_tree(self, tree: PromptTree, context: Tensor) -> Tensor:
        """Encode the prompts of a tree behind contexts [B, K, W]: [B, T, E]."""
        batch, learned = context.shape[:2]
        with torch.no_grad():
            words = self.tower.token_embedding(tree.ids).expand(batch, -1, -1)
        x = torch.cat([words[:, :1], context.to(words), words[:, 1 + learned :]], 1)
        x = x + self.positions(0, self.context_length)[tree.position]
        self._count(prompts=batch * len(tree.ends), tokens=batch * len(tree.ids))
        if tree.runs is not None:
            for block in self.blocks[:-1]:
                x = tree_attention.run_block(block, x, tree.runs[0])
            x = tree_attention.last_block(self.blocks[-1], x, tree.ends, tree.runs[1])
            return self._project(x)
        for block in self.blocks[:-1]:
            x = block(x, mask=tree.visible)
        last = self.blocks[-1]  # of the last block only the ends are read
        y = last.norm(x)
        (q,) = last.project_in(y[:, tree.ends], "q")
        k, v = last.project_in(y, "kv")
        heads = attend(q, k, v, mask=tree.visible[tree.ends])
        return self._project(last.after(x[:, tree.ends], heads))

    def _length(self, ends: Sequence[int]) -> int:
        return max(ends) + 1 if self.truncate else self.context_length

    def _fitting_length(self, ends: Sequence[int], given: int) -> int:
        """Positions to run of prompts that are given with ``given`` positions."""
        if max(ends) >= min(given, self.context_length):
            raise ValueError(
                f"end of text at position {max(ends)} of prompts with {given} positions "
                f"(context length {self.context_length})"
            )
        return min(self._length(ends), given)

    def positions(self, first: int, last: int) -> Tensor:
        """Return the rows first..last - 1 of the position table: [last - first, W]."""
        table: Tensor = self.tower.positional_embedding
        return table[first:last].to(self.dtype)

    def _project(
        self,
        x: Tensor,
        before_final: RowModule | None = None,
        projection: RowModule | None = None,
    ) -> Tensor:
        """Return ln_final, then the projection, [N, W] -> [N, E]."""
        x = before_final(x) if before_final is not None else x
        x = layer_norm(self.tower.ln_final, x)
        if projection is not None:
            return projection(x)
        own: Any = self.tower.text_projection
        out: Tensor = own(x) if isinstance(own, nn.Linear) else x @ own
        return out

    def _count(self, prompts: int, tokens: int) -> None:
        self.counters.text_calls += 1
        self.counters.text_prompts += prompts
        self.counters.text_tokens += tokens


def _numbers(eot: Tensor | Sequence[int]) -> tuple[int, ...]:
    return tuple(eot.tolist() if isinstance(eot, Tensor) else eot)


def _as_tensor(eot: Tensor | Sequence[int], device: torch.device) -> Tensor:
    if isinstance(eot, Tensor):
        return eot.to(device)
    return constant(torch.tensor, tuple(eot), device=device)
