"""How the command line behaves towards people: proposals, plurals, examples, completion."""

from __future__ import annotations

import argparse
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zsad import registry
from zsad.cli import completion
from zsad.cli.bench import spent
from zsad.cli.cite import bibtex
from zsad.cli.examples import EXAMPLES, filled
from zsad.cli.main import VERBS, build_parser, main, parse
from zsad.cli.show import describe
from zsad.errors import categories, counted

ROOT = Path(__file__).resolve().parents[2]


# ------------------------------------------------------------------------------- plurals
def test_one_thing_is_no_plural() -> None:
    assert [counted(n, "cell") for n in (0, 1, 2, 1200)] == [
        *("0 cells", "1 cell", "2 cells", "1,200 cells")
    ]
    assert [categories(n) for n in (1, 2)] == ["1 category", "2 categories"]
    assert counted(1, "mask holds", "masks hold") == "1 mask holds"


THINGS = (
    "answers bits boxes categories cells checkpoints columns datasets descriptions entries epochs "
    "files folders groups images labels layers lines maps masks models names numbers patches "
    "pictures records requests rows sentences stages steps tensors texts tokens values words"
)
NUMBERS = (
    r"\{(?:len\([^{}]*\)|[a-z_.]*(?:anomalous|bits|count|every|fan_in|number|surplus|total))(?::,)?\}",
    r"%,?d",  # of a message that is logged
)
OWN_PLURALS = re.compile(
    rf"(?:{'|'.join(NUMBERS)}) (?:(?!of |for |are |were )[a-z0-9-]+ ){{0,2}}"
    rf"(?:{'|'.join(THINGS.split())})\b"
)
TWO_OR_MORE = (  # what is counted there is two at least, or a constant
    "of its {len(found)} files",
    "of open_clip's {every} models",
    "of open_clip's {len(open_clip_models())} models",
    "averaged over {len(",
    "limit of %d tokens",  # of a text tower
    "fewer than {count} cached descriptions",
    "the file has {len(found)} stages",
    "the file has {count} layers",
    "the file has {count} linear layers",
    "network reads {fan_in} values",
    "{bits} bits",  # of a deep picture: nine at least
    "are not {count} numbers",  # of a kind of value: four at least
    "of {how.bits} bits needs",
    "{len(data.uids)} generated images",  # of a card
)


def test_no_sentence_makes_its_own_plural() -> None:
    """A length or a count in front of a plural is written by `counted` alone: "1 images"."""
    found = []
    for folder in ("zsad", "methods", "benchmarks"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            joined = re.sub(r'"\s*\n\s*f?"', "", path.read_text("utf-8"))  # pieces of one text
            found += [
                f"{path.relative_to(ROOT)}: {line.strip()}"
                for line in joined.splitlines()
                if OWN_PLURALS.search(line) and not any(words in line for words in TWO_OR_MORE)
            ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "line",
    [
        'log.warning("out of memory with %d images, trying %d", size, most)',
        'f"{len(bare)} of {len(images)} anomalous images have no mask"',
        'f"{surplus} surplus byte-identical images"',
        'f"{report.total:,} cells"',
    ],
)
def test_such_a_sentence_is_found(line: str) -> None:
    assert OWN_PLURALS.search(line)


def test_no_figure_is_printed_as_nothing() -> None:
    seconds = {"encode": 90.0, "head:clip": 0.01, "head:winclip": 0.0}
    counters = {"images": 1, "images_per_second": 0.02}
    assert spent(seconds, counters) == "Time: encode 90.0 s (1 image, 50 s per image)"
    for rate in (0.0, 1e-6, 0.9, 1.0, 1234.0):
        line = spent(seconds, {**counters, "images_per_second": rate})
        assert not re.search(r"(?<![\d.])0(\.0+)? images/s", line)


# -------------------------------------------------------------------------------- errors
@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("list metods", "did you mean 'methods'"),
        ("data chek mvtec", "did you mean 'check'"),
        ("weights imprt filo x", "did you mean 'import'"),
        ("results lst", "did you mean 'list'"),
        ("completion bsh", "did you mean 'bash'"),
        ("tables --published al", "unknown --published 'al' (did you mean 'all'?)"),
        ("bench --metods clip", "did you mean '--methods'"),
        ("bench --methods clip --datasets synthetic --protocol fapromp", "did you mean 'faprompt'"),
        ("bench --methods clip --datasets synthetic --backbone zsad-tny", "'zsad-tiny'"),
        ("bench --methods filo --datasets synthetic filo.preset=papr", "did you mean 'paper'"),
        ("bench --methods clip --datasets synthetic backbone.precison=fp32", "'precision'"),
        ("bench --methods clip --datasets synthetic backbone.precision=bf61", "bf16"),
        ("bench --methods clip --datasets synthetic --launcher rey", "local, ray"),
    ],
)
def test_a_misspelt_word_gets_the_nearest_one(
    line: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(line.split()) == 2
    assert message in capsys.readouterr().err


def test_no_word_far_from_all_gets_a_proposal(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--foo"]) == 2
    assert "did you mean" not in capsys.readouterr().err


def test_without_a_verb_there_is_a_short_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    said = capsys.readouterr()
    lines = said.err.splitlines()
    assert said.out == ""
    assert lines[0] == "usage: zsad VERB ..."
    assert len(lines) < 12
    named = re.findall(r"zsad ([a-z]+) {2,}", said.err)
    assert len(named) == 6
    assert set(named) <= set(VERBS)


# ------------------------------------------------------------------------------ examples
def test_every_verb_has_examples_that_it_understands(capsys: pytest.CaptureFixture[str]) -> None:
    assert set(EXAMPLES) == set(VERBS)
    for verb, lines in EXAMPLES.items():
        assert main([verb, "--help"]) == 0
        shown = capsys.readouterr().out
        for line in map(filled, lines):
            assert line in shown
            words = shlex.split(line.partition(" && ")[0].partition(" > ")[0], comments=True)
            assert words[:2] == ["zsad", verb]
            assert parse(words[1:]).verb == verb


@pytest.mark.slow
def test_examples_run_as_they_stand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ZSAD_CACHE", str(tmp_path / "cache"))
    (tmp_path / "photos").mkdir()
    pixels = np.random.default_rng(0).integers(90, 130, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photos" / "a.png")
    for lines in EXAMPLES.values():
        for line in (filled(line) for line in lines if "#" not in line):
            words = shlex.split(line.partition(" && ")[0].partition(" > ")[0])
            # `doctor` may find this machine broken, and the bank may have problems
            expected = (0, 3) if words[1] in ("doctor", "prompts") else (0,)
            assert main(words[1:]) in expected, (line, capsys.readouterr().err)


# ---------------------------------------------------------------------------- completion
def _asked(parser: argparse.ArgumentParser, verb: str) -> set[str]:
    (verbs,) = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    return {o for action in verbs.choices[verb]._actions for o in action.option_strings}


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_every_shell_knows_verbs_options_and_names(shell: str) -> None:
    text = completion.script(shell)
    parser = build_parser()
    for option in _asked(parser, "bench"):
        assert option.lstrip("-") in text
    for word in (*VERBS, "winclip", "mvtec", "zsad-tiny", "faprompt-ablation", "training-free"):
        assert word in text


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_completes(tmp_path: Path) -> None:
    cases = {
        "zsad ben": "bench",
        "zsad bench --methods clip,win": "clip,winclip",
        "zsad bench --datasets visa,mvt": "visa,mvtec visa,mvtec_ad2 visa,mvtec_loco",
        "zsad predict --backbone zs": "zsad-tiny",
        "zsad bench --protocol alfa-f": "alfa-few-shot",
        "zsad list da": "datasets",
        "zsad show faprompt-": "faprompt-ablation",
        "zsad bench --trained": "--trained-on",
        "zsad train --on synth": "synthetic",
    }
    lines = [
        completion.script("bash"),
        'try() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _shtab_zsad; echo "${COMPREPLY[*]}"; }',
        *(f"try {case}" for case in cases),
    ]
    script = tmp_path / "try.bash"
    script.write_text("\n".join(lines), encoding="utf-8")
    done = subprocess.run(["bash", str(script)], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == list(cases.values())


def test_completion_without_shtab_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "shtab", None)
    assert main(["completion", "bash"]) == 2
    assert "pip install shtab" in capsys.readouterr().err


# ------------------------------------------------------------------------------- to cite
def test_a_paper_is_cited_in_bibtex(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "mvtec", "--cite"]) == 0
    out = capsys.readouterr().out
    assert "@misc{mvtec2019,\n  author = {Bergmann and others},\n" in out
    assert "  title = {{MVTec AD: A Comprehensive Real-World Dataset for" in out
    assert "  howpublished = {CVPR},\n  year = {2019},\n}" in out
    assert "@misc{zsad," in out


def test_every_line_that_names_a_paper_becomes_an_entry() -> None:
    for name in (*registry.list_methods(), *registry.list_datasets()):
        found = describe(name, [])
        line = found.get("paper") or found.get("citation")
        if not line:
            continue
        for entry in bibtex(name, line):
            assert entry.count("{") == entry.count("}")
            assert re.fullmatch(r"@misc\{[A-Za-z0-9_-]+,\n(?:  [a-z]+ = \{.+\},\n)+\}", entry)
            assert not re.search(r"(?<!\\)[&%$#]", entry)
    assert "note = {Hamada" in bibtex("br35h", describe("br35h", [])["citation"])[0]
    assert len(bibtex("x", "A et al., T, V 2020; B et al., U, 2021, arXiv 1")) == 2


def test_what_has_no_paper_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "zsad-tiny", "--cite"]) == 2
    assert "no paper is named for backbone zsad-tiny" in capsys.readouterr().err
