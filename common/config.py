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
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from common.errors import ConfigError

#: Steps of a client over a whole run.
MOST_STEPS = 1_000_000

Scalar = bool | int | float | str
FlatConfig = dict[str, Scalar]

PositiveInt = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
#: Far outside of use, and far from where 32-bit numbers round to nothing or overflow:
#: noise has to be added to what it hides.
Scale = Annotated[float, Field(ge=1e-8, le=1e8, allow_inf_nan=False)]
#: A server may not keep a client busy for ever.
Many = Annotated[int, Field(ge=1, le=100_000)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(gt=0, lt=1)]


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("expected printable characters alone")
    return text


class Section(BaseModel):
    """A table of the config: frozen, strict, unknown keys refused."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        alias_generator=lambda name: name.replace("_", "-"),
    )


class Run(Section):
    """What belongs to the whole run."""

    name: Annotated[str, Field(min_length=1, max_length=64), AfterValidator(_printable)]
    seed: Annotated[int, Field(ge=-1, lt=2**63)]
    device: Annotated[str, Field(pattern=r"^(cpu|cuda(:\d+)?)$")]
    round_timeout: Positive
    keep_every: Count


class Data(Section):
    """Where simulations take interactions from."""

    public: Annotated[str, Field(min_length=1)]
    private: Annotated[str, Field(min_length=1)]


class Partition(Section):
    """How simulations deal users out."""

    num_clients: PositiveInt
    scheme: Literal["iid", "attribute", "dirichlet"]
    attribute: str
    concentration: Positive
    public_users: PositiveInt
    validation_users: Count
    heldout_users: PositiveInt
    fold_in: Fraction
    seed: Count


class Features(Section):
    """What is known of items beside who touched them; public."""

    text: Annotated[str, Field(min_length=1)]
    images: str
    image_backbone: str
    vectors: str
    fusion: Literal["concatenate", "weight"]


class Teacher(Section):
    """The server's large model, trained on public data only."""

    name: Literal["ease", "transformer"]
    l2: Positive
    checkpoint: str


class Transformer(Section):
    """The sequential teacher's shape and training."""

    dim: PositiveInt
    blocks: PositiveInt
    heads: PositiveInt
    length: PositiveInt
    dropout: Annotated[float, Field(ge=0, lt=1)]
    epochs: PositiveInt
    batch_users: PositiveInt
    learning_rate: Positive
    negatives: Count
    calibration: Annotated[float, Field(ge=0, le=1)]


class Transfer(Section):
    """How the student starts."""

    method: Literal["svd", "random"]
    content: bool
    content_l2: Positive


class Statistics(Section):
    """One noisy sum of who touched which items together, for the teacher."""

    share: Annotated[float, Field(ge=0, le=1)]
    noise_multiplier: NonNegative
    most_items: Annotated[int, Field(ge=1, le=20_000)]


class StudentShape(Section):
    """The small model that travels."""

    dim: PositiveInt
    logit_scale: Scale
    history_exponent: NonNegative


class Distillation(Section):
    """Soft labels, and their weight on the client."""

    loss: Literal["kl", "mse", "rank"]
    weight: NonNegative
    temperature: Positive
    top_k: PositiveInt
    proxy_users: PositiveInt
    synthetic_users: Count
    augmentation: Literal["none", "crop", "mask", "reorder"]
    server_epochs: Count


class Refresh(Section):
    """The server distils released students back into the teacher."""

    every: Count
    weight: Positive


class Training(Section):
    """What a client does in a round."""

    rounds: Annotated[int, Field(ge=0, le=100_000)]
    local_steps: Many
    learning_rate: Scale
    target_fraction: Fraction
    chunk_users: Annotated[int, Field(ge=1, le=4096)]


class Privacy(Section):
    """The public half of the promise; see ``common/promise.py`` for the whole."""

    mode: Literal["local", "off"]
    target_epsilon: Positive
    noise_multiplier: NonNegative
    delta: Fraction
    max_grad_norm: Scale
    sample_rate: Annotated[float, Field(gt=0, le=1)]
    declared_users: PositiveInt


class Aggregation(Section):
    """How the server turns updates into the next student."""

    name: Literal["fedavg", "fedadam"]
    learning_rate: Positive
    beta_1: Annotated[float, Field(ge=0, lt=1)]
    beta_2: Annotated[float, Field(ge=0, lt=1)]
    epsilon: Positive
    weights: Literal["equal", "declared"]
    average_from: Annotated[float, Field(ge=0, lt=1)]


class Safeguard(Section):
    """Do no harm: how far the trained student may leave the transferred one."""

    enabled: bool
    grid: PositiveInt


class ClientMetrics(Section):
    """Noised sums of metrics on private users; off by default, and charged."""

    every: Count
    noise_multiplier: Positive


class Evaluation(Section):
    """How simulations rank and bound."""

    batch_size: PositiveInt
    resamples: PositiveInt
    baselines: bool
    min_group_users: PositiveInt


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
