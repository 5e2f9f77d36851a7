"""Parts of the page: a client's whole traffic, attributes with nothing to show."""

from simulations.table import plain_text
from tests.simulations.test_report import page_of


def test_traffic_that_older_results_lack_is_said_to_be_lacking(statistics_results):
    text = page_of(statistics_results.model_copy(update={"statistics": ()})).text

    assert "Traffic of the statistics is not in these figures" in text
    assert "Received by a client" not in text


def test_traffic_is_that_of_statistics_and_rounds(example_results, statistics_results):
    asked = {"statistics": statistics_results.statistics}
    text = page_of(example_results.model_copy(update=asked)).text

    # 40 rounds of 1,771,520 and 1,749,044 bytes beside them.
    assert "Received by a client71.2 MB" in text
    assert "Sent by a client93.5 MB" in text


def test_an_attribute_without_groups_left_is_said_in_words(detailed_results):
    age, gender = detailed_results.groups
    bare = age.model_copy(update={"groups": (), "gaps": {}})
    text = page_of(detailed_results.model_copy(update={"groups": (bare, gender)})).text

    assert "By age nothing is shown: fewer than two groups are left" in text
    assert "too few users (50 and over, unknown)" in text
    assert "NDCG@10 by group, with 95 % intervals" in text
    alone = page_of(detailed_results.model_copy(update={"groups": (bare,)})).text
    assert "By age nothing is shown" in alone
    assert "by group, with 95 % intervals" not in alone


def test_a_refinement_that_failed_is_said(statistics_results):
    why = "The clients' statistics made no teacher. The public teacher stays."
    failed = statistics_results.model_copy(update={"refinement": why})

    assert why in page_of(failed).text
    assert why in " ".join(plain_text(failed).split())
    assert "made no teacher" not in page_of(statistics_results).text
