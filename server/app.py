"""The server's Flower app: wiring only.

Teacher → transfer → statistics → soft labels → rounds → safeguard → files → delivery.
"""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from common.accounting import epsilon_path
from common.config import RunConfig, parse
from common.durable_files import read_or_create_secret
from common.folders import (
    SERVER_KEY,
    STUDENT,
    STUDENT_TRANSFERRED,
    SUMMARY,
    TEACHER,
    TEACHER_REFINED,
    TEACHER_SOURCE,
)
from common.plan import noise_multiplier, releases
from common.student import StateDict, StudentSpec, interpolate, save_student
from server.messages import Postbox
from server.negative_transfer import check_transfer
from server.receipts import Receipts
from server.records import Recorder
from server.refinement import refine
from server.safeguard import Choice, choose_weight
from server.settings import PublicData, locate, read_public_data
from server.strategy import Federation
from server.teacher.checkpoint import save_teacher
from server.teaching import Tutor, open_school

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run a federation and write its students into the server's out folder."""
    config = parse(context.run_config)
    folders = locate(context)
    public = read_public_data(folders.public)
    recorder = Recorder(folders.out)
    school = open_school(config, public)
    postbox = Postbox(
        grid,
        str(context.run_id),
        config,
        public.catalogue.digest,
        read_or_create_secret(folders.state / SERVER_KEY),
        Receipts(folders.state),
        recorder,
    )
    federation = Federation(grid, config, school.spec, public, postbox, recorder)
    teacher = school.teacher()
    if config.transfer.method == "across":
        save_teacher(folders.out / TEACHER_SOURCE, teacher, school.taught.digest)
        transferred = school.across(teacher)
    else:
        save_teacher(folders.out / TEACHER, teacher, public.catalogue.digest)
        transferred = school.start(teacher, public.known)
    start = transferred
    save_student(folders.out / STUDENT_TRANSFERRED, school.spec, transferred)
    if config.statistics.share:
        teacher = refine(federation, public, school.plain_features, config)
        save_teacher(folders.out / TEACHER_REFINED, teacher, public.catalogue.digest)
        start = school.start(teacher, np.ones_like(public.known))
    check = check_transfer(
        transferred, school.spec, public.shown, public.held, public.popularity
    )
    trained = start
    noise = noise_multiplier(config)
    rounds = range(1, config.training.rounds + 1)
    events = [tuple(releases(config, noise, n).values()) for n in rounds]
    try:
        for progress in federation.rounds(
            start, Tutor(school, teacher), epsilon_path(events, config.privacy.delta)
        ):
            trained = progress.released
    finally:
        # Whatever ends the loop, Ctrl-C included, leaves what was learnt so far.
        student, choice = release(config, school.spec, public, start, trained)
        save_student(folders.out / STUDENT, school.spec, student)
        summary = {
            "safeguard": asdict(choice),
            "transfer": "" if check is None else check.sentence,
        }
        text = json.dumps(summary, indent=2)
        (folders.out / SUMMARY).write_text(text + "\n")
    federation.deliver(student)


def release(
    config: RunConfig,
    spec: StudentSpec,
    public: PublicData,
    start: StateDict,
    trained: StateDict,
) -> tuple[StateDict, Choice]:
    """Choose how far to go from the start, and say how it was chosen."""
    if config.safeguard.enabled and config.training.rounds:
        choice = choose_weight(
            start,
            trained,
            spec,
            public.shown,
            public.held,
            grid=config.safeguard.grid,
        )
    else:
        choice = Choice(
            1.0, (), "The safeguard had nothing to choose: the student stands."
        )
    return interpolate(start, trained, choice.weight), choice
