"""A run's configuration: validated, frozen, every default read from one place.

In ``common`` because server, client and simulations read the same run config. The
defaults stand in ``pyproject.toml`` under ``[tool.flwr.app.config]``, where Flower
looks for them too; this module says which keys there are and what each may be.
Paths, budgets and consent are not here: they are the client's own settings.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError, model_validator

from common.errors import ConfigError
from common.sections import (
    Aggregation,
    ClientMetrics,
    Data,
    Distillation,
    Evaluation,
    Features,
    Partition,
    Privacy,
    Refresh,
    Run,
    Safeguard,
    Secagg,
    Section,
    Statistics,
    StudentShape,
    Teacher,
    Training,
    Transfer,
    Transformer,
    check_possible,
)

#: Steps of a client over a whole run.
MOST_STEPS = 1_000_000

Scalar = bool | int | float | str
FlatConfig = dict[str, Scalar]


class RunConfig(Section):
    """The whole configuration of a run; build it with :func:`parse`."""

    run: Run
    data: Data
    partition: Partition
    features: Features
    teacher: Teacher
    transformer: Transformer
    transfer: Transfer
    statistics: Statistics
    student: StudentShape
    distillation: Distillation
    refresh: Refresh
    training: Training
    privacy: Privacy
    secagg: Secagg
    aggregation: Aggregation
    safeguard: Safeguard
    client_metrics: ClientMetrics
    evaluation: Evaluation

    @model_validator(mode="after")
    def _validation_users_are_public_users(self) -> RunConfig:
        if self.partition.validation_users >= self.partition.public_users:
            raise ValueError(
                "partition.validation-users: expected fewer than "
                f"partition.public-users ({self.partition.public_users}), "
                f"got {self.partition.validation_users}"
            )
        return self

    @model_validator(mode="after")
    def _a_run_ends(self) -> RunConfig:
        if self.total_steps > MOST_STEPS:
            raise ValueError(
                "training.rounds × training.local-steps: expected at most "
                f"{MOST_STEPS} steps, got {self.total_steps}"
            )
        return self

    @model_validator(mode="after")
    def _something_is_learnt(self) -> RunConfig:
        share, rounds = self.statistics.share, self.training.rounds
        if not rounds and not share:
            raise ValueError(
                "training.rounds: expected at least 1 where statistics.share is 0"
            )
        if rounds and share == 1:
            raise ValueError(
                "statistics.share: expected less than 1 where training.rounds is not "
                "0, or nothing is left for training"
            )
        return self

    @model_validator(mode="after")
    def _a_teacher_labels_its_own_domain_alone(self) -> RunConfig:
        if self.transfer.method == "across" and (
            self.distillation.weight or self.refresh.every
        ):
            raise ValueError(
                "transfer.method: across expected distillation.weight and "
                "refresh.every of 0, since the teacher knows none of these items"
            )
        return self

    @model_validator(mode="after")
    def _what_statistics_make_is_not_refreshed(self) -> RunConfig:
        if self.statistics.share and self.refresh.every:
            raise ValueError(
                "refresh.every: expected 0 where statistics.share is not 0, since no "
                "student can teach the teacher that the clients' sums make"
            )
        return self

    @model_validator(mode="after")
    def _a_sum_is_all_that_is_seen(self) -> RunConfig:
        check_possible(self.privacy.mode, self.aggregation.robust)
        if self.privacy.mode == "distributed":
            for key, found, expected, why in self._beside_the_sum():
                if found != expected:
                    raise ValueError(
                        f"{key}: expected {expected} where privacy.mode is "
                        f"'distributed', got {found}: {why}"
                    )
        return self

    def _beside_the_sum(self) -> tuple[tuple[str, Scalar, Scalar, str], ...]:
        """Keys that mode ``distributed`` has one value for."""
        single = "it would leave each client by itself, outside the secure sum"
        return (
            ("statistics.share", self.statistics.share, 0.0, single),
            ("client-metrics.every", self.client_metrics.every, 0, single),
            (
                "aggregation.weights",
                self.aggregation.weights,
                "equal",
                "a weight would change what a client adds to the sum at most",
            ),
        )

    @model_validator(mode="after")
    def _two_lists_share_somebody_honest(self) -> RunConfig:
        """Two sets of so many of the clients have one in common, and more than that."""
        secagg = self.secagg
        if 2 * secagg.least - secagg.clients <= secagg.most_corrupt:
            raise ValueError(
                "secagg.threshold: expected more than (1 + secagg.corrupt) / 2, so "
                "that two lists of survivors have somebody honest in common, got "
                f"{secagg.threshold}"
            )
        return self

    @property
    def total_steps(self) -> int:
        """DP-SGD steps of one client over the whole run."""
        return self.training.rounds * self.training.local_steps


def project_file() -> Path:
    """The project file: in the package of a wheel, beside it in a checkout."""
    here = Path(__file__).parent
    candidates = (here / "pyproject.toml", here.parent / "pyproject.toml")
    for path in candidates:
        if path.is_file():
            return path
    raise ConfigError(f"Expected the defaults in {candidates[1]}, found no file.")


def flatten(tree: Mapping[str, Any], prefix: str = "") -> FlatConfig:
    """Nested tables → dotted keys, as Flower does it."""
    flat: FlatConfig = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def unflatten(flat: Mapping[str, Scalar]) -> dict[str, Any]:
    """Dotted keys → nested tables.

    Raises:
        ConfigError: if a key has no section.
    """
    tree: dict[str, Any] = {}
    for key, value in flat.items():
        section, dot, name = key.partition(".")
        if not dot:
            raise ConfigError(f"{key}: unknown key; expected section.key.")
        tree.setdefault(section, {})[name] = value
    return tree


def defaults() -> FlatConfig:
    """Every key's default, from ``pyproject.toml``."""
    tree = tomllib.loads(project_file().read_text(encoding="utf-8"))
    return flatten(tree["tool"]["flwr"]["app"]["config"])


def parse(flat: Mapping[str, Scalar]) -> RunConfig:
    """Validate a complete flat config.

    Raises:
        ConfigError: one line a fault, each naming the key, what was expected and
            what came.
    """
    try:
        return RunConfig.model_validate(unflatten(_int_as_float(flat)))
    except ValidationError as error:
        raise ConfigError("\n".join(map(_explain, error.errors()))) from None


def _int_as_float(flat: Mapping[str, Scalar]) -> FlatConfig:
    """TOML's ``delta = 1`` where the default is a float means 1.0."""
    floats = _float_keys()
    return {
        key: float(value)
        if key in floats
        and type(value) is int
        and abs(value) <= 2**53  # more is no float's value, hence refused
        else value
        for key, value in flat.items()
    }


@lru_cache(maxsize=1)
def _float_keys() -> frozenset[str]:
    """Keys whose default is a float; a client parses its config at each message."""
    return frozenset(k for k, value in defaults().items() if isinstance(value, float))


def _explain(fault: Any) -> str:
    key = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        return f"{key}: unknown key."
    if fault["type"] == "missing":
        return f"{key}: missing key."
    if fault["type"] == "value_error":
        return (
            f"{key}: {fault['ctx']['error']}." if key else f"{fault['ctx']['error']}."
        )
    return f"{key}: {fault['msg']}; got {fault['input']!r}."


def read_overrides(path: Path) -> FlatConfig:
    """Flat overrides from a TOML file.

    Raises:
        ConfigError: if the file is missing or is not TOML.
    """
    try:
        return flatten(tomllib.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise ConfigError(f"Expected a config file at {path}, found none.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"{path}: expected TOML: {error}") from None


def parse_assignment(text: str) -> tuple[str, Scalar]:
    """``section.key=value`` → key and value; the value is TOML or a bare string.

    Raises:
        ConfigError: if there is no ``=``.
    """
    key, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"Expected section.key=value, got {text!r}.")
    try:
        parsed = tomllib.loads(f"value = {value.strip()}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value.strip()
    if not isinstance(parsed, Scalar):
        raise ConfigError(f"{key.strip()}: expected one value, got {value.strip()}.")
    return key.strip(), parsed


def to_flat(config: RunConfig) -> FlatConfig:
    """The flat form again: what ``config.toml`` and Flower's run config hold."""
    return flatten(config.model_dump(by_alias=True))
