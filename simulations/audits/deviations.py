"""What a run's own files say against the assumptions of its promise.

Simulations only: it sees what server and clients left. A promise is arithmetic *if*
its assumptions hold; each check names one, says where it looked, and reports counts,
never a row of anybody. ``unknown`` is a finding too: it is what a reader has to ask
the operator.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from importlib.metadata import version

from common.config import defaults, to_flat
from common.folders import CONFIG, METRICS, RESULTS, SETTINGS
from simulations.audits.evidence import RUN_FILE, Evidence, Said, check, said
from simulations.audits.findings import CheckRecord, finite
from simulations.audits.ledger_checks import LEDGER_CHECKS
from simulations.audits.row_checks import ROW_CHECKS
from simulations.collecting import PACKAGES
from simulations.results import PromiseRecord

#: Keys that say how to run, not what is released.
HOW = ("run.resume", "run.device", "run.keep-every", "run.keep-answers")
#: Relative difference of numbers that were calculated twice.
_SAME = 1e-6


def _mode(seen: Evidence) -> CheckRecord:
    off = seen.world.config.privacy.mode == "off"
    return check(
        "mode",
        "Every client clips and adds noise.",
        CONFIG,
        said(holds=not off),
        "Mode off: nobody clipped or added noise, and nothing is promised."
        if off
        else f"Mode {seen.world.config.privacy.mode}.",
    )


def _seed(seen: Evidence) -> CheckRecord:
    seeded = sum(any(c.seeded for c in ledger.charges) for ledger in seen.ledgers)
    stated = seen.world.config.run.seed >= 0
    if stated:
        detail = "The run has a seed: whoever knows it can take the noise off again."
    elif seeded:
        detail = (
            f"The run states no seed, and the noise of {seeded} clients came from one."
        )
    else:
        detail = "No seed in the configuration, and none in any charge."
    return check(
        "noise-source",
        "Noise comes from the operating system's randomness.",
        f"{CONFIG}, ledgers",
        said(holds=not stated and not seeded),
        detail,
        # With a seed the promise says so itself, and stays true of the mechanism.
        refutes=bool(seeded) and not stated,
        numbers=("clients with seeded noise", 0, seeded),
    )


def _code(seen: Evidence) -> CheckRecord:
    pinned = sum(1 for each in seen.ledgers if each.settings and each.settings.bundles)
    return check(
        "pinned-code",
        "Each client runs only code that its owner pinned.",
        SETTINGS,
        "unknown",
        "In a simulation nobody ships code. On devices the promise is empty against "
        "a server that ships other code, unless each owner pins the bundle's hash.",
        numbers=("clients that pin a bundle", len(seen.ledgers), pinned),
    )


def _answers(seen: Evidence) -> CheckRecord:
    refusals = sum(event["event"] == "refusal" for event in seen.log)
    asked = [event for event in seen.log if "survivors" in event]
    missing = sum(
        max(0, int(event.get("num_clients", 0)) - int(event["survivors"]))
        for event in asked
    )
    if not seen.log:
        found: Said = "unknown"
        detail = "The run kept no log."
    elif refusals or missing or seen.unreadable:
        found = "deviates"
        detail = (
            f"{refusals} refusals or errors and {missing} missing answers in "
            f"{len(asked)} exchanges; {seen.unreadable} lines of the log cannot be "
            "read. In mode local each client has noise of its own, so that the "
            "promise stands; whether a client drops out may tell something of it."
        )
    else:
        found = "holds"
        detail = f"Every client answered in all {len(asked)} exchanges."
    return check(
        "answers",
        "Every client answers, and an error tells nothing of its rows.",
        METRICS,
        found,
        detail,
        numbers=("refused, failed or missing answers", 0, refusals + missing),
    )


def _complete(seen: Evidence) -> CheckRecord:
    resumed = sum(event["event"] == "resume" for event in seen.log)
    finished = seen.facts is not None and seen.facts.finished
    return check(
        "completion",
        "The run went through once, without interruption.",
        f"{METRICS}, {RUN_FILE}",
        "unknown" if seen.facts is None else said(holds=finished and not resumed),
        f"{'Finished' if finished else 'Not known to be finished'}; resumed "
        f"{resumed} times. A client answers a question that is asked again with the "
        "bytes it kept, and charges it once.",
        numbers=("resumptions", 0, resumed),
    )


def _stated(seen: Evidence) -> CheckRecord:
    assumption = "What the run's results promise is what its configuration gives."
    if seen.results is None:
        text = "There are no results that can be read."
        return check("stated-promise", assumption, RESULTS, "unknown", text)
    stated, again = seen.results.promise, seen.promise.epsilon
    claimed = math.inf if stated.epsilon is None else stated.epsilon
    same = _is_same(stated, seen)
    less = not same and (claimed < again or stated.delta < seen.promise.delta)
    detail = "Calculated again, it is the same."
    if not same:
        detail = "Calculated again, it is another one" + (
            ": the results promise more than was kept." if less else "."
        )
    return check(
        "stated-promise",
        assumption,
        RESULTS,
        said(holds=same),
        detail,
        refutes=less,
        numbers=("ε", finite(again), stated.epsilon),
    )


def _is_same(stated: PromiseRecord, seen: Evidence) -> bool:
    """Whether two promises mean the same, whatever their words."""
    again = seen.promise
    meant = (again.delta, again.unit, again.relation, again.mode, again.seeded)
    claimed = math.inf if stated.epsilon is None else stated.epsilon
    found = (stated.delta, stated.unit, stated.relation, stated.mode, stated.seeded)
    return found == meant and math.isclose(claimed, again.epsilon, rel_tol=_SAME)


def _config(seen: Evidence) -> CheckRecord:
    now = seen.world.flat
    then = {} if seen.facts is None else dict(seen.facts.config)
    # A key that is newer than the run says nothing while it has its default.
    then = {key: now[key] for key in now if now[key] == defaults().get(key)} | then
    keys = sorted((now.keys() | then.keys()) - set(HOW))
    other = [key for key in keys if not _alike(now.get(key), then.get(key))]
    known = seen.facts is not None
    return check(
        "configuration",
        "The configuration is the one that the run began with.",
        f"{CONFIG}, {RUN_FILE}",
        said(holds=not other) if known else "unknown",
        "The run's journal cannot be read."
        if not known
        else f"Changed since: {', '.join(other)}. Attacked was what it is now."
        if other
        else "Unchanged, calibrated noise included.",
        numbers=("keys that differ", 0, len(other) if known else None),
    )


def _alike(one: object, other: object) -> bool:
    """Equal; numbers up to the last digits, which another machine may calibrate so."""
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=_SAME)
    return one == other


def _versions(seen: Evidence) -> CheckRecord:
    assumption = "The audit ran the code that the run ran."
    if seen.results is None:
        text = "There are no results that can be read."
        return check("versions", assumption, RESULTS, "unknown", text)
    then = seen.results.versions
    other = [name for name in PACKAGES if then.get(name) != version(name)]
    return check(
        "versions",
        assumption,
        RESULTS,
        said(holds=not other),
        f"Other versions: {', '.join(other)}."
        if other
        else "The same versions. Changes within a version are not seen.",
        numbers=("packages of another version", 0, len(other)),
    )


def _tuning(seen: Evidence) -> CheckRecord:
    flat, usual = to_flat(seen.world.config), defaults()
    own = [key for key in flat if flat[key] != usual.get(key)]
    return check(
        "tuning",
        "Hyper-parameters were chosen on public data, or their choice was paid for.",
        CONFIG,
        "unknown",
        f"{len(own)} keys differ from the defaults; no file says how they were "
        "chosen. Ask who chose them, and on whose rows: runs over the same rows that "
        "were tried and thrown away count as well.",
        numbers=("keys that differ from the defaults", None, len(own)),
    )


#: Name → check of the run as a whole.
RUN_CHECKS: dict[str, Callable[[Evidence], CheckRecord]] = {
    "mode": _mode,
    "noise-source": _seed,
    "pinned-code": _code,
    "answers": _answers,
    "completion": _complete,
    "stated-promise": _stated,
    "configuration": _config,
    "versions": _versions,
    "tuning": _tuning,
}
CHECKS = RUN_CHECKS | LEDGER_CHECKS | ROW_CHECKS


def deviations(seen: Evidence) -> list[CheckRecord]:
    """Every check of a run's files."""
    return [each(seen) for each in CHECKS.values()]
