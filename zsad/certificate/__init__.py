"""Certificates of reproduction: the authors' own files, evaluated, beside what they published.

=============  ===================================================================================
``recipe``     what can be reproduced of a method: ``methods/NAME/reproduce.yaml``
``official``   which of the files at hand is which, by content
``running``    runs every direction, and every slip switched off alone
``figures``    log, paper, measured and difference; the verdict; what each slip is worth
``page``       the same as tables, one HTML page and LaTeX
=============  ===================================================================================
"""

from zsad.certificate.running import Request, reproduce

__all__ = ["Request", "reproduce"]
