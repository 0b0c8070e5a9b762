"""Where everything runs."""

from __future__ import annotations

import os

import pytest
import torch

from zsad.backbones import devices
from zsad.errors import RequestError


def test_a_device_is_chosen_or_refused_by_name() -> None:
    assert devices.choose_device("cpu") == torch.device("cpu")
    assert devices.choose_device("auto").type in ("cpu", "cuda", "mps")
    for name in ("gpu", "cuda:99", ""):
        with pytest.raises(RequestError, match=f"--device {name}: not available here"):
            devices.choose_device(name)


def test_a_device_is_accounted_for() -> None:
    account = devices.device_account(torch.device("cpu"))
    assert (account["kind"], account["threads"]) == ("cpu", torch.get_num_threads())
    assert account["name"]


def test_a_core_is_to_spare_where_torch_leaves_one(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = torch.get_num_threads()
    assert 1 <= devices.usable_cores() <= (os.cpu_count() or 1)
    for cores, spare in ((threads, False), (threads + 1, True)):
        monkeypatch.setattr(devices, "usable_cores", lambda cores=cores: cores)
        assert devices.core_to_spare(torch.device("cpu")) is spare
    assert devices.core_to_spare(torch.device("meta"))
