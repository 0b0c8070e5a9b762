"""Who computes an encoder: torch, torch's oneDNN kernels on packed weights, or OpenVINO.

For fixed taps the image encoder is a pure function of one normalised image.  An engine runs that
function; :class:`~zsad.backbones.engines.dispatch.Engines` decides which one does, from facts and
never by timing, and takes none at its word: see :mod:`zsad.backbones.engines.verification`.
"""
