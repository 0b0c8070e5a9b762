"""The standing fuzz: ``python -m tests.fuzz.standing --seconds 600`` (``make fuzz``).

Inputs of the corpus are damaged at random and given to the reader of their kind.  Whatever is
neither taken nor refused in one line that names its file is a find: it is made as small as it
gets while it fails in the same way, and kept in the corpus, which the tests then run for ever.

A process of its own reads the inputs, with a limit on the time of each and on its memory: an input
that makes a decoder crash, hang or take all memory is a find like any other.
"""

from __future__ import annotations

import argparse
import faulthandler
import hashlib
import io
import json
import multiprocessing
import os
import random
import resource
import signal
import sys
import tarfile
import tempfile
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import torch
import yaml
from safetensors.torch import save as to_safetensors

from tests.fuzz.documents import LAUGHS, TEXTS
from tests.fuzz.limits import TooSlow, seconds
from tests.fuzz.pictures import encoded, modes, scene
from zsad import checkpoints
from zsad.backbones.weights import read_state
from zsad.config import read_yaml
from zsad.data.images import image_size, mask_values, read_image
from zsad.data.prepare import extract
from zsad.errors import ZsadError
from zsad.io import read_json
from zsad.prompt_bank import parsing
from zsad.results.store import safe_name

CORPUS = Path(__file__).parent / "corpus"
LIMIT = 20.0  # seconds for one input
GRACE = 5.0  # more, until a process that hears no alarm is killed
MEMORY = 4 * 2**30  # bytes that the reading of inputs may take
PIECES = (b"\0", b"\xff", b"\xff" * 4, b"\x7f\xff\xff\xff", b"[", b"{", b'"', b"${", b"&a", b"*a")


@dataclass(frozen=True)
class Target:
    """``seeds``: sound inputs; ``read``: what is done with a file that holds an input."""

    name: str
    seeds: Callable[[], Iterator[bytes]]
    read: Callable[[Path], object]
    named: bool = True  # a refusal names the file


# ------------------------------------------------------------------------------- the readers
def _image(path: Path) -> None:
    for read in (read_image, image_size, mask_values):
        try:
            read(path)
        except ZsadError as error:
            _one_line(error, path)


def _tensors(path: Path) -> None:
    for read in (read_state, checkpoints.load_any):
        try:
            read(path)
        except ZsadError as error:
            _one_line(error, path)


def _archive(path: Path) -> None:
    target = path.with_name("target")
    try:
        extract(path, target)
    except ZsadError:
        assert not target.exists(), "something was left of an archive that was refused"
        raise
    finally:
        assert not list(path.parent.glob(".target.partial-*")), "a scratch folder was left"
        for found in sorted(target.rglob("*"), reverse=True):
            found.rmdir() if found.is_dir() else found.unlink()
        if target.exists():
            target.rmdir()


def _answer(path: Path) -> None:
    text = path.read_bytes().decode("utf-8", "replace")
    for found in (parsing.anomaly_types(text), parsing.sentences(text, "abnormal")):
        for one in found:
            one.encode()
            assert len(one) <= 3000, "a text without measure was kept"


def _name(path: Path) -> None:
    name = os.fsdecode(path.read_bytes()[:80]) or "x"
    try:
        safe = safe_name(name)
    except UnicodeEncodeError:  # not UTF-8: the store refuses it by name
        return
    assert safe.isascii()
    assert "/" not in safe
    assert not safe.startswith(".")


def _one_line(error: ZsadError, path: Path) -> None:
    text = str(error)
    assert "\n" not in text, f"several lines: {text!r}"
    assert str(path) in text, f"the file is not named: {text!r}"


# --------------------------------------------------------------------------------- the seeds
def _pictures() -> Iterator[bytes]:
    yield from (case.content for case in modes())
    from PIL import Image

    picture = Image.fromarray(scene())
    for kind in ("AVIF", "ICO", "PCX", "SGI", "DIB", "GIF", "MPO"):
        try:
            yield encoded(picture, kind)
        except (OSError, KeyError, ValueError):  # this Pillow writes none
            continue


def _files_of_tensors() -> Iterator[bytes]:
    state = {
        "visual.conv1.weight": torch.ones(8, 3, 4, 4),
        "token_embedding.weight": torch.ones(9, 8),
    }
    yield to_safetensors(state)
    meta = json.dumps({"method": "clip", "config": {}, "backbone": "b"})
    yield to_safetensors(state, {"format": checkpoints.FORMAT, "zsad": meta})
    for new in (True, False):
        buffer = io.BytesIO()
        torch.save({"state_dict": state}, buffer, _use_new_zipfile_serialization=new)
        yield buffer.getvalue()


def _archives() -> Iterator[bytes]:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as zipped:
        for number in range(3):
            zipped.writestr(f"folder/{number}.txt", b"content" * number)
    yield buffer.getvalue()
    for mode in ("w", "w:gz", "w:xz", "w:bz2"):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode=mode) as tape:
            for name in ("folder/a", "b" * 200):
                info = tarfile.TarInfo(name)
                info.size = 7
                tape.addfile(info, io.BytesIO(b"content"))
        yield buffer.getvalue()


def _documents(dump: Callable[[object], str]) -> Iterator[bytes]:
    yield from TEXTS.values()
    yield LAUGHS.encode()
    yield dump(
        {"name": "thing", "list": [1, 2.5, None, {"a": "b"}], "deep": {"a": {"b": [[]]}}}
    ).encode()


def _answers() -> Iterator[bytes]:
    yield b"- a hole in the cloth\n- broken thread\n1. a dark stain"
    yield b'```json\n["a hole", "a long scratch on the surface"]\n```'
    yield "The surface shows a crack. It is dark\u2028 and \u202ewide: half an inch.".encode()


TARGETS = {
    t.name: t
    for t in (
        Target("image", _pictures, _image),
        Target("tensors", _files_of_tensors, _tensors),
        Target("archive", _archives, _archive),
        Target("json", lambda: _documents(json.dumps), read_json),
        Target("yaml", lambda: _documents(yaml.safe_dump), read_yaml),
        Target("answer", _answers, _answer),
        Target("name", lambda: iter([b"metal nut", b"../a", b"a\xe9", "\u202ea".encode()]), _name),
    )
}


# ----------------------------------------------------------------------------------- the work
def mutated(content: bytes, others: list[bytes], rng: random.Random) -> bytes:
    """A copy with one to eight pieces turned over, cut, doubled, or taken from another input."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4, 8))):
        at = rng.randrange(len(data) + 1)
        action = rng.randrange(7)
        if action == 0 and data:
            data[at % len(data)] ^= 1 << rng.randrange(8)
        elif action == 1:
            del data[at : at + rng.choice((1, 4, 64, len(data)))]
        elif action == 2:
            data[at:at] = data[at : at + rng.choice((1, 16, 256))]
        elif action == 3:
            data[at : at + 4] = rng.randbytes(4)
        elif action == 4:
            data[at:at] = rng.choice(PIECES) * rng.choice((1, 1, 60, 5000))
        elif action == 5:
            other = rng.choice(others)
            start = rng.randrange(len(other) + 1)
            data[at : at + 64] = other[start : start + 64]
        elif data:
            data[at % len(data)] = rng.choice((0, 1, 127, 128, 255))
    return bytes(data[:2_000_000])


def fault(target: Target, content: bytes, folder: Path, limit: float = LIMIT) -> str:
    """What is wrong with how an input is treated: "" if it is taken or refused as it should."""
    path = folder / "input"
    path.write_bytes(content)
    try:
        with seconds(limit, target.name):
            target.read(path)
    except ZsadError as error:
        try:
            _one_line(error, path)
        except AssertionError as problem:
            return str(problem)
    except (Exception, TooSlow) as error:
        return f"{type(error).__name__}: {str(error).splitlines()[:1]}"
    return ""


class Reader:
    """Reads inputs in a process of its own, which is begun anew where one ends or holds it up.

    ``limit``: seconds for an input; ``memory``: bytes that the process may take besides what it
    has when it begins.
    """

    def __init__(
        self,
        folder: Path,
        targets: Mapping[str, Target],
        limit: float = LIMIT,
        grace: float = GRACE,
        memory: int = MEMORY,
    ) -> None:
        self.folder, self.targets = folder, targets
        self.limit, self.grace, self.memory = limit, grace, memory
        self._process: multiprocessing.process.BaseProcess | None = None
        self._pipe: Connection | None = None

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *exc: object) -> None:
        self._end()

    def fault(self, name: str, content: bytes) -> str:
        """As :func:`fault`; an input that ends the process or is not done in time has one, too."""
        if self._process is None:
            self._begin()
        assert self._process is not None
        assert self._pipe is not None
        self._pipe.send((name, content))
        if not self._pipe.poll(self.limit + self.grace):
            self._end()
            return f"Hang: {name}, no end after {self.limit} s"
        try:
            return str(self._pipe.recv())
        except EOFError:
            self._process.join()
            code = self._process.exitcode or 0
            self._end()
            end = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            return f"Died: {name}, {end}"

    def _begin(self) -> None:
        fork = multiprocessing.get_context("fork")
        ours, theirs = fork.Pipe()
        self._process = fork.Process(target=self._serve, args=(theirs, ours), daemon=True)
        self._process.start()
        theirs.close()
        self._pipe = ours

    def _serve(self, pipe: Connection, other: Connection) -> None:
        other.close()
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what decoders print
        faulthandler.disable()  # pytest's: to be killed is a result here
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + self.memory, used + self.memory))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        while True:
            name, content = pipe.recv()
            pipe.send(fault(self.targets[name], content, self.folder, self.limit))

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
        if self._pipe is not None:
            self._pipe.close()
        self._process = self._pipe = None


def minimised(name: str, content: bytes, reader: Reader, until: float) -> bytes:
    """The smallest input found, until the time is over, that fails with the same kind of error."""
    kind = reader.fault(name, content).split(":")[0]
    step = len(content) // 2
    while step and time.monotonic() < until:
        at = 0
        while at < len(content) and time.monotonic() < until:
            less = content[:at] + content[at + step :]
            if reader.fault(name, less).split(":")[0] == kind:
                content = less
            else:
                at += step
        step //= 2
    return content


def corpus(target: Target) -> list[bytes]:
    """The sound inputs and all finds."""
    kept = sorted((CORPUS / target.name).glob("*"))
    return [*target.seeds(), *(p.read_bytes() for p in kept if p.name != "README")]


def run(
    names: list[str], limit: float, seed: int, most: int = 1 << 60
) -> tuple[int, list[tuple[str, bytes, str]]]:
    """Mutate for ``limit`` seconds or ``most`` inputs; return their number and the finds."""
    rng = random.Random(seed)
    until, count = time.monotonic() + limit, 0
    inputs = {name: corpus(TARGETS[name]) for name in names}
    finds: dict[tuple[str, str], tuple[str, bytes, str]] = {}
    with (
        tempfile.TemporaryDirectory(prefix="zsad-fuzz-") as place,
        warnings.catch_warnings(action="ignore"),
        Reader(Path(place), TARGETS) as reader,
    ):
        while time.monotonic() < until and count < most:
            name = names[count % len(names)]
            content = mutated(rng.choice(inputs[name]), inputs[name], rng)
            count += 1
            if text := reader.fault(name, content):
                kind = (name, text.split(":")[0])
                if kind not in finds:
                    content = minimised(name, content, reader, time.monotonic() + 60)
                    finds[kind] = (name, content, text)
    return count, list(finds.values())


def main() -> int:
    """Run from the command line; 1 if something was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--inputs", type=int, default=1 << 60, help="no more than so many")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 2**32)
    parser.add_argument("--targets", default=",".join(TARGETS))
    args = parser.parse_args()
    count, finds = run(args.targets.split(","), args.seconds, args.seed, args.inputs)
    for name, content, text in finds:
        path = CORPUS / name / hashlib.sha256(content).hexdigest()[:16]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        print(f"{name}: {text}\n  kept as {path} ({len(content)} bytes)")
    print(f"{count} inputs with seed {args.seed}: {len(finds)} kinds of faults")
    return bool(finds)


if __name__ == "__main__":
    sys.exit(main())
