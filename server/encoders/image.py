"""Picture features: the last hidden layer of a torchvision or timm model from disk.

Server only: pictures of items are public, and the backbone is too large for a client.
Weights are loaded without running what they hold, and nothing is downloaded.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from common.errors import ConfigError, DataFormatError
from common.interactions import IdMap
from server.encoders.operators import declare_operators

Matrix = npt.NDArray[np.float32]
Known = npt.NDArray[np.bool_]

ENDINGS = (".png", ".jpg", ".jpeg", ".webp")
BATCH = 32
_EXTRA = (
    "features.images: pictures need the image extra; run pip install 'tutela[image]', "
    "or leave features.images empty."
)


@dataclass(frozen=True)
class Backbone:
    """A model without its classifier, in evaluation mode.

    Attributes:
        model: pictures float32 ``[B, 3, H, W]`` → features ``[B, dim]``.
        prepare: a Pillow picture → float32 ``[3, H, W]``, as the model wants it.
    """

    model: nn.Module
    prepare: Callable[[Any], torch.Tensor]


def encode_images(folder: Path, backbone: str, items: IdMap) -> tuple[Matrix, Known]:
    """Features float32 ``[num_items, dim]``, and which items have a picture, bool.

    Args:
        folder: pictures named ``ITEMID.png`` (or jpg, jpeg, webp); those of other
            items are passed over.
        backbone: as :func:`load_backbone` takes it.
        items: the declared catalogue's.

    Raises:
        ConfigError: if folder or backbone is missing, or no item has a picture.
        DataFormatError: naming a picture that is damaged, or an item's second one.
    """
    pictures = find_pictures(folder, items)
    loaded = load_backbone(backbone)
    rows = sorted(pictures)
    parts = [
        _encode(loaded, [pictures[row] for row in rows[start : start + BATCH]])
        for start in range(0, len(rows), BATCH)
    ]
    encoded = np.concatenate(parts)
    values = np.zeros((len(items), encoded.shape[1]), dtype=np.float32)
    known = np.zeros(len(items), dtype=np.bool_)
    values[rows], known[rows] = encoded, True
    return values, known


def find_pictures(folder: Path, items: IdMap) -> dict[int, Path]:
    """Dense item id → its picture.

    Raises:
        ConfigError: if there is no folder, or no picture of any item in it.
        DataFormatError: if an item has two pictures.
    """
    found: dict[int, Path] = {}
    # The folder is listed, never asked for an id: an id may look like a path.
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.suffix.lower() not in ENDINGS or path.stem not in items:
            continue
        row = int(items.encode([path.stem])[0])
        if row in found:
            raise DataFormatError(
                f"{path}: expected one picture an item, found {found[row].name} too."
            )
        found[row] = path
    if not found:
        raise ConfigError(
            f"features.images: expected pictures named by item ({', '.join(ENDINGS)}) "
            f"in {folder}, found none of this catalogue."
        )
    return found


@torch.inference_mode()
def _encode(backbone: Backbone, paths: list[Path]) -> Matrix:
    batch = torch.stack([backbone.prepare(_open(path)) for path in paths])
    encoded: Matrix = backbone.model(batch).flatten(1).float().numpy()
    return encoded


def _open(path: Path) -> Any:
    from PIL import Image

    damaged = (OSError, SyntaxError, ValueError, EOFError, struct.error)
    try:
        with Image.open(path) as picture:
            return picture.convert("RGB")
    except (*damaged, Image.DecompressionBombError) as error:
        raise DataFormatError(
            f"{path}: expected a readable picture, got a damaged one: {error}"
        ) from None


def load_backbone(name: str) -> Backbone:
    """A saved model, its classifier cut off.

    Args:
        name: a file of torchvision weights named by architecture
            (``resnet18.safetensors``, or ``.pt``/``.pth`` read as weights only); or a
            folder as timm saves it, ``config.json`` with ``architecture`` beside
            ``model.safetensors``.

    Raises:
        ConfigError: if it is neither, or the extra is not installed.
        DataFormatError: if the weights do not fit the architecture.
    """
    path = Path(name).expanduser()
    if not name or not path.exists():
        raise ConfigError(
            "features.image-backbone: expected a file of torchvision weights named "
            f"by its architecture, or a timm folder with config.json; got {name!r}."
        )
    declare_operators()
    try:
        # Building a model draws random weights that are then replaced: the run's own
        # stream of random numbers must not notice.
        with torch.random.fork_rng(devices=[]):
            return _from_timm(path) if path.is_dir() else _from_torchvision(path)
    except ImportError:
        raise ConfigError(_EXTRA) from None


def _from_torchvision(path: Path) -> Backbone:
    from torchvision import models

    known = models.list_models(module=models)
    if path.stem not in known:
        raise ConfigError(
            "features.image-backbone: expected the file to be named by an "
            f"architecture of torchvision, such as resnet18; got {path.name}."
        )
    model = models.get_model(path.stem, weights=None)
    head = _cut_head(model, path)
    weights = _read_weights(path)
    for part in ("weight", "bias"):
        weights.pop(f"{head}.{part}", None)
    _fill(model, weights, path)
    prepare = models.get_model_weights(path.stem).DEFAULT.transforms()
    return Backbone(model.eval(), prepare)


def _cut_head(model: nn.Module, path: Path) -> str:
    """Replace the last linear layer, which classifies, by nothing; its name."""
    linear = [name for name, part in model.named_modules() if type(part) is nn.Linear]
    if not linear:
        raise ConfigError(
            "features.image-backbone: expected an architecture that ends in a "
            f"linear layer, got {path.stem}."
        )
    head = str(linear[-1])
    model.set_submodule(head, nn.Identity())
    return head


def _from_timm(folder: Path) -> Backbone:
    import timm

    config = _read_config(folder / "config.json")
    architecture = str(config.get("architecture"))
    # A name such as hf-hub:… would make timm download.
    if not timm.is_model(architecture):
        raise ConfigError(
            f"features.image-backbone: expected an architecture of timm in "
            f"{folder / 'config.json'}, got {architecture!r}."
        )
    cfg = config.get("pretrained_cfg", {})
    weights = _read_weights(folder / "model.safetensors")
    model = timm.create_model(
        architecture,
        pretrained=False,
        num_classes=int(config.get("num_classes", cfg.get("num_classes", 1000))),
    )
    _fill(model, weights, folder)
    model.reset_classifier(0)
    wanted = timm.data.resolve_data_config(cfg, model=model)
    return Backbone(model.eval(), timm.data.create_transform(**wanted))


def _read_config(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict):
        raise ConfigError(f"features.image-backbone: expected a JSON object in {path}.")
    return found


def _read_weights(path: Path) -> dict[str, torch.Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, SafetensorError) as error:
        raise DataFormatError(f"{path}: expected saved weights: {error}") from None
    except Exception:  # torch names no type for what weights_only refuses
        raise DataFormatError(
            f"{path}: expected a file of weights and nothing else."
        ) from None
    if not isinstance(found, dict):
        raise DataFormatError(f"{path}: expected a state dict, got {type(found)}.")
    return found


def _fill(model: nn.Module, weights: dict[str, torch.Tensor], path: Path) -> None:
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise DataFormatError(
            f"{path}: expected weights of this architecture: {error}"
        ) from None
