"""Fixtures that many rooms use."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test may reach for a hub

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings

from tests import small_clip
from tests.report import browser as chromium
from zsad import torchvision_compat

torchvision_compat.ensure()  # tests may import torchmetrics or lightning before zsad

# How fast examples are drawn says how busy the machine is, not whether a property holds.
settings.register_profile("zsad", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("zsad")

ROOT = Path(__file__).resolve().parent.parent
PARITY = ROOT / "tests" / "parity"


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of real samples beside the checkout; skips where it is absent."""
    path = ROOT.parent / "shared"
    if not (path / "data").is_dir():
        pytest.skip("the folder of real dataset samples is not beside this checkout")
    return path


@pytest.fixture(scope="session")
def recipe() -> ModuleType:
    """The deterministic weights and inputs of the parity cases."""
    if "parity_recipe" not in sys.modules:
        spec = importlib.util.spec_from_file_location("parity_recipe", PARITY / "recipe.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["parity_recipe"] = module
        spec.loader.exec_module(module)
    return sys.modules["parity_recipe"]


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel, built offline with the hatchling of this environment."""
    out = tmp_path_factory.mktemp("dist")
    done = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), ROOT],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return next(out.glob("zsad-*.whl"))


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[chromium.Browser]:
    """A headless Chromium; skips where none is installed."""
    if chromium.find() is None:
        pytest.skip(chromium.MISSING)
    with chromium.Browser(tmp_path_factory.mktemp("profile")) as running:
        yield running


@pytest.fixture(scope="session")
def weights(recipe: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with the weights of :mod:`tests.small_clip`."""
    return small_clip.write(recipe, tmp_path_factory.mktemp("backbone") / "clip.pt")


@pytest.fixture
def texts_of_c8305d8(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The prompt bank of ALFA as commit c8305d8 had it, for the categories that tests use."""
    from zsad.prompt_bank.bank import bank

    monkeypatch.setenv("ZSAD_PROMPTS", str(ROOT / "tests" / "fixtures" / "c8305d8" / "prompts"))
    bank.cache_clear()
    yield
    bank.cache_clear()


@pytest.fixture(scope="session")
def golden() -> Callable[[str], tuple[dict[str, np.ndarray], dict[str, Any]]]:
    """``golden("encoder_a") -> (arrays, spec)``."""

    def load(name: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        with np.load(PARITY / f"{name}.npz", allow_pickle=False) as z:
            arrays = {k: z[k] for k in z.files}
        return arrays, json.loads(str(arrays["spec_json"]))

    return load


class SessionFixtures:
    """What a fixture of wider scope registers is not known to the modules after the first one.

    Such a fixture is set up before the two fixtures below, which would therefore take what it
    registers for what was known before: for the rest of the session, as another module's name.
    It is a plug-in of its own, since pytest does not ask the hooks of a conftest in a folder about
    fixtures of the session.
    """

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[Any]) -> Iterator[None]:
        from zsad import registry
        from zsad.data import catalog

        if fixturedef.scope in ("session", "package"):
            with catalog.own_forgotten(), registry.plugins_forgotten():
                return (yield)
        return (yield)


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(SessionFixtures(), "zsad-session-fixtures")


@pytest.fixture(scope="module", autouse=True)
def _torch_is_left_as_it_was() -> Iterator[None]:
    """What a run sets of torch it restores: the next one may be on another device."""
    before = _choice_of_algorithms()
    yield
    assert _choice_of_algorithms() == before


def _choice_of_algorithms() -> tuple[bool, bool, bool]:
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.utils.deterministic.fill_uninitialized_memory,
    )


@pytest.fixture(scope="module", autouse=True)
def _own_datasets_of_other_modules_are_forgotten() -> Iterator[None]:
    """Definitions are known by name in a process; test modules use the same short names."""
    from zsad.data import catalog

    with catalog.own_forgotten():
        yield


@pytest.fixture(scope="module", autouse=True)
def _plug_ins_of_other_modules_are_forgotten() -> Iterator[None]:
    """`--methods all` means the methods of zsad, whatever tests ran before in this process."""
    from zsad import registry

    with registry.plugins_forgotten():
        yield
