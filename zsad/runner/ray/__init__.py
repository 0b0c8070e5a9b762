"""Sweeps on a Ray cluster: the driver cuts a plan into shards, workers run them, the store joins
what they made.  Ray is imported when a sweep starts.

===========  =======================================================================================
``cluster``  connecting to a cluster, or starting one; ``ipv4``: what is started there knows no IPv6
``shards``   cuts a plan into what single tasks do; no torch
``driver``   hands out the shards, and tries again what fails
``worker``   what a task does
===========  =======================================================================================
"""
