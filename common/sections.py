"""The sections of a run's configuration: which keys there are, what each may be.

In ``common`` because ``config.py`` makes one configuration of them for everybody.
Bounds stand here, defaults in ``pyproject.toml``.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from common.errors import ConfigError

PositiveInt = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
#: Far outside of use, and far from where 32-bit numbers round to nothing or overflow:
#: noise has to be added to what it hides.
Scale = Annotated[float, Field(ge=1e-8, le=1e8, allow_inf_nan=False)]
#: What is released has to be a number still.
MOST_NOISE = 1e8
Noise = Annotated[float, Field(ge=0, le=MOST_NOISE)]
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
    start_timeout: Positive
    round_timeout: Positive
    min_clients: PositiveInt
    min_replies: PositiveInt
    poll_interval: Positive
    poll_longest: Positive
    keep_every: Count
    keep_answers: bool
    resume: bool


class Data(Section):
    """Where simulations take interactions from."""

    public: Annotated[str, Field(min_length=1)]
    private: Annotated[str, Field(min_length=1)]


class Partition(Section):
    """How simulations deal users out."""

    num_clients: PositiveInt
    scheme: Literal["iid", "attribute", "dirichlet", "users"]
    attribute: str
    concentration: Positive
    public_users: PositiveInt
    validation_users: Count
    heldout_users: PositiveInt
    fold_in: Fraction
    dropout: Annotated[float, Field(ge=0, lt=1)]
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

    method: Literal["svd", "copy", "across", "random"]
    content: bool
    content_l2: Positive


class Statistics(Section):
    """Noisy sums of which items are touched together, for the teacher."""

    share: Annotated[float, Field(ge=0, le=1)]
    noise_multiplier: Noise
    counts_share: Fraction
    sketch_share: Annotated[float, Field(ge=0, lt=1)]
    directions: Annotated[int, Field(ge=1, le=256)]
    rank: Annotated[int, Field(ge=1, le=1024)]
    public_weight: NonNegative
    l2: Positive
    popularity_l2: NonNegative
    most_items: Annotated[int, Field(ge=2, le=8_000)]


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

    @property
    def most_labels(self) -> int:
        """Users in the proxy set at most, views of them included."""
        drawn = self.proxy_users + self.synthetic_users
        return drawn if self.augmentation == "none" else 2 * drawn


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

    mode: Literal["local", "distributed", "off"]
    target_epsilon: Positive
    noise_multiplier: Noise
    delta: Fraction
    max_grad_norm: Scale
    sample_rate: Annotated[float, Field(gt=0, le=1)]
    declared_users: PositiveInt


class Secagg(Section):
    """The sum of mode ``distributed``: who has to finish, and on which integers."""

    clients: Annotated[int, Field(ge=3, le=20_000)]
    threshold: Annotated[float, Field(gt=0.5, le=1)]
    corrupt: Annotated[float, Field(ge=0, lt=0.5)]
    dropped: Annotated[float, Field(ge=0, lt=0.5)]
    neighbours: Annotated[int, Field(ge=0, le=20_000, multiple_of=2)]
    roster: bool
    parameters: Annotated[int, Field(ge=1, le=2**28)]
    granularity: Annotated[float, Field(ge=0.5, le=1024)]
    beta: Annotated[float, Field(ge=1e-6, le=0.9)]
    bits: Annotated[int, Field(ge=0, le=48)]
    wrap: Annotated[float, Field(ge=1e-9, le=1e-2)]

    @property
    def least(self) -> int:
        """Clients whose vectors have to be in a sum, or it is discarded."""
        return _count_of(self.threshold, self.clients)

    @property
    def most_corrupt(self) -> int:
        """Clients that may be in league with the server, at most."""
        return _count_of(self.corrupt, self.clients)

    @property
    def honest(self) -> int:
        """Clients whose noise counts: those of the least that are honest."""
        return self.least - self.most_corrupt


def _count_of(share: float, whole: int) -> int:
    """The share's count, rounded up; 0.55 of 100 is 55, whatever floats say."""
    return math.ceil(round(share * whole, 9))


class Aggregation(Section):
    """How the server turns updates into the next student."""

    name: Literal["fedavg", "fedadam"]
    learning_rate: Positive
    beta_1: Annotated[float, Field(ge=0, lt=1)]
    beta_2: Annotated[float, Field(ge=0, lt=1)]
    epsilon: Positive
    weights: Literal["equal", "declared"]
    average_from: Annotated[float, Field(ge=0, lt=1)]
    robust: Literal["none", "trimmed-mean", "median", "multi-krum", "norm-bound"]
    malicious: Annotated[float, Field(gt=0, lt=0.5)]
    norm_bound: Annotated[float, Field(ge=1, le=1000)]


def check_possible(mode: str, robust: str) -> None:
    """Refuse a robust aggregator where the server sees no client's own answer.

    Args:
        mode: ``privacy.mode``.
        robust: ``aggregation.robust``.

    Raises:
        ConfigError: in mode ``distributed``, with any aggregator but ``none``.
    """
    if mode == "distributed" and robust != "none":
        raise ConfigError(
            "aggregation.robust: expected 'none' where privacy.mode is 'distributed', "
            f"got {robust!r}: under secure aggregation the server sees only the sum "
            "of the clients' answers, and can compare none of them with another. "
            "What is left is what each client's answer is bounded by before it is "
            "masked, which a client that lies does not keep to."
        )


class Safeguard(Section):
    """Do no harm: how far the trained student may leave the transferred one."""

    enabled: bool
    grid: PositiveInt


class ClientMetrics(Section):
    """Noised sums of metrics on private users; off by default, and charged."""

    every: Count
    noise_multiplier: Annotated[float, Field(gt=0, le=MOST_NOISE)]


class Evaluation(Section):
    """How simulations rank and bound."""

    batch_size: PositiveInt
    resamples: PositiveInt
    baselines: bool
    comparison: bool
    decision: Literal["none", "z-scores", "min-max", "reciprocal-ranks", "borda"]
    personal: bool
    min_group_users: PositiveInt
