"""One client's rows, from its own folder: imported ones, and its users' feedback.

Client only: nothing else reads private rows. Ids are encoded by the declared
catalogue; no vocabulary, count or normalisation is taken from the rows.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl
import scipy.sparse as sp

from client.feedback import merge, read_feedback
from client.identifiers import check_pseudonyms
from client.settings import read_settings
from client.store_key import FEEDBACK, store_key
from common.catalogue import Catalogue, read_catalogue
from common.errors import ConfigError
from common.folders import CATALOGUE, INTERACTIONS
from common.interactions import SCHEMA, IdMap, encode_table, read_table

_log = logging.getLogger("tutela.client")


@dataclass(frozen=True)
class ClientData:
    """Private histories, one row a user: CSR float32 ``[users, items]``.

    Attributes:
        users: pseudonyms of the rows.
    """

    catalogue: Catalogue
    histories: sp.csr_matrix
    users: IdMap = field(repr=False)


def read_client_data(folder: Path) -> ClientData:
    """Read a client's folder.

    Raises:
        ConfigError: if the folder holds neither interactions nor feedback, or the key
            of its feedback is missing.
        DataFormatError: if an imported item is outside the declared catalogue, a user
            id is no keyed hash, or the feedback is damaged.
    """
    path, feedback = folder / INTERACTIONS, (folder / FEEDBACK).is_file()
    if not path.is_file() and not feedback:
        raise ConfigError("Expected interactions in the client's folder, found none.")
    catalogue = read_catalogue(folder / CATALOGUE)
    rows = read_table(path) if path.is_file() else pl.DataFrame(schema=SCHEMA)
    if feedback:
        rows = merge(rows, _known(folder, catalogue))
    check_pseudonyms(rows)
    table = encode_table(rows, catalogue.items)
    return ClientData(catalogue, table.interactions.matrix(), table.users)


def _known(folder: Path, catalogue: Catalogue) -> pl.DataFrame:
    """The folder's feedback on items of the catalogue.

    A catalogue that lost an item must not stop a client: every round would be charged
    and fail. The log keeps the rows, and they count again if the item comes back.
    """
    found = read_feedback(folder, store_key(folder, read_settings(folder).store_key))
    known = found.filter(pl.col("item").is_in(list(catalogue.items.ids)))
    if known.height < found.height:
        _log.warning("Feedback on items outside the declared catalogue is left out.")
    return known
