"""What files of weights wrap around their tensors, taken off and told."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from zsad.errors import counted, few

# What training scripts put a state dict into; what stands beside it there is no weight.
WRAPPERS = ("state_dict", "model_state_dict", "model")
PREFIX = "module."  # of torch's wrappers for several devices
SHOWN = 5  # names that a report lists


def opened(state: Any) -> tuple[Any, list[str]]:
    """Return a loaded file without its wrappers and prefixes, and a report of what was taken off.

    ``state``: tensors in plain containers, as loaded.  Dictionaries in it are looked into.
    """
    report: list[str] = []
    looked = True
    while looked and isinstance(state, Mapping):
        looked = False
        for wrapper in WRAPPERS:
            if isinstance(state.get(wrapper), Mapping):
                beside = [str(key) for key in state if key != wrapper]
                ignored = f"; ignored beside it: {listed(beside)}" if beside else ""
                report.append(f"unwrapped from '{wrapper}'{ignored}")
                state, looked = state[wrapper], True
                break
    state, count = _without_prefix(state)
    if count:
        report.append(f"prefix '{PREFIX}' taken off {counted(count, 'name')}")
    return state, report


def _without_prefix(state: Any) -> tuple[Any, int]:
    if not isinstance(state, Mapping):
        return state, 0
    found: dict[Any, Any] = {}
    count = 0
    for key, value in state.items():
        inner, more = _without_prefix(value)
        name = key
        while isinstance(name, str) and name.startswith(PREFIX):
            name = name.removeprefix(PREFIX)
        if name in found or (name != key and name in state):  # both are there: keep them apart
            name = key
        found[name] = inner
        count += more + (name != key)
    return (found, count) if count else (state, 0)


def listed(names: Iterable[str]) -> str:
    """Names for a report: the first few, and how many more."""
    return few(sorted(names), SHOWN)


def ignored_note(names: Iterable[str]) -> list[str]:
    """The line of a report about entries that the method has no use for; none for none."""
    ordered = sorted(names)
    return (
        [f"ignored {counted(len(ordered), 'further entry', 'further entries')}: {listed(ordered)}"]
        if ordered
        else []
    )
