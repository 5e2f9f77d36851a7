"""A made-up but valid audit with every kind of finding: no attack is made for it."""

from simulations.audits.findings import (
    CanaryRecord,
    CheckRecord,
    IntegrityRecord,
    LeakRecord,
    MembershipRecord,
    RatePoint,
)
from simulations.audits.group_records import GroupSuccess, GroupTable, WorstOffRecord
from simulations.audits.records import (
    AllowedPoint,
    AuditReport,
    Claim,
    ClientSpending,
    MostSpent,
    Scope,
    SpentRecord,
)
from simulations.results import PromiseRecord

PROMISE = PromiseRecord(
    epsilon=3.0,
    delta=1e-5,
    unit="user",
    relation="add-or-remove-one",
    mode="local",
    trust="nobody else is trusted",
    accountant="PLD",
    sampling="Poisson",
    released="student updates, and nothing else of its data",
    seeded=False,
    sentence="Each client's releases are (ε = 3.000, δ = 1e-05)-private per user.",
)


def canary(**changes) -> CanaryRecord:
    values = {
        "design": "rare-item",
        "viewpoint": "server-local",
        "unit": "user",
        "num_canaries": 1000,
        "num_included": 489,
        "guessed_in": 250,
        "guessed_out": 250,
        "num_right": 447,
        "delta": 1e-5,
        "confidence": 0.95,
        "joint_confidence": 0.99375,
        "epsilon_claimed": 3.0,
        "epsilon_lower": 1.97,
        "epsilon_lower_joint": 1.83,
        "epsilon_power": 2.03,
        "epsilon_half_noise": 3.4,
        "epsilon_ceiling": 4.1,
        "epsilon_gaussian": 2.61,
        "epsilon_estimate": None,
        "auc": 0.913,
        "exceeds": False,
    }
    return CanaryRecord(**(values | changes))


def point(target: float, tpr: float, allowed: float, **changes) -> RatePoint:
    values = {
        "target": target,
        "fpr": target,
        "fpr_low": target / 2,
        "fpr_high": min(1.0, target * 2),
        "tpr": tpr,
        "low": tpr * 0.8,
        "high": min(1.0, tpr * 1.2),
        "allowed": allowed,
        "resolved": True,
    }
    return RatePoint(**(values | changes))


def member(**changes) -> MembershipRecord:
    values = {
        "attack": "lira-offline",
        "viewpoint": "public",
        "released": "final student",
        "num_shadows": 16,
        "num_members": 6400,
        "num_others": 6384,
        "confidence": 0.95,
        "auc": 0.594,
        "quoted": (point(1e-2, 0.025, 0.114), point(1e-3, 0.005, 0.03)),
        "curve": tuple(point(f, f**0.8, min(1, f * 20)) for f in (1e-3, 1e-2, 0.1, 1)),
        "exceeds": False,
    }
    return MembershipRecord(**(values | changes))


def leak(**changes) -> LeakRecord:
    values = {
        "attack": "attribute:gender",
        "viewpoint": "server-local",
        "released": "personal vector",
        "measure": "accuracy",
        "achieved": 0.71,
        "low": 0.66,
        "high": 0.76,
        "confidence": 0.95,
        "baseline": 0.69,
        "baseline_is": "the most frequent of them",
        "num_targets": 400,
        "promised": True,
        "allowed": 0.93,
        "exceeds": False,
        "note": "From the answers of all rounds together.",
    }
    return LeakRecord(**(values | changes))


def integrity(**changes) -> IntegrityRecord:
    values = {
        "attack": "push",
        "mode": "local",
        "aggregator": "trimmed-mean",
        "malicious": 1,
        "num_clients": 10,
        "num_targets": 5,
        "rank_before": 1200.0,
        "rank_after": 37.0,
        "exposure_before": 0.0,
        "exposure_after": 0.12,
        "quality_before": 0.331,
        "quality_after": 0.327,
        "possible": True,
        "note": "Targets are unpopular items.",
    }
    return IntegrityRecord(**(values | changes))


def check(**changes) -> CheckRecord:
    values = {
        "check": "noise",
        "assumption": "Noise is as large as is charged for.",
        "source": "rerun",
        "finding": "holds",
        "measure": "noise multiplier",
        "expected": 1.2,
        "measured": 1.198,
        "low": 1.17,
        "high": 1.22,
        "detail": "Measured over 4,000 coordinates.",
        "refutes": True,
    }
    return CheckRecord(**(values | changes))


def group(name: str, auc: float = 0.6, users: int = 80) -> GroupSuccess:
    return GroupSuccess(
        group=name,
        num_users=users,
        auc=auc,
        auc_low=auc - 0.05,
        auc_high=auc + 0.05,
        found=0.021,
        found_low=0.012,
        found_high=0.034,
        alarms=0.01,
    )


def worst_off(**changes) -> WorstOffRecord:
    values = {
        "attack": "rmia",
        "viewpoint": "public",
        "released": "final student",
        "num_shadows": 16,
        "confidence": 0.95,
        "fpr": 0.01,
        "min_users": 10,
        "everybody": group("everybody", 0.594, 799),
        "deciles": tuple(group(str(i + 1), 0.55 + 0.02 * i) for i in range(10)),
        "tables": (
            GroupTable(
                by="taste",
                groups=(
                    group("most popular quarter"),
                    group("most niche quarter", 0.7),
                ),
                suppressed=(),
            ),
            GroupTable(by="cluster", groups=(), suppressed=("rare", "odd")),
        ),
    }
    return WorstOffRecord(**(values | changes))


def client(name: str, epsilon: float | None, **changes) -> ClientSpending:
    spent = tuple(
        SpentRecord(delta=delta, epsilon_run=epsilon, epsilon_all=epsilon)
        for delta in (1e-5, 1e-6)
    )
    values = {
        "client": name,
        "ledger": "verified",
        "runs": 1,
        "releases": 3,
        "spent": spent,
    }
    return ClientSpending(**(values | changes))


FINDINGS = (
    canary(),
    canary(design="dirac", viewpoint="public", epsilon_lower_joint=0.0),
    member(),
    member(viewpoint="server-local", released="answers", attack="threshold"),
    leak(),
    leak(attack="interactions", measure="AUC", promised=False, allowed=None),
    integrity(),
    integrity(aggregator="median", mode="distributed", possible=False),
    worst_off(),
    check(),
    check(check="tuning", finding="unknown", refutes=False, measure="", expected=None),
)


def report(**changes) -> AuditReport:
    values = {
        "run": "demo",
        "made": "2026-11-28T09:00:00+00:00",
        "preset": "quick",
        "command": "tutela audit demo",
        "seed": None,
        "confidence": 0.95,
        "scope": Scope(
            data_public="ml-100k",
            data_private="ml-100k",
            num_clients=2,
            declared_users_per_client=200,
            num_items=1682,
            rounds=60,
            attacks=("canaries", "membership"),
            num_canaries=1000,
            num_shadows=16,
        ),
        "tested": ("Canaries: up to 1000 invented users.", "Membership: 16 runs."),
        "promise": PROMISE,
        "claims": tuple(
            Claim(delta=d, epsilon_user=e, epsilon_interaction=3 * e)
            for d, e in ((1e-5, 2.9999), (1e-6, 3.4))
        ),
        "spent": tuple(
            MostSpent(delta=d, epsilon_planned=e, epsilon_run=e, epsilon_all=2 * e)
            for d, e in ((1e-5, 2.9999), (1e-6, 3.4))
        ),
        "clients": (client("0000", 2.9999), client("0001", 1.5)),
        "allowed": tuple(
            AllowedPoint(fpr=f, tpr=min(1.0, 20 * f))
            for f in (1e-4, 1e-3, 0.01, 0.1, 1)
        ),
        "viewpoints": {"public": "public: sees the final student alone."},
        "findings": FINDINGS,
        "strongest": canary(),
        "exceeds": False,
        "verdict": "First sentence. Second sentence. A low bound proves nothing.",
        "limits": ("One.", "Two.", "Three.", "A fourth limit."),
        "hashes": {"student.safetensors": "ab" * 32},
        "seconds_total": 376.0,
        "config": {"run.name": "demo", "safeguard.enabled": True},
        "versions": {"python": "3.11.4", "tutela": "0.1.0"},
    }
    return AuditReport(**(values | changes))
