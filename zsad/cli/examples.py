"""The examples that ``zsad VERB --help`` ends with.  They run when pasted, one after the other, in
a folder with pictures in ``photos/``; what a comment names has to be there besides."""

from __future__ import annotations

EXAMPLES: dict[str, tuple[str, ...]] = {
    "bench": (
        "zsad bench --methods clip,winclip --datasets synthetic --backbone zsad-tiny --dry-run",
        "zsad bench --methods winclip --datasets synthetic --backbone zsad-tiny --limit 2",
    ),
    "train": (
        "zsad train --methods aprilgan --on synthetic --backbone zsad-tiny --limit 2"
        " aprilgan.train.epochs=1",
    ),
    "predict": (
        "zsad predict --method winclip --class-name leather --backbone zsad-tiny photos/"
        " --out found",
    ),
    "tables": ("zsad tables", "zsad tables --format md,csv --ci"),
    "report": ("zsad report",),
    "reproduce": ("zsad reproduce filo --official official/ # the authors' files",),
    "results": ("zsad results list", "zsad results remove failures"),
    "list": ("zsad list methods", "zsad list backbones --json"),
    "show": ("zsad show winclip", "zsad show synthetic"),
    "data": ("zsad data check synthetic", "zsad data boxes synthetic --out boxes.json"),
    "weights": ("zsad weights import filo filo.pth # the file as released",),
    "export": (
        "zsad export winclip --class-name leather --backbone zsad-tiny --out leather.zsad"
        " # extra: export",
    ),
    "run": ("zsad run leather.zsad photos/ # of `zsad export`",),
    "app": ("zsad app --backbone zsad-tiny # extra: app",),
    "prompts": ("zsad prompts check --datasets mvtec",),
    "doctor": ("zsad doctor",),
    "completion": ("zsad completion bash > zsad.bash && . ./zsad.bash",),
}


def epilog(verb: str, before: str) -> str:
    """What stands below the options of a verb: ``before``, then its examples."""
    lines = "".join(f"  {line}\n" for line in EXAMPLES[verb])
    head = f"{before.rstrip()}\n\n" if before else ""
    return f"{head}Example{'s' * (len(EXAMPLES[verb]) > 1)}:\n{lines}"
