"""The place where faults happen."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from tests.fault.place import Place
from tests.fault.process import Done, zsad


@pytest.fixture(scope="session")
def place(recipe: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Shared and never changed."""
    return Place.make(tmp_path_factory.mktemp("place"), recipe)


@pytest.fixture
def own_place(recipe: ModuleType, tmp_path: Path) -> Place:
    """One that a test may spoil."""
    return Place.make(tmp_path / "own", recipe)


@pytest.fixture(scope="session")
def whole(place: Place, tmp_path_factory: pytest.TempPathFactory) -> Done:
    """``zsad bench`` that nothing disturbs."""
    results = tmp_path_factory.mktemp("whole") / "results"
    return zsad(*place.bench(results), watch=results)
