"""What the server may be started with, and what a client may choose."""

from __future__ import annotations

from pathlib import Path

import pytest

from zsad.app.settings import AppSettings, Choice, folder_of
from zsad.cli.main import main
from zsad.errors import RequestError


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"host": "0.0.0.0"}, "others can reach it, so it needs a token; set ZSAD_APP_TOKEN"),
        ({"host": "0.0.0.0", "token": "short"}, "at least 16 characters"),
        ({"token": "0123456789;HttpOnly"}, "letters and digits alone"),
        ({"method": "wincilp"}, "unknown method 'wincilp'"),
        ({"backbone": "zsad-tyni"}, "'zsad-tyni'"),
    ],
)
def test_what_cannot_be_meant_is_refused(words: dict[str, str], said: str) -> None:
    with pytest.raises(RequestError, match=said):
        AppSettings(**{"method": "winclip", "backbone": "zsad-tiny", **words})  # type: ignore[arg-type]


def test_files_of_the_command_line_belong_to_what_it_names() -> None:
    settings = AppSettings(
        "winclip", "zsad-tiny", weights="clip.pt", preset="released", overrides=["shots=2"]
    )
    own, other = Choice("winclip", "zsad-tiny"), Choice("clip", "vit-l-14-336")
    assert settings.keywords(own)["weights"] == "clip.pt"
    assert settings.keywords(own)["preset"] == "released"
    assert settings.own_overrides(own) == ["shots=2"]
    assert settings.keywords(other)["weights"] is settings.keywords(other)["preset"] is None
    assert settings.own_overrides(other) is None


def test_a_client_cannot_name_a_file_as_backbone() -> None:
    settings = AppSettings("winclip", "zsad-tiny")
    with pytest.raises(RequestError, match="unknown backbone 'file'"):
        settings.check(Choice("winclip", "file"))
    with pytest.raises(RequestError, match="unknown backbone '/etc/passwd'"):
        settings.check(Choice("winclip", "/etc/passwd"))


def test_a_folder_that_holds_something_is_not_taken(tmp_path: Path) -> None:
    assert folder_of(None, tmp_path) == tmp_path
    assert folder_of(str(tmp_path / "new"), tmp_path).is_dir()
    (tmp_path / "mine").write_text("x")
    with pytest.raises(RequestError, match="is not empty"):
        folder_of(str(tmp_path), tmp_path)


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--host", "0.0.0.0"], "needs a token"),
        (["--token", "short"], "--token (ZSAD_APP_TOKEN): give at least 16 characters"),
        (["--checkpoint", "x.safetensors"], "--checkpoint: needs --method NAME"),
        (["--backbone", "nope"], "'nope'"),
    ],
)
def test_the_command_says_what_is_wrong(
    argv: list[str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ZSAD_APP_TOKEN", raising=False)
    assert main(["app", *argv]) == 2
    assert said in capsys.readouterr().err
