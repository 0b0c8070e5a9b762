"""What runs for every change: the hosted workflow, `.ci/run`, and the hooks before a commit."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent


def load(path: str) -> Any:
    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


def constraints() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if "==" in line and not line.startswith("#"))


def targets() -> set[str]:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    return set(re.findall(r"^([a-z-]+):", text, re.M))


def test_the_hosted_workflow_runs_what_ci_run_runs() -> None:
    workflow = load(".github/workflows/ci.yml")
    triggers = workflow[True]  # YAML 1.1 reads the key `on` as a truth value
    assert {"push", "pull_request"} <= set(triggers)
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    assert [step["run"] for step in steps if "run" in step] == [".ci/run"]
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_the_hosted_workflow_uses_the_python_that_the_constraints_are_for() -> None:
    (job,) = load(".github/workflows/ci.yml")["jobs"].values()
    (version,) = [
        s["with"]["python-version"] for s in job["steps"] if "python-version" in s.get("with", {})
    ]
    first = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()[0]
    assert f"Python {version}" in first


def test_ci_run_does_what_readme_says() -> None:
    """README's test command, before it the set-up and the linter, after it half a minute of the
    fuzz.  The machine that runs it has 20 minutes, so the tests marked slow are left to
    `make test-all`."""
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    wanted = re.findall(r"^(?:timeout \d+ )?make ([a-z-]+)", script, re.M)
    assert set(wanted) <= targets()
    assert wanted == ["setup", "browser", "lint", "test", "fuzz"]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert re.search(r"^make test\b", readme, re.M)


def test_make_test_leaves_out_only_what_is_marked_slow() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    recipes = dict(re.findall(r"^(test|test-all):.*\n\t(.*)$", text, re.M))
    assert '-m "not slow"' in recipes["test"]
    assert recipes["test"].replace(' -m "not slow"', "") == recipes["test-all"]


@pytest.mark.parametrize("stage", ["pre-commit", "pre-push"])
def test_hooks_run_tools_that_exist(stage: str) -> None:
    hooks = [h for repo in load(".pre-commit-config.yaml")["repos"] for h in repo["hooks"]]
    chosen = [h for h in hooks if stage in h.get("stages", ["pre-commit", "pre-push"])]
    assert chosen
    for hook in chosen:
        tool = hook["entry"].split()[0]
        if hook["language"] != "system":
            assert all("==" in d for d in hook["additional_dependencies"]), hook["id"]
        elif tool == "make":
            assert hook["entry"].split()[1] in targets()
        else:  # an executable of the environment that `make setup` makes
            assert tool.startswith(".venv/bin/")
            assert Path(tool).name in constraints()
