"""A training in the middle: a file from which a killed one goes on bit for bit.

Safetensors, never pickle. On the server, beside the training that writes it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from common.durable_files import write_durably
from common.errors import DataFormatError
from common.versions import check_format

FORMAT = "tutela-teacher-training-1"
_MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True, eq=False)
class Progress:
    """How far a training is.

    Attributes:
        fingerprint: of everything that the result depends on.
        epochs_done: 0 before the first.
        best_value: the best epoch's, −inf before the first.
        best: the best epoch's tensors; empty before the first.
    """

    fingerprint: str
    epochs_done: int
    best_value: float
    best: dict[str, Tensor]

    def after(self, value: float, tensors: dict[str, Tensor]) -> Progress:
        """One epoch later, which is the best unless an earlier one was better."""
        done = self.epochs_done + 1
        if value >= self.best_value:
            return Progress(self.fingerprint, done, value, tensors)
        return replace(self, epochs_done=done)


def save_progress(
    path: Path, state: Progress, network: nn.Module, optimiser: torch.optim.Adam
) -> None:
    """Write everything the next epoch starts from: the new file, or the old one."""
    tensors = {f"network.{name}": t for name, t in network.state_dict().items()}
    tensors |= {f"best.{name}": t for name, t in state.best.items()}
    for i, moments in optimiser.state_dict()["state"].items():
        tensors |= {f"adam.{i}.{name}": moments[name] for name in (*_MOMENTS, "step")}
    metadata = {
        "format": FORMAT,
        "fingerprint": state.fingerprint,
        "epochs_done": str(state.epochs_done),
        "best_value": repr(state.best_value),
    }
    write_durably(path, save({k: t.contiguous() for k, t in tensors.items()}, metadata))


def load_progress(
    path: Path, fingerprint: str, network: nn.Module, optimiser: torch.optim.Adam
) -> Progress:
    """Put network and optimiser where :func:`save_progress` found them.

    Raises:
        DataFormatError: if the file is damaged, or of another training.
    """
    metadata, tensors = _read(path)
    if metadata["fingerprint"] != fingerprint:
        raise DataFormatError(
            f"{path}: expected a training of these histories and settings, got that "
            "of others; remove the file to begin anew."
        )
    try:
        network.load_state_dict(_under("network.", tensors))
        count = len(list(network.parameters()))
        moments = {i: _under(f"adam.{i}.", tensors) for i in range(count)}
        groups = optimiser.state_dict()["param_groups"]
        optimiser.load_state_dict({"state": moments, "param_groups": groups})
        return Progress(
            fingerprint,
            int(metadata["epochs_done"]),
            float(metadata["best_value"]),
            _under("best.", tensors),
        )
    except (KeyError, ValueError, RuntimeError):
        raise _damaged(path) from None


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError):
        raise _damaged(path) from None
    check_format(str(path), metadata.get("format"), (FORMAT,))
    return metadata, tensors


def _damaged(path: Path) -> DataFormatError:
    return DataFormatError(
        f"{path}: expected a whole file of format {FORMAT}; remove it to begin anew."
    )


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
