"""``zsad list`` and ``zsad show``: what there is, and the details of one thing.  No torch."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from zsad import config as cfg
from zsad import registry
from zsad.cli import options
from zsad.cli.cite import bibtex, own
from zsad.cli.output import print_json, print_table, say, say_document, tell
from zsad.config.method_config import as_written
from zsad.errors import RequestError, unknown


def add(verbs: Any) -> None:
    """Register both verbs."""
    lister = options.verb(verbs, "list", run_list, "List methods, datasets, backbones, protocols.")
    lister.add_argument("what", choices=sorted(LISTS), metavar="|".join(sorted(LISTS)))
    options.plugins(lister)
    options.as_json(lister)
    options.done(lister)
    shower = options.verb(
        verbs,
        "show",
        run_show,
        "Show a method (its config with origins), dataset, backbone or protocol.",
        takes="overrides",
    )
    shower.add_argument("name", metavar="NAME")
    shower.add_argument("--cite", action="store_true", help="BibTeX of its paper, and of zsad")
    options.plugins(shower)
    options.as_json(shower)
    options.done(shower)


# -------------------------------------------------------------------------------- list
def methods_list() -> list[dict[str, Any]]:
    """One row per method."""
    return [
        {
            "name": e.name,
            "group": e.group,
            "training": "trained" if e.trained else "none",
            "text": e.reads_text,
            "presets": ", ".join(["default", *(p for p in e.presets if p != "default")]),
            "summary": e.summary,
        }
        for e in registry.methods().values()
    ]


def datasets_list() -> list[dict[str, Any]]:
    """One row per dataset, in the order of tables."""
    from zsad.data.catalog import load_spec

    specs = sorted(
        (load_spec(n) for n in registry.list_datasets()), key=lambda s: (s.order, s.name)
    )
    return [
        {
            "name": s.name,
            "title": s.title,
            "domain": s.domain,
            "categories": sum(c.group == "test" for c in s.categories.values()),
            "levels": ", ".join(s.levels),
            "licence": s.licence,
        }
        for s in specs
    ]


def backbones_list() -> list[dict[str, Any]]:
    """One row per registered backbone, and per model of open_clip that can be used by its name."""
    from zsad.backbones.specs import spec, specs, usable_open_clip_models

    found = [*specs().values(), *map(spec, usable_open_clip_models())]
    return [
        {"name": s.name, "title": s.title, "text": s.reads_text, "summary": s.summary}
        for s in found
    ]


def protocols_list() -> list[dict[str, Any]]:
    """One row per protocol."""
    from zsad.protocols import load_protocol

    return [
        {"name": name, "title": load_protocol(name).title} for name in registry.list_protocols()
    ]


LISTS: dict[str, Callable[[], list[dict[str, Any]]]] = {
    "methods": methods_list,
    "datasets": datasets_list,
    "backbones": backbones_list,
    "protocols": protocols_list,
}


def run_list(args: argparse.Namespace) -> int:
    """Print one kind of thing."""
    if args.plugins:
        registry.add_plugins(args.plugins)
    rows = LISTS[args.what]()
    shown = [{k: _word(v) for k, v in row.items()} for row in rows]
    if args.json:
        print_json(rows)
    elif rows:
        print_table(list(rows[0]), [list(r.values()) for r in shown])
    if args.what == "backbones" and not args.json:
        tell(_of_open_clip())
    return 0


def _word(value: Any) -> Any:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else value


def _of_open_clip() -> str:
    """How many of open_clip's models can be used, and how their weights are chosen."""
    from zsad.backbones.specs import open_clip_models, usable_open_clip_models

    usable, every = len(usable_open_clip_models()), len(open_clip_models())
    return (
        f"{usable} of open_clip's {every} models are of CLIP's form; NAME/TAG chooses their "
        f"weights (ViT-B-16/openai). The other {every - usable} are refused."
    )


# -------------------------------------------------------------------------------- show
def run_show(args: argparse.Namespace) -> int:
    """Print everything about one thing."""
    if args.plugins:
        registry.add_plugins(args.plugins)
    found = describe(args.name, args.overrides)
    if args.cite:
        return _cite(args.name, found, args.json)
    if args.json:
        print_json(found)
        return 0
    table = found.pop("config", None)
    _print_tree(found)
    if table is not None:
        say("config:")
        print_table(
            ["key", "value", "from"], [[k, e["value"], e["origin"]] for k, e in table.items()]
        )
    return 0


def _cite(name: str, found: Mapping[str, Any], as_json: bool) -> int:
    line = str(found.get("paper") or found.get("citation") or "")
    if not line or line == "none":
        raise RequestError(f"--cite: no paper is named for {found['kind']} {name}")
    authors = registry.method(name).authors if found["kind"] == "method" else ()
    entries = [*bibtex(name, line, authors), own()]
    if as_json:
        print_json({"name": name, "paper": line, "bibtex": entries})
    else:
        say_document("\n\n".join(entries))
    return 0


def describe(name: str, overrides: list[str]) -> dict[str, Any]:
    """Everything about a method, dataset, backbone or protocol, JSON-ready.

    Raises :class:`RequestError` with the nearest name of any kind.
    """
    if name in registry.methods() or name in registry.broken_plugins():
        return _describe_method(name, overrides)
    if overrides:
        raise RequestError(f"'{overrides[0]}': only a method takes overrides, not '{name}'")
    from zsad.backbones.specs import specs
    from zsad.data.catalog import is_own, load_spec

    if name in registry.list_datasets() or is_own(name):
        return {"kind": "dataset", **_plain(load_spec(name))}
    if name in specs():
        return {"kind": "backbone", **_plain(specs()[name])}
    if name in registry.list_protocols():
        from zsad.protocols import load_protocol

        return {"kind": "protocol", **_plain(load_protocol(name))}
    known = [
        *registry.list_methods(),
        *registry.list_datasets(),
        *registry.list_protocols(),
        *specs(),
    ]
    raise unknown("name", name, dict.fromkeys(known), "see `zsad list methods`")


def _describe_method(name: str, overrides: list[str]) -> dict[str, Any]:
    entry = registry.method(name)
    given = cfg.parse_dotlist(overrides)
    for key in given:
        if key != name:
            raise RequestError(f"'{key}' does not belong to method {name}; write {name}.KEY=VALUE")
    line = given.get(name) or {}
    if not isinstance(line, Mapping):
        raise RequestError(f"'{name}={line}' sets no key; write {name}.KEY=VALUE")
    found = entry.resolved(("the command line", line))
    return {
        "kind": "method",
        "name": entry.name,
        "title": entry.title,
        "summary": entry.summary,
        "paper": entry.paper,
        "group": entry.group,
        "trained": entry.trained,
        "transductive": entry.transductive,
        "revision": entry.revision,
        "backbones": list(entry.backbones) or "any",
        "presets": [
            f"{p} ({entry.preset_titles[p]})" if p in entry.preset_titles else p
            for p in ["default", *(p for p in entry.presets if p != "default")]
        ],
        "notes": list(entry.notes),
        "defined in": entry.origin,
        "config": {
            key: {"value": as_written(key, value), "origin": _origin(entry, found.origins[key])}
            for key, value in cfg.flat(cfg.to_dict(found.value)).items()
        },
    }


def _origin(entry: registry.MethodEntry, name: str) -> str:
    """The name of a layer, without the path of the method's own file."""
    return "config.yaml" if name == entry.origin else name.removeprefix(f"{entry.origin}, ")


def _plain(value: Any) -> dict[str, Any]:
    """A dataclass as JSON-ready mapping without its empty entries."""
    return {k: v for k, v in dataclasses.asdict(value).items() if v not in (None, "", (), {}, [])}


def _print_tree(value: Any, indent: str = "") -> None:
    for key, item in value.items():
        if isinstance(item, Mapping) and item:
            say(f"{indent}{key}:")
            _print_tree(item, indent + "  ")
        elif isinstance(item, (list, tuple)) and item and isinstance(item[0], Mapping):
            say(f"{indent}{key}:")
            for entry in item:
                _print_tree(entry, indent + "  - ")
        elif isinstance(item, (list, tuple)):
            say(f"{indent}{key}: {', '.join(map(str, item))}")
        else:
            say(f"{indent}{key}: {item}")
