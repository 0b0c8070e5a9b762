"""Compound abnormality prompts (FAPrompt, section 3.3) and their two encoding passes."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from zsad.components.prompt_learning import DeepPrompts, learned_tokens, prompt_text, unit
from zsad.methods.faprompt.config import Config

if TYPE_CHECKING:
    from zsad.backbones.text import TextEncoder


class FirstPass(NamedTuple):
    """Text features that do not depend on the image."""

    normal: Tensor  # [E], unit
    abnormal: Tensor  # [E], unit prototype
    prompts: Tensor  # [T, E], the abnormal prompts as encoded, not unit


def prototype(prompts: Tensor) -> Tensor:
    """Return the unit mean of raw prompt embeddings: [..., T, E] -> [..., E]."""
    return unit(prompts.mean(dim=-2))


class CompoundPrompts(nn.Module):
    """Learned tokens of one normal and T abnormal prompts (Eq. 1).

    With CAP the abnormal prompts begin with the normal prompt's tokens; without it both
    prompts have their own.
    """

    def __init__(self, config: Config, width: int) -> None:
        super().__init__()
        cap = config.cap
        self.shared = cap.enabled
        self.n_normal, self.n_abnormal = cap.len if cap.enabled else (cap.base_len, cap.base_len)
        self.n_prompts = cap.n_prompts if cap.enabled else 1
        self.words = (cap.state_word, cap.class_word)
        self.normal_tokens = learned_tokens(self.n_normal, width)
        self.abnormal_tokens = learned_tokens(self.n_prompts, self.n_abnormal, width)
        self.deep_prompts = DeepPrompts(
            config.deep.depth, config.deep.tokens, width, config.deep_half
        )

    # ------------------------------------------------------------------------- assembly
    def prefix(self, text: TextEncoder) -> Tensor:
        """Return what all prompts begin with: [SOT] and, with CAP, the normal tokens [1, p, W]."""
        start = self._embedded(text, 0, self.words[1])[0][:, :1]  # [1, 1, W]
        if not self.shared:
            return start
        return torch.cat([start, self.normal_tokens[None]], dim=1)

    def abnormal_suffix(self, text: TextEncoder, prior: Tensor | None = None) -> tuple[Tensor, int]:
        """Return the rest of the abnormal prompts [B or 1, T, s, W] and their EOT position.

        ``prior`` [B, W] is added to every abnormal token (Eq. 4).
        """
        lead = self.n_normal if self.shared else 0
        embedded, eot = self._embedded(text, lead + self.n_abnormal, *self.words)
        tokens = self.abnormal_tokens[None]  # [1, T, A, W]
        if prior is not None:
            tokens = tokens + prior[:, None, None]  # [B, T, A, W]
        rest = embedded[:, 1 + lead + self.n_abnormal :]  # [1, r, W]: words, EOT
        rest = rest[None].expand(*tokens.shape[:2], -1, -1)
        return torch.cat([tokens, rest], dim=2), eot

    def normal_suffix(self, text: TextEncoder) -> tuple[Tensor, int]:
        """Return the rest of the normal prompt [1, 1, s, W] and its EOT position."""
        embedded, eot = self._embedded(text, self.n_normal, self.words[1])
        rest = embedded[:, 1 + self.n_normal :]
        if not self.shared:
            rest = torch.cat([self.normal_tokens[None], rest], dim=1)
        return rest[None], eot

    @staticmethod
    def _embedded(text: TextEncoder, placeholders: int, *words: str) -> tuple[Tensor, int]:
        """Return frozen embeddings [1, S, W] of a prompt with placeholders, and its EOT."""
        tokens = text.tokenize([prompt_text(placeholders, *words)])
        return text.embed_tokens(tokens), tokens.ends[0]

    # ------------------------------------------------------------------------- encoding
    def first_pass(self, text: TextEncoder) -> FirstPass:
        """Encode the normal and all abnormal prompts without prior, in one call."""
        normal, normal_eot = self.normal_suffix(text)
        abnormal, abnormal_eot = self.abnormal_suffix(text)
        # Positions behind the end of text are never read (causal), so padding is free.
        longest = max(normal.shape[2], abnormal.shape[2])
        suffix = torch.cat(
            [pad(s, (0, 0, 0, longest - s.shape[2])) for s in (normal, abnormal)], dim=1
        )
        eot = [normal_eot] + [abnormal_eot] * self.n_prompts
        encoded = text.encode_prefixed(self.prefix(text), suffix, eot, self.deep_prompts())[0]
        return FirstPass(unit(encoded[0]), prototype(encoded[1:]), encoded[1:])

    def second_pass(self, text: TextEncoder, prior: Tensor) -> Tensor:
        """Encode the abnormal prompts of a batch with their priors: [B, W] -> [B, T, E]."""
        suffix, abnormal_eot = self.abnormal_suffix(text, prior)
        eot = [abnormal_eot] * self.n_prompts
        return text.encode_prefixed(self.prefix(text), suffix, eot, self.deep_prompts())


def orthogonality(prompts: Tensor) -> Tensor:
    """Return the sum of |cos| over all pairs of prompts [T, E] (Eq. 2)."""
    directions = unit(prompts)
    cosines = directions @ directions.T
    return cosines.triu(diagonal=1).abs().sum()
