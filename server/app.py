"""The server's Flower app: wiring only.

Teacher → transfer → statistics → soft labels → rounds → safeguard → files → delivery;
or, resumed, from the last checkpoint on.
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass, replace

import numpy as np
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from common.accounting import epsilon_path
from common.config import RunConfig, parse
from common.durable_files import read_or_create_secret, write_durably
from common.folders import (
    AUTHORITY,
    ROSTER,
    SERVER_KEY,
    STUDENT,
    STUDENT_TRANSFERRED,
    SUMMARY,
    TEACHER,
    TEACHER_REFINED,
    TEACHER_SOURCE,
)
from common.plan import noise_multiplier, releases
from common.roster import read_roster
from common.structured_logs import switch_on_if_asked
from common.student import (
    StateDict,
    StudentSpec,
    interpolate,
    load_student,
    save_student,
)
from server.answers import Answers
from server.kept_answers import ANSWERS, KeptAnswers, most_bytes
from server.messages import Postbox
from server.negative_transfer import check_transfer
from server.receipts import Receipts
from server.records import Recorder
from server.refinement import RefinementFailed, refine
from server.round_checkpoint import Checkpoint, Checkpoints, Saved
from server.run_journal import Journal, alone, open_journal
from server.safeguard import Choice, choose_start, choose_weight, origin_of
from server.secure_rounds import SecureRounds
from server.settings import PublicData, ServerFolders, locate, read_public_data
from server.strategy import Federation
from server.teacher import Teacher
from server.teacher.checkpoint import save_teacher
from server.teaching import School, Tutor, open_school

app = ServerApp()
_log = logging.getLogger("tutela.server")


@dataclass
class Run:
    """A run's parts, and how far its student is.

    Attributes:
        saved: the checkpoint that it goes on from, if it does.
        transferred: the student as the teacher made it.
        start: before the first round; differs where clients refined the teacher.
        trained: after the last.
        refinement: why the statistics made no teacher, where they made none.
    """

    config: RunConfig
    folders: ServerFolders
    public: PublicData
    school: School
    receipts: Receipts
    checkpoints: Checkpoints
    federation: Federation
    saved: Saved | None
    teacher: Teacher
    transferred: StateDict
    start: StateDict
    trained: StateDict
    refinement: str = ""


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run a federation, or what is left of one, into the server's out folder."""
    switch_on_if_asked()
    config = parse(context.run_config)
    folders = locate(context)
    with alone(folders.out, resume=config.run.resume):
        _run(grid, str(context.run_id), config, folders)


def _run(grid: Grid, run_id: str, config: RunConfig, folders: ServerFolders) -> None:
    journal = open_journal(folders.out, config, run_id)
    if config.run.resume and not journal.resumed:
        _log.warning("%s holds nothing to go on with; the run begins.", folders.out)
    if journal.finished:
        _log.warning("%s holds a finished run; nothing is left to do.", folders.out)
        return
    run = _open_run(grid, config, folders, journal)
    check = check_transfer(
        run.transferred,
        run.school.spec,
        run.public.shown,
        run.public.held,
        run.public.popularity,
    )
    try:
        _train(run)
    finally:
        # Whatever ends it, Ctrl-C included, leaves what was learnt so far.
        student, choice = release(
            config,
            run.school.spec,
            run.public,
            run.transferred,
            run.start,
            run.trained,
        )
        save_student(folders.out / STUDENT, run.school.spec, student)
        summary = {
            "safeguard": asdict(choice),
            "transfer": "" if check is None else check.sentence,
            "refinement": run.refinement,
        }
        text = json.dumps(summary, indent=2) + "\n"
        write_durably(folders.out / SUMMARY, text.encode(), mode=0o644)
    run.federation.deliver(student)
    journal.finish()
    run.checkpoints.forget()


def _open_run(
    grid: Grid, config: RunConfig, folders: ServerFolders, journal: Journal
) -> Run:
    public = read_public_data(folders.public)
    digest = public.catalogue.digest
    school = open_school(config, public)
    checkpoints = Checkpoints(folders.out, digest)
    saved = checkpoints.latest() if journal.resumed else None
    recorder = Recorder(folders.out, resumed=journal.resumed)
    receipts = Receipts(folders.state)
    if journal.resumed:
        _say_where(saved, recorder)
    if saved is not None:
        receipts.restore(saved.receipts)
    secret = read_or_create_secret(folders.state / SERVER_KEY)
    postbox = Postbox(grid, journal, config, digest, secret, receipts, recorder)
    kept = _keep_answers(config, folders, school.spec)
    federation = Federation(
        grid,
        config,
        school.spec,
        public,
        postbox,
        recorder,
        Answers(folders.out),
        kept,
        _secure_rounds(config, folders, school.spec, postbox, recorder, kept),
    )
    if saved is None:
        teacher, transferred = _teach(school, folders)
        start = trained = transferred
    else:
        teacher = saved.teacher
        transferred = dict(load_student(folders.out / STUDENT_TRANSFERRED).state_dict())
        start = saved.checkpoint.start
        trained = saved.checkpoint.progress.released
    return Run(
        config,
        folders,
        public,
        school,
        receipts,
        checkpoints,
        federation,
        saved,
        teacher,
        transferred,
        start,
        trained,
    )


def _secure_rounds(
    config: RunConfig,
    folders: ServerFolders,
    spec: StudentSpec,
    postbox: Postbox,
    recorder: Recorder,
    kept: KeptAnswers | None,
) -> SecureRounds | None:
    """What asks for sums in mode ``distributed``, with the deployment's roster."""
    if config.privacy.mode != "distributed":
        return None
    roster = None
    if config.secagg.roster:
        found = read_roster(folders.public / ROSTER, folders.public / AUTHORITY)
        roster = found.identities
    return SecureRounds(postbox, config, spec, recorder, roster, kept)


def _keep_answers(
    config: RunConfig, folders: ServerFolders, spec: StudentSpec
) -> KeptAnswers | None:
    """Where answers are kept, if they are; the log says how much that may be."""
    if not config.run.keep_answers:
        return None
    _log.warning(
        "run.keep-answers: every answer is kept in %s, at most %.1f MB of each client.",
        folders.out / ANSWERS,
        most_bytes(config, spec) / 1e6,
    )
    return KeptAnswers(folders.out)


def _say_where(saved: Saved | None, recorder: Recorder) -> None:
    """Where the run goes on, and what could not be read: in the record and the log."""
    if saved is None:
        recorder.resume(0, "begun", "")
        _log.warning("The run is resumed from its beginning.")
        return
    point = saved.checkpoint
    note = ""
    if saved.damaged:
        note = f"Damaged, and passed over for the one before: {saved.damaged[0]}."
    recorder.resume(point.round, point.stage, note)
    _log.warning("The run is resumed: round %d %s. %s", point.round, point.stage, note)


def _teach(school: School, folders: ServerFolders) -> tuple[Teacher, StateDict]:
    """A teacher of public data, and the student that it makes; both on disk."""
    teacher = school.teacher()
    if school.config.transfer.method == "across":
        save_teacher(folders.out / TEACHER_SOURCE, teacher, school.taught.digest)
        transferred = school.across(teacher)
    else:
        digest = school.public.catalogue.digest
        save_teacher(folders.out / TEACHER, teacher, digest)
        transferred = school.start(teacher, school.public.known)
    save_student(folders.out / STUDENT_TRANSFERRED, school.spec, transferred)
    return teacher, transferred


def _train(run: Run) -> None:
    """Statistics and rounds, as far as they are left."""
    config, school = run.config, run.school
    if run.saved is None and config.statistics.share:
        _refine(run)
    labels = run.saved.labels if run.saved else None
    tutor = Tutor(school, run.teacher, labels)

    def keep(point: Checkpoint) -> None:
        run.checkpoints.save(point, tutor.teacher, tutor.labels, run.receipts.last)

    noise = noise_multiplier(config)
    rounds = range(1, config.training.rounds + 1)
    events = [tuple(releases(config, noise, n).values()) for n in rounds]
    epsilons = epsilon_path(events, config.privacy.delta)
    resumed = run.saved.checkpoint if run.saved else None
    for progress in run.federation.rounds(run.start, tutor, epsilons, keep, resumed):
        run.trained = progress.released


def _refine(run: Run) -> None:
    """The teacher, and the start, made anew from the clients' noised statistics.

    Or neither, where the statistics make none.
    """
    features = run.school.plain_features
    try:
        refined = refine(run.federation, run.public, features, run.config)
    except RefinementFailed as failure:
        # Paid for, and of no use: the rounds start from the public teacher's student.
        run.refinement = str(failure)
        run.federation.recorder.refusal(1, run.refinement)
        _log.warning("%s", run.refinement)
        return
    digest = run.public.catalogue.digest
    save_teacher(run.folders.out / TEACHER_REFINED, refined, digest)
    run.teacher = refined
    run.start = run.school.start(refined, np.ones_like(run.public.known))
    run.trained = run.start


def release(
    config: RunConfig,
    spec: StudentSpec,
    public: PublicData,
    transferred: StateDict,
    start: StateDict,
    trained: StateDict,
) -> tuple[StateDict, Choice]:
    """Choose from which start, and how far, to go; and say how it was chosen."""
    origin, judges = origin_of(start, transferred), (spec, public.shown, public.held)
    choice = Choice(
        1.0, (), "The safeguard had no weight to choose: the student stands."
    )
    if config.safeguard.enabled and config.training.rounds:
        grid = config.safeguard.grid
        choice = choose_weight(start, trained, *judges, grid=grid)
    choice = replace(choice, start=origin)
    student = interpolate(start, trained, choice.weight)
    if config.safeguard.enabled and origin == "refined":
        choice = choose_start(choice, student, transferred, *judges)
    return (student if choice.start == origin else transferred), choice
