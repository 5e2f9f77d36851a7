"""Checks of a secure sum: what it is charged, and whether its masks can be guessed.

Simulations only. Ledgers are read as the files they are; of seeds no more is looked at
than what a server sees: adverts, and the seeds that survivors reveal.
"""

from __future__ import annotations

from dataclasses import replace

from common.events import merged, read_event
from simulations.audits.conformance.asking import without_log
from simulations.audits.conformance.bench import Bench
from simulations.audits.conformance.ledger import ASSUMPTION as CHARGED
from simulations.audits.conformance.ledger import TOLERANCE, entries
from simulations.audits.conformance.observed import Observed, exactly
from simulations.audits.conformance.summing import learn, summing_clients
from simulations.audits.conformance.sums import promised_event, seen
from simulations.audits.promised import Allowed
from simulations.audits.short_seeds import guessed_seeds, repeated_seeds

SEEDS = "Masks come from seeds that nobody can guess, and that no two clients share."
#: Sums that are asked for.
SUMS = 2


def check_sum_ledger(bench: Bench) -> list[Observed]:
    """Charges after two sums, and after a question for one of them once more."""
    clients = summing_clients(
        bench, [bench.real[:1]], bench.seed, training__rounds=SUMS
    )
    made = [learn(bench, clients, number) for number in range(1, SUMS + 1)]
    with without_log():
        again = learn(bench, clients, SUMS)
    charged = [entries(each.folder) for each in clients]
    if not all(each.survivors for each in made):
        return [seen("ledger", CHARGED, _CHARGES, SUMS, None, exactly(SUMS))]
    fewest = min(map(len, charged))
    delta = bench.world.config.privacy.delta
    owed = Allowed((replace(promised_event(bench), steps=SUMS),)).epsilon(delta)
    events = [
        merged([read_event(e["event"], e["unit"], e["relation"]) for e in each])
        for each in charged
    ]
    spent = min(Allowed(each).epsilon(delta) for each in events)
    slack = TOLERANCE * (1 + owed)
    return [
        seen(
            "ledger",
            CHARGED,
            _CHARGES,
            SUMS,
            fewest,
            exactly(SUMS),
            f"{len(clients)} clients were in {SUMS} sums; the one that was charged "
            f"least has {fewest} charges.",
            refuting="below",
        ),
        seen(
            "ledger",
            CHARGED,
            "least ε of a client's charges, beside that of its sums",
            owed,
            spent,
            exactly(owed - slack, owed + slack),
            f"Charged is ε = {spent:.4f}; {SUMS} sums are ε = {owed:.4f}.",
            refuting="below",
        ),
        seen(
            "ledger",
            CHARGED,
            "clients in a second sum of one round",
            0,
            len(again.survivors),
            exactly(0),
            f"Asked for a round once more, {len(again.survivors)} clients made a sum.",
        ),
    ]


_CHARGES = "least charges of a client"


def check_mask_seeds(bench: Bench) -> list[Observed]:
    """Seeds that are found by trying short ones, and such as were drawn twice."""
    learnt = learn(bench, summing_clients(bench, [], bench.seed))
    if not learnt.seeds:
        return [seen("mask-seeds", SEEDS, _GUESSED, 0, None, exactly(0))]
    guessed = guessed_seeds(learnt.adverts, learnt.found.terms.digest)
    ways = ", ".join(sorted({each.stretch for each in guessed}))
    repeated = repeated_seeds(learnt.seeds)
    return [
        seen(
            "mask-seeds",
            SEEDS,
            _GUESSED,
            0,
            len(guessed),
            exactly(0),
            f"Of the seeds of {len(learnt.adverts)} clients {len(guessed)} were found "
            + (f"by trying short ones ({ways})." if ways else "by trying short ones."),
        ),
        seen(
            "mask-seeds",
            SEEDS,
            "revealed seeds that had been drawn before",
            0,
            repeated,
            exactly(0),
            f"Of {len(learnt.seeds)} revealed seeds {repeated} had been drawn before.",
        ),
    ]


_GUESSED = "seeds of masks that were guessed"
