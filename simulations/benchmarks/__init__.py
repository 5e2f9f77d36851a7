"""Benchmarks: each module measures one claim and shows it as tables.

Simulations only. A module has ``TITLE``, ``measure(data, *, quick)`` that returns
figures for JSON, and ``tables(found)`` that lays them out.
"""

#: The command's word for each module.
BENCHMARKS: dict[str, str] = {
    "utility": "utility",
    "teacher": "teacher",
    "distillation": "distillation",
    "compression": "compression",
    "domains": "domains",
    "comparison": "comparison",
    "serving": "serving",
    "secagg": "secagg",
    "privacy": "privacy",
    "devices": "devices",
}
