"""The app as programs use it, over real connections."""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import zsad
from tests.app.conftest import EVIL, Answer, Running, picture
from zsad.inference.loaded_method import LoadedMethod

CLASS = ("class_name", "metal nut")


def upload(path: Path, name: str = "", field: str = "pictures") -> tuple[str, tuple[str, bytes]]:
    return field, (name or path.name, path.read_bytes())


@pytest.fixture
def part(tmp_path: Path) -> Path:
    return picture(tmp_path / "part.png")


@pytest.fixture(scope="module")
def alone() -> LoadedMethod:
    """The method of the app, without the app."""
    return zsad.load_method("winclip", backbone="zsad-tiny", device="cpu")


def test_it_says_what_predict_says(app: Running, part: Path, alone: LoadedMethod) -> None:
    answer = app.post("/predict", CLASS, upload(part))
    assert answer.status == 200
    (said,) = answer.plain["predictions"]
    (own,) = alone.predict(part, "metal nut")
    expected = json.loads(json.dumps(own.to_dict()))
    assert said["sha256"] == hashlib.sha256(part.read_bytes()).hexdigest()
    for key in ("image_score", "anomalous", "regions", "thresholds", "explanations", "marked"):
        assert said[key] == expected[key]
    assert said["path"] == "part.png"
    assert "page" not in answer.plain
    assert not list(app.folder.rglob("part*"))  # nothing is kept that nobody asked for


def test_one_file_is_answered_with_its_line(app: Running, part: Path) -> None:
    (said,) = app.post("/predict", CLASS, upload(part)).plain["predictions"]
    alone = app.post("/predict", CLASS, upload(part, field="file"))
    assert alone.status == 200
    assert alone.body.count(b"\n") == 0
    timeless = {k: v for k, v in alone.plain.items() if k != "made_by"}
    assert timeless == {k: v for k, v in said.items() if k != "made_by"}
    both = app.post("/predict", CLASS, upload(part), upload(part, field="file"))
    assert (both.status, "file: is scored alone" in both.plain["error"]) == (400, True)


def test_its_addresses_can_be_read(app: Running) -> None:
    page = app.ask("/docs")
    text = page.body.decode()
    assert page.status == 200
    assert "POST /predict" in text
    assert "what they show: &#x27;metal nut&#x27;" in text
    assert "http" not in text.replace("http-equiv", "")  # nothing comes from elsewhere


def test_it_lists_methods_and_says_that_it_is_well(app: Running) -> None:
    listed = app.ask("/methods").plain
    named = {m["name"]: m for m in listed["methods"]}
    assert set(named) == set(zsad.list_methods())
    assert named["musc"]["compares"] is True
    assert listed["backbone"] == "zsad-tiny"
    assert "file" not in listed["backbones"]
    assert app.ask("/health").plain["status"] == "ok"
    paths = app.ask("/openapi.json").plain["paths"]
    assert {"/predict", "/health", "/methods", "/export"} <= set(paths)


def test_a_damaged_picture_is_told_as_predict_tells_it(
    app: Running,
    part: Path,
    alone: LoadedMethod,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.png").write_bytes(part.read_bytes()[:300])
    (own,) = alone.stream(["broken.png"], "nut", keep_errors=True)
    single = app.post("/predict", CLASS, upload(tmp_path / "broken.png"))
    assert (single.status, single.plain) == (422, {"error": own.error})
    beside = app.post("/predict", CLASS, upload(tmp_path / "broken.png"), upload(part))
    assert beside.status == 200
    assert [p.get("error", "") for p in beside.plain["predictions"]] == [own.error, ""]
    good = app.post("/predict", CLASS, upload(part), upload(tmp_path / "broken.png", field="good"))
    assert good.status == 422
    assert "broken.png" in good.plain["error"]
    for answer in (single, beside, good):
        assert str(app.folder).encode() not in answer.body


@pytest.mark.parametrize(
    ("parts", "status", "said"),
    [
        ([], 400, "pictures: Field required"),
        ([("method", "wincilp")], 400, "unknown method 'wincilp'"),
        ([("method", "faprompt"), ("backbone", "vit-l-14-336")], 400, "is trained and the app has"),
        ([("backbone", "file")], 400, "unknown backbone 'file'"),
        ([("role", "boss")], 400, "role 'boss': choose one of calibrate, references"),
        ([("class_name", None)], 400, "class_name: Field required"),
        ([("threshold", "nan")], 400, "--threshold nan: is not a finite number"),
        ([("threshold", "much")], 400, "threshold: Input should be a valid number"),
        ([("like", "../../etc")], 404, "there is no such run"),
        ([("class_name", " ")], 400, "the class name is empty"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    parts: list[tuple[str, Any]], status: int, said: str, app: Running, part: Path
) -> None:
    named = [CLASS] if all(name != CLASS[0] for name, _ in parts) else []
    sent = [field for field in parts if field[1] is not None]
    answer = app.post("/predict", *named, *sent, *([upload(part)] if parts else []))
    assert answer.status == status, answer.body
    assert said in answer.plain["error"]


def test_limits_of_a_request(app: Running, part: Path) -> None:
    many = app.post("/predict", CLASS, *[upload(part)] * 41)
    assert (many.status, many.plain) == (413, {"error": "more than 40 pictures in a request"})
    large = app.ask("/predict", b"x", Content_Length=str(2**21))
    assert large.status == 413
    assert app.ask("/health").plain["busy"] == 0


def test_settings_and_paths_of_this_computer_are_not_a_clients_business(
    app: Running, part: Path
) -> None:
    """Fields that would name a file are none."""
    for word in (
        ("checkpoint", "/etc/passwd"),
        ("overrides", "winclip.shots=3"),
        ("out", "/tmp/x"),
    ):
        answer = app.post("/predict", CLASS, word, upload(part))
        assert (answer.status, answer.plain["error"].split(";")[0]) == (
            400,
            f"unknown field '{word[0]}'",
        )


def test_what_would_change_nothing_is_refused(app: Running, part: Path) -> None:
    def said(*fields: Any, path: str = "/predict") -> str:
        answer = app.post(path, *fields, upload(part, field="file"))
        assert answer.status == 400, answer.body
        return str(answer.plain["error"])

    assert "'treshold' (did you mean 'threshold'?)" in said(CLASS, ("treshold", "1"))
    assert "file: is given 2 times; send several pictures as pictures" in said(
        CLASS, upload(part, field="file")
    )
    assert "class_name: is given 2 times" in said(CLASS, ("class_name", "nut"))
    assert "class_name: the value is empty" in said(("class_name", ""))
    assert "?method: POST /predict reads its form alone" in said(CLASS, path="/predict?method=clip")
    assert "unknown field 'file'" in said(("run", "x"), path="/export")


def test_what_the_command_warns_of_is_in_the_answer(app: Running, tmp_path: Path) -> None:
    deep = Image.fromarray(np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) % 4096)
    deep.save(tmp_path / "deep.png")
    answer = app.post("/predict", CLASS, upload(tmp_path / "deep.png"))
    (said,) = answer.plain["warnings"]
    assert said.startswith("deep.png: its values reach 4095 of 65535, so it is nearly black")
    assert app.post("/predict", CLASS, upload(tmp_path / "deep.png", field="file")).plain[
        "warnings"
    ] == [said]
    assert str(app.folder).encode() not in answer.body


def test_good_pictures_calibrate_and_go_on_for_others(
    app: Running, part: Path, alone: LoadedMethod, tmp_path: Path
) -> None:
    good = [picture(tmp_path / "good" / f"{i}.png", i + 1) for i in range(3)]
    sent = [upload(path, field="good") for path in good]
    first = app.post("/predict", CLASS, ("page", "true"), upload(part), *sent).plain
    limits = first["predictions"][0]["thresholds"]
    (own,) = alone.predict(part, "metal nut", thresholds=alone.calibrate(good, "metal nut"))
    assert limits == own.to_dict()["thresholds"]
    for page in ("true", "false"):
        parts = [("like", first["run"]), ("page", page), upload(part)]
        later = app.post("/predict", CLASS, *parts)
        assert later.plain["predictions"][0]["thresholds"] == limits
    other = app.post("/predict", ("class_name", "leather"), ("like", first["run"]), upload(part))
    assert other.status == 400
    assert "was made for class_name 'metal nut', not 'leather'" in other.plain["error"]


def test_good_pictures_serve_as_references(app: Running, part: Path, tmp_path: Path) -> None:
    good = [picture(tmp_path / "good" / f"{i}.png", i + 1) for i in range(2)]
    sent = [upload(path, field="good") for path in good]
    parts = [("role", "references"), ("page", "true"), upload(part), *sent]
    first = app.post("/predict", CLASS, *parts).plain
    (own,) = zsad.predict(
        "winclip", part, "metal nut", references=good, backbone="zsad-tiny", device="cpu"
    )
    assert first["predictions"][0]["image_score"] == own.image_score
    later = app.post("/predict", CLASS, ("like", first["run"]), upload(part))
    assert later.plain["predictions"][0]["image_score"] == own.image_score
    refused = app.post("/predict", CLASS, ("method", "clip"), *parts)
    assert refused.status == 400
    assert "compares with no reference pictures" in refused.plain["error"]


def test_names_are_text_on_the_page_and_in_its_files(app: Running, part: Path) -> None:
    answer = app.post("/predict", ("class_name", EVIL), ("page", "true"), upload(part, EVIL))
    assert answer.plain["predictions"][0]["path"] == EVIL
    page = app.ask(answer.plain["page"])
    assert page.status == 200
    assert b"<img src=x" not in page.body
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
    table = app.ask(f"{answer.plain['page']}results.csv").body.decode()
    assert EVIL in table
    link = re.search(r'"link":"\.\./([^"]+)"', page.body.decode())
    assert link is not None
    photo = app.ask(f"/runs/{answer.plain['run']}/{link[1]}")
    assert photo.body == part.read_bytes()
    assert photo.headers["content-security-policy"] == "default-src 'none'; sandbox"


def test_an_uploaded_page_is_never_served_as_one(app: Running, part: Path) -> None:
    evil = ("pictures", ("evil.html", b"<script>alert(1)</script>"))
    answer = app.post("/predict", CLASS, ("page", "true"), upload(part), evil).plain
    served = app.ask(f"/runs/{answer['run']}/pictures/evil.html")
    assert served.status == 200
    assert "html" not in served.headers.get("content-type", "")
    assert served.headers["content-security-policy"] == "default-src 'none'; sandbox"
    assert served.headers["x-content-type-options"] == "nosniff"
    for inner in ("../../../../etc/passwd", "%2e%2e/%2e%2e/x", "..%2f..%2fx", ".."):
        assert app.ask(f"/runs/{answer['run']}/pictures/{inner}").status in (403, 404)


def test_old_runs_are_forgotten(app: Running, part: Path) -> None:
    said = [app.post("/predict", CLASS, ("page", "1"), upload(part)).plain for _ in range(4)]
    assert app.ask(said[0]["page"]).status == 404
    assert app.ask(said[3]["page"]).status == 200
    assert len(list(app.folder.iterdir())) == 3


def memory() -> int:
    """Resident bytes of this process."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


FIRST = 100  # answers until memory is looked at
CLIENTS = 32


def load(app: Running, folder: Path, seconds: float) -> tuple[list[Answer], int]:
    """What clients were answered that ask at once, each with pictures of its own, for some seconds
    and twice the first hundred answers, and by how much memory grew after these."""
    pictures = [picture(folder / f"{i}.png", i) for i in range(CLIENTS)]
    right = [hashlib.sha256(path.read_bytes()).hexdigest() for path in pictures]
    answers: list[Answer] = []
    seen: list[int] = []
    wrong: list[str] = []
    end = time.monotonic() + seconds

    def client(i: int) -> None:
        while not wrong and (time.monotonic() < end or len(answers) < 2 * FIRST):
            answer = app.post("/predict", CLASS, ("method", "clip"), upload(pictures[i]))
            answers.append(answer)
            if answer.status != 200 or answer.plain["predictions"][0]["sha256"] != right[i]:
                wrong.append(f"{answer.status} {answer.body[:200]!r}")
            if len(answers) >= FIRST:
                seen.append(memory())

    threads = [threading.Thread(target=client, args=(i,)) for i in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    return answers, max(seen) - seen[0]


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads Linux's /proc")
@pytest.mark.parametrize("seconds", [0.0, pytest.param(60.0, marks=pytest.mark.slow)])
def test_many_clients_get_their_own_answers(app: Running, tmp_path: Path, seconds: float) -> None:
    """``pytest -rP`` shows what was measured."""
    begin = time.monotonic()
    answers, grown = load(app, tmp_path, seconds)
    spent = time.monotonic() - begin
    print(f"{len(answers)} answers in {spent:.0f} s, memory +{grown / 1e6:.1f} MB after {FIRST}")
    assert len(answers) >= 2 * FIRST
    assert grown < 200e6
    assert app.ask("/health").plain["busy"] == 0


def test_more_than_may_wait_are_told_so(app: Running, tmp_path: Path) -> None:
    """The method's thread is held while they come, so that all of them are there at once."""
    held = threading.Event()
    app.server.worker.submit(held.wait)
    (part := tmp_path / "broken.png").write_bytes(b"nothing")  # takes no time to score
    found: list[Answer] = []
    threads = [
        threading.Thread(target=lambda: found.append(app.post("/predict", CLASS, upload(part))))
        for _ in range(44)
    ]
    for thread in threads:
        thread.start()
    end = time.monotonic() + 30
    while len(found) < 4 and time.monotonic() < end:
        time.sleep(0.02)
    early = [answer.status for answer in found]
    held.set()
    for thread in threads:
        thread.join()
    assert early == [429] * 4
    assert sorted({a.status for a in found}) == [422, 429]
    assert sum(a.status == 422 for a in found) == 40


@pytest.mark.slow
def test_a_run_leaves_a_package(app: Running, part: Path, tmp_path: Path) -> None:
    from zsad.runtime.package import load as read

    answer = app.post("/predict", CLASS, ("page", "true"), upload(part)).plain
    package = app.post("/export", ("run", answer["run"]))
    assert package.status == 200, package.body
    (tmp_path / "nut.zsad").write_bytes(package.body)
    found = read(tmp_path / "nut.zsad").predict(part)
    assert found.image_score == pytest.approx(answer["predictions"][0]["image_score"], abs=1e-4)
    assert not list(app.folder.glob("tmp*"))
