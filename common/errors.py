"""The one error tree: each text says what was expected, what came, what to do.

It lives in ``common`` because every zone raises it. Inside ``client`` no message
may hold a data value, and nothing of a message leaves the client: the exit door
(``client/release.py``) replaces it by a fixed text.
"""


class TutelaError(Exception):
    """Base of every error Tutela raises on purpose."""


class ConfigError(TutelaError):
    """A setting is unknown, missing or impossible; the message names its key."""


class DataFormatError(TutelaError):
    """Input data are damaged; the message names file, line and column."""


class DataUnavailableError(TutelaError):
    """A data set could not be had; the message says what to do about it."""


class ProtocolError(TutelaError):
    """A message does not fit the protocol: wrong name, shape, round or value."""


class RoundFailed(ProtocolError):
    """Too few clients answered; the run can be resumed from its last checkpoint."""


class BudgetExhausted(TutelaError):
    """Training would exceed the privacy budget in the client's own settings."""


class NoConsent(TutelaError):
    """The client's own settings name neither the run nor its server."""


class LedgerError(TutelaError):
    """The client's ledger does not allow a charge; the message says what to do."""
