"""Asks an OpenAI-compatible endpoint: retries, a rate, a budget; the key in no text."""

from __future__ import annotations

import logging
import os
import random
import threading
import time
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from zsad.errors import RequestError, ZsadError, counted, gist
from zsad.io.bounds import ANSWER
from zsad.prompt_bank.replies import http_client, within
from zsad.prompt_bank.request_shape import ROOM, Api, Limit, Shape, read_refusal

if TYPE_CHECKING:
    import openai

log = logging.getLogger(__name__)

TIMEOUTS = 3  # how many replies' time all attempts of a question have together
_MALFORMED = (ValueError, TypeError, AttributeError, IndexError, KeyError, RecursionError)

# Characters from which a key is a secret.  A shorter one is any word, for an endpoint that asks for
# none: many answers hold such a word.
SHORTEST_SECRET = 8


class BudgetSpent(ZsadError):
    """The budget of requests is used up; what was answered is kept."""


class NoAnswer(ZsadError):
    """The endpoint gave no usable answer in all attempts."""


class CutOff(Exception):
    """An answer that the limit of its length has cut, perhaps to nothing."""


@dataclass(frozen=True)
class EndpointOptions:
    """Where and how to ask.  ``max_requests``: budget, retries counted, 0 = none.
    ``per_minute``: 0 = no limit.  ``timeout``: seconds for one reply, from its request to its last
    byte; all attempts of a question and the waits between them end after :data:`TIMEOUTS` times
    that.  ``first_wait``, ``longest_wait``: seconds.  ``shape``: how requests look at first; a
    refusal may change that (:mod:`zsad.prompt_bank.request_shape`)."""

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
    limit: Limit = "max_tokens"
    api: Api = "chat"
    temperature: bool = True  # whether it is sent
    effort: str = ""

    @property
    def shape(self) -> Shape:
        """How requests look before any was refused."""
        return Shape(self.api, self.limit, self.max_tokens, self.temperature, self.effort)

    def __post_init__(self) -> None:
        _check_key(self.key)
        _check_address(self.base_url)

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
        if values.get("max_tokens", 1) < 1:
            raise RequestError(f"--max-tokens {values['max_tokens']}: must be at least 1")
        base = base_url or os.environ.get("OPENAI_BASE_URL") or "https://api.openai.com/v1"
        return cls(base_url=base, model=model, key=key, **values)


class Endpoint:
    """A client for many threads.  ``requests`` counts every request that was sent; ``shape``: how
    they look by now."""

    def __init__(self, options: EndpointOptions) -> None:
        import openai

        self.options = options
        self.requests = 0
        self.shape = options.shape
        self._seen = {self.shape.form}  # no repair is made twice
        self._lock = threading.Lock()
        self._widened = False  # the limit was raised because answers did not fit
        self._next = 0.0  # monotonic time of the next permitted request
        # The HTTP client logs headers at debug level; what is logged here is ours alone.
        for name in ("openai", "httpx", "httpcore", "httpx2", "httpcore2"):
            logging.getLogger(name).setLevel(logging.WARNING)
        try:
            self._client = openai.OpenAI(
                api_key=options.key,
                base_url=options.base_url,
                timeout=options.timeout,
                max_retries=0,  # the loop below counts every request against the budget
                http_client=http_client(),
            )
        except RequestError:
            raise
        except Exception as error:  # httpx.InvalidURL is of no type of errors of requests
            raise RequestError(
                f"--base-url {options.base_url!r}: not an address ({self._safe(error)}); "
                "give one as https://api.openai.com/v1"
            ) from None

    def ask(self, prompt: str, temperature: float, image_url: str | None = None) -> str:
        """Return the answer's text.

        Raises :class:`RequestError` when the endpoint refuses key or model,
        :class:`BudgetSpent`, or :class:`NoAnswer` after all attempts.
        """
        import openai

        reason, failures = "", 0
        left = TIMEOUTS * self.options.timeout  # seconds; waiting for a turn does not count
        while failures < self.options.attempts:
            self._admit()
            shape, pause = self.shape, None
            began = time.monotonic()
            request = partial(self._send, shape, prompt, temperature, image_url)
            try:
                return self._text(within(min(self.options.timeout, left), request))
            except TimeoutError:
                reason = f"no answer within {self.options.timeout:g} s"
            except openai.APIStatusError as error:
                if self._adapts(shape, error, image_url is not None):
                    continue  # repaired: no failure
                reason = f"status {error.status_code}"
                pause = _retry_after(error.response.headers.get("retry-after"))
            except CutOff as cut:
                if not self._widens(shape):
                    raise NoAnswer(
                        f"{cut} at {self.shape.tokens} tokens; give more with --max-tokens, or "
                        "less thinking with --reasoning-effort low"
                    ) from None
                continue
            except openai.APITimeoutError:
                reason = f"no answer within {self.options.timeout:g} s"
            except openai.APIError as error:  # its cause says more than "Connection error."
                reason = self._safe(error.__cause__ or error)
            except _MALFORMED as error:
                reason = f"malformed reply ({self._safe(error)})"
            failures += 1
            if failures < self.options.attempts:
                left -= time.monotonic() - began
                left -= self._wait(failures - 1, pause, left)
                if left <= 0:
                    raise NoAnswer(
                        f"no answer within {TIMEOUTS * self.options.timeout:g} s in {failures} "
                        f"attempts; the last: {reason}; --timeout gives more"
                    )
                log.info("asking again after: %s", reason)
        raise NoAnswer(f"no answer in {self.options.attempts} attempts; the last: {reason}")

    def _send(self, shape: Shape, prompt: str, temperature: float, image_url: str | None) -> Any:
        """One request of this shape."""
        rest: dict[str, Any] = {"model": self.options.model, **shape.parameters(temperature)}
        if shape.api == "completions":
            if image_url is not None:
                raise RequestError(
                    f"model '{self.options.model}' completes text and takes no images; "
                    "name another model"
                )
            return self._client.completions.create(prompt=prompt, **rest)
        content: Any = prompt
        if image_url is not None:
            content = [
                {"type": "text", "text": prompt},
                {"type": "image_url", "image_url": {"url": image_url}},
            ]
        messages: Any = [{"role": "user", "content": content}]
        return self._client.chat.completions.create(messages=messages, **rest)

    def _adapts(self, shape: Shape, error: openai.APIStatusError, image: bool) -> bool:
        """Whether to ask again in another shape at once; False: after a pause.

        Raises :class:`RequestError` for what ends the run, :class:`NoAnswer` for what ends this
        prompt.
        """
        status, text = error.status_code, self._safe(error, 2000)
        verdict = read_refusal(shape, status, text, image)
        if verdict is not None and verdict.shape is not None:
            with self._lock:
                if self.shape != shape:
                    return True  # another thread has learned it in the meantime
                if verdict.shape.form not in self._seen:
                    self.shape = verdict.shape
                    self._seen.add(verdict.shape.form)
                    log.warning("%s: %s", self.options.model, verdict.note)
                    return True
        if verdict is not None and verdict.skip:
            raise NoAnswer(f"{verdict.skip} ({status}: {text[:200]})")
        if status in (400, 401, 403, 404) or (verdict is not None and verdict.final):
            known = verdict.final if verdict is not None else ""
            raise RequestError(
                f"{self.options.base_url} refuses the request for model '{self.options.model}' "
                f"({status}: {text[:200]}); {known or _advice(status)}"
            ) from None
        if status < 500 and status not in (408, 409, 429):
            raise NoAnswer(f"status {status}: {text[:200]}") from None
        return False

    def _widens(self, shape: Shape) -> bool:
        """Whether there is more room now than the answer to a request of this shape had."""
        with self._lock:
            if self.shape != shape:
                return True
            if self._widened or shape.limit == "none":
                return False
            self._widened = True
            self.shape = replace(shape, tokens=shape.tokens * ROOM)
        log.warning(
            "%s: answers do not fit in max_tokens=%d; asking with %d",
            self.options.model,
            shape.tokens,
            shape.tokens * ROOM,
        )
        return True

    def _text(self, reply: Any) -> str:
        choice = reply.choices[0]
        message = getattr(choice, "message", None)
        if getattr(message, "refusal", None) or choice.finish_reason == "content_filter":
            raise NoAnswer("the model declines to answer")
        text = choice.text if message is None else message.content
        empty = not isinstance(text, str) or not text.strip()
        if choice.finish_reason == "length":
            raise CutOff("the answer is empty" if empty else "the answer is cut off")
        if empty:
            raise ValueError("no text in it")
        if len(text) > ANSWER.value() or len(text.encode()) > ANSWER.value():
            raise ValueError(f"the answer has more than {ANSWER.value():,} bytes")
        if len(self.options.key) >= SHORTEST_SECRET and self.options.key in text:
            raise ValueError("it repeats the key")
        return str(text)

    def _admit(self) -> None:
        """Take one request from the budget and wait for its turn."""
        options = self.options
        with self._lock:
            if options.max_requests and self.requests >= options.max_requests:
                raise BudgetSpent(
                    f"the budget of {counted(options.max_requests, 'request')} is spent; "
                    "run again to go on from here"
                )
            self.requests += 1
            now = time.monotonic()
            turn = max(now, self._next)
            self._next = turn + (60.0 / options.per_minute if options.per_minute else 0.0)
        if turn > now:
            time.sleep(turn - now)

    def _wait(self, attempt: int, asked: float | None, most: float) -> float:
        """Back off exponentially with jitter, at least as long as the server asks for, but at
        most ``most`` seconds; return for how long."""
        options = self.options
        pause = options.first_wait * 2**attempt * random.Random().uniform(0.5, 1.0)
        wanted: float = min(max(pause, asked or 0.0), options.longest_wait)
        slept = max(0.0, min(wanted, most))
        time.sleep(slept)
        return slept

    def _safe(self, error: BaseException, length: int = 200) -> str:
        """What an error says in one line, without the key and of bounded length."""
        text = gist(error)
        if len(self.options.key) >= SHORTEST_SECRET:
            text = text.replace(self.options.key, "***")
        return text[:length]


def _advice(status: int) -> str:
    if status in (401, 403):
        return "check OPENAI_API_KEY"
    if status == 404:
        return "check --base-url and --model"
    return "check --model, and what it takes: --token-parameter, --no-temperature, --api"


def _check_key(key: str) -> None:
    """Raise :class:`RequestError`, without the key, for one that no HTTP header can carry."""
    if key != key.strip():
        what = "begins or ends with a blank or a line end"
    elif not key.isascii() or not key.isprintable():
        what = "holds characters that no key has (letters with accents, quotes of a text editor)"
    else:
        return
    raise RequestError(f"OPENAI_API_KEY {what}; set it again, without them")


def _check_address(url: str) -> None:
    """Raise :class:`RequestError` for what is not the address of an endpoint, before anything is
    asked: no attempt would ever succeed."""
    try:
        parts = urlsplit(url)
        name = parts.hostname or ""
        if ":" not in name:  # no IPv6
            name.encode("idna")
        if not url.isprintable() or any(c.isspace() for c in url):
            why = "a blank or what does not print is in it"
        elif parts.scheme not in ("http", "https"):
            why = "it does not begin with http:// or https://"
        elif not name:
            why = "it names no server"
        elif parts.port == 0:
            why = "no server has port 0"
        elif parts.username is not None or parts.password is not None:  # it would be printed
            raise RequestError(
                "--base-url: holds a user name or a password, which would be shown; leave it out, "
                "and give the key as OPENAI_API_KEY"
            )
        else:
            return
    except ValueError as error:  # a port, an IPv6 address or a name of impossible form
        why = gist(error)
    raise RequestError(
        f"--base-url {url!r}: not an address ({why}); give one as https://api.openai.com/v1"
    )


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
