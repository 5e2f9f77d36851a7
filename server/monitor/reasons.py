"""Why a client did not contribute, as one of a few fixed words.

Server only. What stands in a refusal came from a client or from Flower and may hold
anything; neither a metric's label nor the page repeats it.
"""

from __future__ import annotations

#: What a refusal's text begins with → the word for it. The first four are the only
#: texts that a client of ours lets out (``client/release.py``, which a test compares).
BEGINNINGS = {
    "The client refused: its own settings": "settings",
    "The client refused: its ledger": "ledger",
    "The client refused: the message": "message",
    "The client failed": "failed",
    "Error: Node Unavailable": "unreachable",
    "Error: Message Unavailable": "no reply",
    "Error: Reply Message Unavailable": "no reply",
    "No reply within": "no reply",
    "Unreadable reply": "misfit",
    "Expected a reply of round": "stale reply",
    "Expected protocol version": "version",
}
OTHER, MISFIT = "other", "misfit"

#: Each word, in full.
MEANING = {
    "settings": "the client's own settings do not allow it",
    "ledger": "the client's ledger wants its operator",
    "message": "the message did not fit the client's protocol",
    "failed": "the client failed; its own log says where",
    "unreachable": "the node sent no heartbeat",
    "no reply": "no reply before the deadline",
    "stale reply": "a reply of another run or round",
    "version": "another version of the protocol",
    MISFIT: "a reply that does not fit",
    OTHER: "another reason; see metrics.jsonl",
}


def reason_of(text: object) -> str:
    """The word for a refusal's text, whatever that is.

    >>> reason_of("The client failed; its operator's log says where.")
    'failed'
    """
    if not isinstance(text, str):
        return OTHER
    for beginning, word in BEGINNINGS.items():
        if text.startswith(beginning):
            return word
    # What this server says of replies that it could not use.
    return MISFIT if "xpected" in text[:200] else OTHER
