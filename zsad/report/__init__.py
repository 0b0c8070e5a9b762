"""The HTML report of a results folder: one self-contained page, made from stored files alone.

=============  ==========================================
``page``       puts the page together
``page_data``  the data that its scripts draw
``pictures``   example pictures: heat maps and outlines
``gallery``    what is compared picture by picture
``glossary``   what a reader new to the field has to know
=============  ==========================================
"""

from zsad.report.page import write

__all__ = ["write"]
