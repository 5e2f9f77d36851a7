"""Against whom a securely aggregated round holds: one sentence, for the promise.

In ``common`` because promises, logs and reports say the same.
"""

from __future__ import annotations

import math

from common.secagg.bounds import choose_shape, most_corrupt, security_failure
from common.secagg.terms import Policy


def trust_sentence(policy: Policy, members: int) -> str:
    """Who is assumed to do what, with the numbers of a cohort of ``members``."""
    shape = choose_shape(policy, members)
    corrupt = most_corrupt(policy, members)
    who = (
        "the server may lie"
        if policy.active
        else "honest-but-curious server, which follows the protocol"
    )
    why = (
        "clients know each other by identity keys of a roster that the deployment's "
        f"authority signed, and {shape.quorum} of them confirm one list of survivors "
        "before anything is unmasked"
        if policy.active
        else "clients know each other only by the keys that it hands out"
    )
    return (
        f"{who} and may collude with up to {corrupt} of a cohort's {members} clients; "
        f"{why}; secrets are shared among {shape.degree} neighbours of a client and "
        f"open to {shape.threshold}; {_graph(policy, members)}"
    )


def _graph(policy: Policy, members: int) -> str:
    shape = choose_shape(policy, members)
    failure = security_failure(policy, shape)
    if not failure:
        return "no draw of the neighbours shows more than the sum"
    bits = math.floor(math.log2(failure.denominator) - math.log2(failure.numerator))
    tries = ", times the graphs that the server tries" if policy.active else ""
    return (
        f"a draw of the neighbours shows more than the sum with probability at most "
        f"2^-{bits}{tries}"
    )
