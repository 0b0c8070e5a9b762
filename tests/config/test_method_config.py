"""What a config must tell the framework, and what is refused before anything is run."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest

from zsad import config as cfg
from zsad import registry
from zsad.config.method_config import MethodConfig, check_schema


@dataclass(frozen=True)
class Inner:
    depth: int = 1
    later: str = cfg.added("off")


@dataclass(frozen=True)
class Few(MethodConfig):
    """A field may take the place of what the base has for instances, without a default."""

    preset: str
    shots: int
    rate: float
    inner: Inner = field(default_factory=Inner)
    names: str = cfg.added("spoken")
    sizes: tuple[int, ...] = cfg.added(default_factory=lambda: (1, 2))


@dataclass(frozen=True)
class Plain(MethodConfig):
    preset: str = "default"


def test_the_base_adds_no_field_and_no_default() -> None:
    assert [f.name for f in dataclasses.fields(Plain)] == ["preset"]
    few = {f.name: f.default for f in dataclasses.fields(Few)}
    assert few["shots"] is few["rate"] is dataclasses.MISSING
    assert Few("default", 3, 0.5).shots == 3
    plain = Plain()
    assert (plain.shots, plain.prompt_kind, plain.inference_only) == (0, "", ())
    assert (plain.caption_source, plain.caption_all, plain.own_readings()) == ("off", False, {})
    assert cfg.to_dict(plain) == {"preset": "default"}
    with pytest.raises(TypeError, match="shots"):
        Few("default", rate=1.0)  # type: ignore[call-arg]
    for schema in (Plain, Few):
        assert check_schema(schema, {}) is schema


def test_a_misspelt_name_is_refused_when_the_class_is_made() -> None:
    with pytest.raises(
        TypeError, match=r"'inference_onyl' \(did you mean 'inference_only'\?\); a config may set"
    ):

        class First(MethodConfig):
            inference_onyl: ClassVar[tuple[str, ...]] = ("preset",)

    with pytest.raises(TypeError, match=r"'bank_kind'"):

        class Second(MethodConfig):
            bank_kind = "filo"

    with pytest.raises(TypeError, match=r"never asks for 'own_reading' \(did you mean 'own_rea"):

        class Third(MethodConfig):
            def own_reading(self) -> dict[str, Any]:
                return {}

    with pytest.raises(TypeError, match=r"write it as `inference_only: ClassVar\[...\]`"):

        class Fourth(MethodConfig):
            inference_only: tuple[str, ...] = ("preset",)  # type: ignore[misc]

    with pytest.raises(TypeError, match=r"write it as `def caption_source\(self\)`"):

        class Fifth(MethodConfig):
            caption_source: str  # type: ignore[assignment]

    class Allowed(MethodConfig):
        """Functions of one's own, and what is private, are nobody's business."""

        _cache: ClassVar[int] = 3

        def epochs_for(self, dataset: str) -> int:
            return len(dataset)


def made(**names: Any) -> type:
    """A frozen config with these class variables."""
    schema = type("Config", (MethodConfig,), {"__annotations__": {"preset": str, "inner": Inner}})
    for name, value in names.items():
        setattr(schema, name, value)
    return dataclass(frozen=True)(schema)


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        (
            Inner,
            "is not a MethodConfig; write `from zsad.config.method_config import MethodConfig`",
        ),
        (print, "is not a MethodConfig"),
        (type("Bare", (MethodConfig,), {}), "is not a dataclass; write @dataclass"),
        (
            dataclass(type("Loose", (MethodConfig,), {"__annotations__": {"preset": str}})),
            "is not frozen; write @dataclass",
        ),
        (
            dataclass(frozen=True)(type("Empty", (MethodConfig,), {})),
            "has no key 'preset'; write `preset: str`",
        ),
        (
            dataclass(frozen=True)(
                type("Odd", (MethodConfig,), {"__annotations__": {"preset": int}})
            ),
            "key 'preset' must be of type str",
        ),
        (made(inference_only=("presett",)), r"no such key \(did you mean 'preset'\?\)"),
        (made(inference_only=("inner.dept",)), r"'inner.dept', and there is no such key"),
        (made(inference_only=("preset.x",)), "'preset.x', and 'preset' has no keys"),
        (made(inference_only="preset"), "must be a tuple of keys"),
        (made(prompt_kind=None), "prompt_kind=None must be text"),
    ],
)
def test_a_schema_that_cannot_be_asked_is_refused(schema: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_schema(schema, {})
    assert check_schema(made(inference_only=("preset", "inner.depth", "inner")), {})


def test_a_later_key_has_one_default() -> None:
    same = {"names": "spoken", "sizes": [1, 2], "inner": {"later": "off"}}
    assert check_schema(Few, same) is Few
    for other in ({"names": "released"}, {"sizes": [1]}, {"inner": {"later": "on"}}):
        with pytest.raises(ValueError, match="results stored before would no longer be found"):
            check_schema(Few, other)


def test_a_later_key_enters_an_identity_only_where_it_is_set() -> None:
    old = {"preset": "default", "shots": 1, "rate": 0.5, "inner": {"depth": 1}}
    few = Few("default", 1, 0.5)
    assert cfg.identity(few) == old
    assert cfg.set_later(few) == {}
    assert cfg.to_dict(few)["names"] == "spoken"
    set_now = dataclasses.replace(few, names="released", inner=Inner(1, "on"))
    assert cfg.identity(set_now) == {
        **old,
        "names": "released",
        "inner": {"depth": 1, "later": "on"},
    }
    assert cfg.set_later(set_now) == {"names": "released", "inner": {"later": "on"}}
    assert cfg.identity(dataclasses.replace(few, sizes=(3,)))["sizes"] == [3]
    with pytest.raises(TypeError, match="needs a default"):
        cfg.added()


def test_every_config_of_the_house_answers_without_torch() -> None:
    code = (
        "import sys; from zsad import registry; from zsad import config as cfg\n"
        "for e in registry.methods().values():\n"
        "    c = e.resolve(); c.preset, c.shots, c.prompt_kind, c.caption_source\n"
        "    assert cfg.flat(cfg.identity(c)).items() <= cfg.flat(cfg.to_dict(c)).items(), e.name\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    readings = [n for n, e in registry.methods().items() if e.resolve().own_readings()]
    assert readings == ["alfa", "kanoclip"]


def own_defaults(config: Any, where: str = "") -> dict[str, tuple[object, object]]:
    """What the classes of a method's own module have for a default, and what ``config`` holds, by
    key.  A table by dataset has its entries in config.yaml alone."""
    found: dict[str, tuple[object, object]] = {}
    for f in dataclasses.fields(config):
        held = getattr(config, f.name)
        if dataclasses.is_dataclass(held):
            if type(held).__module__ == type(config).__module__:
                found |= own_defaults(held, f"{where}{f.name}.")
            continue
        default = f.default if f.default_factory is dataclasses.MISSING else f.default_factory()
        if default is not dataclasses.MISSING and not isinstance(held, dict):
            found[where + f.name] = default, held
    return found


@pytest.mark.parametrize("method", sorted(registry.methods()))
def test_a_default_in_code_is_that_of_config_yaml(method: str) -> None:
    """Numbers have one owner, config.yaml; a class that repeats one says the same."""
    found = own_defaults(registry.method(method).resolve())
    assert {key: both for key, both in found.items() if both[0] != both[1]} == {}


def test_what_counts_as_a_default_of_a_method_s_own() -> None:
    few = Few("default", 1, 0.5, inner=Inner(depth=2))
    assert own_defaults(few) == {
        "inner.depth": (1, 2),
        "inner.later": ("off", "off"),
        "names": ("spoken", "spoken"),
        "sizes": ((1, 2), (1, 2)),
    }
