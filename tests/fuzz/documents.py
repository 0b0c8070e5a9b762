"""Odd YAML and JSON: what no parser likes, and sound documents with one thing wrong."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

import yaml

LAUGHS = "\n".join(
    ["a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 10)]
)

TEXTS: dict[str, bytes] = {
    "empty": b"",
    "blank": b" \n \n",
    "nul": b"\0\0\0",
    "utf-16": "name: thing\n".encode("utf-16"),
    "latin-1": b"name: caf\xe9\n",
    "byte order mark": b"\xef\xbb\xbfname: thing\n",
    "tab": b"\tname: thing\n",
    "list": b"- a\n- b\n",
    "word": b"word",
    "number": b"5",
    "null": b"null",
    "brackets": b"[" * 20_000,
    "braces": b"{a: " * 5_000,
    "quoted braces": b'{"a":' * 20_000,
    "laughs": LAUGHS.encode(),
    "itself": b"a: &a [*a]\n",
    "no such anchor": b"a: *b\n",
    "runs a program": b"a: !!python/object/apply:os.system ['touch was-run']\n",
    "unknown tag": b"a: !thing {}\n",
    "two documents": b"a: 1\n---\nb: 2\n",
    "key twice": b"name: a\nname: b\n",
    "odd merge": b"<<: 5\n",
    "keys that are no text": b"1: 2\n~: 3\n2020-01-01: 4\n[a]: 5\n",
    "open interpolation": b"name: ${\n",
    "unknown interpolation": b"name: ${nowhere.at.all}\n",
    "unknown resolver": b"name: ${evil:1}\n",
    "endless number": b"name: " + b"9" * 5_000 + b"\n",
    "endless number, quoted": b'{"name": ' + b"9" * 5_000 + b"}",
    "not a number": b'{"metrics": NaN, "seed": Infinity}',
    "half a pair": b'{"name": "\\ud800"}',
    "cut": b'{"name": "thi',
    "binary": bytes(range(256)),
}

ODD: tuple[Any, ...] = (
    *(None, True, False, -1, 0, 3, 10**30, 1.5, 1e308, float("nan"), float("inf")),
    *("", " ", "x" * 3000, "a\nb", "é\u202e\u2028", "../../../etc/passwd", "/etc/passwd", "-", "~"),
    *("${oc.env:HOME}", "${nowhere}", "{}", "[1,", "<script>alert(1)</script>"),
    *([], {}, [[]], [None], [1, "a", None], {"a": {"b": [1]}}, {"": ""}, ["x"] * 500),
)


def mutants(sound: Any, count: int, seed: int) -> Iterator[Any]:
    """Copies of a nested document with one to three things wrong."""
    rng = random.Random(seed)
    for _ in range(count):
        value = copy.deepcopy(sound)
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            value = _changed(value, rng)
        yield value


def _changed(value: Any, rng: random.Random) -> Any:
    places = list(_places(value))
    if not places or rng.random() < 0.03:
        return rng.choice(ODD)
    holder, key = rng.choice(places)
    action = rng.choice(("replace", "replace", "replace", "delete", "rename", "wrap", "repeat"))
    if action == "replace":
        holder[key] = copy.deepcopy(rng.choice(ODD))
    elif action == "wrap":
        holder[key] = [holder[key]]
    elif action == "delete":
        del holder[key]
    elif isinstance(holder, dict):
        holder[rng.choice(("x", "naem", "class", "", "a.b"))] = (
            holder.pop(key) if action == "rename" else copy.deepcopy(holder[key])
        )
    else:
        holder.append(copy.deepcopy(holder[key]))
    return value


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    keys: list[Any] = []
    if isinstance(value, (dict, list)):
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    for key in keys:
        yield value, key
        yield from _places(value[key])


def as_yaml(value: Any) -> bytes:
    return yaml.safe_dump(value, allow_unicode=True, sort_keys=False).encode("utf-8", "replace")


def as_json(value: Any) -> bytes:
    return json.dumps(value).encode()


def cut_and_flipped(content: bytes, count: int, seed: int) -> Iterator[bytes]:
    """A binary file, cut off or with some bits turned over."""
    rng = random.Random(seed)
    for number in range(count):
        damaged = bytearray(content)
        if number % 2:
            del damaged[rng.randrange(len(damaged)) :]
        else:
            for _ in range(rng.choice((1, 5, 50))):
                damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        yield bytes(damaged)
