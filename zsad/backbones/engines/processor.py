"""What is known of the processor and of installed runtimes, without importing either."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
from functools import cache
from pathlib import Path

from zsad.backbones.engines.interface import Facts

CPUINFO = Path("/proc/cpuinfo")


def facts(device: str = "cpu") -> Facts:
    """The facts of this machine; where the system says nothing of its processor, none is taken
    for granted."""
    told = _processor()
    flags = told.get("flags", "").split()
    return Facts(
        device=device,
        vendor=told.get("vendor_id", ""),
        avx512="avx512f" in flags,
        bf16="avx512_bf16" in flags or "amx_bf16" in flags,
        vnni="avx512_vnni" in flags or "avx_vnni" in flags,
        amx="amx_bf16" in flags,
        openvino=version("openvino"),
    )


def name() -> str:
    """What the processor calls itself, for tables and records."""
    return _processor().get("model name") or platform.processor() or platform.machine()


def version(package: str) -> str:
    """The version of an installed package; "": it is not installed."""
    try:
        if importlib.util.find_spec(package) is None:
            return ""
        return importlib.metadata.version(package)
    except (ImportError, ValueError):  # hidden by whoever put None in its place
        return ""


@cache
def _processor() -> dict[str, str]:
    """The first entry of /proc/cpuinfo; {} on other systems."""
    try:
        text = CPUINFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    lines = (line.partition(":") for line in text.split("\n\n")[0].splitlines())
    return {key.strip(): value.strip() for key, _, value in lines}
