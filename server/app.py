"""The server's Flower app: wiring only.

Teacher → transfer → soft labels → rounds → safeguard → files → delivery.
"""

from __future__ import annotations

import json
from dataclasses import asdict

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp
from safetensors.numpy import save_file

from common.accounting import epsilon_path, noise_multiplier
from common.config import RunConfig, parse
from common.durable_files import read_or_create_secret
from common.events import releases
from common.features import item_features
from common.folders import (
    SERVER_KEY,
    STUDENT,
    STUDENT_TRANSFERRED,
    SUMMARY,
    TEACHER,
)
from common.soft_labels import SoftLabels
from common.student import (
    StateDict,
    StudentSpec,
    interpolate,
    save_student,
    spec_of,
)
from server.messages import Postbox
from server.receipts import Receipts
from server.records import Recorder
from server.safeguard import Choice, choose_weight
from server.settings import PublicData, ServerFolders, locate, read_public_data
from server.soft_labels import label_proxy_set
from server.strategy import Federation
from server.teacher import TEACHERS
from server.transfer import TRANSFERS

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run a federation and write its students into the server's out folder."""
    config = parse(context.run_config)
    folders = locate(context)
    public = read_public_data(folders.public)
    recorder = Recorder(folders.out)
    spec = spec_of(config.student, public.catalogue.num_items)
    transferred, labels = teach(config, spec, public, folders)
    postbox = Postbox(
        grid,
        str(context.run_id),
        config,
        public.catalogue.digest,
        read_or_create_secret(folders.state / SERVER_KEY),
        Receipts(folders.state),
        recorder,
    )
    federation = Federation(grid, config, spec, public, labels, postbox, recorder)
    noise = noise_multiplier(config)
    rounds = range(1, config.training.rounds + 1)
    events = [tuple(releases(config, noise, n).values()) for n in rounds]
    trained = transferred
    try:
        for progress in federation.rounds(
            transferred, epsilon_path(events, config.privacy.delta)
        ):
            trained = progress.released
    finally:
        # Whatever ends the loop, Ctrl-C included, leaves what was learnt so far.
        student = release(config, spec, public, folders, transferred, trained)
    federation.deliver(student)


def teach(
    config: RunConfig, spec: StudentSpec, public: PublicData, folders: ServerFolders
) -> tuple[StateDict, SoftLabels | None]:
    """Fit the teacher, start the student from it, label the proxy set."""
    weights = TEACHERS[config.teacher.name](public.teaching, config.teacher)
    save_file({"weights": weights}, folders.out / TEACHER)
    transfer = TRANSFERS[config.transfer.method]
    features = item_features(public.catalogue)
    transferred = transfer(weights, features, public.known, spec, config.transfer)
    save_student(folders.out / STUDENT_TRANSFERRED, spec, transferred)
    if config.distillation.weight == 0:
        return transferred, None
    labels = label_proxy_set(weights, public.teaching, spec, config.distillation)
    return transferred, labels


def release(
    config: RunConfig,
    spec: StudentSpec,
    public: PublicData,
    folders: ServerFolders,
    transferred: StateDict,
    trained: StateDict,
) -> StateDict:
    """Choose how far to go, and write the student and how it was chosen."""
    if config.safeguard.enabled:
        choice = choose_weight(
            transferred,
            trained,
            spec,
            public.shown,
            public.held,
            grid=config.safeguard.grid,
        )
    else:
        choice = Choice(1.0, (), "The safeguard is off: the trained student stands.")
    student = interpolate(transferred, trained, choice.weight)
    save_student(folders.out / STUDENT, spec, student)
    text = json.dumps({"safeguard": asdict(choice)}, indent=2)
    (folders.out / SUMMARY).write_text(text + "\n")
    return student
