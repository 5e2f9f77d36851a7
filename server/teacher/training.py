"""Training of the sequential teacher: epochs, validation on public users, resuming.

Every epoch draws its randomness from the seed and its own number, so that a training
that was killed goes on bit for bit where its last file stands. On the server: it sees
public histories alone.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor, nn

from common.features import Features
from common.interactions import IntArray
from common.metrics import evaluate_ranking
from common.sections import Transformer
from server.teacher.histories import NOTHING, Batch, draw_unseen, epoch_batches
from server.teacher.item_losses import calibrated_loss, softmax_loss
from server.teacher.progress import Progress, load_progress, save_progress
from server.teacher.scoring import BATCH, SequentialTeacher, from_tensors
from server.teacher.sequential import Encoder, ItemTable, shape_of

#: Share of shown items that training replaces by the unknown item: histories have
#: holes, and a teacher that hangs on one item is a worse one.
UNKNOWN_SHARE = 0.1

#: Share of all steps in which the learning rate rises; then it falls to zero.
WARM_UP = 0.02

#: What says which epoch is best.
CHOICE = "ndcg@10"

#: After each epoch: (epochs done, mean loss, value on validation users, the model).
Watcher = Callable[[int, float, float, SequentialTeacher], None]


@dataclass(frozen=True, eq=False)
class Validation:
    """Public users that choose the epoch.

    Attributes:
        shown: sequences of items, one a user.
        held: the item that follows each; nobody's training may hold it.
    """

    shown: Sequence[IntArray]
    held: Sequence[int]


class Network(nn.Module):
    """What is trained: item table and encoder."""

    def __init__(self, table: ItemTable, encoder: Encoder) -> None:
        super().__init__()
        self.table = table
        self.encoder = encoder

    def snapshot(self) -> SequentialTeacher:
        """The model as it stands, with tensors of its own."""
        self.eval()
        with torch.no_grad():
            items = self.table().cpu()
        state = {f"encoder.{k}": t.cpu() for k, t in self.encoder.state_dict().items()}
        return from_tensors({"items": items} | state, self.encoder.shape.heads)


def train(
    histories: Sequence[IntArray],
    validation: Validation,
    features: Features | None,
    settings: Transformer,
    *,
    num_items: int,
    seed: int,
    device: str = "cpu",
    progress: Path | None = None,
    watch: Watcher | None = None,
) -> SequentialTeacher:
    """Train, and return the epoch that was best on the validation users.

    Args:
        histories: items in time order, one sequence a public user.
        validation: see there; without users the last epoch is the best.
        features: of the declared catalogue.
        settings: shape and training.
        num_items: items of the catalogue.
        seed: of everything random; it protects nothing.
        device: where to train; the teacher itself is used on the CPU.
        progress: a file that keeps how far training is, and from which it goes on.
        watch: see :data:`Watcher`.

    Raises:
        ConfigError: if the settings do not fit each other.
        DataFormatError: if ``progress`` is damaged or of another training.
    """
    torch.manual_seed(seed)
    network = _network(histories, features, settings, num_items).to(device)
    optimiser = torch.optim.Adam(network.parameters(), betas=(0.9, 0.98))
    state = Progress(_fingerprint(histories, settings, seed), 0, -math.inf, {})
    if progress is not None and progress.is_file():
        state = load_progress(progress, state.fingerprint, network, optimiser)
    for epoch in range(state.epochs_done, settings.epochs):
        loss = _epoch(network, optimiser, histories, settings, epoch, seed)
        current = network.snapshot()
        value = validate(current, validation)
        state = state.after(value, _torch(current))
        if progress is not None:
            save_progress(progress, state, network, optimiser)
        if watch is not None:
            watch(epoch + 1, loss, value, current)
    return from_tensors(state.best, settings.heads)


def validate(teacher: SequentialTeacher, validation: Validation) -> float:
    """Mean NDCG@10 of the held items among all unseen ones; 0 without users."""
    if not len(validation.shown):
        return 0.0
    n = teacher.encoder.shape.num_items
    found = evaluate_ranking(
        lambda start, stop: teacher.score_sequences(validation.shown[start:stop]),
        multi_hot(validation.shown, n),
        multi_hot([np.asarray([item]) for item in validation.held], n),
        batch_size=BATCH,
        metrics=(CHOICE,),
    )
    return float(np.nanmean(found[CHOICE]))


def multi_hot(rows: Sequence[IntArray], num_items: int) -> sp.csr_matrix:
    """Sequences of items as binary CSR ``[users, num_items]``."""
    indptr = np.cumsum([0, *(len(row) for row in rows)])
    items = np.concatenate([np.empty(0, dtype=np.int64), *rows])
    ones = np.ones(len(items), dtype=np.float32)
    return sp.csr_matrix((ones, items, indptr), shape=(len(rows), num_items))


def _network(
    histories: Sequence[IntArray],
    features: Features | None,
    settings: Transformer,
    num_items: int,
) -> Network:
    taught = np.isin(np.arange(num_items), np.concatenate([[], *histories]))
    table = ItemTable(torch.from_numpy(taught), features, settings.dim)
    return Network(table, Encoder(shape_of(settings, num_items), settings.dropout))


def _fingerprint(
    histories: Sequence[IntArray], settings: Transformer, seed: int
) -> str:
    digest = hashlib.sha256(f"{settings.model_dump_json()} {seed}".encode())
    for row in histories:
        digest.update(len(row).to_bytes(8, "little") + row.tobytes())
    return digest.hexdigest()


def _torch(teacher: SequentialTeacher) -> dict[str, Tensor]:
    return {name: torch.from_numpy(t) for name, t in teacher.tensors().items()}


def _epoch(
    network: Network,
    optimiser: torch.optim.Adam,
    histories: Sequence[IntArray],
    settings: Transformer,
    epoch: int,
    seed: int,
) -> float:
    """One pass over the users; returns the mean loss of a position."""
    draw = np.random.default_rng([seed, epoch])
    torch.manual_seed(int(draw.integers(2**63)))
    network.train()
    batches = epoch_batches(
        histories,
        num_items=network.encoder.shape.num_items,
        length=settings.length,
        batch_users=settings.batch_users,
        draw=draw,
    )
    # Every position counts alike, in a batch of short histories as in one of long.
    usual = max(1.0, sum(batch.num_targets for batch in batches) / max(1, len(batches)))
    total = 0.0
    for step, batch in enumerate(batches, start=epoch * len(batches)):
        rate = _rate(step / (settings.epochs * len(batches)))
        optimiser.param_groups[0]["lr"] = settings.learning_rate * rate
        optimiser.zero_grad()
        loss = _loss(network, batch, histories, settings, draw)
        (loss / usual).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        total += loss.item()
    return total / (usual * max(1, len(batches)))


def _rate(done: float) -> float:
    """Share of the learning rate when so much of the training is done."""
    return min(1.0, done / WARM_UP + 0.01) * (1.0 - done)


def _loss(
    network: Network,
    batch: Batch,
    histories: Sequence[IntArray],
    settings: Transformer,
    draw: np.random.Generator,
) -> Tensor:
    """The batch's loss, summed over the positions that have a target."""
    n = network.encoder.shape.num_items
    hidden = draw.random(batch.shown.shape) < UNKNOWN_SHARE
    items = network.table()
    device = items.device
    shown = torch.from_numpy(np.where(hidden, n, batch.shown)).to(device)
    wanted = torch.from_numpy(batch.target).to(device)
    row, column = (wanted != NOTHING).nonzero(as_tuple=True)
    target = wanted[row, column]
    vectors = network.encoder(shown, items)[row, column]
    if settings.negatives == 0:
        return softmax_loss(vectors, items, target)
    seen = [histories[user] for user in batch.user]
    drawn = draw_unseen(seen, settings.negatives, n, draw)
    unseen = torch.from_numpy(drawn).to(device)
    return calibrated_loss(
        (vectors * items[target]).sum(dim=1),
        torch.einsum("pd,pkd->pk", vectors, items[unseen][row]),
        num_items=n,
        calibration=settings.calibration,
    )
