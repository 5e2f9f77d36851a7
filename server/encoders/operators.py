"""Make torchvision importable beside a torch of another build.

Server only, for the encoders. Package indices ship torchvision compiled against CUDA:
beside a torch without CUDA its library does not load, and then its Python half, which
holds the classifiers, stops at operators (of detection) that nobody has declared.
sentence-transformers and timm import it as well.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import torch

#: What torchvision 0.28 describes without looking whether it is there.
DETECTION = ("nms", "qnms")
_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def declare_operators() -> None:
    """Declare the operators if torchvision is there and its library does not load.

    Declared is not implemented: to call one still fails, with torch's own message.
    """
    spec = importlib.util.find_spec("torchvision")
    if spec is None or "torchvision" in sys.modules:
        return
    for place in spec.submodule_search_locations or []:
        for library in Path(place).glob("_C*.so"):
            if _loads(library):
                return
    for name in DETECTION:
        if not hasattr(torch.ops.torchvision, name):
            torch.library.define(f"torchvision::{name}", _SCHEMA)


def _loads(library: Path) -> bool:
    try:
        torch.ops.load_library(library)  # type: ignore[no-untyped-call]
    except OSError:
        return False
    return True
