"""A federation of real processes: its folder, its start, its end.

Simulations only: who makes and starts every part of one federation sees every part.
"""
