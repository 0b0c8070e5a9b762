"""One of several processes that share an evaluation: ``process.py FOLDER RANK WORLD``.

FOLDER/shares.pt holds cases, each of one batch per process (None: no data); results go to
FOLDER/<case>-<mode>-<rank>.json.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

import torch

from zsad.metrics import CategoryMetrics, spec


def main(folder: Path, rank: int, world: int) -> None:
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder / 'rendezvous'}", rank=rank, world_size=world
    )
    for case, shares in enumerate(torch.load(folder / "shares.pt", weights_only=True)):
        for mode in ("binned", "exact"):
            metrics = CategoryMetrics(mode, names=list(spec.METRICS))
            if shares[rank] is not None:
                metrics.update(*shares[rank])
            for _ in range(2):  # the second time from the state that gathering left behind
                result = metrics.compute()
            (folder / f"{case}-{mode}-{rank}.json").write_text(json.dumps(asdict(result)))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
