"""The examples that ``zsad VERB --help`` ends with.  They run when pasted, one after the other, in
a folder with pictures in ``photos/``; what a comment names has to be there besides."""

from __future__ import annotations

from zsad import registry
from zsad.config import flat, to_dict

EXAMPLES: dict[str, tuple[str, ...]] = {
    "bench": (
        "zsad bench --methods training-free --datasets synthetic --backbone zsad-tiny --dry-run",
        "zsad bench --methods {free} --datasets synthetic --backbone zsad-tiny --limit 2",
    ),
    "train": (
        "zsad train --methods {trained} --on synthetic --backbone zsad-tiny --limit 2"
        " {trained}.train.epochs=1",
    ),
    "predict": (
        "zsad predict --method {free} --class-name leather --backbone zsad-tiny photos/"
        " --out found",
    ),
    "tables": ("zsad tables", "zsad tables --format md,csv --ci"),
    "report": ("zsad report",),
    "reproduce": ("zsad reproduce METHOD --official official/ # the authors' files",),
    "results": ("zsad results list", "zsad results remove failures"),
    "list": ("zsad list methods", "zsad list backbones --json"),
    "show": ("zsad show {free}", "zsad show mvtec --cite"),
    "data": (
        "zsad data check synthetic",
        "zsad data boxes folder:parts # with normal/ and anomalous/ in it",
    ),
    "weights": ("zsad weights import METHOD released.pth # the file as released",),
    "export": (
        "zsad export {free} --class-name leather --backbone zsad-tiny --out leather.zsad"
        " # extra: export",
    ),
    "run": ("zsad run leather.zsad photos/ # of `zsad export`",),
    "app": ("zsad app --backbone zsad-tiny # extra: app",),
    "prompts": ("zsad prompts check --datasets mvtec",),
    "doctor": ("zsad doctor",),
    "completion": ("zsad completion bash > zsad.bash && . ./zsad.bash",),
}


def filled(text: str) -> str:
    """``text`` with the names of methods in place of ``{free}`` and ``{trained}``: one that reads
    class names, marks regions and needs no training, and one that is trained."""
    if "{free}" not in text and "{trained}" not in text:
        return text
    known = registry.methods().values()
    free = [e for e in known if not e.trained and e.masks and e.reads_text and not e.transductive]
    trained = [e for e in known if e.trained and "train.epochs" in flat(to_dict(e.resolve()))]
    return text.replace("{free}", free[-1].name).replace("{trained}", trained[0].name)


def epilog(verb: str, before: str) -> str:
    """What stands below the options of a verb: ``before``, then its examples, for :func:`filled`
    to complete when it is shown: every command makes all parsers."""
    lines = "".join(f"  {line}\n" for line in EXAMPLES[verb])
    head = f"{before.rstrip()}\n\n" if before else ""
    return f"{head}Example{'s' * (len(EXAMPLES[verb]) > 1)}:\n{lines}"
