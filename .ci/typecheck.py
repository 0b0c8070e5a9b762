"""Run mypy on everything that the wheel holds, laid out as in the wheel.

    python .ci/typecheck.py [options of mypy]

In a checkout ``zsad.methods`` and ``zsad.benchmarks`` exist only at run time (``zsad/__init__.py``
extends its ``__path__``), which no type checker follows.  So the files are copied to a temporary
folder as the wheel has them, mypy runs there, and its messages name the files of the checkout.
``docs/regenerate.py`` is left out with the tests: it makes pictures of a release by hand, is in no
wheel, and imports the browser of the tests; ``tests/docs/test_regenerate.py`` runs it.
The settings stand in pyproject.toml under ``[tool.mypy]``.  Exits as mypy does: 0 clean, 1 errors.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parent.parent
# Folder of the checkout -> folder of the wheel, as in pyproject.toml.
WHEEL = {
    "zsad": "zsad",
    "methods": "zsad/methods",
    "benchmarks": "zsad/benchmarks",
    "prompts_cache": "zsad/prompts_cache",
}
PLACE = re.compile(r"[^:\n]+\.pyi?(?=:)")


def layout(root: Path) -> dict[str, str]:
    """Place in the wheel -> file of the checkout, for all Python that git does not ignore."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--"]
    try:
        listed = subprocess.run([*command, *WHEEL], cwd=root, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise SystemExit(f"{root}: git cannot list its files; run this in a clone") from error
    found = {}
    for name in sorted(set(os.fsdecode(listed.stdout).split("\0"))):
        path = PurePosixPath(name)
        typed = path.suffix in (".py", ".pyi") or path.name == "py.typed"
        # git goes on listing a tracked file that was deleted, until the deletion is staged
        if typed and (root / path).is_file():
            top, *rest = path.parts
            found[PurePosixPath(WHEEL[top], *rest).as_posix()] = name
    return found


def as_in_checkout(line: str, files: dict[str, str]) -> str:
    """A message of mypy, its leading file named as in the checkout."""
    return PLACE.sub(lambda place: files.get(place[0], place[0]), line, count=1)


def check(root: Path, options: list[str]) -> int:
    """Lay out, run mypy, print its messages; its exit status."""
    files = layout(root)
    own = Path(__file__).name
    with tempfile.TemporaryDirectory(prefix="zsad-typecheck-") as folder:
        for place, name in files.items():
            target = Path(folder, place)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, target)  # with its time, by which mypy knows it again
        shutil.copy2(__file__, Path(folder, own))
        command = [sys.executable, "-m", "mypy", "--package", "zsad", "--module", Path(own).stem]
        command += ["--config-file", str(root / "pyproject.toml")]
        command += ["--cache-dir", str(root / ".mypy_cache"), *options]
        run = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True)
        assert run.stdout is not None
        for line in run.stdout:
            print(as_in_checkout(line, {**files, own: f".ci/{own}"}), end="", flush=True)
        return run.wait()


if __name__ == "__main__":
    sys.exit(check(ROOT, sys.argv[1:]))
