"""torchvision can be imported whatever torch it was compiled for."""

import pytest
import torch

from server.encoders.operators import DETECTION, declare_operators


def test_its_classifiers_can_be_imported():
    declare_operators()
    declare_operators()  # once is enough, twice is no error
    models = pytest.importorskip("torchvision.models", reason="no image extra")
    declare_operators()
    assert models.resnet18.__name__ == "resnet18"
    assert all(hasattr(torch.ops.torchvision, name) for name in DETECTION)
