"""ALFA: prompts adapted to every image at run time, and a training-free fine-grained aligner."""
