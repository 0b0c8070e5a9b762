"""What a reader who is new to the field has to know about the models behind the figures."""

DEMO = (
    "zsad-tiny is a small demonstration model that comes with zsad and was trained on generated "
    "pictures. It shows that everything works and what a report looks like. Its figures say "
    "nothing about how good a method is with the model that its paper used."
)
RANDOM = "The model's weights are random: the figures only show that everything runs."
