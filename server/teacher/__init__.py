"""Teachers: large models trained on public data only, by name.

Adding one is a module with a ``fit``, an entry here, a test, and its name in
``common/config.py``.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from common.config import Teacher
from server.teacher import ease

#: ``fit(public interactions [users, items], settings) → item weights [items, items]``
TEACHERS: dict[str, Callable[[sp.csr_matrix, Teacher], npt.NDArray[np.float32]]] = {
    "ease": ease.fit
}
