"""A whole method for one class name as one file: see :mod:`zsad.deployment.write`.

======================  ======================================================================
``deployed``            the method as a function of one normalised image
``formats``             that function as ONNX or OpenVINO
``write``               what ``zsad export`` does: check, record, compare, pack
======================  ======================================================================
"""
