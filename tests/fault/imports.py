"""Everything that ``zsad bench`` and ``zsad train`` import, for the server of processes."""

import pandas
import pyarrow.parquet

import zsad.cli.main
import zsad.cli.predict
import zsad.runner.launch
import zsad.runner.training
import zsad.training
from zsad import backbones, registry

METHODS = ("clip", "winclip", "anomalyclip")  # that the tests of faults run

for _name in METHODS:
    registry.method(_name).load()

__all__ = ["METHODS", "backbones", "pandas", "pyarrow", "zsad"]
