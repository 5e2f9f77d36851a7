"""An audit of what a deployment left: its own answers and student, no row run again.

Simulations only: it knows who was in. Owners planted canaries before the run and kept
the truth; the server kept the answers, if its settings said so, and the final student
in any case. Guesses are made of these very numbers, so that what is refuted is this
run's promise and not that of a repetition. Steinke, Nasr, Jagielski 2023.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from common.plan import releases
from server.kept_answers import ANSWERS
from simulations.audits.artefacts import Artefacts
from simulations.audits.deviations import RUN_CHECKS
from simulations.audits.evidence import Evidence, check, said
from simulations.audits.findings import CheckRecord, Finding
from simulations.audits.knowledge import some
from simulations.audits.one_run import bound
from simulations.audits.promised import Allowed
from simulations.audits.recording import record_canaries
from simulations.audits.scores import server_scores, student_scores
from simulations.audits.settings import AuditSettings, Tell
from simulations.audits.transcript import exchanges
from simulations.audits.viewpoints import VIEWPOINTS
from simulations.audits.wording import ESTIMATES, FALSE_ALARMS, PROVES

Float = npt.NDArray[np.float64]

#: Checks that need neither clients nor results, which a server does not hold.
CHECKS = ("mode", "answers", "completion", "tuning")
#: Trust models in which the server sees each client's own answers.
_BY_CLIENT = ("local", "off")

ITSELF = (
    "The run itself was attacked, by what its server kept: its own noise and released "
    "numbers, and coins that owners of clients tossed before it. Nothing ran again."
)
ONLY_PLANTED = (
    "Canaries were planted at {} client(s); of the code on other devices, and of "
    "their noise, this says nothing."
)
OWNERS_WORD = (
    "That canaries were in when the run asked, and the truth is as it was then, is the "
    "owners' word: rows that were replaced meanwhile make a bound low, never high; a "
    "truth that was changed afterwards could make it high, which its digest shows to "
    "whoever was told it before the run."
)
UNKNOWN_ROWS = (
    "Of {} of these clients the other rows were not given (--rows): whoever knows "
    "them, as the promise allows, may find more."
)
BY_LOOKS = (
    "Of {} client(s) neither receipts nor ledger were given: which answers are theirs "
    "was chosen by looks, without the truth. A wrong choice makes a bound low."
)
NO_ANSWERS = (
    "The server kept no answers (run.keep-answers), so that the final student alone "
    "was attacked: from the server's seat, far more is to be seen."
)
IN_SUM = (
    "Under this trust model the server sees the sum of all clients alone, which was "
    "attacked through the students that came of it."
)
NO_TRUTH = (
    "No ground truth was given (--truth): nobody can say which guesses of who was in "
    "are right, so nothing was attacked. Hashes, promise and the server's own logs "
    "were looked at; before the next run, let owners plant canaries."
)
NOT_HERE = (
    "Membership of real users, other leaks and malicious clients were not tried: they "
    "take runs of the same kind with and without somebody. `tutela simulate` the "
    "configuration, and audit that."
)
LEDGERS = (
    "Ledgers lie with the owners, and were not seen: `tutela ledger verify` there."
)


def attack_artefacts(
    found: Artefacts, settings: AuditSettings, tell: Tell
) -> list[Finding]:
    """Every design that was planted, from every viewpoint that can be had."""
    if not found.owners:
        return []
    scored = _scores(found, tell)
    designs = list(dict.fromkeys(found.designs.tolist()))
    delta = found.world.config.privacy.delta
    claimed = Allowed(found.world.events).epsilon(delta)
    return [
        record_canaries(
            bound(
                scores[found.designs == design],
                found.included[found.designs == design],
                claimed,
                delta=delta,
                confidence=settings.confidence,
                num_bounds=len(designs) * len(scored),
                labels=(design, view, "user"),
            )
        )
        for design in designs
        for view, scores in scored.items()
    ]


def _scores(found: Artefacts, tell: Tell) -> dict[str, Float]:
    """Each viewpoint's statistic of every canary."""
    world, targets = found.world, found.targets
    scored = {}
    if found.receipts and world.config.privacy.mode in _BY_CLIENT:
        tell("canaries: answers of clients")
        scored["server-local"] = server_scores(found.placed, found.answers, targets)
    if world.config.training.rounds and found.sent:
        tell("canaries: students of the rounds")
        sent = some(found.sent)
        start = [world.start] * len(sent)
        scored["another-client"] = student_scores(world, sent, start, targets)
    tell("canaries: the final student")
    scored["public"] = student_scores(world, [world.final], [world.start], targets)
    return scored


def artefact_checks(found: Artefacts, seen: Evidence) -> list[CheckRecord]:
    """What the server's own files say against the promise's assumptions."""
    return [*(RUN_CHECKS[name](seen) for name in CHECKS), _kept(found)]


def _kept(found: Artefacts) -> CheckRecord:
    """Whether what is attacked is all that was answered."""
    config, kept = found.world.config, 0
    planned = sum(
        len(releases(config, 0.0, number))
        for number in range(1, max(1, config.training.rounds) + 1)
    )
    detail = "None were kept (run.keep-answers)."
    if found.receipts:
        kept = sum(bool(each.answers) for each in exchanges(found.answers))
        nodes = len(found.receipts)
        detail = f"Kept of {kept} of {planned} questions, by {nodes} nodes."
    return check(
        "kept-answers",
        "All that clients answered was kept, and so attacked.",
        ANSWERS,
        said(holds=kept == planned) if found.receipts else "unknown",
        detail,
        numbers=("questions whose answers were kept", planned, kept),
    )


def seen_from(found: Artefacts, findings: Sequence[Finding]) -> dict[str, str]:
    """The threat models, with what was really known."""
    names = dict.fromkeys(e.viewpoint for e in findings if e.kind == "canaries")
    known = sum(owner.known.shape[0] > 0 for owner in found.owners)
    knows = (
        "the code, the run's public configuration, of each canary the rows that it "
        f"would have, and of {known} of {len(found.owners)} clients all other rows"
    )
    return {n: replace(VIEWPOINTS[n], knows=knows).sentence for n in names}


def artefact_limits(found: Artefacts, settings: AuditSettings) -> tuple[str, ...]:
    """What a reader must not take such an audit for."""
    owners = found.owners
    strangers = sum(not owner.known.shape[0] for owner in owners)
    by_looks = sum(not owner.receipts for owner in owners) if found.receipts else 0
    said_if = {
        NO_TRUTH: not owners,
        PROVES: bool(owners),
        ITSELF: bool(owners),
        ONLY_PLANTED.format(len(owners)): bool(owners),
        OWNERS_WORD: bool(owners),
        UNKNOWN_ROWS.format(strangers): bool(strangers),
        BY_LOOKS.format(by_looks): bool(by_looks),
        NO_ANSWERS: bool(owners) and not found.receipts,
        IN_SUM: bool(owners) and found.world.config.privacy.mode not in _BY_CLIENT,
        FALSE_ALARMS.format(1 - settings.confidence): bool(owners),
        ESTIMATES: bool(owners),
        NOT_HERE: True,
        LEDGERS: True,
    }
    return tuple(text for text, true in said_if.items() if true)


def truth_hashes(found: Artefacts) -> dict[str, str]:
    """Digest of each truth by client, as it was told when canaries were planted."""
    return {f"truth of {o.truth.client}": o.truth.digest for o in found.owners}


def artefact_settings(found: Artefacts, settings: AuditSettings) -> AuditSettings:
    """What was really done, for the report."""
    return replace(
        settings,
        attacks=("canaries",) if found.owners else (),
        designs=tuple(dict.fromkeys(o.truth.design for o in found.owners)),
        num_canaries=sum(len(o.truth.canaries) for o in found.owners),
        num_shadows=0,
        seed=None,
    )
