"""The generated dataset ``synthetic``: pictures of surfaces and objects, with and without defects.

:mod:`.fields` noise, shapes, light; :mod:`.palette` colours; :mod:`.scene` the types that steps
hand on; :mod:`.textures`, :mod:`.objects` what is shown; :mod:`.defects` what is wrong with it;
:mod:`.finish` nuisances and camera; :mod:`.generator` one picture from a seed; :mod:`.dataset` the
indexer and reader; :mod:`.families`, :mod:`.built` endless further surfaces, things and defects,
for training ``zsad-tiny`` only.
"""
