"""Who computes an encoder: torch, torch's oneDNN kernels on packed weights, or OpenVINO.

For fixed taps the image encoder is a pure function of one normalised image.  An engine runs that
function; :class:`~zsad.backbones.engines.dispatch.Engines` decides which one does, from facts and
never by timing, and takes none at its word: see :mod:`zsad.backbones.engines.verification`.

=====================  =================================================================
``choice``             which engine runs an encoder, from facts
``processor``          the facts: processor and installed runtimes
``interface``          what an engine is
``dispatch``           chooses, makes and verifies a graph at its first use
``verification``       three pictures through the graph and through torch
``recording``          the encoder for fixed taps as one module
``packed``             engine ``onednn``: linear layers on packed weights
``openvino_cpu``       engine ``openvino``: the encoder as one graph
``graph_cache``        OpenVINO's graphs on disk
``quantised``          precision ``int8``; ``calibration``: the ranges that it rounds by
``compiled``           ``backbone.compile=true``
``heads``              who runs the large convolutions of a method's head
``tiled_convolution``  such a convolution as products of frequencies
=====================  =================================================================
"""
