"""The run config: every default parses, every refusal names its key."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.config import (
    defaults,
    flatten,
    parse,
    parse_assignment,
    read_overrides,
    to_flat,
    unflatten,
)
from common.errors import ConfigError

DEFAULTS = defaults()


def test_the_defaults_parse_and_round_trip():
    flat = to_flat(parse(DEFAULTS))
    assert flat == DEFAULTS
    assert {k: type(v) for k, v in flat.items()} == {
        k: type(v) for k, v in DEFAULTS.items()
    }


def test_total_steps_are_rounds_times_local_steps():
    flat = DEFAULTS | {"training.rounds": 7, "training.local-steps": 3}
    assert parse(flat).total_steps == 21


def test_a_server_may_ask_for_so_many_steps_and_no_more():
    most = {"training.rounds": 100_000, "training.local-steps": 10}
    assert parse(DEFAULTS | most).total_steps == 10**6
    with pytest.raises(ConfigError, match=r"training\.rounds × training\.local-steps"):
        parse(DEFAULTS | most | {"training.local-steps": 11})


def test_metrics_of_clients_are_off_unless_asked_for():
    assert parse(DEFAULTS).client_metrics.every == 0
    assert parse(DEFAULTS).evaluation.min_group_users == 10


def test_a_parsed_config_is_frozen():
    config = parse(DEFAULTS)
    with pytest.raises(Exception, match="frozen"):
        config.training.rounds = 1


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("training.epochs", 1),
        ("run.name.first", "x"),
        ("rounds", 1),
        ("training.rounds", 0),
        ("training.rounds", 1.0),
        ("training.rounds", True),
        ("training.rounds", "3"),
        ("training.rounds", 100_001),
        ("training.local-steps", 0),
        ("training.local-steps", 100_001),
        ("client-metrics.every", -1),
        ("client-metrics.noise-multiplier", 0.0),
        ("evaluation.min-group-users", 0),
        ("run.seed", -2),
        ("run.name", ""),
        ("run.name", "a\nb"),
        ("run.name", "a\u202eb"),
        ("run.name", "a\x9bb"),
        ("training.chunk-users", 5000),
        ("privacy.max-grad-norm", 1e-40),
        ("training.learning-rate", 1e30),
        ("student.logit-scale", 1e9),
        ("run.name", "x" * 65),
        ("run.device", "cuda:x"),
        ("partition.scheme", "IID"),
        ("partition.fold-in", 1.0),
        ("privacy.sample-rate", 0.0),
        ("privacy.sample-rate", 1.5),
        ("privacy.delta", 0),
        ("privacy.delta", float("nan")),
        ("privacy.noise-multiplier", -0.1),
        ("privacy.target-epsilon", float("inf")),
        ("privacy.max-grad-norm", True),
        ("privacy.max-grad-norm", 10**400),
        ("privacy.mode", "central"),
        ("aggregation.beta-1", 1.0),
        ("safeguard.enabled", 1),
    ],
)
def test_a_refusal_names_its_key(key, value):
    with pytest.raises(ConfigError) as caught:
        parse(DEFAULTS | {key: value})
    lines = str(caught.value).splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"{key}: ")


@pytest.mark.parametrize("key", sorted(DEFAULTS))
def test_every_key_is_needed(key):
    flat = {name: value for name, value in DEFAULTS.items() if name != key}
    with pytest.raises(ConfigError) as caught:
        parse(flat)
    assert str(caught.value) == f"{key}: missing key."


def test_an_unknown_section_is_named():
    with pytest.raises(ConfigError, match=r"^secrets: unknown key\.$"):
        parse(DEFAULTS | {"secrets.path": "x"})


def test_a_key_without_a_section_is_told_how_to_look():
    with pytest.raises(ConfigError, match=r"^rounds: .*expected section\.key"):
        parse(DEFAULTS | {"rounds": 1})


def test_every_fault_has_its_line():
    wrong = {"training.rounds": -1, "privacy.delta": 2.0, "data.secret": "x"}
    with pytest.raises(ConfigError) as caught:
        parse(DEFAULTS | wrong)
    named = {line.split(": ")[0] for line in str(caught.value).splitlines()}
    assert named == set(wrong)


@pytest.mark.parametrize("validation", [19, 20])
def test_validation_users_come_out_of_the_public_ones(validation):
    flat = DEFAULTS | {
        "partition.public-users": 19,
        "partition.validation-users": validation,
    }
    with pytest.raises(ConfigError, match=r"^partition\.validation-users: .*\(19\)"):
        parse(flat)
    parse(flat | {"partition.validation-users": 18})


def test_an_int_means_a_float_where_the_default_is_one():
    config = parse(DEFAULTS | {"privacy.target-epsilon": 3, "teacher.l2": 250})
    assert (config.privacy.target_epsilon, config.teacher.l2) == (3.0, 250.0)
    assert type(config.privacy.target_epsilon) is float
    assert type(to_flat(config)["teacher.l2"]) is float


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("training.rounds=3", "training.rounds", 3),
        ("privacy.delta = 1e-6", "privacy.delta", 1e-6),
        ("safeguard.enabled=false", "safeguard.enabled", False),
        ("data.public=ml-100k", "data.public", "ml-100k"),
        ('run.name="a = b"', "run.name", "a = b"),
        ("run.name=a=b", "run.name", "a=b"),
        ("run.name=", "run.name", ""),
        ("data.public=/some/folder", "data.public", "/some/folder"),
    ],
)
def test_assignments(text, key, value):
    parsed = parse_assignment(text)
    assert parsed == (key, value)
    assert type(parsed[1]) is type(value)


@pytest.mark.parametrize("text", ["training.rounds", "", "rounds 3"])
def test_an_assignment_needs_an_equals_sign(text):
    with pytest.raises(ConfigError, match=r"Expected section\.key=value"):
        parse_assignment(text)


@pytest.mark.parametrize("value", ["[1, 2]", "{a = 1}", "2020-01-01"])
def test_an_assignment_holds_one_value(value):
    with pytest.raises(ConfigError, match=r"^training\.rounds: expected one value"):
        parse_assignment(f"training.rounds={value}")


def test_overrides_are_read_flat(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text("[training]\nrounds = 3\n[privacy]\ntarget-epsilon = 2\n")
    assert read_overrides(path) == {"training.rounds": 3, "privacy.target-epsilon": 2}


def test_missing_overrides_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"absent\.toml, found none"):
        read_overrides(tmp_path / "absent.toml")


@pytest.mark.parametrize("content", [b"[training\n", b"\xff\xfe", b"a = "])
def test_overrides_that_are_no_toml_are_refused(tmp_path, content):
    path = tmp_path / "broken.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"broken\.toml: expected TOML"):
        read_overrides(path)


_NAMES = st.from_regex(r"[a-z][a-z-]{0,6}", fullmatch=True)


@given(st.dictionaries(st.tuples(_NAMES, _NAMES).map(".".join), st.integers()))
def test_flatten_undoes_unflatten(flat):
    assert flatten(unflatten(flat)) == flat


def test_a_teacher_of_the_clients_sums_is_not_refreshed():
    flat = DEFAULTS | {"refresh.every": 1}
    assert parse(flat).refresh.every == 1
    with pytest.raises(ConfigError, match=r"^refresh\.every: expected 0 where"):
        parse(flat | {"statistics.share": 0.5})


SUM = {"privacy.mode": "distributed"}


def test_a_secure_sum_is_a_mode():
    assert parse(defaults() | SUM).privacy.mode == "distributed"


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("statistics.share", 0.5, "0.0"),
        ("client-metrics.every", 2, "0"),
        ("aggregation.weights", "declared", "equal"),
        ("aggregation.robust", "median", "'none'"),
    ],
)
def test_what_a_secure_sum_cannot_have_beside_it(key, value, expected):
    parse(defaults() | {key: value})
    with pytest.raises(ConfigError, match=f"{key}: expected {expected} .*distributed"):
        parse(defaults() | SUM | {key: value})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("clients", 2),
        ("threshold", 0.5),
        ("threshold", 1.1),
        ("corrupt", 0.5),
        ("corrupt", -0.1),
        ("neighbours", 7),
        ("parameters", 0),
        ("granularity", 0.1),
        ("beta", 0.0),
        ("beta", 1.0),
        ("bits", 64),
        ("wrap", 0.0),
        ("roster", 1),
    ],
)
def test_a_sums_settings_have_bounds(key, value):
    with pytest.raises(ConfigError, match=f"secagg.{key}"):
        parse(defaults() | {f"secagg.{key}": value})


@pytest.mark.parametrize(
    ("clients", "threshold", "corrupt", "honest"),
    [(100, 0.8, 0.1, 70), (100, 0.55, 0.1, None), (100, 0.56, 0.1, 46)],
)
def test_two_lists_of_survivors_share_somebody_honest(
    clients, threshold, corrupt, honest
):
    keys = {"clients": clients, "threshold": threshold, "corrupt": corrupt}
    flat = defaults() | {f"secagg.{key}": value for key, value in keys.items()}
    if honest is not None:
        assert parse(flat).secagg.honest == honest
        return
    with pytest.raises(ConfigError, match=r"secagg\.threshold: expected more than"):
        parse(flat)
