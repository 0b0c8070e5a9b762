"""The command line as a contract: exit codes, one-line errors, one JSON document, quiet ends."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from zsad.cli.main import VERBS, main, parse
from zsad.errors import RequestError

ROOT = Path(__file__).resolve().parents[2]
SMALL = ["--device", "cpu", "backbone.image_size=56"]
TINY = ["--backbone", "zsad-tiny"]
PREDICT = ["predict", "--method", "clip", "--class-name", "n", __file__]
BENCH = ["bench", "--methods", "clip", "--datasets", "elpv"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A plain folder dataset: two normal, two anomalous pictures, one mask each."""
    rng = np.random.default_rng(1)
    home = tmp_path / f"parts{abs(hash(tmp_path)) % 10**6}"
    for kind in ("normal", "anomalous", "masks"):
        (home / kind).mkdir(parents=True)
    for i in range(2):
        for kind in ("normal", "anomalous"):
            pixels = rng.integers(90, 130, (64, 48, 3), dtype=np.uint8)
            if kind == "anomalous":
                pixels[10:30, 5:25] = 250
                mask = np.zeros((64, 48), dtype=np.uint8)
                mask[10:30, 5:25] = 255
                Image.fromarray(mask).save(home / "masks" / f"bad{i}.png")
            name = "bad" if kind == "anomalous" else "good"
            Image.fromarray(pixels).save(home / kind / f"{name}{i}.png")
    return home


def call(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    code = main(list(argv))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


# -------------------------------------------------------------------------------- errors
@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["benh"], "unknown command 'benh' (did you mean 'bench'?)"),
        (["bench", "--method", "clip"], "unknown option '--method' (did you mean '--methods'?)"),
        (["bench", "--methods"], "argument --methods: expected one argument"),
        (["bench", "winclip"], "unexpected 'winclip'; write KEY=VALUE"),
        (["list", "methods", "a=1"], "takes no KEY=VALUE such as 'a=1'"),
        (["list", "method"], "unknown word 'method' (did you mean 'methods'?)"),
        (["show", "winclp"], "unknown name 'winclp' (did you mean 'winclip'?)"),
        (["show", "clip", "clip.temprature=1"], "did you mean 'temperature'"),
        (["show", "clip", "winclip.shots=1"], "'winclip' does not belong to method clip"),
        (["show", "mvtec", "clip.temperature=1"], "only a method takes overrides"),
        (["bench", "--methods", "clp", "--datasets", "elpv"], "did you mean 'clip'"),
        (["bench", "--methods", "clip", "--datasets", "elvp"], "did you mean 'elpv'"),
        (
            ["bench", "--methods", "clip", "--datasets", "elpv", "clp.temperature=1"],
            "did you mean 'clip'",
        ),
        (
            ["bench", "--methods", "clip", "--datasets", "elpv", "clip.temperature=hot"],
            "clip.temperature='hot' (the command line) must be a number",
        ),
        (["bench", "--methods", "clip", "--datasets", "elpv", "--limit", "0"], "--limit 0"),
        (["tables", "--results", "/nowhere"], "no results there"),
        (["tables", "--format", "pdf"], "unknown format 'pdf'"),
        (["predict", "--method", "clip", "--class-name", "nut"], "needs pictures"),
        (
            ["predict", "--method", "clp", "--class-name", "nut", __file__],
            "unknown method 'clp' (did you mean 'clip'?)",
        ),
        (
            ["predict", "--method", "clip", "--class-name", "nut", "absent.png"],
            "absent.png: no such file or folder",
        ),
        (
            ["predict", "--method", "clip", "--class-name", "nut", "http://x.example/a.png"],
            "http://x.example/a.png: an address; save the picture",
        ),
        ([*PREDICT, "--scale", "-1,0"], "begins with '-', write --option=VALUE"),
        (
            ["predict", "--method", "clip", "--class-name", "n", __file__, "--scale", "1,0"],
            "--scale 1,0: give two numbers",
        ),
        *(
            ([*PREDICT, f"{option}={value}"], f"argument {option}: invalid")
            for option in ("--threshold", "--image-threshold", "--false-alarms")
            for value in ("nan", "inf", "-inf", "1e999", "x", "")
        ),
        *(([*PREDICT, f"--scale={v}"], "give two numbers") for v in ("0,inf", "nan,1", "-inf,0")),
        ([*PREDICT, "--scale", "0,1"], "--scale 0,1: needs --out"),
        ([*PREDICT, "--explanations", "-1"], "argument --explanations: invalid"),
        ([*PREDICT, "--image-size", "0"], "argument --image-size: invalid"),
        *(([*PREDICT, "--tiles", n], f"--tiles {n}: changes nothing") for n in ("0", "1")),
        ([*PREDICT, "--plugins", str(ROOT / "docs")], "holds no method"),
        ([*PREDICT, "--untrained"], "--untrained: method clip is training-free; leave it out"),
        *(
            ([*PREDICT, option, ""], f"{option}: the value is empty")
            for option in ("--out", "--weights", "--checkpoint", "--preset", "--reference")
        ),
        ([*PREDICT, ""], "an argument is empty"),
        ([*BENCH, "--untrained"], "--untrained: none of clip is trained"),
        ([*BENCH, "ray.workers=2"], "ray.workers: needs `zsad bench --launcher ray`"),
        ([*BENCH, "--results", ""], "--results: the value is empty"),
        *(
            ([*BENCH, f"clip.temperature={v}"], "must be a finite number")
            for v in (".nan", ".inf", "-.inf", "1e999")
        ),
        *(
            ([*BENCH, f"{key}={v}"], "must")
            for key, values in (
                ("metrics.fpr_limit", ("0", "-0.3", "2")),
                ("run.feature_cache_gb", ("-1",)),
                ("data.workers", ("-1", "999999999")),
            )
            for v in values
        ),
        ([*BENCH, *TINY, "backbone.image_size=225"], "patch size 16; nearest: 224"),
        ([*BENCH, *TINY, "backbone.image_size=-16"], "patch size 16; nearest: 16"),
        ([*BENCH, *TINY, f"backbone.image_size={'9' * 400}"], "far too large"),
        ([*BENCH, *TINY, "--dry-run", "--device", "tpu"], "--device tpu: no device"),
        *(
            ([*words, "s3://bucket/x"], f"{words[-1]} s3://bucket/x: an address; give a place on")
            for words in (
                *([*BENCH, "--results"], ["tables", "--results"], [*PREDICT, "--out"]),
                ["data", "prepare", "mpdd", "--data-root"],
                ["weights", "import", "faprompt", "x.pt", "--out"],
            )
        ),
        (["data", "prepare", "mpdd", "--data-root", "a\0b", "--archive", __file__], "zero byte"),
        ([*BENCH, *TINY, "backbone.image_size=16000"], "ZSAD_MAX_PIXELS raises the limit"),
        (["prompts", "check", "--model", "x"], "--model belongs to `zsad prompts generate`"),
        (["prompts", "generate", "--timeout", "nan"], "argument --timeout: invalid"),
        (["bench", "--methods", "clip", "--datasets", "folder:~nobody-of-this-name/x"], "no such"),
        (["bench", "--methods", "clip", "--datasets", "folder:"], "folder: names no folder"),
        (["tables", "--results", "x" * 300], "x/cells: File name too long"),
        (["predict", "--method", "clip", "--class-name", "n", "x" * 300], "x: File name too long"),
        (["weights", "import", "clip", "x.pt"], "method 'clip' is training-free"),
        (["weights", "import", "faprompt", "x.pt"], "x.pt: no such file"),
        ([*BENCH, "a." * 300 + "b=1"], "no key has more than 100 parts"),
        (
            [*BENCH, "data.variants.mvtec=x"],
            "data.variants.mvtec: this run does not read mvtec",
        ),
    ],
)
def test_a_wrong_request_is_one_line_and_exit_code_2(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = call(capsys, *argv)
    assert code == 2
    assert out == ""
    assert message in err
    assert err.startswith("zsad: error: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "words",
    [[*PREDICT, "--plugins"], ["tables", "--results"], ["data", "check"], ["report", "--results"]],
)
def test_links_that_lead_to_themselves_are_one_line(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "loop").symlink_to("loop")
    code, _, err = call(capsys, *words, str(tmp_path / "loop"))
    assert (code, err.count("\n")) == (2, 1)
    assert "loop" in err
    assert "internal" not in err


def test_what_is_wrong_with_a_backbone_is_refused_with_the_file_that_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.yaml").write_text("backbone: {name: zsad-tinny}\n")
    code, _, err = call(capsys, *BENCH, "--dry-run", "--config", str(tmp_path / "mine.yaml"))
    assert code == 2
    assert "mine.yaml: unknown backbone 'zsad-tinny' (did you mean 'zsad-tiny'" in err
    (tmp_path / "mine.yaml").write_text("backbone: {name: zsad-tiny, image_size: 100}\n")
    code, _, err = call(capsys, *BENCH, "--dry-run", "--config", str(tmp_path / "mine.yaml"))
    assert code == 2
    assert "mine.yaml: backbone.image_size=100: must be a multiple" in err


def test_overrides_may_stand_anywhere() -> None:
    args = parse(["bench", "a.b=1", "--methods", "clip", "c.d=2", "--json", "e.f=-3"])
    assert args.overrides == ["a.b=1", "c.d=2", "e.f=-3"]
    assert (args.methods, args.json) == ("clip", True)


def test_a_picture_may_have_an_equals_sign_in_its_name(tmp_path: Path) -> None:
    path = tmp_path / "a=b.png"
    path.touch()
    args = parse(["predict", "--method", "m", "--class-name", "c", str(path), "m.k=1"])
    assert (args.words, args.overrides) == ([str(path)], ["m.k=1"])


def test_seeds_that_change_nothing_are_said(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    words = [*BENCH, "--seeds", "0,1", "--dry-run", "--json", "--results", str(tmp_path)]
    assert call(capsys, *words)[0] == 0
    assert "--seeds 0,1: no method of this run depends on the seed" in caplog.text
    caplog.clear()
    words[words.index("clip")] = "anomalyclip"
    call(capsys, *words)
    assert "--seeds" not in caplog.text


def test_abbreviated_options_are_refused() -> None:
    with pytest.raises(RequestError, match="unknown option '--meth'"):
        parse(["bench", "--meth", "clip"])


def test_an_internal_error_is_one_line_and_exit_code_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("first line\nsecond line")

    monkeypatch.setattr("zsad.registry.methods", fail)
    monkeypatch.delenv("ZSAD_DEBUG", raising=False)
    code, _, err = call(capsys, "list", "methods")
    assert code == 1
    assert "internal error, RuntimeError: first line ... second line (ZSAD_DEBUG=1 shows" in err
    assert "Traceback" not in err
    monkeypatch.setenv("ZSAD_DEBUG", "1")
    assert "Traceback" in call(capsys, "list", "methods")[2]


@pytest.mark.parametrize(
    ("words", "needed"),
    [(BENCH, "2,097,152"), (["tables", "--results", "absent"], "1,048,576")],
)
def test_too_few_addresses_are_said_before_a_library_hangs_in_them(
    words: list[str],
    needed: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As under `ulimit -v 700000`, where the import of torch and scipy fails, crashes or hangs."""
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(resource, "getrlimit", lambda what: (700_000 * 1024, -1))
    assert call(capsys, *words) == (
        2,
        "",
        "zsad: error: too little memory: `ulimit -v` allows 700,000 KiB of addresses, and this "
        f"command needs {needed} or more; raise it (`ulimit -v unlimited`)\n",
    )


def test_an_interrupt_is_quiet(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("zsad.registry.methods", interrupt)
    assert call(capsys, "list", "methods") == (130, "", "")


def test_a_closed_pipe_is_quiet() -> None:
    code = f"{sys.executable} -m zsad show faprompt --json | head -c 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "{0\n"
    assert done.stderr == ""


# ---------------------------------------------------------------------- help, list, show
@pytest.mark.parametrize("verb", ["", *VERBS])
def test_help_is_there(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = call(capsys, *filter(None, [verb, "--help"]))
    assert (code, err) == (0, "")
    assert out.startswith("usage: zsad")


def test_lists_parse_and_name_what_the_registry_has(capsys: pytest.CaptureFixture[str]) -> None:
    import zsad

    for what, names in (
        ("methods", zsad.list_methods()),
        ("datasets", zsad.list_datasets()),
        ("backbones", zsad.list_backbones()),
    ):
        code, out, _ = call(capsys, "list", what, "--json")
        assert code == 0
        assert sorted(row["name"] for row in json.loads(out)) == names
        plain = call(capsys, "list", what)[1]
        assert len(plain.splitlines()) == len(names) + 1


def test_show_tells_where_each_value_comes_from(capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["show", "clip", "clip.temperature=0.5", "--json"]
    code, out, _ = call(capsys, *argv)
    found = json.loads(out)
    assert code == 0
    assert found["config"]["temperature"] == {"value": 0.5, "origin": "the command line"}
    assert found["config"]["preset"]["origin"] == "config.yaml"
    assert found["revision"] == 1
    assert "temperature" in call(capsys, "show", "clip")[1]


@pytest.mark.parametrize("name", ["elpv", "vit-l-14-336", "default"])
def test_show_knows_datasets_backbones_and_protocols(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = call(capsys, "show", name, "--json")
    assert code == 0
    assert json.loads(out)["name"] == name
    assert ("revision" in json.loads(out)) == (name == "elpv")
    assert call(capsys, "show", name)[1].startswith("kind: ")


# -------------------------------------------------------------------------------- a run
def bench_args(folder: Path, weights: Path, results: Path) -> list[str]:
    return [
        *("bench", "--methods", "clip", "--datasets", f"folder:{folder}"),
        *("--backbone", "file", f"backbone.weights={weights}", "--results", str(results), *SMALL),
    ]


def test_bench_then_tables(
    folder: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results"
    argv = bench_args(folder, weights, results)
    code, out, _ = call(capsys, *argv, "--dry-run", "--json")
    assert code == 0
    assert json.loads(out)["to_run"] == 1
    code, out, _ = call(capsys, *argv, "--dry-run")
    assert "1 of 1 cell to run, 4 images" in out

    code, out, err = call(capsys, *argv, "--json")
    assert code == 0
    # the account of the folder, and nothing else
    assert all(line.startswith("zsad: ") for line in err.splitlines())
    assert "6 files in all: 2 normal, 2 anomalous, 2 masks" in err
    document = json.loads(out)
    assert [c["method"] for c in document["cells"]] == ["clip"]
    assert document["cells"][0]["n_anomalous"] == 2

    code, out, _ = call(capsys, *argv)  # resumes, and prints for people
    assert code == 0
    line = next(x for x in out.splitlines() if x.startswith("clip"))
    auroc = document["cells"][0]["metrics"]["image_auroc"]
    assert f"{100 * auroc:.1f}" in line
    assert str(results) in out

    code, out, _ = call(capsys, "tables", "--results", str(results), "--format", "md,csv")
    assert code == 0
    assert f"({100 * auroc:.1f}, " in out
    assert "wrote 4 files into" in out
    assert len(list((results / "tables").rglob("*.md"))) == 2


def test_a_failed_cell_is_exit_code_3_and_named(
    folder: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "normal" / "good0.png").write_bytes(b"not a picture")
    argv = bench_args(folder, weights, tmp_path / "results")
    code, out, err = call(capsys, *argv, "--json")
    assert code == 3
    assert "good0.png" in json.loads(out)["failed"][0]["error"]
    code, _, err = call(capsys, *argv)
    assert code == 3
    assert "zsad: failed: clip/" in err
    assert "good0.png" in err


def test_predict_prints_one_line_per_picture_and_writes_maps(
    folder: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "anomalous" / "bad2.png").write_bytes(b"not a picture")
    out_dir = tmp_path / "found"
    code, out, err = call(
        capsys,
        *("predict", "--method", "clip", "--class-name", "bolt", str(folder / "anomalous")),
        *("--backbone", "file", "--weights", str(weights), "--device", "cpu"),
        *("--out", str(out_dir), "--threshold", "0.5"),
    )
    assert code == 3
    assert re.fullmatch(
        r"zsad: note: unknown weights: clip\.pt, sha256 \w+, of no published file\n"
        r"zsad: note: the threshold of a picture is not given by hand: it is a rule of thumb\n",
        err,
    )
    lines = [json.loads(line) for line in out.splitlines()]
    assert [Path(x["path"]).name for x in lines] == ["bad0.png", "bad1.png", "bad2.png"]
    assert "bad2.png" in lines[2]["error"]
    for line in lines[:2]:
        values = np.load(line["files"]["map"])
        assert values.shape == (56, 56)  # at the model's size, in half precision
        assert values.dtype == np.float16
        assert line["map_max"] == pytest.approx(values.max(), rel=0.1)
        mask = np.asarray(Image.open(line["files"]["mask"]))
        assert mask.shape == (64, 48)
        assert mask.any() == (line["map_max"] >= 0.5)
        assert Image.open(line["files"]["heat"]).size == (48, 64)


# -------------------------------------------------------------------------- without torch
@pytest.mark.parametrize(
    "argv",
    [
        ["--help"],
        ["--version"],
        ["bench", "--help"],
        ["list", "methods"],
        ["list", "datasets"],
        ["list", "backbones"],
        ["list", "protocols"],
        ["show", "filo"],
        ["tables", "--results", "RESULTS"],
        ["bench", "--methods", "clip,faprompt", "--datasets", "elpv", "--dry-run", "RANDOM"],
    ],
    ids=lambda argv: " ".join(argv[:2]),
)
def test_torch_is_not_imported(argv: list[str], tmp_path: Path) -> None:
    (tmp_path / "cells").mkdir()
    words = {
        "RESULTS": str(tmp_path),
        "RANDOM": "backbone.weights=random",
    }
    argv = [words.get(a, a) for a in argv]
    code = (
        "import sys; from zsad.cli.main import main; code = main(sys.argv[1:]); "
        "assert 'torch' not in sys.modules, 'torch was imported'; sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *argv],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "ZSAD_RESULTS": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr


def test_a_secret_that_is_given_twice_is_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert parse(["app", "--token", "first-secret", "--token", "second-secret"]).token == (
        "second-secret"
    )
    assert capsys.readouterr().err == "zsad: note: --token is given twice: the last value holds\n"


def test_of_two_values_the_one_that_holds_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    """The last one always held, and nobody was told that there was another."""
    words = [
        "--methods",
        "clip",
        "--backbone",
        "a",
        "--backbone",
        "b",
        "--limit",
        "2",
        "--limit",
        "2",
    ]
    args = parse(
        ["bench", "--methods", "clip", *words, "clip.temperature=0.1", "clip.temperature=0.2"]
    )
    assert (args.backbone, args.limit) == ("b", "2")
    assert capsys.readouterr().err.splitlines() == [
        "zsad: note: --backbone is given twice: b holds, not a",
        "zsad: note: clip.temperature is given twice: 0.2 holds, not 0.1",
    ]
    parse(
        [
            "predict",
            "--method",
            "clip",
            "--class-name",
            "nut",
            "--reference",
            "a",
            "--reference",
            "b",
        ]
    )
    assert not capsys.readouterr().err
