"""The serving interface: ``recommender.proto``, and the code made from it.

Client only: it is spoken on the device. ``make proto`` makes the code anew; it is
committed, so that a device needs no compiler.
"""
