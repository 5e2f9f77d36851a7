"""What the server does before a client answers: teacher, start, soft labels."""

import numpy as np
import polars as pl
import pytest
import scipy.sparse as sp
import torch

from common.catalogue import SCHEMA, Catalogue
from common.config import defaults, parse
from common.errors import ConfigError, DataFormatError
from common.student import Student
from server.proxy import proxy_set
from server.settings import PublicData
from server.teacher.checkpoint import save_teacher
from server.teacher.ease import Ease, fit
from server.teacher.factors import fit_factors
from server.teaching import School, Tutor, open_school

NUM_ITEMS, NUM_USERS = 12, 30


def catalogue(categories: bool = True) -> Catalogue:
    kinds = ["drama", "comedy"]
    rows = [
        (f"i{i}", f"title {i}", 1990 + i, [kinds[i % 2]] if categories else [])
        for i in range(NUM_ITEMS)
    ]
    return Catalogue(pl.DataFrame(rows, schema=SCHEMA, orient="row"))


def public(validation_users: int = 0, *, categories: bool = True) -> PublicData:
    """Users of even or of odd items; the last two items nobody touched."""
    rng = np.random.default_rng(0)
    likes = (np.arange(NUM_ITEMS) % 2)[None] == (np.arange(NUM_USERS) % 2)[:, None]
    rows = (rng.random(likes.shape) < np.where(likes, 0.7, 0.05)).astype(np.float32)
    rows[:, -2:] = 0
    teaching = sp.csr_matrix(rows)
    ordered = teaching.astype(np.int32)
    ordered.data = np.concatenate(
        [np.arange(1, size + 1) for size in np.diff(ordered.indptr)]
    ).astype(np.int32)
    shown, held = np.zeros((2, validation_users, NUM_ITEMS), np.float32)
    shown[:, 0], held[:, 2:10:2] = 1.0, 1.0
    return PublicData(
        catalogue(categories),
        teaching,
        ordered,
        sp.csr_matrix(shown),
        sp.csr_matrix(held),
    )


def school(
    overrides: dict | None = None, validation_users: int = 0, *, categories: bool = True
) -> School:
    small = {"student.dim": 4, "teacher.l2": 5.0, "features.text": "none"}
    config = parse(defaults() | small | (overrides or {}))
    return open_school(config, public(validation_users, categories=categories))


def scores(state, spec) -> np.ndarray:
    student = Student(spec)
    student.load_state_dict(state)
    with torch.no_grad():
        return student(torch.eye(NUM_ITEMS)).numpy()


def other_teacher() -> Ease:
    weights = np.random.default_rng(3).normal(size=(NUM_ITEMS, NUM_ITEMS))
    return Ease(weights.astype(np.float32))


# --------------------------------------------------------------------- teacher


def test_a_teacher_is_fitted_to_the_public_rows() -> None:
    one = school()
    expected = fit(one.public.ordered, None, one.config)
    np.testing.assert_array_equal(one.teacher().tensors()["weights"], expected.weights)


def test_a_checkpoint_is_taken_in_its_place(tmp_path) -> None:
    path = tmp_path / "teacher.safetensors"
    save_teacher(path, other_teacher(), catalogue().digest)
    found = school({"teacher.checkpoint": str(path)}).teacher()
    np.testing.assert_array_equal(found.tensors()["weights"], other_teacher().weights)


def test_a_checkpoint_of_another_catalogue_is_refused(tmp_path) -> None:
    path = tmp_path / "teacher.safetensors"
    save_teacher(path, other_teacher(), "0" * 64)
    with pytest.raises(DataFormatError, match=r"teacher\.safetensors.*000000"):
        school({"teacher.checkpoint": str(path)}).teacher()


def test_a_missing_checkpoint_is_named(tmp_path) -> None:
    path = str(tmp_path / "none.safetensors")
    with pytest.raises(DataFormatError, match=r"none\.safetensors"):
        school({"teacher.checkpoint": path}).teacher()


def test_another_domains_teacher_needs_another_domain() -> None:
    one = school({"transfer.method": "across", "distillation.weight": 0.0})
    with pytest.raises(ConfigError, match="across"):
        one.teacher()


# -------------------------------------------------------------------- features


def test_plain_features_are_categories_and_period() -> None:
    one = school()
    values = one.features.values
    plain = np.hstack([values["categories"], values["period"]])
    np.testing.assert_array_equal(one.plain_features, plain)


def test_plain_features_do_without_categories() -> None:
    one = school(categories=False)
    np.testing.assert_array_equal(one.plain_features, one.features.values["period"])


# ----------------------------------------------------------------------- start


def test_a_student_starts_with_its_teachers_taste() -> None:
    """Of even and of odd items, which the widest student has as the teacher has."""
    one = school({"transfer.content": False})
    teacher = one.teacher()
    state = one.start(teacher, one.public.known)
    assert one.spec.num_items == NUM_ITEMS
    found = scores(state, one.spec)[:10, :10]
    even = np.arange(10) % 2
    alike = even[:, None] == even
    np.fill_diagonal(found, np.nan)
    assert np.nanmean(found[alike]) > np.nanmean(found[~alike]) + 0.1


def test_items_the_teacher_never_saw_start_from_features() -> None:
    """Item 10 is of the even kind, and nobody touched it."""
    one = school({"transfer.content": True})
    teacher = one.teacher()
    found = scores(one.start(teacher, one.public.known), one.spec)
    assert found[0:10:2, 10].mean() > found[1:10:2, 10].mean()
    bare = school({"transfer.content": False})
    found = scores(bare.start(teacher, bare.public.known), bare.spec)
    assert np.ptp(found[:, 10]) == pytest.approx(0.0, abs=1e-6)


def test_a_start_is_distilled_only_where_epochs_are_asked_for() -> None:
    teacher, known = school().teacher(), public().known
    plain = school().start(teacher, known)
    again = school().start(teacher, known)
    distilled = school({"distillation.server-epochs": 2}).start(teacher, known)
    for name, value in plain.items():
        assert torch.equal(value, again[name])
    assert any(not torch.equal(plain[name], distilled[name]) for name in plain)


# ---------------------------------------------------------------------- labels


def test_there_are_no_labels_where_clients_do_not_distil() -> None:
    one = school({"distillation.weight": 0.0})
    assert one.labels(one.teacher()) is None
    assert Tutor(one, one.teacher()).labels is None


@pytest.mark.parametrize("proxy_users", [7, 256])
@pytest.mark.parametrize("synthetic_users", [0, 5])
@pytest.mark.parametrize("augmentation", ["none", "crop", "mask", "reorder"])
def test_there_are_no_more_labels_than_announced(
    proxy_users, synthetic_users, augmentation
) -> None:
    one = school(
        {
            "distillation.weight": 0.1,
            "distillation.proxy-users": proxy_users,
            "distillation.synthetic-users": synthetic_users,
            "distillation.augmentation": augmentation,
            "distillation.top-k": 3,
        }
    )
    labels = one.labels(one.teacher())
    views = 1 if augmentation == "none" else 2
    expected = views * (min(proxy_users, NUM_USERS) + synthetic_users)
    assert labels.proxy.shape == (expected, NUM_ITEMS)
    assert labels.item.shape == labels.logit.shape == (expected, 3)
    assert expected <= one.config.distillation.most_labels
    assert set(np.unique(labels.proxy.toarray())) <= {0.0, 1.0}, "sent without order"


@pytest.mark.parametrize(("synthetic_users", "times"), [(0, 1), (5, 2)])
def test_the_proxy_set_is_made_once_a_teacher(
    monkeypatch, synthetic_users, times
) -> None:
    """And once for all teachers where none of it is drawn from them."""
    made = []

    def counted(teacher, *arguments):
        made.append(teacher)
        return proxy_set(teacher, *arguments)

    monkeypatch.setattr("server.teaching.proxy_set", counted)
    settings = {"distillation.synthetic-users": synthetic_users}
    one = school(
        settings
        | {
            "distillation.weight": 0.1,
            "distillation.server-epochs": 1,
            "refresh.every": 1,
        }
    )
    teacher = one.teacher()
    student = one.start(teacher, one.public.known)
    tutor = Tutor(one, teacher)
    for _ in range(2):
        tutor.refresh(student)
    assert made == [teacher]
    other = other_teacher()
    again = one.labels(other)
    assert len(made) == times
    wanted = proxy_set(other, one.public.ordered, one.config.distillation)
    np.testing.assert_array_equal(again.proxy.toarray(), wanted.toarray() > 0)


def test_labels_are_the_teachers_best() -> None:
    one = school({"distillation.weight": 0.1, "distillation.top-k": 2})
    labels = one.labels(other_teacher())
    best = np.argsort(-other_teacher().score(labels.proxy), axis=1)[:, :2]
    np.testing.assert_array_equal(labels.item, best)


# --------------------------------------------------------------------- refresh


def wrong_teacher() -> Ease:
    """Sends everybody from even items to odd ones and back."""
    kind = np.arange(NUM_ITEMS) % 2
    return Ease((kind[:, None] != kind).astype(np.float32))


def refreshed(validation_users: int) -> tuple[Tutor, float | None]:
    """A wrong teacher after a lesson of a student that knows the public taste."""
    one = school({"refresh.every": 1, "distillation.weight": 0.1}, validation_users)
    student = one.start(one.teacher(), one.public.known)
    tutor = Tutor(one, wrong_teacher())
    return tutor, tutor.refresh(student)


def test_without_validation_users_nobody_says_it_is_better() -> None:
    tutor, gain = refreshed(validation_users=0)
    assert gain is None
    np.testing.assert_array_equal(
        tutor.teacher.tensors()["weights"], wrong_teacher().weights
    )


def test_a_better_teacher_gives_other_labels() -> None:
    tutor, gain = refreshed(validation_users=3)
    before = school({"distillation.weight": 0.1}).labels(wrong_teacher())
    assert gain is not None
    assert gain > 0
    assert not np.array_equal(tutor.labels.item, before.item)


def test_a_refined_teacher_says_that_students_cannot_teach_it() -> None:
    one = school({"refresh.every": 1})
    rng = np.random.default_rng(0)
    refined = fit_factors(rng.normal(size=(NUM_ITEMS, 3)), np.ones(NUM_ITEMS))
    student = one.start(refined, one.public.known)
    with pytest.raises(ConfigError, match=r"refresh\.every"):
        Tutor(one, refined).refresh(student)
