"""Realistic runs to report: movies, 40 rounds; with everything; without rounds."""

import math

import pytest

from simulations.personal_record import PersonalGains
from simulations.results import (
    AttributeRecord,
    CurvePoint,
    Federation,
    GapRecord,
    GroupRecord,
    Interval,
    PromiseRecord,
    Results,
    RoundRecord,
    StatisticsRecord,
    Verdict,
    model_note,
)

_VALUES = {
    "popularity": (0.112, 0.128, 0.241, 0.021),
    "popularity_nonprivate": (0.124, 0.141, 0.262, 0.019),
    "teacher": (0.203, 0.232, 0.389, 0.143),
    "student_transferred": (0.189, 0.215, 0.366, 0.151),
    "student_private": (0.214, 0.243, 0.401, 0.162),
    "student_nonprivate": (0.251, 0.287, 0.452, 0.188),
    "student_scratch": (0.118, 0.133, 0.253, 0.034),
}
_COMPARED = {
    "teacher_refined": (0.221, 0.252, 0.412, 0.171),
    "ensemble": (0.217, 0.247, 0.405, 0.158),
    "puresvd_nonprivate": (0.243, 0.276, 0.441, 0.182),
    "item_knn_nonprivate": (0.238, 0.269, 0.433, 0.176),
    "ials_nonprivate": (0.249, 0.284, 0.449, 0.191),
    "fedmf": (0.096, 0.108, 0.212, 0.013),
}
_METRICS = ("ndcg@10", "recall@20", "mrr", "coverage@10")
_MORE = {"ndcg@20": 1.08, "ndcg@100": 1.31, "recall@10": 0.86, "hr@10": 2.6}

_SENTENCE = (
    "Each client's releases in this run (student updates, and nothing else of its "
    "data) are together (ε = 7.998, δ = 1e-05)-differentially private per user (add "
    "or remove one user's rows at that client), mode local: nobody else is trusted, "
    "the server and other clients included; accountant: privacy loss distributions "
    "(dp-accounting PLD); sampling: Poisson, every user independently with "
    "probability 0.5 a step, 40 steps."
)


def _interval(value: float) -> Interval:
    return Interval(value=value, low=value * 0.93, high=value * 1.06)


def _metrics(values: tuple[float, ...]) -> dict[str, Interval]:
    found = dict(zip(_METRICS, map(_interval, values), strict=True))
    more = {name: _interval(values[0] * times) for name, times in _MORE.items()}
    return found | more


def _round(number: int, rounds: int) -> RoundRecord:
    learned = 1 - math.exp(-number / 10)
    return RoundRecord(
        round=number,
        epsilon=7.998 * math.sqrt(number / rounds),
        bytes_down_per_client=1_771_520,
        bytes_up_per_client=1_749_044,
        seconds={"train": 0.41, "aggregate": 0.02, "evaluate": 0.18},
        validation=0.191 + 0.025 * learned + 0.002 * math.sin(number),
        heldout=0.189 + 0.026 * learned + 0.002 * math.cos(number),
        survivors=4 - (number == 7),
        num_clients=4,
    )


def _promise() -> PromiseRecord:
    return PromiseRecord(
        epsilon=7.998,
        delta=1e-5,
        unit="user",
        relation="add-or-remove-one",
        mode="local",
        trust="nobody else is trusted, the server and other clients included",
        accountant="privacy loss distributions (dp-accounting PLD)",
        sampling="Poisson, probability 0.5 a step, 40 steps",
        released="student updates, and nothing else of its data",
        seeded=True,
        sentence=_SENTENCE + " The noise was seeded for a reproducible simulation: "
        "the figures are the mechanism's, these very files protect nobody.",
    )


@pytest.fixture
def example_results() -> Results:
    """All arms, 40 rounds, a seeded simulation in mode local."""
    private = {name: "nonprivate" not in name for name in _VALUES}
    return Results(
        name="movies",
        status="complete",
        engine="in-process",
        seed=7,
        command="tutela simulate movies.toml --out runs/movies",
        models={name: _metrics(values) for name, values in _VALUES.items()},
        model_notes={name: model_note(private=private[name]) for name in _VALUES},
        promise=_promise(),
        verdict=Verdict(
            beats_transferred=True,
            beats_popularity=True,
            text="Federated training under ε = 7.998 improves NDCG@10 from 0.189 to "
            "0.214 over the transferred student, and beats popularity (0.112).",
        ),
        rounds=tuple(_round(number, 40) for number in range(1, 41)),
        interpolation_weight=0.8,
        interpolation_curve=tuple(
            CurvePoint(
                weight=i / 10, validation=0.191 + 0.03 * (i / 10) * (1.6 - i / 10)
            )
            for i in range(11)
        ),
        federation=Federation(
            num_clients=4,
            declared_users_per_client=200,
            public_users=600,
            heldout_users=1200,
            num_items=3416,
        ),
        peak_memory_bytes=1_482_000_000,
        seconds_total=63.4,
        config={
            "run.name": "movies",
            "privacy.mode": "local",
            "privacy.target-epsilon": 8.0,
            "privacy.delta": 1e-5,
            "training.rounds": 40,
            "safeguard.enabled": True,
        },
        versions={"python": "3.11.7", "tutela": "0.1.0", "torch": "2.13.0"},
    )


@pytest.fixture
def unprotected_results(example_results: Results) -> Results:
    """The same run in mode off: no ε anywhere, the student stamped."""
    promise = example_results.promise.model_copy(
        update={
            "epsilon": None,
            "mode": "off",
            "seeded": False,
            "sentence": "NOT PRIVATE: mode off neither clips nor adds noise, so "
            "nothing is promised about student updates.",
        }
    )
    notes = example_results.model_notes | {
        "student_private": model_note(private=False),
        "student_scratch": model_note(private=False),
    }
    rounds = tuple(
        each.model_copy(update={"epsilon": None}) for each in example_results.rounds
    )
    return Results.model_validate(
        example_results.model_dump()
        | {"promise": promise, "model_notes": notes, "rounds": rounds}
    )


def _group(name: str, users: int, share: float, cost: Interval | None) -> GroupRecord:
    models = {
        model: _interval(share * values[0])
        for model, values in (_VALUES | _COMPARED).items()
    }
    return GroupRecord(group=name, num_users=users, models=models, cost=cost)


def _attribute(
    name: str, groups: tuple[GroupRecord, ...], suppressed: tuple[str, ...]
) -> AttributeRecord:
    best, worst = groups[0], groups[-1]
    gaps = {
        model: GapRecord(
            value=best.models[model].value - worst.models[model].value,
            best=best.group,
            worst=worst.group,
            chance=0.031,
        )
        for model in best.models
    }
    return AttributeRecord(
        attribute=name,
        metric="ndcg@10",
        groups=groups,
        gaps=gaps,
        suppressed=suppressed,
    )


def _personal() -> PersonalGains:
    return PersonalGains(
        users=788,
        clients=4,
        organisations=1,
        released=0.2811,
        personal=0.2934,
        gain=0.0123,
        low=0.0071,
        high=0.0176,
        better=0.47,
        equal=0.21,
        worse=0.32,
        judged=702,
        surely_better=0.081,
        surely_worse=0.019,
        alpha=0.34,
        quantiles=((0.05, -0.021), (0.5, 0.004), (0.95, 0.083)),
        edges=(-1.0, -0.05, 0.0, 0.05, 0.1, 1.0),
        counts=(22, 230, 391, 98, 47),
    )


@pytest.fixture
def detailed_results(example_results: Results) -> Results:
    """The same run with every model, groups, personal gains and a taught teacher."""
    more = {name: _metrics(values) for name, values in _COMPARED.items()}
    notes = {name: model_note(private="nonprivate" not in name) for name in more}
    cost = Interval(value=0.037, low=0.0292, high=0.0447)
    gain = Interval(value=-0.004, low=-0.0121, high=0.0034)
    ages = tuple(
        _group(name, users, share, each)
        for name, users, share, each in (
            ("25–34", 520, 1.1, cost),
            ("35–49", 371, 1.0, gain),
            ("under 25", 290, 0.9, None),
        )
    )
    genders = (_group("M", 833, 1.02, cost), _group("F", 367, 0.95, cost))
    rounds = tuple(
        each.model_copy(update={"teacher_gain": None if each.round % 10 else 0.0123})
        for each in example_results.rounds
    )
    changes = {
        "models": example_results.models | more,
        "model_notes": example_results.model_notes | notes,
        "groups": (
            _attribute("age", ages, ("50 and over", "unknown")),
            _attribute("gender", genders, ()),
        ),
        "personal": _personal(),
        "transfer": "transfer helped: the transferred start's NDCG@100 is +0.0912 "
        "[+0.0711, +0.1113] against popularity and +0.2107 [+0.1900, +0.2314] against "
        "random (150 public validation users, 95 %).",
        "rounds": rounds,
    }
    return Results.model_validate(example_results.model_dump() | changes)


@pytest.fixture
def statistics_results(example_results: Results) -> Results:
    """A complete run that asked for no training rounds."""
    models = dict(example_results.models)
    del models["student_scratch"]
    settings = {"training.rounds": 0, "statistics.share": 1.0}
    changes = {
        "models": models,
        "statistics": tuple(
            StatisticsRecord(
                question=question,
                bytes_down_per_client=down,
                bytes_up_per_client=up,
                survivors=3,
                num_clients=4,
            )
            for question, down, up in (
                ("pairs", 13_664, 23_300_000),
                ("sketch", 286_944, 273_280),
            )
        ),
        "rounds": (),
        "interpolation_weight": 1.0,
        "config": example_results.config | settings,
    }
    return Results.model_validate(example_results.model_dump() | changes)
