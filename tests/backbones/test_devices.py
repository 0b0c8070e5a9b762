"""Where everything runs."""

from __future__ import annotations

import os

import pytest
import torch

from tests.fake_cuda import simulated
from zsad.backbones import devices
from zsad.backbones.device_names import require_device
from zsad.errors import RequestError
from zsad.on_device import algorithms


def test_a_device_is_chosen_or_refused_by_name() -> None:
    assert devices.choose_device("cpu") == torch.device("cpu")
    assert devices.choose_device("auto").type in ("cpu", "cuda", "mps")
    with pytest.raises(RequestError, match="--device cuda:99: not available here"):
        devices.choose_device("cuda:99")
    with pytest.raises(RequestError, match="--device gpu: no device"):
        devices.choose_device("gpu")


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


def test_a_process_of_several_takes_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    with simulated("cuda"):
        assert devices.choose_device("auto") == torch.device("cuda")
        monkeypatch.setenv("LOCAL_RANK", "3")
        assert devices.choose_device("auto") == torch.device("cuda", 3)
        assert devices.choose_device("cuda") == torch.device("cuda", 3)
        assert devices.choose_device("cuda:1") == torch.device("cuda", 1)
        assert devices.choose_device("cpu") == torch.device("cpu")
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"]


def test_a_process_that_shares_a_gpu_plans_with_its_part(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = torch.device("cuda")
    with simulated("cuda"):
        whole = devices.free_memory(gpu)
        devices.share_memory(0.25)
        try:
            assert devices.free_memory(gpu) == whole // 4
        finally:
            devices.share_memory(1.0)
        assert devices.free_memory(gpu) == whole


def test_threads_that_decode(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = torch.device("cuda")
    for cores, wanted in ((1, 1), (2, 1), (6, 5), (64, 8)):
        monkeypatch.setattr(devices, "usable_cores", lambda cores=cores: cores)
        assert devices.decoding_threads("auto", gpu) == wanted
        assert devices.decoding_threads("auto", torch.device("cpu")) == 1
    monkeypatch.setenv("WORLD_SIZE", "8")  # of Lightning, for processes that train together
    assert devices.decoding_threads("auto", gpu) == 7
    assert devices.decoding_threads(3, gpu) == 3
    assert devices.decoding_threads(0, torch.device("cpu")) == 0


def test_scoring_is_deterministic_by_the_switch_on_other_devices_only() -> None:
    with algorithms(deterministic=False):
        for kind, wanted, found in (("cuda", True, False), ("cpu", False, False)):
            with devices.deterministically(wanted, torch.device(kind)):
                assert torch.are_deterministic_algorithms_enabled() == found
        with devices.deterministically(True, torch.device("cpu")):
            assert torch.are_deterministic_algorithms_enabled()
            assert torch.is_deterministic_algorithms_warn_only_enabled()
            assert not torch.utils.deterministic.fill_uninitialized_memory  # a pass over results


def test_what_was_set_of_torch_is_restored_whatever_happens_in_between() -> None:
    memory = torch.utils.deterministic
    with algorithms(deterministic=False):
        filled = memory.fill_uninitialized_memory
        with (
            pytest.raises(ValueError, match="in between"),
            devices.deterministically(True, torch.device("cpu")),
        ):
            raise ValueError("in between")
        assert not torch.are_deterministic_algorithms_enabled()
        assert memory.fill_uninitialized_memory == filled


@pytest.mark.parametrize(
    "name", ["tpu", "meta", "CPU", "cpu:3", "cuda:-1", "cuda:x", "cuda:1000", "auto:0", "a\n", ""]
)
def test_the_name_of_no_device_is_refused_without_torch(name: str) -> None:
    with pytest.raises(RequestError, match="no device; give auto"):
        require_device(name)


@pytest.mark.parametrize("name", ["auto", "cpu", "cuda", "cuda:1", "mps", "xpu:0"])
def test_the_name_of_a_device_is_one(name: str) -> None:
    require_device(name)
