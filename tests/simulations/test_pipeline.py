"""The five parts of a run: their order, what they say, whose settings they show."""

import polars as pl
import pytest

from common.catalogue import SCHEMA, Catalogue
from common.config import RunConfig, defaults, parse, to_flat
from simulations.pipeline import PARTS, Part, parts_of

NAMES = (
    "user profile",
    "item features",
    "similarity",
    "algorithm",
    "evaluation and optimisation",
)


def catalogue() -> Catalogue:
    """Four items: three with a title, two with categories, one with a year."""
    rows = [
        ("a", "Alien", 1979, ["horror"]),
        ("b", "Brazil", 0, ["comedy", "drama"]),
        ("c", "Cube", 0, []),
        ("d", "", 0, []),
    ]
    return Catalogue(pl.DataFrame(rows, schema=SCHEMA, orient="row"))


def config(**overrides) -> RunConfig:
    return parse(defaults() | overrides)


def part(name: str, settings: RunConfig, results=None) -> Part:
    found = {each.name: each for each in parts_of(settings, catalogue(), results)}
    return found[name]


def test_there_are_five_parts_in_the_order_of_the_data() -> None:
    found = parts_of(config(), catalogue(), None)
    assert tuple(each.name for each in found) == NAMES
    assert len(PARTS) == 5
    for each in found:
        assert each.does.endswith(".")
        assert each.where
        assert each.settings


def test_every_setting_belongs_to_one_part_at_most() -> None:
    """The run's name and its data sets are no part's."""
    settings = config()
    found = parts_of(settings, catalogue(), None)
    keys = [key for each in found for key in each.settings]
    assert len(keys) == len(set(keys))
    left_out = {key.partition(".")[0] for key in to_flat(settings).keys() - set(keys)}
    assert left_out == {"run", "data"}
    for each in found:
        assert each.settings.items() <= to_flat(settings).items()


def test_modules_that_are_named_are_there(request) -> None:
    for each in parts_of(config(), catalogue(), None):
        for path in each.where:
            assert (request.config.rootpath / path).exists(), path


def test_items_are_counted() -> None:
    assert part("item features", config()).facts == {
        "items": "4",
        "with a title": "3",
        "with categories": "2",
        "with a year": "1",
    }


@pytest.mark.parametrize(
    ("name", "overrides", "said"),
    [
        ("user profile", {"student.dim": 17}, "17 numbers"),
        ("item features", {"features.fusion": "weight"}, "fused by weight"),
        ("similarity", {"transfer.method": "random"}, "to the student by random"),
        ("similarity", {"transfer.content": False}, "have no place"),
        ("similarity", {"transfer.content-l2": 7.0}, "(ridge, l2 7)"),
        ("algorithm", {"statistics.share": 0.25}, "(25% of ε)"),
        ("algorithm", {"training.rounds": 9}, "9 rounds of private training, fedadam"),
        ("algorithm", {"distillation.loss": "mse"}, "distilling soft labels by mse"),
        ("evaluation and optimisation", {"safeguard.enabled": False}, "guard off"),
    ],
)
def test_a_sentence_says_how_the_run_was_set(name, overrides, said) -> None:
    assert said in part(name, config(**overrides)).does


def test_without_rounds_nobody_trains_or_distils() -> None:
    """Soft labels go to clients that train; here none does, whatever their weight."""
    alone = {"statistics.share": 1.0, "training.rounds": 0, "distillation.weight": 0.1}
    does = part("algorithm", config(**alone)).does
    assert does.startswith("One noisy sum")
    assert does.endswith("refines the teacher (100% of ε).")


def test_before_the_end_nothing_is_known_of_the_outcome() -> None:
    assert part("algorithm", config()).facts == {}
    assert part("evaluation and optimisation", config()).facts == {}


def test_results_give_the_promise_and_the_figures(example_results) -> None:
    found = part("algorithm", config(), example_results)
    assert found.facts == {"promise": example_results.promise.sentence}
    facts = part("evaluation and optimisation", config(), example_results).facts
    metric = example_results.primary_metric
    value = example_results.models["student_private"][metric].value
    assert facts[f"{metric}, student private"] == f"{value:.4f}"
    assert facts["verdict"] == example_results.verdict.text
    assert len(facts) == len(example_results.models) + 1
