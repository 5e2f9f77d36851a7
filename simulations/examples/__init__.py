"""Worked examples on the library's own pieces; each is run with ``python -m``."""
