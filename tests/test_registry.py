"""Finding methods without importing them."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from zsad import registry
from zsad.cli.main import main
from zsad.errors import RequestError

GOOD = """
name: {name}
title: Mean colour
summary: Scores an image by its distance from grey
paper: none
group: baselines
trained: {trained}
class: "{name}_impl:Method"
schema: "{name}_impl:Config"
config: {{preset: default, rate: 1e-5, inner: {{depth: 2}}}}
presets: {{paper: {{rate: 0.5}}}}
"""
CODE = """
from dataclasses import dataclass
from typing import ClassVar
from zsad.config.method_config import MethodConfig
@dataclass(frozen=True)
class Inner:
    depth: int = 1
    width: int = 8
@dataclass(frozen=True)
class Config(MethodConfig):
    preset: str = "default"
    rate: float = 0.0
    inner: Inner = Inner()
    def __post_init__(self):
        if self.rate < 0:
            raise ValueError("rate must not be negative")
class Method:
    pass
"""


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A plug-in folder with one working method, ``greyness``; the registry is as before after."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    add(tmp_path, "greyness")
    with registry.plugins_forgotten():
        yield tmp_path
    sys.modules.pop("greyness_impl", None)


def add(folder: Path, name: str, text: str | None = None, trained: str = "false") -> Path:
    (folder / name).mkdir()
    (folder / f"{name}_impl.py").write_text(CODE)
    path = folder / name / "config.yaml"
    path.write_text(text if text is not None else GOOD.format(name=name, trained=trained))
    return path


def test_the_files_of_a_plugin_are_known_by_content(plugins: Path) -> None:
    registry.add_plugins(plugins)
    entry = registry.method("greyness")
    first = entry.source_digest()
    module = plugins / "greyness_impl.py"
    module.write_text(f"{CODE}\n# changed\n")
    assert first != entry.source_digest() != ""
    entry.load()
    assert entry.imported_digest == entry.source_digest()
    module.write_text(CODE)
    with pytest.raises(RequestError, match="files have changed since they were imported; start"):
        entry.source_digest()
    assert registry.method("clip").source_digest() == ""


def test_a_plugin_is_found_and_not_imported(plugins: Path) -> None:
    before = registry.list_methods()
    registry.add_plugins(plugins)
    registry.add_plugins(str(plugins))  # twice is once
    assert registry.list_methods() == sorted([*before, "greyness"])
    entry = registry.method("greyness")
    assert (entry.title, entry.group, entry.trained) == ("Mean colour", "baselines", False)
    assert entry.origin == str(plugins / "greyness" / "config.yaml")
    assert "greyness_impl" not in sys.modules
    assert entry.load().__name__ == "Method"


def test_layers_lie_above_preset_above_defaults(plugins: Path) -> None:
    registry.add_plugins(plugins)
    entry = registry.method("greyness")
    assert (entry.resolve().rate, entry.resolve().inner.depth) == (1e-5, 2)
    chosen = entry.resolve(("file", {"preset": "paper", "inner": {"depth": 3}}))
    assert (chosen.preset, chosen.rate, chosen.inner.depth, chosen.inner.width) == (
        "paper",
        0.5,
        3,
        8,
    )
    both = entry.resolve(
        ("file", {"rate": 0.25, "preset": "paper"}), ("line", {"inner": {"width": 4}})
    )
    assert (both.rate, both.inner.depth, both.inner.width) == (0.25, 2, 4)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rat": 1}, r"unknown key 'greyness\.rat' \(line\) \(did you mean 'rate'\?\)"),
        ({"inner": {"dept": 1}}, r"unknown key 'greyness\.inner\.dept' \(line\)"),
        ({"rate": "x"}, r"greyness\.rate='x' \(line\) must be a number"),
        (
            {"preset": "papr"},
            r"unknown preset of method greyness 'papr' \(did you mean 'paper'\?\)",
        ),
        ({"rate": -1}, r"greyness: rate must not be negative \(.*line\)"),
    ],
)
def test_a_wrong_override_names_its_layer(
    plugins: Path, values: dict[str, object], message: str
) -> None:
    registry.add_plugins(plugins)
    with pytest.raises(RequestError, match=message):
        registry.method("greyness").resolve(("file", {"rate": 0.5}), ("line", values))


def test_a_method_defined_twice_names_both_places(plugins: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    second = add(other, "greyness")
    registry.add_plugins(plugins)
    registry.add_plugins(other)
    with pytest.raises(RequestError, match="'greyness' is defined twice") as caught:
        registry.methods()
    assert str(plugins / "greyness") in str(caught.value)
    assert str(second) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: [", "not valid YAML"),
        ("name: broken", "key 'title' is missing"),
        (GOOD.format(name="broken", trained="false") + "prests: {}", "did you mean 'presets'"),
        (GOOD.format(name="broken", trained="false").replace("baselines", "mine"), "group='mine'"),
        (
            GOOD.format(name="broken", trained="false") + "revision: 0",
            "revision 0 must be a whole number from 1 up",
        ),
        *(
            (
                GOOD.format(name="broken", trained="false") + f"revision: {wrong}",
                "must be a whole number",
            )
            for wrong in ("two", "1.5", "true")
        ),
    ],
)
def test_a_broken_definition_is_one_line_that_names_the_file(
    plugins: Path, text: str, message: str
) -> None:
    path = add(plugins, "broken", text)
    registry.add_plugins(plugins)
    with pytest.raises(RequestError, match=message) as caught:
        registry.methods()
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_class_is_an_error_when_asked_for(plugins: Path) -> None:
    text = GOOD.format(name="hollow", trained="false").replace(":Method", ":Methd")
    add(plugins, "hollow", text)
    registry.add_plugins(plugins)
    with pytest.raises(
        RequestError, match="class of method 'hollow': cannot import hollow_impl:Methd"
    ):
        registry.method("hollow").load()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("(MethodConfig):\n    preset", ":\n    preset", "is not a MethodConfig; write `from zsad"),
        ("    preset: str", "    inference_onyl = ()\n    preset: str", "'inference_onyl'"),
        (
            "    preset: str",
            "    inference_only: ClassVar[tuple] = ('rat',)\n    preset: str",
            r"'rat', and there is no such key \(did you mean 'rate'\?\)",
        ),
    ],
)
def test_a_config_that_cannot_be_asked_is_one_line_that_names_the_file(
    plugins: Path, old: str, new: str, message: str
) -> None:
    code = (plugins / "greyness_impl.py").read_text()
    (plugins / "greyness_impl.py").write_text(code.replace(old, new))
    registry.add_plugins(plugins)
    with pytest.raises(RequestError, match=message) as caught:
        registry.method("greyness").resolve()
    assert str(plugins / "greyness" / "config.yaml") in str(caught.value)
    assert "greyness_impl:Config" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_revision_is_one_unless_it_was_raised(plugins: Path) -> None:
    add(plugins, "corrected", GOOD.format(name="corrected", trained="false") + "revision: 2")
    registry.add_plugins(plugins)
    assert registry.method("greyness").revision == 1
    assert registry.method("corrected").revision == 2


def test_selection_by_name_group_and_wildcard(plugins: Path) -> None:
    add(plugins, "learned", trained="true")
    registry.add_plugins(plugins)

    def chosen(names: str | list[str]) -> list[str]:
        return [e.name for e in registry.select_methods(names)]

    assert set(chosen("all")) == set(registry.list_methods())
    assert chosen("learned, greyness,learned,") == ["learned", "greyness"]
    assert chosen(["grey*"]) == ["greyness"]
    assert "learned" in chosen("trained")
    assert "learned" not in chosen("training-free")
    assert (
        set(chosen("trained,training-free"))
        == set(chosen("papers,baselines"))
        == set(chosen("all"))
    )
    with pytest.raises(
        RequestError, match=r"unknown method 'greynes' \(did you mean 'greyness'\?\)"
    ):
        chosen("greynes")
    with pytest.raises(RequestError, match=r"unknown method 'x\*'"):
        chosen("x*")
    with pytest.raises(RequestError, match="no method chosen"):
        chosen(" , ")


def test_a_plugin_folder_must_exist(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no such folder"):
        registry.add_plugins(tmp_path / "absent")


def installed(folder: Path, dist: str, method: str, package: str) -> None:
    """The metadata that pip leaves of a distribution with a method."""
    info = folder / f"{dist.replace('-', '_')}-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {dist}\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(f"[zsad.methods]\n{method} = {package}\n")


def test_entry_points_register_packages(plugins: Path) -> None:
    (plugins / "greyness" / "__init__.py").touch()
    sys.path.append(str(plugins))
    installed(plugins, "zsad-grey", "greyness", "greyness")
    registry.methods.cache_clear()
    assert "greyness" in registry.methods()
    assert registry.broken_plugins() == {}


@pytest.mark.parametrize(
    ("package", "files", "cause"),
    [
        ("absent_package", {}, "no package absent_package"),
        ("gone.package", {}, "No module named 'gone'"),
        ("licensed.inner", {"licensed/__init__.py": "raise OSError('no licence')"}, "no licence"),
        ("odd", {"odd/__init__.py": "def", "odd/config.yaml": "name: ["}, "not valid YAML"),
        ("bare", {"bare/__init__.py": ""}, "bare/config.yaml"),
        (
            "halved",
            {
                "halved/__init__.py": "",
                "halved/config.yaml": GOOD.format(name="halved", trained="false"),
                "halved_impl.py": "import a_package_that_is_gone",
            },
            "No module named 'a_package_that_is_gone'",
        ),
        (
            "second",
            {
                "second/__init__.py": "",
                "second/config.yaml": GOOD.format(name="winclip", trained="false").replace(
                    "winclip_impl", "greyness_impl"
                ),
            },
            "method 'winclip' is defined twice",
        ),
    ],
)
def test_a_broken_plugin_is_a_warning_that_names_its_distribution(
    plugins: Path,
    package: str,
    files: dict[str, str],
    cause: str,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, text in files.items():
        (plugins / name).parent.mkdir(exist_ok=True)
        (plugins / name).write_text(text)
    sys.path.append(str(plugins))
    importlib.invalidate_caches()  # a folder may be looked at twice within one tick of its clock
    installed(plugins, "zsad-hollow", "hollow", package)
    registry.methods.cache_clear()
    assert "winclip" in registry.methods()
    (line,) = registry.broken_plugins().values()
    assert line.startswith("plug-in zsad-hollow 1.2 is left out: ")
    assert cause in line
    assert [r.getMessage() for r in caplog.records] == [line]
    assert main(["list", "methods"]) == 0  # and every other command
    assert main(["show", "clip"]) == 0
    capsys.readouterr()
    assert main(["show", "hollow"]) == 2
    assert line in capsys.readouterr().err
    with pytest.raises(RequestError, match=r"method 'hollow': plug-in zsad-hollow 1\.2"):
        registry.select_methods("clip,hollow")
    for name in ("licensed", "odd", "bare", "halved", "halved_impl", "second"):
        sys.modules.pop(name, None)


def test_a_plugin_says_that_it_reads_no_text(plugins: Path) -> None:
    add(plugins, "seeing", GOOD.format(name="seeing", trained="false") + "reads_text: false")
    registry.add_plugins(plugins)
    assert registry.method("greyness").reads_text
    assert not registry.method("seeing").reads_text
    request = ["bench", "--datasets", "synthetic", "--backbone", "dinov2-vit-s-14", "--dry-run"]
    assert main([*request, "--methods", "greyness"]) == 2
    assert main([*request, "--methods", "seeing", "backbone.weights=random"]) == 0


def test_every_builtin_method_resolves_in_every_preset() -> None:
    registry.methods.cache_clear()
    for entry in registry.methods().values():
        assert Path(entry.origin).parent.name == entry.name
        for preset in ("default", *entry.presets):
            assert entry.resolve(("test", {"preset": preset})).preset == preset


def test_every_benchmark_file_has_a_unique_stem() -> None:
    assert registry.list_datasets() == sorted(set(registry.list_datasets()))
    assert registry.list_protocols() == sorted(set(registry.list_protocols()))
