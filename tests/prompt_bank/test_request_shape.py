"""The refusals of today's endpoints against a server that makes them, through the real client."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.prompt_bank.server import Fault, completion, serving
from zsad.errors import RequestError
from zsad.prompt_bank.endpoint import Endpoint, EndpointOptions, NoAnswer

CHAT, LEGACY = "/v1/chat/completions", "/v1/completions"
IMAGE = "data:image/png;base64,AAAA"


def options(url: str, **values: Any) -> EndpointOptions:
    return EndpointOptions(url, "toy", "sk-secret-0123456789", first_wait=0.01, **values)


def refusal(status: int, message: str, **rest: Any) -> Fault:
    error = {"message": message, "type": "invalid_request_error", **rest}
    return Fault(status, body=json.dumps({"error": error}).encode())


def legacy(text: str) -> Fault:
    choice = {"index": 0, "text": text, "finish_reason": "stop", "logprobs": None}
    whole = {"id": "1", "object": "text_completion", "created": 1, "model": "m"}
    return Fault(body=json.dumps({**whole, "choices": [choice]}).encode())


def thinking(body: dict[str, Any]) -> Fault | None:
    """A model that thinks: one refusal after the other."""
    if "max_tokens" in body:
        return refusal(
            400,
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use "
            "'max_completion_tokens' instead.",
            param="max_tokens",
            code="unsupported_parameter",
        )
    if "temperature" in body:
        return refusal(
            400,
            "Unsupported value: 'temperature' does not support 0.7 with this model. Only the "
            "default (1) value is supported.",
            param="temperature",
            code="unsupported_value",
        )
    return None


def strict(body: dict[str, Any]) -> Fault | None:
    if "max_completion_tokens" not in body:
        return None
    detail = "[{'type': 'extra_forbidden', 'loc': ('body', 'max_completion_tokens'), 'msg': "
    return refusal(422, detail + "'Extra inputs are not permitted'}]", code=3001)


def no_limit(body: dict[str, Any]) -> Fault | None:
    taken = {"max_tokens", "max_completion_tokens"} & body.keys()
    return refusal(400, f"{taken.pop()}: Extra inputs are not permitted") if taken else None


def o3_mini(body: dict[str, Any]) -> Fault | None:
    if "temperature" in body:
        return refusal(400, "Unsupported parameter: 'temperature' is not supported with this model")
    return None


def rewritten(body: dict[str, Any]) -> Fault | None:
    """A proxy that keeps nothing but words."""
    if "temperature" in body:
        text = "unsupported value: TEMPERATURE, only the default (1) is supported"
        return refusal(400, text, code="invalid_request_body", param=None)
    return None


@pytest.mark.parametrize(
    ("refuse", "given", "requests", "last"),
    [
        (thinking, {}, 3, {"max_completion_tokens": 4096}),
        (strict, {"limit": "max_completion_tokens"}, 2, {"max_tokens": 1024, "temperature": 0.7}),
        (no_limit, {}, 2, {"temperature": 0.7}),
        (o3_mini, {}, 2, {"max_tokens": 1024}),
        (rewritten, {}, 2, {"max_tokens": 1024}),
        (lambda body: None, {"limit": "none", "temperature": False}, 1, {}),
        (
            lambda body: None,
            {"limit": "max_completion_tokens", "effort": "low", "temperature": False},
            1,
            {"max_completion_tokens": 1024, "reasoning_effort": "low"},
        ),
    ],
)
def test_a_refused_parameter_is_repaired_once(
    refuse: Any, given: dict[str, Any], requests: int, last: dict[str, Any]
) -> None:
    with serving(lambda n, body: refuse(body) or "a crack") as server:
        endpoint = Endpoint(options(server.url, attempts=1, **given))
        assert endpoint.ask("what?", 0.7) == "a crack"
        assert endpoint.requests == len(server.seen) == requests
        beside = {"model", "messages", "authorization", "path"}
        assert {k: v for k, v in server.seen[-1].items() if k not in beside} == last
        endpoint.ask("and?", 0.7)  # what was learned is kept
        assert len(server.seen) == requests + 1


def test_a_completion_model_is_asked_on_its_own_path_and_back() -> None:
    not_chat = refusal(
        404, "This is not a chat model and thus not supported in the v1/chat/completions endpoint. "
        "Did you mean to use v1/completions?", param="model",
    )  # fmt: skip

    def plan(n: int, body: dict[str, Any]) -> Any:
        return legacy("a crack") if "prompt" in body else not_chat

    with serving(plan) as server:
        assert Endpoint(options(server.url)).ask("what?", 0.7) == "a crack"
        assert [s["path"] for s in server.seen] == [CHAT, LEGACY]
    chat = refusal(404, "This is a chat model, use v1/chat/completions")
    with serving(lambda n, body: chat if "prompt" in body else "a crack") as server:
        assert Endpoint(options(server.url, api="completions")).ask("what?", 0.7) == "a crack"
        assert [s["path"] for s in server.seen] == [LEGACY, CHAT]
    with serving(lambda n, body: not_chat) as server:  # o1-pro answers like that on both
        with pytest.raises(RequestError, match="not a chat model"):
            Endpoint(options(server.url)).ask("what?", 0.7)
        assert len(server.seen) == 2


@pytest.mark.parametrize(
    ("fault", "image", "message"),
    [
        (refusal(404, "This model is only supported in v1/responses"), None, "Responses interface"),
        (refusal(404, "The model `toy` does not exist", code="model_not_found"), None, "--model"),
        (refusal(401, "Incorrect API key", code="invalid_api_key"), None, "OPENAI_API_KEY"),
        (refusal(403, "forbidden"), None, "OPENAI_API_KEY"),
        (refusal(429, "You exceeded your current quota", code="insufficient_quota"),
         None, "credit"),
        (refusal(400, "Invalid content type. image_url is only supported by certain models"),
         IMAGE, "takes no images"),
        (refusal(400, "something new"), None, "--token-parameter"),
    ],
)  # fmt: skip
def test_a_final_refusal_ends_the_run_at_once(
    fault: Fault, image: str | None, message: str
) -> None:
    with serving(lambda n, body: fault) as server:
        with pytest.raises(RequestError, match=message):
            Endpoint(options(server.url)).ask("what?", 0.7, image)
        assert len(server.seen) == 1


def test_a_server_that_refuses_everything_ends_the_run() -> None:
    def plan(n: int, body: dict[str, Any]) -> Fault:
        return thinking(body) or strict(body) or refusal(400, "max_tokens: extra, not permitted")

    with serving(plan) as server:
        with pytest.raises(RequestError, match="refuses the request"):
            Endpoint(options(server.url)).ask("what?", 0.7)
        assert len(server.seen) < 8


def test_what_costs_one_prompt_only() -> None:
    long = refusal(
        400, "This model's maximum context length is 8192", code="context_length_exceeded"
    )
    declined = json.loads(completion("x"))
    declined["choices"][0]["message"] = {"role": "assistant", "content": None, "refusal": "I won't"}
    filtered = Fault(body=completion("x", "content_filter"))
    for fault, message in (
        (long, "too long"),
        (Fault(body=json.dumps(declined).encode()), "declines"),
        (filtered, "declines"),
    ):
        with serving(lambda n, body, fault=fault: fault) as server:
            with pytest.raises(NoAnswer, match=message):
                Endpoint(options(server.url)).ask("what?", 0.7)
            assert len(server.seen) == 1


def test_an_answer_that_thinking_ate_gets_more_room_once() -> None:
    def plan(n: int, body: dict[str, Any]) -> Any:
        return Fault(body=completion("", "length")) if body["max_tokens"] < 4000 else "a crack"

    with serving(plan) as server:
        assert Endpoint(options(server.url)).ask("what?", 0.7) == "a crack"
        assert [s["max_tokens"] for s in server.seen] == [1024, 4096]
    with serving(lambda n, body: Fault(body=completion("", "length"))) as server:
        with pytest.raises(NoAnswer, match="empty at 4096 tokens; give more with --max-tokens"):
            Endpoint(options(server.url)).ask("what?", 0.7)
        assert len(server.seen) == 2


def test_eight_threads_that_meet_the_first_refusal_together() -> None:
    with serving(lambda n, body: thinking(body) or "a crack") as server:
        endpoint = Endpoint(options(server.url, concurrency=8))
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda i: endpoint.ask(f"{i}?", 0.7), range(8)))
        assert answers == ["a crack"] * 8
        assert endpoint.shape.limit == "max_completion_tokens"
        assert not endpoint.shape.temperature
        assert endpoint.shape.tokens == 4096  # raised once, not eight times
        assert endpoint.requests == len(server.seen) <= 8 * 3
