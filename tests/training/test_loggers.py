"""Lightning's loggers by name and class path: what they are given, and what is refused."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import zsad
from zsad.errors import RequestError
from zsad.torchvision_compat import lightning
from zsad.training.loggers import log_row, make_loggers, require_loggers


class Kept(lightning.pytorch.loggers.Logger):
    """Keeps what it is told."""

    def __init__(self, save_dir: str, name: str = "?", tags: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.folder, self._name, self.tags = save_dir, name, tags
        self.rows: list[tuple[int | None, dict[str, float]]] = []

    name = property(lambda self: self._name)
    version = property(lambda self: "0")

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        if metrics.get("prompts/total", 0) > 5:
            raise RuntimeError("the server is gone")
        self.rows.append((step, metrics))

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        pass


class Demanding(Kept):
    def __init__(self, project: str) -> None:
        super().__init__(project)


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of the user's that holds loggers."""
    own = ModuleType("zsad_test_loggers")
    own.Kept, own.Demanding, own.nothing = Kept, Demanding, 3  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, own.__name__, own)
    return own.__name__


def test_names_and_class_paths_become_loggers(module: str, tmp_path: Path) -> None:
    folder = tmp_path / "filo-1"
    csv, own = make_loggers(f"csv, {module}.Kept", folder)
    assert isinstance(csv, lightning.pytorch.loggers.CSVLogger)
    assert isinstance(own, Kept)
    assert (own.folder, own.name, own.tags) == (str(folder), "filo-1", ())
    (colon,) = make_loggers(f"{module}:Kept", folder)
    assert isinstance(colon, Kept)
    assert make_loggers("none", folder) == []
    assert make_loggers("auto,csv", folder)[0].name == ""


def test_rows_reach_them_and_one_that_fails_is_left_out(
    module: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (own,) = make_loggers(f"{module}.Kept", tmp_path)
    assert isinstance(own, Kept)
    assert log_row([own], {"phase": "prompts", "total": 0.5, "epoch": 1}, 1) == [own]
    assert own.rows == [(1, {"prompts/total": 0.5, "prompts/epoch": 1.0})]
    assert log_row([own], {"phase": "prompts", "total": 9.0}, 2) == []
    assert "logger Kept: left out (RuntimeError: the server is gone)" in caplog.text


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("absent_module_x.Logger", "cannot import absent_module_x (ModuleNotFoundError"),
        ("{}.Ketp", "has no Ketp (did you mean 'Kept'?)"),
        ("{}.nothing", "is not a lightning.pytorch.loggers.Logger"),
        ("pathlib.Path", "is not a lightning.pytorch.loggers.Logger"),
    ],
)
def test_what_is_no_logger_is_refused_before_anything_runs(
    module: str, path: str, message: str
) -> None:
    with pytest.raises(RequestError) as caught:
        require_loggers(path.format(module))
    assert str(caught.value).startswith(f"--logger {path.format(module)}: ")
    assert message in str(caught.value)


def test_a_logger_that_does_not_start_is_one_line(module: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"Demanding: does not start \(TypeError: .*project"):
        make_loggers(f"{module}.Demanding", tmp_path)


def test_train_refuses_it_and_leaves_nothing(tmp_path: Path) -> None:
    results = tmp_path / "results"
    with pytest.raises(RequestError, match="cannot import absent_module_x"):
        zsad.train(
            "filo",
            "synthetic",
            logger="absent_module_x.Logger",
            backbone="zsad-tiny",
            results=results,
            limit=1,
        )
    assert not results.exists()


def test_tensorboard_without_its_package_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(RequestError, match="pip install tensorboard"):
        require_loggers("tensorboard")
