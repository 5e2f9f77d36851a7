"""Federations of real processes in which something goes wrong on purpose.

Simulations only: whoever breaks every part of a federation holds every part of it.
"""
