"""The protocol alfa-ablation: every row is a valid ALFA, and each differs from the others."""

from __future__ import annotations

import json

from zsad import registry
from zsad.config import to_dict
from zsad.protocols import load_protocol

TABLE_2 = [
    "one class",
    "template",
    "template + LLM",
    "template + LLM + S_c",
    "template + LLM + S_c + aligner",
]


def test_rows_resolve_and_differ() -> None:
    protocol = load_protocol("alfa-ablation")
    entry = registry.method("alfa")
    rows = [row for row in protocol.rows if row.method == "alfa"]
    configs = [entry.resolve((row.label, row.overrides)) for row in rows]
    assert len({json.dumps(to_dict(c)) for c in configs}) == len(configs)


def test_table_2_switches_one_component_on_per_row() -> None:
    rows = {row.label: row for row in load_protocol("alfa-ablation").rows}
    entry = registry.method("alfa")
    configs = [entry.resolve((label, rows[label].overrides)) for label in TABLE_2]
    switches = [
        (c.prompts.labels == "both", c.llm.enabled, c.context.enabled, c.aligner.enabled)
        for c in configs
    ]
    assert switches == [tuple(i > j for j in range(4)) for i in range(5)]
    assert configs[-1] == entry.resolve()
