"""A message delivered again gets the same bytes, or a refusal; never more training."""

from flwr.common.serde import message_to_proto

from client.app import app
from client.release import MISFIT, REFUSED
from tests.client.conftest import context_of, message_of, nonce_of, spent


def content_of(reply) -> bytes:
    return message_to_proto(reply).content.SerializeToString()


def test_a_message_delivered_twice_is_answered_alike_and_trained_once(folder) -> None:
    context = context_of(folder)
    first, again = (app(message_of(1), context) for _ in range(2))
    assert content_of(first) == content_of(again)
    assert [number for number, _ in spent(folder)] == [1]
    assert app(message_of(2), context).has_content()


def test_an_older_message_delivered_again_is_refused(folder) -> None:
    """Only the newest reply is kept; training again would be a second release."""
    context = context_of(folder)
    for number in (1, 2):
        assert app(message_of(number), context).has_content()
    assert app(message_of(1), context).error.reason == MISFIT
    assert [number for number, _ in spent(folder)] == [1, 2]


def test_a_kept_reply_that_was_changed_is_not_sent(folder) -> None:
    context = context_of(folder)
    assert app(message_of(1), context).has_content()
    (folder / "reply-train.safetensors").write_bytes(b"damaged")
    assert app(message_of(1), context).error.reason == MISFIT


def test_the_same_round_under_a_new_nonce_is_refused(folder) -> None:
    """Two server processes of one run, or a hostile one, would use the plan up."""
    context = context_of(folder)
    assert app(message_of(1), context).has_content()
    again = app(message_of(1, nonce=nonce_of(77)), context)
    assert again.error.reason == REFUSED
    assert app(message_of(2), context).has_content()
    assert [number for number, _ in spent(folder)] == [1, 2]
