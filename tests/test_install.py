"""Installing: the lower bounds, the wheel in an environment of its own, extras and containers."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import tomllib

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PAGE = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
TORCH = ("torch", "torchvision")  # hundreds of MB, and for Linux with CUDA alone: taken from here
UV = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")


# ---------------------------------------------------------------------------------- environments
def uv(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run uv; skips where it is not installed or reaches no package index."""
    if UV is None:
        pytest.skip("uv is not installed (extra `dev`)")
    done = subprocess.run([UV, *map(str, words)], capture_output=True, text=True)
    if "Failed to fetch" in done.stderr or "error sending request" in done.stderr:
        pytest.skip("no package index can be reached")
    return done


def compiled(out: Path, requirements: Sequence[str], *options: str) -> Path:
    """Resolve requirements but for torch into a file of exact versions."""
    asked = out.with_suffix(".in")
    asked.write_text("\n".join(requirements) + "\n", encoding="utf-8")
    left_out = out.with_suffix(".overrides")
    left_out.write_text("".join(f"{n} ; python_version < '0'\n" for n in TORCH), encoding="utf-8")
    version = f"{sys.version_info.major}.{sys.version_info.minor}.{sys.version_info.micro}"
    done = uv(
        *("pip", "compile", "-q", asked, "-o", out, "--overrides", left_out),
        *("--python-version", version, *options),
    )
    assert done.returncode == 0, done.stderr
    return out


def environment(folder: Path, pinned: Path, wheel: Path) -> Path:
    """A virtual environment of exactly these versions, of the wheel, and of the torch that runs
    this test; its Python."""
    assert uv("venv", "-q", "--python", sys.executable, folder).returncode == 0
    python = folder / "bin" / "python"
    done = uv("pip", "install", "-q", "--no-deps", "--python", python, "-r", pinned, wheel)
    assert done.returncode == 0, done.stderr
    (site,) = folder.glob("lib/python*/site-packages")
    for name in {*TORCH, *needs("torch")}:
        for top in tops(name):
            if not (site / top.name).exists():
                (site / top.name).symlink_to(top)
    return python


def needs(name: str) -> set[str]:
    """The distributions that one requires here, of all depths, but for extras."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        for requirement in importlib.metadata.requires(waiting.pop()) or []:
            word = re.split(r"[<>=!~\[; (]", requirement)[0]
            here = any(True for _ in installed(word))
            if "extra ==" not in requirement and here and word not in found:
                found.add(word)
                waiting.append(word)
    return found


def installed(name: str) -> Iterator[importlib.metadata.Distribution]:
    """The distribution of a name, if it is here."""
    try:
        yield importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return


def tops(name: str) -> set[Path]:
    """What a distribution puts into site-packages."""
    dist = importlib.metadata.distribution(name)
    names = {file.parts[0] for file in dist.files or [] if file.parts[0] != ".."}
    return {Path(str(dist.locate_file(n))) for n in names - {"__pycache__"}}


def run(python: Path, cwd: Path, *words: str) -> str:
    """What zsad prints in that environment, away from this checkout."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("ZSAD_", "PYTHON"))}
    done = subprocess.run(
        [python, "-m", *words], cwd=cwd, env=env, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def picture(folder: Path) -> str:
    """The name of a picture in a folder."""
    import numpy as np
    from PIL import Image

    pixels = np.random.default_rng(0).integers(90, 130, (60, 80, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "p.png")
    return "p.png"


def checked(python: Path) -> None:
    """Whether what is installed fits together, as pip sees it."""
    command = [sys.executable, "-m", "pip", "--python", str(python), "check"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


# ---------------------------------------------------------------------------------------- tests
@pytest.mark.slow
def test_the_oldest_versions_that_are_allowed_score_pictures(wheel: Path, tmp_path: Path) -> None:
    """All lower bounds but torch's, of the requirements and of the light extras."""
    listed = [r for r in PROJECT["dependencies"] if re.split("[>=]", r)[0] not in TORCH]
    for extra in ("app", "coco", "heic", "plot"):
        listed += PROJECT["optional-dependencies"][extra]
    pinned = compiled(tmp_path / "lowest.txt", listed, "--resolution", "lowest-direct")
    text = pinned.read_text(encoding="utf-8")
    oldest = re.search(r"pillow>=([\d.]+)", str(listed))
    assert oldest is not None
    assert re.search(rf"^pillow=={re.escape(oldest[1])}[.0]*$", text, re.M)
    python = environment(tmp_path / "venv", pinned, wheel)
    name = picture(tmp_path)
    with_backbone = ("--backbone", "zsad-tiny")
    out = run(
        *(python, tmp_path, "zsad", "predict", "--method", "winclip", *with_backbone),
        *("--class-name", "bolt", "--out", "found", "--to", "coco,csv,parquet", name),
    )
    assert '"image_score": ' in out
    assert (tmp_path / "found" / "results.parquet").stat().st_size > 0
    run(
        *(python, tmp_path, "zsad", "bench", "--methods", "clip", "--datasets", "synthetic"),
        *(*with_backbone, "--limit", "2", "--offline"),
    )
    assert "| Synthetic" in run(python, tmp_path, "zsad", "tables", "--format", "md")
    serves(python, tmp_path)


def serves(python: Path, cwd: Path) -> None:
    """Whether the app starts: it says its address, and is stopped."""
    words = ["-m", "zsad", "app", "--method", "clip", "--backbone", "zsad-tiny", "--port", "0"]
    with subprocess.Popen(
        [python, *words], cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as app:
        assert app.stdout is not None
        said = ""
        for line in app.stdout:
            said += line
            if "http://127.0.0.1" in line:
                break
        app.terminate()
    assert "http://127.0.0.1" in said, said


@pytest.mark.slow
def test_the_wheel_with_its_extras_fits_together_in_a_fresh_environment(
    wheel: Path, tmp_path: Path
) -> None:
    pinned = compiled(tmp_path / "all.txt", [f"zsad[grounding,app,cpu] @ {wheel.as_uri()}"])
    python = environment(tmp_path / "venv", pinned, wheel)
    checked(python)
    predict = ("predict", "--method", "clip", "--backbone", "zsad-tiny", "--class-name", "bolt")
    assert '"image_score": ' in run(python, tmp_path, "zsad", *predict, picture(tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("neighbour", ["gradio", "fiftyone"])
def test_the_wheel_resolves_beside(neighbour: str, wheel: Path, tmp_path: Path) -> None:
    wanted = [f"zsad[grounding,app,cpu] @ {wheel.as_uri()}", neighbour]
    text = compiled(tmp_path / "both.txt", wanted).read_text(encoding="utf-8")
    assert re.search(rf"^{neighbour}==", text, re.M)
    assert re.search(r"^huggingface-hub==", text, re.M)


def test_the_page_lists_every_extra_and_dev_has_them_all() -> None:
    rows = re.findall(r"^\| `(\w+)` \|.*\| (\d+) \|$", PAGE, re.M)
    extras = PROJECT["optional-dependencies"]
    assert {name for name, _ in rows} == extras.keys()
    all_of_them = re.search(r"zsad\[([\w,]+)\]", str(extras["dev"]))
    assert all_of_them is not None
    assert {*all_of_them[1].split(","), "dev"} == extras.keys()


def test_containers_do_what_readme_says() -> None:
    """A build takes minutes and gigabytes; what can be read off the files is checked."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for name in ("Dockerfile", "Dockerfile.gpu"):
        path = ROOT / "docs" / "docker" / name
        text = path.read_text(encoding="utf-8")
        lines = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", text, flags=re.M)).splitlines()
        steps = [line.split(maxsplit=1) for line in lines if line]
        known = {"FROM", "RUN", "USER", "WORKDIR", "COPY", "ARG", "ENV", "CMD"}
        assert {word for word, _ in steps} == known
        assert re.fullmatch(r"python:3\.\d+-slim", steps[0][1])  # a tag, not "latest"
        version = re.findall(r"\d+\.\d+", steps[0][1])[0]  # what the constraints are for
        first = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()[0]
        assert f"Python {version}" in first
        runs = [rest for word, rest in steps if word == "RUN"]
        assert any(re.search(r'\bmake setup EXTRAS="\$EXTRAS"$', line) for line in runs)
        (apt,) = (line for line in runs if "apt-get" in line)
        assert "--no-install-recommends" in apt
        assert apt.endswith("rm -rf /var/lib/apt/lists/*")
        (extras,) = (rest for _, rest in steps if rest.startswith("EXTRAS="))
        listed = extras.removeprefix("EXTRAS=").split(",")
        assert set(listed) <= PROJECT["optional-dependencies"].keys()
        assert [rest for word, rest in steps if word == "USER"] == ["zsad"]  # not root
        words = " ".join(re.findall(r'"(.+?)"', steps[-1][1]))
        assert words in ("make demo", "zsad doctor")
        assert f"`{words}`" in PAGE
        assert f"docker build -f docs/docker/{name} -t" in PAGE
        ignored = Path(f"{path}.dockerignore").read_text(encoding="utf-8").splitlines()
        assert {".git", ".venv", "results/*"} <= set(ignored)
    assert "docker build -f docs/docker/Dockerfile -t" in readme
