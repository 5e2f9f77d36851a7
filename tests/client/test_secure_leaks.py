"""Nothing planted leaves by the steps of a secure sum, whatever goes wrong."""

import logging
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import client.app as wiring
from client.release import FAILED, MISFIT, REFUSED
from client.secure_round import kept_state
from common import wire
from tests.client.conftest import sent, write_folder
from tests.client.secure_parts import ANSWERS, Cohort, secure_context, step_message
from tests.client.test_leak_search import MARK, PLANTED, byte_forms, found
from tests.client.test_leaks import (
    FAULTS,
    TEXTS,
    Scene,
    identities,
    places,
    planted,
)

STEPS = [kind for kind in ANSWERS if kind != wire.CONFIRM]
#: Those that concern a step which reads no row.
FEW = (
    *("none", "asked again", "catalogue missing", "settings wrong", "no consent"),
    *("ledger damaged", "ledger locked", "wrong signature", "other digest"),
)
#: Without its settings a client leans on nobody.
UNSETTLED = ("no folder", "folder is a file")
CASES = [(wire.MASKED, fault) for fault in FAULTS]
CASES += [(kind, fault) for kind in STEPS if kind != wire.MASKED for fault in FEW]


@dataclass
class SecureScene(Scene):
    """A client that took part in round 1, in the midst of round 2."""

    cohort: Cohort = field(init=False)
    told: bytes = field(init=False)

    def __post_init__(self) -> None:
        context = secure_context(self.folder)
        Cohort(context, 1).whole()
        self.cohort = Cohort(context, 2)
        self.told = self.cohort.until(self.kind)
        self.context = context
        self.ask()

    def ask(self, number: int = 2, **values) -> None:
        self.message = step_message(self.kind, number, self.told, **values)


@pytest.fixture
def scene(tmp_path: Path, monkeypatch):
    def of(kind: str) -> SecureScene:
        home = tmp_path / MARK
        folder = write_folder(home / f"{MARK}-0000", planted(1))
        return SecureScene(folder, "distributed", kind, monkeypatch)

    return of


@pytest.mark.parametrize(("kind", "fault"), CASES)
def test_nothing_planted_leaves_or_is_logged(scene, caplog, capfd, kind, fault) -> None:
    caplog.set_level(logging.DEBUG, "tutela")
    here = scene(kind)
    known = PLANTED | identities(here.folder)
    text, damage = FAULTS[fault]
    damage(here)
    reply = wiring.app(here.message, here.context)
    assert found(sent(reply), known | places(here.folder)) == []
    logged = "".join([caplog.text, *capfd.readouterr()]).encode()
    assert found(logged, known) == []
    assert reply.has_content() or reply.error.reason in TEXTS
    if kind == wire.MASKED and fault not in ("asked again", "ledger rolled back"):
        expected = REFUSED if fault in UNSETTLED else text
        assert (reply.error.reason if reply.has_error() else None) == expected


@pytest.mark.parametrize("step", ["advertise", "share", "mask", "reveal"])
@pytest.mark.parametrize("error", [KeyError, RuntimeError, MemoryError])
def test_an_error_in_the_protocol_is_a_fixed_text(
    scene, monkeypatch, caplog, step, error
) -> None:
    kinds = dict(zip(("advertise", "share", "mask", "reveal"), STEPS, strict=True))
    here = scene(kinds[step])

    def fails(*args):
        raise error(MARK)

    monkeypatch.setattr(f"client.secagg.{step}", fails)
    reply = wiring.app(here.message, here.context)
    assert reply.error.reason == FAILED
    assert MARK not in caplog.text


@pytest.mark.parametrize("kind", STEPS)
def test_no_refusal_shows_a_secret_of_the_state(scene, caplog, kind) -> None:
    caplog.set_level(logging.DEBUG)
    here = scene(kind)
    state = kept_state(here.context)
    held = [byte_forms(share.mask_share) for share in state.held.values()]
    here.message.content[wire.TOLD] = wire.pack_bytes(here.told + b"x")
    reply = wiring.app(here.message, here.context)
    known = {"identity": byte_forms(here.context.state["secagg"]["identity"])}
    known |= {f"share {n}": forms for n, forms in enumerate(held)}
    if state.secrets is not None:
        known["seed"] = byte_forms(state.secrets.mask_seed)
        known["seal"] = byte_forms(state.secrets.seal)
    assert found(sent(reply), known) == []
    assert found(caplog.text.encode(), known) == []
    if kind != wire.ADVERTS:
        assert reply.error.reason == MISFIT
