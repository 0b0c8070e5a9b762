"""A campaign of hostile commands: ``python -m tests.fuzz.commands``.

Odd files, options, names and settings are given to the command line.  Whatever ends in another
exit code than those of the contract, in a traceback, an internal error, more than one line of error
or a control character on a terminal is a fault, and so is a command without an end.  Everything is
imported once, and each command runs in a process of its own that is forked from there.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import multiprocessing
import os
import random
import re
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

CODES = (0, 2, 3, 141)
LIMIT = 120  # seconds of a processor for a command
PATIENCE = 900.0  # seconds until it has them, where others work on the machine
MEMORY = 4 * 2**30  # bytes of addresses besides what the process begins with
NUMBERS = ("nan", "inf", "1e400", "-1", "0", "\u0663", "\u00bd", "1_0", "0x10", "", "x", "9" * 400,
           str(10**30))  # fmt: skip
VALUES = (
    *(*NUMBERS, "true", "null", "[]", "{}", "${x}", "${oc.env:NOPE}", "'", '"', "&a", "*a"),
    *("!!python/name:os.system", "[" * 3000, "\x1b[31m", "\u202e", os.fsdecode(b"\xff")),
)
DEVICES = ("tpu", "meta", "cpu:3", "cuda:-1", "cuda:99", "cuda:x", "CPU", "xla", "\x1b[31m")
ADDRESSES = ("s3://bucket/x", "https://[::1", "file:///etc/passwd", "http://127.0.0.1:1/a.png")
NAMES = ("", " ", "a" * 300, "\x1b[31mred", "\u202eabc", os.fsdecode(b"caf\xe9"), "[/b]", "a,b")
DOCUMENTS = {
    "empty": b"",
    "zero": b"a: \0",
    "bytes": bytes(range(256)),
    "list": b"- 1\n- 2\n",
    "deep": b"[" * 100_000,
    "levels": b"[" * 400 + b"]" * 400,
    "header of levels": (2000).to_bytes(8, "little") + b"[" * 1000 + b"]" * 1000,
    "laughs": b"a: &a [1, 2]\n"
    + b"".join(f"b{i}: &b{i} [*{p}, *{p}]\n".encode()
               for i, p in enumerate(["a", *(f"b{i}" for i in range(29))])),
    "infinite": b"run: {batch_size: .inf}\n",
    "not a number": b"clip: {temperature: .nan}\n",
    "twice": b"run: {batch_size: 2}\nrun: {batch_size: 3}\n",
    "code": b"a: !!python/object/apply:os.system [id]\n",
    "long": b"run: {batch_size: " + b"9" * 5000 + b"}\n",
    "mark": b"\xef\xbb\xbfrun: {batch_size: 2}\n",
    "variable": b"run: {batch_size: ${oc.env:NOPE}}\n",
    "date": b"run: {batch_size: 2020-01-01}\n",
    "key": b"? [a, b]\n: 1\n",
    "beyond": b'{"format": 1e999}',
    "page": b"<!DOCTYPE html><html><title>404</title>",
    "pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
}  # fmt: skip


def put(folder: Path) -> None:
    """The files that the commands name."""
    for name, content in DOCUMENTS.items():
        for ending in ("yaml", "json", "png", "pt", "safetensors", "zsad", "npz", "csv", "zip"):
            (folder / f"{name}.{ending}").write_bytes(content)
    (folder / "nothing").mkdir()
    for name in ("good/1.png", "good/2.png", "photos/1.png"):
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (40, 30), (90, 80, 70)).save(path)
    (folder / "loop").symlink_to("loop")


def commands() -> Iterator[list[str]]:
    """All of them, as words."""
    plan = [
        "bench",
        "--methods",
        "clip",
        "--datasets",
        "synthetic",
        "--backbone",
        "zsad-tiny",
        "--dry-run",
    ]
    photo = [
        "predict",
        "--method",
        "winclip",
        "--backbone",
        "zsad-tiny",
        "--class-name",
        "bolt",
        "photos",
    ]
    for name in DOCUMENTS:
        document = f"{name}.yaml"
        yield from ([*plan, "--config", document], [*plan, "--protocol", document])
        yield from (["data", "check", document], ["data", "check", f"folder:{document}"])
        yield ["data", "prepare", "visa", "--archive", f"{name}.zip", "--data-root", "nothing"]
        yield ["weights", "import", "filo", f"{name}.pt", "--out", "o.safetensors"]
        yield ["results", "import", f"{name}.npz", "--name", "x", "--dataset", "synthetic"]
        yield ["run", f"{name}.zsad", "photos"]
        yield [*photo, "--weights", f"{name}.pt"]
        yield from ([*photo, f"{name}.png"], [*photo, "--calibrate", f"{name}.json"])
        yield from ([*photo, "--bank", f"{name}.safetensors"], [*photo, "--ignore", f"{name}.png"])
        yield ["predict", "--method", "filo", "--class-name", "bolt", "--backbone", "zsad-tiny",
               "--checkpoint", f"{name}.pt", "photos"]  # fmt: skip
        for ending in ("json", "yaml", "npz"):
            boxes = f"filo.grounding={name}.{ending}"
            yield ["predict", "--method", "filo", "--class-name", "bolt", "--backbone",
                   "zsad-tiny", "filo.checkpoint=bundled", boxes, "photos"]  # fmt: skip
    for device in DEVICES:
        yield from ([*plan, "--device", device], [*photo, "--device", device])
    for address in ADDRESSES:
        for words in (plan, photo, ["tables"], ["report"], ["data", "check"]):
            yield from ([*words, option, address] for option in ("--results", "--out", "--weights"))
        yield from ([*photo, address], ["data", "check", address], [*plan, "--datasets", address])
    for value in VALUES:
        for key in ("run.batch_size", "clip.temperature", "backbone.image_size", value[:40]):
            yield [*plan, f"{key}={value}"]
        yield from ([*plan, "--limit", value], [*plan, "--seeds", value])
    for value in NUMBERS:
        for option in ("--threshold", "--image-threshold", "--explanations", "--tiles"):
            yield [*photo, option, value]
        yield from ([*photo, "--image-size", value], [*photo, "--ignore", f"1,2,3,{value}"])
        yield [*photo, "--scale", f"0,{value}", "--out", "o"]
        yield [*photo, "--calibrate", "good", "--false-alarms", value]
    for name in NAMES:
        yield from ([*plan[:-1], "--dry-run", "--results", name], [*plan, "--methods", name])
        yield from (["data", "check", name], ["data", "check", f"folder:{name}"])
        yield from (["show", name], ["tables", "--results", name], ["report", "--results", name])
        yield ["predict", "--method", "winclip", "--backbone", "zsad-tiny", "--class-name", name,
               "photos"]  # fmt: skip
        yield from ([*photo, "--out", f"o/{name}"], [*photo, name], ["results", "show", name])
    for place in ("/dev/null", "/proc/self/mem", "/dev/zero", "loop", "nothing", "empty.png"):
        yield from ([*photo[:-1], place], [*photo, "--out", place], [*photo, "--plugins", place])
        yield from ([*photo, "--reference", place], ["tables", "--results", place])
        yield from (["report", "--results", place], ["results", "list", "--results", place])
    yield from ([*plan, word] for word in ("=1", ".=1", "clip.=1", "clip=1", "a.b.c=1", "-", "--"))
    yield [*plan, "a." * 3000 + "b=1"]


def outside(code: int, err: str) -> str:
    """What breaks the promise, or ""."""
    errors = [line for line in err.splitlines() if line.startswith("zsad: error")]
    if code not in CODES:
        return f"exit code {code}"
    if "Traceback" in err or "internal error" in err:
        return "a traceback or an internal error"
    if len(errors) > 1:
        return f"{len(errors)} lines of error"
    if code == 2 and not errors and "usage" not in err:
        return "no line that says why"
    found = re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", err.replace("\r", ""))
    return f"control character {found[0]!r}" if found else ""


def tried(words: list[str], folder: Path) -> tuple[int, str]:
    """(exit code, standard error) of one command in a process of its own; -9 without an end."""
    err = folder / ".err"
    process = multiprocessing.get_context("fork").Process(target=_run, args=(words, folder, err))
    process.start()
    process.join(PATIENCE)
    if process.is_alive():
        process.kill()
        process.join()
    code = process.exitcode
    return -9 if code is None else code, err.read_text(encoding="utf-8", errors="replace")


def _run(words: list[str], folder: Path, err: Path) -> None:
    os.chdir(folder)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(os.open(err, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    # Streams of its own: those of whoever forked it may lead elsewhere.
    sys.stdin, sys.stdout = os.fdopen(0), os.fdopen(1, "w", encoding="utf-8")
    sys.stderr = os.fdopen(2, "w", encoding="utf-8", errors="backslashreplace")
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    spent = int(time.process_time()) + 1  # by whoever forked it, too
    resource.setrlimit(resource.RLIMIT_CPU, (spent + LIMIT, spent + LIMIT))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    from zsad.cli.main import main

    with contextlib.suppress(BrokenPipeError):
        code = main(words)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def main() -> int:
    """Try all commands; 1 if one broke the promise."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--every", type=int, default=1, metavar="N", help="only every N-th")
    parser.add_argument("--first", type=int, default=1, metavar="N", help="begin with the N-th")
    parser.add_argument(
        "--seconds", type=float, default=0.0, help="so long, in any order; 0: all, in theirs"
    )
    args = parser.parse_args()
    import zsad.inference.run
    import zsad.runner.sweep  # noqa: F401 (torch, once for all)

    chosen = list(commands())[args.first - 1 :: args.every]
    end = math.inf
    if args.seconds:
        random.Random(0).shuffle(chosen)
        end = time.monotonic() + args.seconds
    faults = done = 0
    with tempfile.TemporaryDirectory(prefix="zsad-commands-") as place:
        put(Path(place))
        for words in chosen:
            done += 1
            code, err = tried(words, Path(place))
            if why := outside(code, err):
                faults += 1
                print(f"{why}: {json.dumps(words)[:300]}\n    {err[-300:]!a}", flush=True)
            if time.monotonic() > end:
                break
    print(f"{done} of {len(chosen)} commands, {faults} outside the promise")
    return bool(faults)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    raise SystemExit(main())
