"""``zsad prompts``: the bundled bank passes; what is wrong is named; generation runs end to end."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.prompt_bank.server import serving
from tests.prompt_bank.test_generation import product_answers
from zsad.cli.main import main
from zsad.prompt_bank.bank import bank

KEY = "sk-another-secret-0987654321"


def test_the_bundled_bank_is_complete(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prompts", "check", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["problems"] == []
    reviews = {(r["kind"], r["dataset"]): r for r in document["reviews"]}
    assert len(reviews) == 3 * 23
    assert reviews["kanoclip", "mvtec"]["counts"]["abnormal"] == [5] * 15
    assert all(r["longest"] <= 77 for r in reviews.values())


def test_problems_are_named_and_end_with_3(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "filo").mkdir()
    (tmp_path / "filo" / "mpdd.yaml").write_text(
        """kind: filo
dataset: mpdd
provenance: {source: curated}
categories:
  connector:
    class_name: connector
    anomaly_types: [bent pin, bent pin, parts_mismatch, no defects]
  metal_plate: {class_name: metal plate, anomaly_types: [rust]}
  gadget: {class_name: gadget, anomaly_types: [a, b, c, d]}
"""
    )
    words = ["prompts", "check", "--kind", "filo", "--datasets", "mpdd", "--out", str(tmp_path)]
    assert main(words) == 3
    out = capsys.readouterr().out
    for expected in (
        "connector.anomaly_types: twice 'bent pin'",
        "spelt like a file or defect folder: 'parts_mismatch'",
        "contradicts its label 'abnormal': 'no defects'",
        "metal_plate.anomaly_types: 1 text, expected 4 to 10",
        "tubes: no texts; make them with `zsad prompts generate --kind filo --datasets mpdd`",
        "gadget: no such category of mpdd",
    ):
        assert expected in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["check", "--kind", "fillo"], "--kind fillo: known are alfa, filo, kanoclip"),
        (["generate", "--kind", "filo"], "needs --kind and --datasets"),
        (
            ["generate", "--kind", "filo", "--datasets", "elpv", "--images"],
            "only the kind kanoclip asks about images",
        ),
        (["generate", "--kind", "filo", "--datasets", "elpv"], "ZSAD_LLM_MODEL"),
        (
            ["generate", "--kind", "filo", "--datasets", "elpv", "--model", "m"],
            "OPENAI_API_KEY is not set",
        ),
    ],
)
def test_requests_that_cannot_be_met(
    words: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("ZSAD_LLM_MODEL", raising=False)
    assert main(["prompts", *words]) == 2
    assert message in capsys.readouterr().err


def test_the_help_names_the_kinds(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prompts", "--help"]) == 0
    assert "one of alfa, filo, kanoclip; without it, `check` looks at all of them" in " ".join(
        capsys.readouterr().out.split()
    )


def test_generated_texts_are_used(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    answer = "- dark zone\n- thin fracture\n- broken finger\n- bright spot"
    with serving(lambda n, body: answer) as server:
        words = ["prompts", "generate", "--kind", "filo", "--datasets", "elpv", "--model", "toy"]
        code = main([*words, "--base-url", server.url, "--out", str(tmp_path)])
    captured = capfd.readouterr()
    assert code == 0
    assert "1 request, 0 answers from the cache" in captured.out
    assert KEY not in captured.out + captured.err
    program = (
        "from zsad.prompt_bank.bank import bank; from zsad.types import Category; "
        "print(bank().find('filo', Category('elpv', 'solar_cell', 'solar cell')).texts); "
        "print(bank().find('filo', Category('sdd', 'x', 'carpet')).dataset)"
    )
    monkeypatch.setenv("ZSAD_PROMPTS", str(tmp_path))
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert "'dark zone', 'thin fracture', 'broken finger', 'bright spot'" in done.stdout
    assert done.stdout.splitlines()[1] == "mvtec"


def test_words_for_a_product_reach_the_reasons(
    tmp_path: Path,
    weights: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The number of requests comes first; the reasons of ``predict`` are in the words."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("ZSAD_PROMPTS", str(tmp_path / "words"))
    bank.cache_clear()
    with serving(product_answers) as server:
        words = ["prompts", "generate", "--class-name", "gearbox cover", "--model", "toy"]
        words += ["--base-url", server.url]
        assert main([*words, "--class-name", "gear"]) == 2  # of all kinds
        err = capsys.readouterr().err
        assert re.search(r"note: \d\d\d requests to http", err)
        assert "add --yes, or a budget, --max-requests N" in err
        assert server.seen == []
        assert main([*words, "--kind", "alfa", "--yes"]) in (0, 3)  # 3: no reasons among the lists
        assert server.seen
        assert KEY not in capsys.readouterr().err
    Image.new("RGB", (40, 40), "grey").save(tmp_path / "x.png")
    words = ["predict", "--method", "alfa", "--class-name", "gearbox cover", "--backbone", "file"]
    words += ["--weights", str(weights), "--device", "cpu", str(tmp_path / "x.png")]
    words += ["--explanations", "1000"]
    try:
        assert main(words) == 0
    finally:
        bank.cache_clear()
    shown = capsys.readouterr()
    line = json.loads(shown.out)
    assert any(re.search("porous casting|machined face", r["text"]) for r in line["explanations"])
    file = "$ZSAD_PROMPTS/alfa/gearbox_cover.yaml"
    assert f"note: words about 'gearbox cover' are those of {file}, entry gearbox" in shown.err
    assert line["made_by"]["words"] == {
        "file": file,
        "entry": "gearbox_cover/gearbox_cover",
        "source": "generated",
    }


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--class-name", "x", "--datasets", "elpv"], "needs --kind and --datasets, or --class-"),
        (["--class-name", "x", "--images"], "--images: needs --datasets"),
        (["--class-name", "...", "--model", "m"], "say what pictures show"),
        (["--class-name", "x", "--model", "m", "--max-tokens", "0"], "--max-tokens 0"),
    ],
)
def test_words_that_cannot_be_made(
    words: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert main(["prompts", "generate", *words]) == 2
    assert message in capsys.readouterr().err
