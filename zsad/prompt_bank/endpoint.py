"""Asks an OpenAI-compatible endpoint: retries, a rate, a budget; the key in no text."""

from __future__ import annotations

import logging
import os
import random
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from zsad.errors import RequestError, ZsadError

log = logging.getLogger(__name__)


# Characters from which a key is a secret.  A shorter one is any word, for an endpoint that asks for
# none: such a word stands in many an answer.
SHORTEST_SECRET = 8


class BudgetSpent(ZsadError):
    """The budget of requests is used up; what was answered is kept."""


class NoAnswer(ZsadError):
    """The endpoint gave no usable answer in all attempts."""


@dataclass(frozen=True)
class EndpointOptions:
    """Where and how to ask.  ``max_requests``: budget, retries counted, 0 = none.
    ``per_minute``: 0 = no limit.  ``timeout``, ``first_wait``, ``longest_wait``: seconds."""

    base_url: str
    model: str
    key: str = field(repr=False)
    timeout: float = 60.0
    max_requests: int = 0
    concurrency: int = 4
    per_minute: float = 0.0
    attempts: int = 5
    first_wait: float = 1.0
    longest_wait: float = 60.0
    max_tokens: int = 1024

    def __post_init__(self) -> None:
        _check_key(self.key)

    @classmethod
    def from_environment(
        cls, base_url: str | None = None, model: str | None = None, **values: Any
    ) -> EndpointOptions:
        """Fill in ``OPENAI_BASE_URL``, ``ZSAD_LLM_MODEL`` and the key, ``OPENAI_API_KEY``."""
        model = model or os.environ.get("ZSAD_LLM_MODEL")
        key = os.environ.get("OPENAI_API_KEY")
        if not model:
            raise RequestError("no language model is named; give --model or set ZSAD_LLM_MODEL")
        if not key:
            raise RequestError(
                "OPENAI_API_KEY is not set; set it (any word for a local endpoint without keys)"
            )
        if values.get("concurrency", 1) < 1 or values.get("max_requests", 0) < 0:
            raise RequestError("--concurrency must be at least 1, --max-requests at least 0")
        base = base_url or os.environ.get("OPENAI_BASE_URL") or "https://api.openai.com/v1"
        return cls(base_url=base, model=model, key=key, **values)


class Endpoint:
    """A client for many threads.  ``requests`` counts every request that was sent."""

    def __init__(self, options: EndpointOptions) -> None:
        import openai

        self.options = options
        self.requests = 0
        self._lock = threading.Lock()
        self._next = 0.0  # monotonic time of the next permitted request
        # The HTTP client logs headers at debug level; what is logged here is ours alone.
        for name in ("openai", "httpx", "httpcore"):
            logging.getLogger(name).setLevel(logging.WARNING)
        self._client = openai.OpenAI(
            api_key=options.key,
            base_url=options.base_url,
            timeout=options.timeout,
            max_retries=0,  # the loop below counts every request against the budget
        )

    def ask(self, prompt: str, temperature: float, image_url: str | None = None) -> str:
        """Return the answer's text.

        Raises :class:`RequestError` when the endpoint refuses key or model,
        :class:`BudgetSpent`, or :class:`NoAnswer` after all attempts.
        """
        import openai

        content: Any = prompt
        if image_url is not None:
            content = [
                {"type": "text", "text": prompt},
                {"type": "image_url", "image_url": {"url": image_url}},
            ]
        reason = ""
        for attempt in range(self.options.attempts):
            self._admit()
            pause: float | None = None
            try:
                reply = self._client.chat.completions.create(
                    model=self.options.model,
                    messages=[{"role": "user", "content": content}],
                    temperature=temperature,
                    max_tokens=self.options.max_tokens,
                )
                return self._text(reply)
            except (
                openai.AuthenticationError,
                openai.PermissionDeniedError,
                openai.NotFoundError,
                openai.BadRequestError,
            ) as error:
                raise RequestError(
                    f"{self.options.base_url} refuses the request for model "
                    f"'{self.options.model}' ({error.status_code}: {self._safe(error)}); "
                    "check OPENAI_API_KEY, --base-url and --model"
                ) from None
            except openai.APIStatusError as error:
                if error.status_code < 500 and error.status_code not in (408, 409, 429):
                    raise NoAnswer(f"status {error.status_code}: {self._safe(error)}") from None
                reason = f"status {error.status_code}"
                pause = _retry_after(error.response.headers.get("retry-after"))
            except openai.APITimeoutError:
                reason = f"no answer within {self.options.timeout:g} s"
            except openai.APIError as error:
                reason = self._safe(error)
            except (ValueError, TypeError, AttributeError, IndexError, KeyError) as error:
                reason = f"malformed reply ({self._safe(error)})"
            if attempt + 1 < self.options.attempts:
                self._wait(attempt, pause)
                log.info("asking again after: %s", reason)
        raise NoAnswer(f"no answer in {self.options.attempts} attempts; the last: {reason}")

    def _text(self, reply: Any) -> str:
        choice = reply.choices[0]
        text = choice.message.content
        if not isinstance(text, str) or not text.strip():
            raise ValueError("no text in it")
        if choice.finish_reason == "length":
            raise ValueError("the answer is cut off")
        if len(self.options.key) >= SHORTEST_SECRET and self.options.key in text:
            raise ValueError("it repeats the key")
        return text

    def _admit(self) -> None:
        """Take one request from the budget and wait for its turn."""
        options = self.options
        with self._lock:
            if options.max_requests and self.requests >= options.max_requests:
                raise BudgetSpent(
                    f"the budget of {options.max_requests} requests is spent; "
                    "run again to go on from here"
                )
            self.requests += 1
            now = time.monotonic()
            turn = max(now, self._next)
            self._next = turn + (60.0 / options.per_minute if options.per_minute else 0.0)
        if turn > now:
            time.sleep(turn - now)

    def _wait(self, attempt: int, asked: float | None) -> None:
        """Back off exponentially with jitter, at least as long as the server asks for."""
        options = self.options
        pause = options.first_wait * 2**attempt * random.Random().uniform(0.5, 1.0)
        time.sleep(max(min(pause, options.longest_wait), min(asked or 0.0, options.longest_wait)))

    def _safe(self, error: BaseException) -> str:
        """The first line of an error, without the key and of bounded length."""
        lines = str(error).splitlines() or [type(error).__name__]
        text = lines[0]
        if len(self.options.key) >= SHORTEST_SECRET:
            text = text.replace(self.options.key, "***")
        return text[:200]


def _check_key(key: str) -> None:
    """Raise :class:`RequestError`, without the key, for one that no HTTP header can carry."""
    if key != key.strip():
        what = "begins or ends with a blank or a line end"
    elif not key.isascii() or not key.isprintable():
        what = "holds characters that no key has (letters with accents, quotes of a text editor)"
    else:
        return
    raise RequestError(f"OPENAI_API_KEY {what}; set it again, without them")


def _retry_after(value: str | None) -> float | None:
    """Seconds of a Retry-After header: a number or an HTTP date."""
    if not value:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        from email.utils import parsedate_to_datetime

        try:
            return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
        except (TypeError, ValueError):
            return None
