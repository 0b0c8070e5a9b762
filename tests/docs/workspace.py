"""Runs the commands of a page in a folder of its own, on miniature data.

What a page says is run as it stands, but for this table:

=======================================  ======================================================
the page says                            what is run
=======================================  ======================================================
``/data``                                a folder with a miniature of every dataset, in the
                                         layout in which it is distributed (tests/data)
no ``--backbone``, or another than       ``--backbone file`` with a small CLIP in OpenAI's naming
``zsad-tiny`` or ``--weights random``
``bench``, ``train``                     and ``--limit 2 --offline --device cpu``
``make TARGET``                          the commands of zsad among those of ``make -n TARGET``
``pip install zsad[EXTRA]``              the extra exists
``docker``                               parsed alone; the file that it builds exists
``python -m MODULE``, ``python FILE``    the module or file exists; a file of the page is run
=======================================  ======================================================

In the folder lie what a reader would bring along: ``photos/`` (three pictures), ``good/`` (three
normal ones), ``photo.png``, ``parts/`` (``normal``, ``anomalous``, ``masks``), and released
checkpoints ``faprompt.pth``, ``filo.pth``, ``anomalyclip.pth`` for the small CLIP.
"""

from __future__ import annotations

import importlib
import importlib.util
import io
import os
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from tests.docs.pages import Block
from zsad import registry
from zsad.cli import main as cli
from zsad.data import catalog
from zsad.data.indexers import INDEXERS
from zsad.errors import ZsadError

ROOT = Path(__file__).resolve().parents[2]
LIMIT = "2"
HARMLESS = ("mkdir", "ls", "cp", "cat", "echo", "head", "find", "printf")
SIZE = "56"  # pixels of the small CLIP


class Workspace:
    """A folder in which the blocks of one page run in order."""

    def __init__(
        self, folder: Path, data: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.folder = folder
        self.data = data
        self.clip = clip
        self.monkeypatch = monkeypatch
        self.names: dict[str, object] = {"__name__": "__page__"}  # of Python blocks
        monkeypatch.chdir(folder)

    # ------------------------------------------------------------------------------ blocks
    def take(self, block: Block) -> None:
        """Write, run or check one block.  Raises ``AssertionError`` that names its place."""
        if block.path:
            path = self.folder / block.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text + "\n", encoding="utf-8")
        elif block.language == "python":
            self._python(block)
        else:
            commands = block.commands()
            for i, command in enumerate(commands):
                expected = block.code if i == len(commands) - 1 else 0
                self._command(block, command, expected)

    def _python(self, block: Block) -> None:
        code = compile(self._brought(block.text), block.place, "exec")
        if block.mode == "run":
            exec(code, self.names)

    def _command(self, block: Block, command: str, expected: int) -> None:
        words = shlex.split(self._brought(command), comments=True)
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            self._export(words.pop(0))
        program = words[0] if words else ""
        if program == "export":
            for word in words[1:]:
                self._export(word)
        elif program == "make":
            self._make(block, words)
        elif program == "docker":
            assert block.mode == "parse", f"{block.place}: no container can be run"
            if "-f" in words:
                assert (ROOT / words[words.index("-f") + 1]).is_file(), block.place
        elif program in ("pip", "python"):
            self._installed(block, words)
        elif "zsad" in words:
            self._zsad(block, words, expected)
        elif program == "pytest":
            self._pytest(block, words)
        elif program in HARMLESS and block.mode == "run":
            subprocess.run(words, check=True, capture_output=True)
        elif program:
            assert block.mode == "parse", f"{block.place}: nothing runs '{program}'"

    def _brought(self, text: str) -> str:
        return re.sub(r"(?<![\w.])/data\b", str(self.data), text)

    def _export(self, word: str) -> None:
        name, _, value = word.partition("=")
        self.monkeypatch.setenv(name, value)
        if name == "PYTHONPATH":
            self.monkeypatch.syspath_prepend(str(self.folder / value))

    # ---------------------------------------------------------------------------- programs
    def _zsad(self, block: Block, words: list[str], expected: int) -> None:
        """``[PROGRAM ... |] zsad ... [> FILE]``"""
        given = ""
        if "|" in words and words.index("|") < words.index("zsad"):
            cut = words.index("|")
            done = subprocess.run(words[:cut], capture_output=True, text=True, check=True)
            given, words = done.stdout, words[cut + 1 :]
        target = ""
        if ">" in words:
            target, words = words[words.index(">") + 1], words[: words.index(">")]
        assert words[0] == "zsad", f"{block.place}: {shlex.join(words)}"
        argv = self.substituted(words[1:], block.mode)
        if argv is None:
            return
        forget()
        out, err = io.StringIO(), io.StringIO()
        self.monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given.encode())))
        with redirect_stdout(out), redirect_stderr(err):
            code = cli.main(argv)
        shown = f"{block.place}: {shlex.join(['zsad', *argv])}\n{out.getvalue()}{err.getvalue()}"
        assert code == expected, f"exit code {code}, expected {expected}; {shown}"
        if target:
            (self.folder / target).write_text(out.getvalue(), encoding="utf-8")

    def substituted(self, argv: Sequence[str], mode: str) -> list[str] | None:
        """What is run in place of a command; None where parsing it was all."""
        forget()
        try:
            args = cli.parse(list(argv))
        except (ZsadError, SystemExit) as error:
            raise AssertionError(f"zsad {shlex.join(argv)}: {error}") from None
        if mode == "parse" or (mode == "plan" and args.verb != "bench"):
            return None
        changed = list(argv)
        here = getattr(args, "weights", None) == "random"
        if args.verb in ("bench", "train", "predict", "weights") and not here:
            changed = self._small(changed, args.verb, args.backbone)
        if args.verb in ("bench", "train"):
            changed = [*without(changed, "--limit"), "--limit", LIMIT, "--offline"]
        if args.verb in ("bench", "train", "predict"):
            changed = [*without(changed, "--device"), "--device", "cpu"]
        return [*changed, "--dry-run"] if mode == "plan" else changed

    def _small(self, argv: list[str], verb: str, backbone: str | None) -> list[str]:
        """A backbone that is here."""
        if backbone == "zsad-tiny":
            return argv
        argv = without(without(argv, "--backbone"), "--weights")
        argv = [w for w in argv if not w.startswith(("backbone.weights=", "backbone.image_size="))]
        argv += ["--backbone", "file"]
        if verb in ("predict", "weights"):
            return [*argv, "--weights", str(self.clip)]
        return [*argv, f"backbone.weights={self.clip}", f"backbone.image_size={SIZE}"]

    def _make(self, block: Block, words: list[str]) -> None:
        """Ask make what it would do, and do what of that is zsad's."""
        command = ["make", "-n", *words[1:]]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, f"{block.place}: {shlex.join(words)}: {done.stderr}"
        for line in done.stdout.replace("\\\n", " ").splitlines():
            program, *rest = shlex.split(line, comments=True) or [""]
            if program.endswith("bin/zsad") and block.mode == "run":
                self._zsad(block, ["zsad", *rest], 0)

    def _pytest(self, block: Block, words: list[str]) -> None:
        """Call the test functions of a package as pytest would, without a second process."""
        package = Path(words[1])
        self.monkeypatch.syspath_prepend(str(package.parent))
        tests = [
            function
            for path in sorted(package.glob("test_*.py"))
            for name, function in vars(
                importlib.import_module(f"{package.name}.{path.stem}")
            ).items()
            if name.startswith("test_")
        ]
        assert tests, f"{block.place}: no tests in {package}"
        for test in tests:
            test()

    def _installed(self, block: Block, words: list[str]) -> None:
        if words[:2] == ["pip", "install"]:
            text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
            for extra in re.findall(r"\[([\w,]+)\]", " ".join(words)):
                for name in extra.split(","):
                    assert re.search(rf"^{name} = \[", text, re.M), f"{block.place}: no {name}"
            return
        if (self.folder / words[1]).is_file():  # a file of the page
            runpy.run_path(words[1], run_name="__main__")
            return
        if words[1] == "-m":
            found = importlib.util.find_spec(words[2]) is not None
        else:
            found = (ROOT / words[1]).is_file()
        assert found, f"{block.place}: there is no {words[-1]}"


def without(argv: Sequence[str], option: str) -> list[str]:
    """The command without an option that takes a value."""
    out: list[str] = []
    skip = False
    for word in argv:
        if skip:
            skip = False
        elif word == option:
            skip = True
        elif not word.startswith(f"{option}="):
            out.append(word)
    return out


def forget_modules(folder: Path) -> None:
    """Drop what was imported from a page's folder, and the layouts that it registered."""
    sys.path[:] = [place for place in sys.path if not place.startswith(str(folder))]
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None) or "").startswith(str(folder)):
            del sys.modules[name]
    for name, function in list(INDEXERS.items()):
        if function.__code__.co_filename.startswith(str(folder)):
            del INDEXERS[name]


def forget() -> None:
    """Know no plug-ins and no datasets of the user, as a new process does."""
    registry.forget_plugins()
    catalog.forget_own()


def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget what the reader's machine would have set."""
    for name in [n for n in os.environ if n.startswith(("ZSAD_", "OPENAI_"))]:
        monkeypatch.delenv(name)
