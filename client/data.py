"""One client's rows, from its own folder.

Client only: nothing else reads private rows. Ids are encoded by the declared
catalogue; no vocabulary, count or normalisation is taken from the rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import scipy.sparse as sp

from client.identifiers import check_pseudonyms
from common.catalogue import Catalogue, read_catalogue
from common.errors import ConfigError
from common.folders import CATALOGUE, INTERACTIONS
from common.interactions import encode_table, read_table


@dataclass(frozen=True)
class ClientData:
    """Private histories, one row a user: CSR float32 ``[users, items]``."""

    catalogue: Catalogue
    histories: sp.csr_matrix


def read_client_data(folder: Path) -> ClientData:
    """Read a client's folder.

    Raises:
        ConfigError: if the folder holds no interactions.
        DataFormatError: if an item is outside the declared catalogue, or a user id
            is no keyed hash.
    """
    path = folder / INTERACTIONS
    if not path.is_file():
        raise ConfigError("Expected interactions in the client's folder, found none.")
    catalogue = read_catalogue(folder / CATALOGUE)
    rows = read_table(path)
    check_pseudonyms(rows)
    table = encode_table(rows, catalogue.items)
    return ClientData(catalogue, table.interactions.matrix())
