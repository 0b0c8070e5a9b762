"""What a request to a language model looks like, and what a refusal says about that.

Servers that speak OpenAI's protocol differ: models that think refuse ``max_tokens`` and a
temperature, strict servers refuse what those want, old models know completions only.  No table of
model names says which: the refusal does.  Every repair is made at most once, so that a server that
refuses everything ends the run.

Proxies rewrite errors, so what decides is the words of the message together with a parameter that
was really sent; the fields ``code`` and ``param`` are read as further words.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

Limit = Literal["max_tokens", "max_completion_tokens", "none"]
Api = Literal["chat", "completions"]
ROOM = 4  # times the limit, where thinking counts against it


@dataclass(frozen=True)
class Shape:
    """``api``: path; ``limit``: name of the length limit, ``tokens``: its value; ``temperature``:
    whether it is sent; ``effort``: of a model that thinks, "" = not sent."""

    api: Api = "chat"
    limit: Limit = "max_tokens"
    tokens: int = 1024
    temperature: bool = True
    effort: str = ""

    @property
    def form(self) -> tuple[str, str, bool]:
        """What repairs change, without the value of the limit."""
        return self.api, self.limit, self.temperature

    def parameters(self, temperature: float) -> dict[str, object]:
        """What is sent beside model and prompt."""
        found: dict[str, object] = {}
        if self.limit != "none":
            found[self.limit] = self.tokens
        if self.temperature:
            found["temperature"] = temperature
        if self.effort and self.api == "chat":
            found["reasoning_effort"] = self.effort
        return found


@dataclass(frozen=True)
class Verdict:
    """What a refusal means.  ``shape``: ask again like that (``note`` says what changed);
    ``final``: the whole run ends for this reason; ``skip``: only this prompt has no answer."""

    shape: Shape | None = None
    note: str = ""
    final: str = ""
    skip: str = ""


def read_refusal(shape: Shape, status: int, text: str, image: bool = False) -> Verdict | None:
    """What a refusal with ``status`` and the words ``text`` says about a request of this shape;
    None where nothing is known."""
    said = text.lower()
    if status == 429 and ("insufficient_quota" in said or "exceeded your current quota" in said):
        return Verdict(final="the account has no credit left")
    if status not in (400, 404, 422):
        return None
    if "v1/responses" in said or "responses api" in said:
        return Verdict(final="the model speaks the Responses interface only; name another model")
    if image and ("image_url" in said or "invalid content type" in said):
        return Verdict(final="the model takes no images; name another one")
    if "context_length_exceeded" in said or "maximum context length" in said:
        return Verdict(skip="prompt and answer are too long for the model")
    return _path(shape, said) or _limit(shape, said) or _temperature(shape, said)


def _path(shape: Shape, said: str) -> Verdict | None:
    if shape.api == "completions" and ("is a chat model" in said or "v1/chat/completions" in said):
        return Verdict(replace(shape, api="chat"), "it is a chat model: asking there")
    if shape.api == "chat" and ("not a chat model" in said or "v1/completions" in said):
        return Verdict(
            replace(shape, api="completions"), "not a chat model: asking for completions"
        )
    return None


def _limit(shape: Shape, said: str) -> Verdict | None:
    if shape.limit == "none" or shape.limit not in said:
        return None
    strict = any(w in said for w in ("extra_forbidden", "extra inputs", "not permitted", "extra"))
    other = "max_completion_tokens" in said.replace(shape.limit, "", 1)
    if shape.limit == "max_tokens" and (other or "unsupported parameter" in said):
        wider = replace(shape, limit="max_completion_tokens", tokens=shape.tokens * ROOM)
        return Verdict(wider, f"it takes max_completion_tokens, thinking included: {wider.tokens}")
    if shape.limit == "max_completion_tokens" and (strict or "unsupported" in said):
        return Verdict(replace(shape, limit="max_tokens"), "it takes max_tokens")
    if strict:
        return Verdict(replace(shape, limit="none"), "it takes no limit of the length")
    return None


def _temperature(shape: Shape, said: str) -> Verdict | None:
    refused = ("unsupported", "only the default", "not support", "not permitted", "extra")
    if shape.temperature and "temperature" in said and any(w in said for w in refused):
        own = replace(shape, temperature=False)
        return Verdict(own, "it takes no temperature: sampling is the model's own")
    return None
