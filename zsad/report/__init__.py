"""The HTML report of a results folder: one self-contained page, made from stored files alone."""

from zsad.report.page import write

__all__ = ["write"]
