"""What an audit says in words: its verdict, and what it must not be taken for.

Simulations only. A bound above the promise proves a fault, one below proves nothing;
both are said wherever a bound is shown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from common.promise import round_up
from simulations.audits.findings import CanaryRecord, Finding, finite
from simulations.audits.records import refuted
from simulations.audits.settings import AuditSettings

#: What a reader must not take an audit for.
PROVES = (
    "A lower bound above the promise proves a fault. One below proves nothing: a "
    "better attack, other canaries or other rows may find more."
)
AGAIN = (
    "A finished run cannot be given canaries. The audit ran its configuration again "
    "over its own client folders, with rows added or left out: the same code, new "
    "coins and new noise, so that released numbers are not the run's own."
)
FALSE_ALARMS = (
    "Of audits of runs that leak nothing, at most {:.0%} find a joint bound above 0. "
    "Each bound by itself has the same rate, so that one of several may well be "
    "above 0 by chance."
)
ESTIMATES = (
    "Estimates (Andrew et al.) take what blurs canaries for Gaussian, have no "
    "confidence, and are no bounds."
)
DEPENDENT = (
    "Membership trials of one run share its noise, and those of one user its rows: the "
    "exact intervals take all of them for independent."
)
UNRESOLVED = (
    "Where a false positive rate is below one non-member in all trials, more shadow "
    "models or more users would resolve it."
)
REPEATABLE = "Coins and noise were seeded: the audit repeats, and proves nothing."


#: What no audit of a simulation can say, whatever it finds.
BEYOND = (
    "It says nothing of other releases about the same people, of the devices that "
    "will run this, or of who has access to them: a simulated run was attacked."
)
UNKNOWN = (
    "Of the promise's assumptions {} could not be checked from the run's files: they "
    "are listed with what to ask."
)
UNPROMISED = (
    "Some attacks are on what the promise does not cover: what stays on a device, or "
    "answers its own user. They refute nothing, and matter all the same."
)
INTEGRITY = (
    "A privacy promise says nothing of malicious clients: what they achieve is shown, "
    "and compared with no claim."
)

_BY = {
    "canaries": "canaries ({0.design}, seen from {0.viewpoint})",
    "membership": "membership inference ({0.attack} on {0.released})",
    "leak": "inference of {0.attack} from {0.released}",
    "check": "the check of {0.check}",
}


def verdict(claimed: float, found: Sequence[Finding]) -> str:
    """Three sentences: what was found, the strongest evidence, what it is worth."""
    against = [each for each in found if refuted(each)]
    return " ".join(
        (
            _outcome(claimed, against),
            _evidence(claimed, found),
            _worth(claimed, strongest(found), refuted=bool(against)),
        )
    )


def percent(value: float) -> str:
    """A share in per cent, three significant digits.

    >>> percent(0.95), percent(0.0912)
    ('95 %', '9.12 %')
    """
    return f"{100 * value:.3g} %"


def strongest(found: Sequence[Finding]) -> CanaryRecord | None:
    """The canaries with the largest joint bound."""
    canaries = [each for each in found if each.kind == "canaries"]
    return max(canaries, key=lambda each: each.epsilon_lower_joint, default=None)


def _outcome(claimed: float, against: Sequence[Finding]) -> str:
    if against:
        by = list(dict.fromkeys(_BY[each.kind].format(each) for each in against))
        more = f" and {len(by) - 3} more" if len(by) > 3 else ""
        return f"The promise is refuted, by {'; '.join(by[:3])}{more}."
    if finite(claimed) is None:
        return "NOT PRIVATE: nothing was promised, so nothing could be refuted."
    return "No attack achieved more than the promise allows."


def _evidence(claimed: float, found: Sequence[Finding]) -> str:
    best, claim = strongest(found), finite(claimed)
    promised = "nothing" if claim is None else f"ε = {round_up(claim)}"
    if best is not None:
        return (
            f"The strongest canaries ({best.design}, seen from {best.viewpoint}) prove "
            f"ε ≥ {best.epsilon_lower_joint:.2f} at δ = {best.delta:g} with "
            f"{percent(best.confidence)} confidence; promised is {promised}."
        )
    members = [each for each in found if each.kind == "membership" and each.quoted]
    if members:
        top = max(members, key=lambda each: each.quoted[0].tpr)
        point = top.quoted[0]
        return (
            f"The strongest membership inference ({top.attack} on {top.released}) "
            f"recognises {percent(point.tpr)} of members where it is wrong about "
            f"{percent(point.target)} of others; the promise allows "
            f"{percent(point.allowed)}."
        )
    return (
        f"Neither canaries nor membership inference were used; promised is {promised}."
    )


def _worth(claimed: float, best: CanaryRecord | None, *, refuted: bool) -> str:
    if refuted:
        return (
            "That is a fault in the code, in the accounting, or in an assumption: do "
            "not rely on the promise before it is found."
        )
    if best is None or finite(claimed) is None:
        return "That proves nothing about what a better attack would find."
    return (
        "A low bound proves nothing: had all that is promised leaked, this audit would "
        f"typically have found {best.epsilon_power:.2f}; with half of the noise, "
        f"{best.epsilon_half_noise:.2f}; with every guess right, "
        f"{best.epsilon_ceiling:.2f}."
    )


def limits(settings: AuditSettings, found: Sequence[Finding]) -> tuple[str, ...]:
    """What a reader must not take the audit for."""
    members = [each for each in found if each.kind == "membership"]
    unresolved = not all(point.resolved for each in members for point in each.quoted)
    unknown = sum(e.kind == "check" and e.finding == "unknown" for e in found)
    unpromised = any(e.kind == "leak" and not e.promised for e in found)
    said = {
        PROVES: True,
        AGAIN: True,
        BEYOND: True,
        UNKNOWN.format(unknown): bool(unknown),
        FALSE_ALARMS.format(1 - settings.confidence): "canaries" in settings.attacks,
        ESTIMATES: "canaries" in settings.attacks,
        DEPENDENT: bool(members),
        UNRESOLVED: unresolved,
        UNPROMISED: unpromised,
        INTEGRITY: any(each.kind == "integrity" for each in found),
        REPEATABLE: settings.seed is not None,
    }
    return tuple(text for text, true in said.items() if true)


def tested(found: Sequence[Finding]) -> tuple[str, ...]:
    """What was done, a sentence a kind of attack."""
    kinds = {kind: [e for e in found if e.kind == kind] for kind in _TESTED}
    return tuple(_TESTED[kind](each) for kind, each in kinds.items() if each)


def _tested_canaries(found: Sequence[Any]) -> str:
    designs = list(dict.fromkeys(each.design for each in found))
    most = max(each.num_canaries for each in found)
    return (
        f"Canaries: up to {most} invented users or rows of each design "
        f"({', '.join(designs)}), in by the toss of a coin; who was in was guessed "
        "from what came out."
    )


def _tested_members(found: Sequence[Any]) -> str:
    on = list(dict.fromkeys(each.released for each in found))
    attacks = list(dict.fromkeys(each.attack for each in found))
    return (
        f"Membership: {found[0].num_shadows} runs, each over a random half of the real "
        f"users, attacked by {', '.join(attacks)}, on {', '.join(on)}."
    )


def _tested_leaks(found: Sequence[Any]) -> str:
    attacks = list(dict.fromkeys(each.attack for each in found))
    return f"Other leaks: {', '.join(attacks)}."


def _tested_integrity(found: Sequence[Any]) -> str:
    attacks = list(dict.fromkeys(each.attack for each in found))
    rules = list(dict.fromkeys(each.aggregator for each in found))
    return (
        f"Integrity: malicious clients ({', '.join(attacks)}) against "
        f"{', '.join(rules)}."
    )


def _tested_checks(found: Sequence[Any]) -> str:
    count = Counter(each.finding for each in found)
    anew = any(each.source == "rerun" for each in found)
    return (
        f"Assumptions: {len(found)} checks of the run's own logs, ledgers and files"
        f"{', and of clients that were asked anew' if anew else ''}; "
        f"{count['holds']} hold, {count['deviates']} deviate, {count['unknown']} could "
        "not be seen."
    )


_TESTED: dict[str, Callable[[Sequence[Any]], str]] = {
    "canaries": _tested_canaries,
    "membership": _tested_members,
    "leak": _tested_leaks,
    "integrity": _tested_integrity,
    "check": _tested_checks,
}
