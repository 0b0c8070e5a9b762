"""What a reader who is new to the field has to know about the models behind the figures."""

DEMO = (
    "zsad-tiny is a small demonstration model that comes with zsad and was trained on generated "
    "pictures. It shows that everything works and what a report looks like. Its figures say "
    "nothing about how good a method is with the model that its paper used."
)
RANDOM = "The model's weights are random: the figures only show that everything runs."
UNKNOWN = (
    "What these weights are is not known: no file that their publishers describe has this content. "
    "The name of a file, or of a backbone, does not say it."
)


def more_about(banner: str) -> str:
    """What a reader has to know beyond the sentence that marks a backbone's figures."""
    found = {"random backbone": RANDOM, "demonstration": DEMO, "unknown weights": UNKNOWN}
    return " ".join(text for word, text in found.items() if word in banner)
