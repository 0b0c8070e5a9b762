"""Kinds of prompts: what methods bring along is found, used everywhere, and refused if wrong."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import zsad
from tests.prompt_bank.server import serving
from tests.runner.conftest import write_dataset
from zsad import registry
from zsad.cli.main import main
from zsad.errors import RequestError
from zsad.prompt_bank import bank
from zsad.prompt_bank.kinds import PromptKind, Query, TextList, find_kind, image_query_of, kinds
from zsad.types import Category

PLUGINS = Path(__file__).parent / "plugins"
KEY = "sk-a-key-of-the-tests-0123456789"
LIST = TextList("words", 1, 2)


def make(name: str = "k", lists: tuple[TextList, ...] = (LIST,)) -> PromptKind:
    return PromptKind(name, lists, lambda c: [Query(c.key, "words", 1, 0.0)], lambda a, t, c: [a])


@pytest.fixture
def forget(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No test leaves its plug-ins or its bank behind."""
    bank.bank.cache_clear()
    with registry.plugins_forgotten():
        yield
    bank.bank.cache_clear()


def test_the_kinds_of_the_bundled_bank_are_known() -> None:
    folders = {p.name for p in (registry.files("zsad.prompts_cache")).iterdir() if p.is_dir()}
    assert set(kinds()) == folders - {"__pycache__"}
    assert list(kinds()) == sorted(kinds())
    assert find_kind("filo").required == ("anomaly_types",)


def test_every_query_has_a_list_and_every_list_a_query() -> None:
    for kind in kinds().values():
        targets = {q.target for q in kind.queries(Category("d", "k", "metal nut"))}
        assert targets == {known.name for known in kind.lists}
        assert all(1 <= known.least <= known.most for known in kind.lists)


def test_a_config_reads_the_kind_that_its_method_brings() -> None:
    for entry in registry.methods().values():
        kind = entry.resolve().prompt_kind
        brought = registry.load_object(entry.prompt_kind, "kind").name if entry.prompt_kind else ""
        assert kind == brought, entry.name


def test_misspelt_kinds_and_lists_are_refused() -> None:
    with pytest.raises(RequestError, match=r"unknown kind of prompts 'fillo'.*filo"):
        find_kind("fillo")
    with pytest.raises(ValueError, match="'k': give lists of different names"):
        make(lists=(LIST, LIST))
    with pytest.raises(ValueError, match="'k': give lists of different names"):
        make(lists=())


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("absent_module:KIND", r"prompt kind of method 'more': cannot import absent_module:KIND"),
        ("wear.prompts:read", r"prompt_kind wear.prompts:read is a function; name a "),
        ("more.prompts:KIND", r"prompt kind 'wear' is defined twice: by .*config.yaml and by "),
    ],
)
def test_wrong_kinds_are_named(tmp_path: Path, target: str, message: str, forget: None) -> None:
    folder = tmp_path / "more"
    shutil.copytree(PLUGINS / "wear", folder)
    text = (folder / "config.yaml").read_text().replace("name: wear", "name: more")
    (folder / "config.yaml").write_text(text.replace("wear.prompts:KIND", target))
    registry.add_plugins(PLUGINS)
    assert "wear" in kinds()
    registry.add_plugins(tmp_path)
    with pytest.raises(RequestError, match=message):
        kinds()


@pytest.mark.parametrize(
    ("file", "written", "instead", "message"),
    [
        ("config.py", '= "wear"', '= "tear"', "has prompt_kind 'tear', and .* names .* 'wear'"),
        ("config.py", "    prompt_kind", "    #", "has prompt_kind '', and .* names .* 'wear'"),
        ("config.yaml", "prompt_kind:", "# ", "'wear', and .* names a prompt_kind '' .no key"),
    ],
)
def test_config_and_yaml_name_one_kind(
    tmp_path: Path, file: str, written: str, instead: str, message: str, forget: None
) -> None:
    """What identities are made of is what the bank, the questions and the checks know."""
    apart = f"apart_{abs(hash((file, written, instead)))}"  # modules stay known in a process
    shutil.copytree(PLUGINS / "wear", tmp_path / apart)
    for path in (tmp_path / apart).glob("config.*"):
        text = path.read_text().replace("name: wear", f"name: {apart}")
        text = text.replace("wear.config:", f"{apart}.config:")
        path.write_text(text.replace(written, instead) if path.name == file else text)
    registry.add_plugins(PLUGINS)
    registry.add_plugins(tmp_path)
    assert registry.method("wear").resolve().prompt_kind == "wear"
    with pytest.raises(RequestError, match=message):
        registry.method(apart).resolve()


def test_methods_may_share_a_kind(tmp_path: Path, forget: None) -> None:
    shutil.copytree(PLUGINS / "wear", tmp_path / "other")
    config = tmp_path / "other" / "config.yaml"
    config.write_text(config.read_text().replace("name: wear", "name: other"))
    registry.add_plugins(PLUGINS)
    registry.add_plugins(tmp_path)
    assert list(kinds()).count("wear") == 1
    asked = image_query_of(find_kind("wear"))
    assert asked(Category("d", "k", "metal nut")) == "How worn is this metal nut?"
    with pytest.raises(RequestError, match="only the kinds kanoclip, wear ask about images"):
        image_query_of(find_kind("filo"))


def test_a_method_brings_its_own_kind_and_nothing_else_has_to_know(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    forget: None,
) -> None:
    """Asked for and checked, by rules that stand in its folder."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    texts = tmp_path / "texts"
    common = ["--kind", "wear", "--plugins", str(PLUGINS), "--datasets", "elpv"]

    def answer(number: int, body: dict[str, Any]) -> str:
        question = body["messages"][0]["content"]
        return "* Acme" if "makers" in question else f"* Dull Glass {number}* Frayed Edge"

    with serving(answer) as server:
        words = ["prompts", "generate", *common, "--model", "toy", "--base-url", server.url]
        assert main([*words, "--out", str(texts)]) == 0
        assert len(server.seen) == 3
    written = yaml.safe_load((texts / "wear" / "elpv.yaml").read_text())
    held = written["categories"]["solar_cell"]
    assert held["makers"] == ["Acme"]
    assert sorted(held["worn"])[1:] == ["dull glass 1", "frayed edge"]
    assert written["provenance"]["samples"] == {"worn": 2, "makers": 1}

    capfd.readouterr()
    assert main(["prompts", "check", *common, "--out", str(texts), "--json"]) == 0
    (review,) = json.loads(capfd.readouterr().out)["reviews"]
    assert review["counts"] == {"worn": [len(held["worn"])], "makers": [1]}

    held["worn"] = ["a dull solar cell", "frayed edge"]
    (texts / "wear" / "elpv.yaml").write_text(yaml.safe_dump(written))
    bank.bank.cache_clear()
    assert main(["prompts", "check", *common, "--out", str(texts)]) == 3
    assert "solar_cell.worn: names the thing: 'a dull solar cell'" in capfd.readouterr().out


def test_a_run_reads_the_texts_of_a_plug_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forget: None
) -> None:
    data = write_dataset(tmp_path / "parts", ("bolt",), count=2)

    def bench(*worn: str, dry_run: bool = False) -> dict[str, Any]:
        texts = {
            "kind": "wear",
            "dataset": "parts",
            "provenance": {"source": "curated"},
            "categories": {"bolt": {"class_name": "bolt", "worn": list(worn)}},
        }
        path = tmp_path / "texts" / "wear" / "parts.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(texts))
        monkeypatch.setenv("ZSAD_PROMPTS", str(tmp_path / "texts"))
        bank.bank.cache_clear()
        return zsad.bench(
            "wear",
            f"folder:{data}",
            backbone="zsad-tiny",
            device="cpu",
            plugins=PLUGINS,
            results=tmp_path / "results",
            dry_run=dry_run,
        )

    done = bench("dull thread", "frayed edge")
    assert done["failed"] == []
    assert done["cells"][0]["metrics"]["image_auroc"] is not None
    for texts, stored in (
        (("dull thread", "frayed edge"), True),
        (("dull thread", "a dark stain"), False),
    ):
        (cell,) = bench(*texts, dry_run=True)["cells"]
        assert cell["stored"] is stored
