"""What the server does before a client answers: teacher, start, soft labels.

Server only. A teacher comes from a checkpoint or is fitted to public rows; a student
starts from its tables; its scores on a public proxy set become soft labels.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from common.catalogue import Catalogue
from common.config import RunConfig
from common.errors import ConfigError
from common.features import Features
from common.fusion import FUSIONS
from common.sections import Distillation
from common.soft_labels import SoftLabels
from common.student import StateDict, StudentSpec, spec_of
from server.distillation import distil
from server.features import build_features
from server.proxy import proxy_set
from server.refresh import refresh
from server.settings import PublicData, SourceData
from server.shared_space import common_features
from server.soft_labels import label_proxy_set
from server.teacher import TEACHERS, Teacher
from server.teacher.checkpoint import load_teacher
from server.transfer import TRANSFERS, start_across


class Proxies:
    """The proxy set, made when it is first wanted, and kept.

    The only state is the set itself. Histories drawn from a teacher are that
    teacher's; without any the set is the same for all of them.
    """

    def __init__(self) -> None:
        self._teacher: Teacher | None = None
        self._found: sp.csr_matrix | None = None

    def of(
        self, teacher: Teacher, public: sp.csr_matrix, settings: Distillation
    ) -> sp.csr_matrix:
        """The set of :func:`proxy_set` for this teacher."""
        another = settings.synthetic_users > 0 and teacher is not self._teacher
        if self._found is None or another:
            self._teacher = teacher
            self._found = proxy_set(teacher, public, settings)
        return self._found


@dataclass(frozen=True)
class School:
    """The public half of a run: what teachers are fitted to and students start from.

    Attributes:
        features: of the catalogue's items, by modality.
        proxies: the proxy set of the teacher last asked.
    """

    config: RunConfig
    spec: StudentSpec
    public: PublicData
    features: Features
    proxies: Proxies = field(default_factory=Proxies)

    @property
    def plain_features(self) -> npt.NDArray[np.float32]:
        """Categories, if items have any, and period: few columns, and telling."""
        values = self.features.values
        plain = [values[name] for name in ("categories", "period") if name in values]
        return np.hstack([*plain, np.zeros((self.spec.num_items, 0), np.float32)])

    def teacher(self) -> Teacher:
        """The teacher of a checkpoint, or one fitted to the public rows.

        Raises:
            DataFormatError: if the checkpoint is damaged or of another catalogue.
        """
        checkpoint = self.config.teacher.checkpoint
        if checkpoint:
            path = Path(checkpoint).expanduser()
            return load_teacher(path, self.taught.digest)
        fit = TEACHERS[self.config.teacher.name]
        if self.config.transfer.method == "across":
            source = self._source
            features = build_features(source.catalogue, self.config.features)
            return fit(source.ordered, features, self.config)
        return fit(self.public.ordered, self.features, self.config)

    @property
    def taught(self) -> Catalogue:
        """The catalogue whose items the teacher knows."""
        across = self.config.transfer.method == "across"
        return self._source.catalogue if across else self.public.catalogue

    @property
    def _source(self) -> SourceData:
        if self.public.source is None:
            raise ConfigError(
                "transfer.method: across expected another domain's catalogue and rows "
                "in the folder source of the server's, found none."
            )
        return self.public.source

    def across(self, teacher: Teacher) -> StateDict:
        """A student for our catalogue from a teacher of the source's."""
        source = self._source
        theirs, ours, _ = common_features(
            source.catalogue, self.public.catalogue, self.config.features
        )
        return start_across(
            teacher, theirs, source.known, ours, self.spec, self.config.transfer
        )

    def start(self, teacher: Teacher, known: npt.NDArray[np.bool_]) -> StateDict:
        """A student transferred from the teacher, then distilled if so configured.

        Args:
            known: which items the teacher saw, bool ``[n]``.
        """
        settings = self.config.transfer
        if settings.method == "across":
            # A refined teacher knows these very items.
            settings = settings.model_copy(update={"method": "svd"})
        targets = teacher.tables(self.spec.dim)[0]
        fuse = FUSIONS[self.config.features.fusion]
        fused = fuse(self.features, targets, known, settings.content_l2)
        transfer = TRANSFERS[settings.method]
        state = transfer(teacher, fused, known, self.spec, settings)
        epochs = self.config.distillation.server_epochs
        if not epochs:
            return state
        return distil(
            teacher,
            state,
            self.spec,
            self.proxy(teacher),
            self.config.distillation,
            epochs,
            device=self.config.run.device,
        )

    def labels(self, teacher: Teacher) -> SoftLabels | None:
        """Soft labels of the proxy set, where clients distil at all."""
        settings = self.config.distillation
        if settings.weight == 0:
            return None
        return label_proxy_set(teacher, self.proxy(teacher), self.spec, settings)

    def proxy(self, teacher: Teacher) -> sp.csr_matrix:
        """The proxy set, ordered, CSR int32 ``[rows, n]``; made once a teacher."""
        settings = self.config.distillation
        return self.proxies.of(teacher, self.public.ordered, settings)


def open_school(config: RunConfig, public: PublicData) -> School:
    """Read the items' features."""
    features = build_features(public.catalogue, config.features)
    spec = spec_of(config.student, public.catalogue.num_items)
    return School(config, spec, public, features)


class Tutor:
    """The teacher in office: gives soft labels, and learns from released students.

    Args:
        school: what it teaches with.
        teacher: the first one.
        labels: its soft labels, where they are known already (a resumed run).
    """

    def __init__(
        self, school: School, teacher: Teacher, labels: SoftLabels | None = None
    ) -> None:
        self._school, self.teacher = school, teacher
        self.labels = school.labels(teacher) if labels is None else labels

    def refresh(self, student: StateDict) -> float | None:
        """Distil a released student into the teacher, unless that would do harm.

        Returns:
            NDCG@100 gained on public validation users; ``None`` where there are
            none, or what was learnt was not taken.
        """
        school = self._school
        found = refresh(
            self.teacher,
            student,
            school.spec,
            school.public,
            school.proxy(self.teacher),
            school.config,
        )
        self.teacher = found.teacher
        if found.gain is not None:
            self.labels = school.labels(self.teacher)
        return found.gain
