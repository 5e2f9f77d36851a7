"""Pictures: found by item, encoded alike each time, damage named."""

import importlib.util
import json
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from common.errors import ConfigError, DataFormatError
from common.interactions import IdMap
from server.encoders.image import encode_images, find_pictures, load_backbone
from server.encoders.operators import declare_operators

declare_operators()
ITEMS = IdMap(("7", "../x", "9", "12"))


def has(module):
    return importlib.util.find_spec(module) is not None


needs_torchvision = pytest.mark.skipif(
    not has("torchvision") or not has("PIL"), reason="the image extra is not installed"
)
needs_timm = pytest.mark.skipif(
    not has("timm"), reason="the image extra is not installed"
)


@pytest.fixture
def pictures(tmp_path):
    """Items 7 and 12 have a picture, in two formats; one more is of no item."""
    image = pytest.importorskip("PIL.Image", reason="the image extra is not installed")
    folder = tmp_path / "pictures"
    folder.mkdir()
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (40, 30, 3), dtype=np.uint8)
    image.fromarray(noise).save(folder / "12.png")
    image.new("L", (8, 8), 200).save(folder / "7.JPG", format="JPEG")
    image.new("RGB", (8, 8)).save(folder / "0.webp")
    return folder


@pytest.fixture(scope="module")
def resnet(tmp_path_factory):
    torchvision = pytest.importorskip("torchvision", reason="no image extra")
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("backbone") / "resnet18.safetensors"
    save_file(torchvision.models.resnet18(num_classes=10).state_dict(), path)
    return path


@needs_torchvision
def test_items_with_a_picture_are_known(pictures, resnet):
    values, known = encode_images(pictures, str(resnet), ITEMS)
    assert values.shape == (4, 512)
    assert values.dtype == np.float32
    assert known.tolist() == [True, False, False, True]
    assert not values[~known].any()
    assert not np.allclose(values[0], values[3])
    again, _ = encode_images(pictures, str(resnet), ITEMS)
    assert np.array_equal(values, again)


@needs_torchvision
def test_features_are_what_the_classifier_would_see(pictures, resnet):
    torchvision = pytest.importorskip("torchvision")
    image = pytest.importorskip("PIL.Image")
    values, _ = encode_images(pictures, str(resnet), ITEMS)
    whole = torchvision.models.resnet18(num_classes=10)
    whole.load_state_dict(load_file(resnet))
    whole.eval()
    prepare = torchvision.models.ResNet18_Weights.DEFAULT.transforms()
    with torch.no_grad(), image.open(pictures / "12.png") as picture:
        logits = whole(prepare(picture)[None])
        ours = whole.fc(torch.from_numpy(values[3:]))
    torch.testing.assert_close(ours, logits, rtol=1e-4, atol=1e-4)


@needs_torchvision
def test_weights_alone_are_loaded_from_torch_files(resnet, tmp_path):
    torch.save(load_file(resnet), tmp_path / "resnet18.pth")
    batch = torch.ones(1, 3, 64, 64)
    one, other = (load_backbone(str(p)) for p in (resnet, tmp_path / "resnet18.pth"))
    with torch.no_grad():
        torch.testing.assert_close(one.model(batch), other.model(batch))

    class Harm:
        def __reduce__(self):
            return (print, ("run",))

    torch.save({"fc.weight": Harm()}, tmp_path / "resnet18.pth")
    with pytest.raises(DataFormatError, match="weights and nothing else"):
        load_backbone(str(tmp_path / "resnet18.pth"))


@needs_torchvision
def test_loading_draws_no_random_number_of_the_run(resnet):
    torch.manual_seed(5)
    load_backbone(str(resnet))
    after = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(after, torch.rand(1))


@needs_torchvision
def test_backbones_that_do_not_fit_are_refused(resnet, tmp_path):
    for name in ("", str(tmp_path / "none.safetensors")):
        with pytest.raises(ConfigError, match=r"features\.image-backbone: expected"):
            load_backbone(name)
    strange = tmp_path / "mynet.safetensors"
    save_file({"a": torch.ones(1)}, strange)
    with pytest.raises(ConfigError, match="such as resnet18"):
        load_backbone(str(strange))
    headless = tmp_path / "squeezenet1_0.safetensors"
    save_file({"a": torch.ones(1)}, headless)
    with pytest.raises(ConfigError, match="ends in a linear layer"):
        load_backbone(str(headless))
    other = tmp_path / "resnet18.safetensors"
    save_file({"a": torch.ones(1)}, other)
    with pytest.raises(DataFormatError, match="weights of this architecture"):
        load_backbone(str(other))
    other.write_bytes(b"damaged")
    with pytest.raises(DataFormatError, match=r"resnet18\.safetensors: expected saved"):
        load_backbone(str(other))


@needs_timm
def test_a_timm_folder_is_loaded(pictures, tmp_path):
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    saved = timm.create_model("resnet10t", pretrained=False, num_classes=3)
    folder = tmp_path / "model"
    folder.mkdir()
    save_file(saved.state_dict(), folder / "model.safetensors")
    config = {
        "architecture": "resnet10t",
        "num_classes": 3,
        "pretrained_cfg": {"input_size": [3, 64, 64], "mean": [0, 0, 0]},
    }
    (folder / "config.json").write_text(json.dumps(config))
    values, known = encode_images(pictures, str(folder), ITEMS)
    assert values.shape == (4, 512)
    assert known.tolist() == [True, False, False, True]
    assert load_backbone(str(folder)).prepare is not None
    (folder / "config.json").write_text('{"architecture": "hf-hub:a/b"}')
    with pytest.raises(ConfigError, match="expected an architecture of timm"):
        load_backbone(str(folder))
    (folder / "config.json").write_text("{")
    with pytest.raises(ConfigError, match="expected a JSON object"):
        load_backbone(str(folder))


@needs_torchvision
def test_a_damaged_picture_is_named(pictures, resnet):
    whole = (pictures / "12.png").read_bytes()
    for damaged in (b"", b"not a picture", whole[:200], whole[:60] + whole[:60]):
        (pictures / "12.png").write_bytes(damaged)
        with pytest.raises(DataFormatError, match=r"12\.png: expected a readable"):
            encode_images(pictures, str(resnet), ITEMS)


def test_pictures_are_found_by_item(tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("in/7.png", "in/9.webp", "in/notes.txt", "in/5.png", "x.png"):
        (tmp_path / name).touch()
    found = find_pictures(tmp_path / "in", ITEMS)
    assert {row: path.name for row, path in found.items()} == {0: "7.png", 2: "9.webp"}
    (tmp_path / "in/7.jpeg").touch()
    with pytest.raises(DataFormatError, match=r"one picture an item"):
        find_pictures(tmp_path / "in", ITEMS)


def test_no_picture_at_all_is_refused(tmp_path):
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(ConfigError, match="found none of this catalogue"):
            find_pictures(folder, ITEMS)


@pytest.mark.parametrize("module", ["torchvision", "timm"])
def test_a_missing_extra_names_itself(tmp_path, monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    file = tmp_path / "resnet18.safetensors"
    file.touch()
    with pytest.raises(ConfigError, match=r"pip install 'tutela\[image\]'"):
        load_backbone(str(file if module == "torchvision" else tmp_path))
