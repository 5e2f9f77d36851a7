"""The student: a small bag-of-history encoder with separate item tables.

In ``common`` because it travels: the server starts and aggregates it, clients train
it, whoever recommends ranks with it. One sample is one user, so Opacus' per-sample
clip is a user-level one. Both tables are ``nn.Linear`` on multi-hot rows: an
``EmbeddingBag`` or tied tables would get wrong per-sample gradients (repeated ids,
lost gradients), and nothing couples the users of a batch (no BatchNorm, no in-batch
negatives).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from common.durable_files import write_durably
from common.errors import DataFormatError
from common.sections import StudentShape
from common.versions import check_format

FORMAT = "tutela-student-1"

StateDict = dict[str, Tensor]


@dataclass(frozen=True)
class StudentSpec:
    """What fixes a student's shape and its function; public.

    Attributes:
        num_items: size of the declared catalogue.
        dim: width of the user vector.
        logit_scale: constant between user vector and logits; with the item tables
            of a teacher it sets how far one optimiser step moves the scores.
        history_exponent: a history of n items is divided by ``n ** exponent``.
    """

    num_items: int
    dim: int
    logit_scale: float
    history_exponent: float


def spec_of(settings: StudentShape, num_items: int) -> StudentSpec:
    """The student this configuration asks for over a catalogue."""
    return StudentSpec(
        num_items, settings.dim, settings.logit_scale, settings.history_exponent
    )


class Student(nn.Module):
    """``logits = logit_scale · decoder(encoder(h / |h|^p)) + bias``."""

    def __init__(self, spec: StudentSpec) -> None:
        super().__init__()
        self.spec = spec
        self.encoder = nn.Linear(spec.num_items, spec.dim, bias=False)
        self.decoder = nn.Linear(spec.dim, spec.num_items, bias=True)

    def forward(self, history: Tensor) -> Tensor:
        """Scores of every item.

        Args:
            history: float32 ``[B, num_items]``, multi-hot; an empty row is allowed.

        Returns:
            Logits float32 ``[B, num_items]``.
        """
        scaled = normalise_history(history, self.spec.history_exponent)
        user: Tensor = self.encoder(scaled) * self.spec.logit_scale
        logits: Tensor = self.decoder(user)
        return logits


def normalise_history(history: Tensor, exponent: float) -> Tensor:
    """Rows of ``history`` ``[B, n]`` divided by their length to the ``exponent``."""
    length = history.sum(dim=1, keepdim=True).clamp(min=1.0)
    return history / length**exponent


def shapes(spec: StudentSpec) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a student's tensors, in state-dict order."""
    return {
        "encoder.weight": (spec.dim, spec.num_items),
        "decoder.weight": (spec.num_items, spec.dim),
        "decoder.bias": (spec.num_items,),
    }


#: Far below float32's largest number, 3.4e38, and above any student of use.
LARGEST = 1e25


def is_bounded(spec: StudentSpec, state: Mapping[str, Tensor]) -> bool:
    """Whether no history can make this student, or a gradient of it, overflow.

    Near the edge it would depend on the order of a sum, and so on who else is in a
    batch, whether a user overflows: one user could then decide about others. Bounds
    are for the worst multi-hot history and the worst targets, in double precision.
    """
    items, dim = float(spec.num_items), float(spec.dim)
    encoder, decoder, bias = (
        float(state[name].abs().max().double()) if state[name].numel() else 0.0
        for name in ("encoder.weight", "decoder.weight", "decoder.bias")
    )
    history = items ** max(0.0, 1.0 - spec.history_exponent)
    user = spec.logit_scale * encoder * history
    logits = dim * decoder * user + bias
    # Multinomial: the targets pull by one together, and all items by as much.
    pull = 2.0
    decoder_norm = (dim * user**2 + 1.0) * pull**2
    encoder_norm = items * dim * (spec.logit_scale * decoder * pull) ** 2
    return bool(max(items * logits, decoder_norm, encoder_norm) < LARGEST)


def random_state(spec: StudentSpec, generator: torch.Generator) -> StateDict:
    """A start without a teacher: normal entries of deviation ``dim ** -0.5 / 10``."""
    state = {}
    for name, shape in shapes(spec).items():
        entries = torch.randn(shape, generator=generator) * spec.dim**-0.5 / 10
        state[name] = torch.zeros(shape) if name.endswith("bias") else entries
    return state


def build(spec: StudentSpec, state: Mapping[str, Tensor]) -> Student:
    """A student with these tensors."""
    student = Student(spec)
    student.load_state_dict(dict(state))
    return student


def interpolate(a: StateDict, b: StateDict, weight: float) -> StateDict:
    """``(1 − weight)·a + weight·b``, tensor by tensor; weight in [0, 1]."""
    return {name: torch.lerp(a[name], b[name], weight) for name in a}


def save_student(
    path: Path, spec: StudentSpec, state: Mapping[str, Tensor], *, promise: str = ""
) -> None:
    """Write tensors and spec as safetensors: the whole new file or the old one.

    Args:
        promise: what the training promised, for whoever is served by the student.
    """
    metadata = {
        "format": FORMAT,
        "logit_scale": repr(spec.logit_scale),
        "history_exponent": repr(spec.history_exponent),
    }
    if promise:
        metadata["promise"] = promise
    tensors = {name: tensor.contiguous() for name, tensor in state.items()}
    write_durably(path, save(tensors, metadata))


def load_student(path: Path) -> Student:
    """Read what :func:`save_student` wrote.

    Raises:
        DataFormatError: if the file is missing or is no student.
    """
    if not path.is_file():
        raise DataFormatError(f"Expected a student at {path}, found no file.")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError:
        metadata = {}
    check_format(str(path), metadata.get("format"), (FORMAT,))
    dim, num_items = state["encoder.weight"].shape
    spec = StudentSpec(
        num_items,
        dim,
        float(metadata["logit_scale"]),
        float(metadata["history_exponent"]),
    )
    return build(spec, state).eval()
