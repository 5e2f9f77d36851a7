"""Exports: files score as the student does, say what they are, and tell no paths."""

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from common.compact_files import Labels, load_compact, save_compact
from common.compression import (
    BIAS,
    Compact,
    CompactStudent,
    item_energy,
    prune_dimensions,
    prune_rows,
    whole,
)
from common.errors import ConfigError, DataFormatError
from common.export import (
    batch_scorer,
    compare,
    load_onnx,
    save_onnx,
    trial_histories,
)
from common.student import StudentSpec, load_student, random_state, save_student

ROOT = Path(__file__).parents[2]
LABELS = Labels("ab" * 32, "NOT PRIVATE: a test.")
SPEC = StudentSpec(num_items=120, dim=12, logit_scale=20.0, history_exponent=0.8)


def student(seed: int = 0) -> Compact:
    generator = torch.Generator().manual_seed(seed)
    state = random_state(SPEC, generator)
    state[BIAS] = torch.randn(SPEC.num_items, generator=generator)
    return whole(SPEC, state)


def pruned(seed: int = 0) -> Compact:
    before = student(seed)
    return prune_dimensions(prune_rows(before, 50, item_energy(before)), 6)


HISTORIES = trial_histories(SPEC.num_items, 32, seed=1)
PRECISIONS = ("float32", "int8")
VARIANTS = {"whole": student, "pruned": pruned}


@pytest.fixture(scope="module", params=[*VARIANTS])
def variant(request) -> Compact:
    return VARIANTS[request.param]()


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[tuple[str, str], Path]:
    """Every variant in both precisions: exporting takes a second each."""
    pytest.importorskip("onnxruntime", reason="needs the extra export")
    folder = tmp_path_factory.mktemp("onnx")
    found = {}
    for name, make in VARIANTS.items():
        for precision in PRECISIONS:
            found[name, precision] = folder / f"{name}.{precision}.onnx"
            save_onnx(found[name, precision], make(), LABELS, precision)
    return found


def expected_scores(compact: Compact) -> np.ndarray:
    return CompactStudent(compact).score(HISTORIES.toarray())


def test_trial_histories_hold_the_extremes() -> None:
    lengths = np.asarray(HISTORIES.sum(axis=1)).ravel()
    assert lengths[0] == 0
    assert lengths[1] == 120
    assert 1 <= lengths[2:].min() < lengths[2:].max() <= 100
    assert set(HISTORIES.data) == {1.0}


@pytest.mark.parametrize("name", VARIANTS)
def test_onnx_scores_as_torch(files, name: str) -> None:
    found = load_onnx(files[name, "float32"]).score(HISTORIES.toarray())
    parity = compare(expected_scores(VARIANTS[name]()), found, 10)
    assert parity.largest_difference < 1e-4
    assert parity.identical == 1.0
    assert found.dtype == np.float32


@pytest.mark.parametrize("name", VARIANTS)
def test_eight_bits_rank_nearly_as_torch(files, name: str) -> None:
    expected = expected_scores(VARIANTS[name]())
    found = load_onnx(files[name, "int8"]).score(HISTORIES.toarray())
    parity = compare(expected, found, 10)
    assert 0 < parity.largest_difference < 0.02
    assert parity.overlap > 0.95
    # an empty history has nothing to round: the bias alone
    np.testing.assert_array_equal(found[0], expected[0])


def test_eight_bits_are_smaller(files) -> None:
    whole32, whole8 = (files["whole", each].stat().st_size for each in PRECISIONS)
    # three bytes an entry, less scales, zero points and the larger graph
    assert 0 <= 3 * (2 * 120 * 12) - (whole32 - whole8) < 5000


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_users_scores_do_not_depend_on_the_batch(files, precision: str) -> None:
    loaded = load_onnx(files["whole", precision])
    together = loaded.score(HISTORIES.toarray())
    alone = np.concatenate([loaded.score(row.toarray()) for row in HISTORIES])
    np.testing.assert_allclose(together, alone, atol=1e-6)
    assert loaded.score(HISTORIES[:0].toarray()).shape == (0, 120)


def test_histories_of_another_catalogue_are_refused(files) -> None:
    loaded = load_onnx(files["whole", "int8"])
    with pytest.raises(DataFormatError, match=r"over 120 items, got shape \(1, 7\)"):
        loaded.score(np.zeros((1, 7), dtype=np.float32))


def test_dropped_items_score_minus_infinity(files) -> None:
    kept = pruned().kept.numpy()
    found = load_onnx(files["pruned", "int8"]).score(HISTORIES.toarray())
    assert np.isfinite(found[:, kept]).all()
    assert (np.delete(found, kept, axis=1) == -np.inf).all()


def test_a_file_says_what_it_is(files) -> None:
    assert dict(load_onnx(files["pruned", "int8"], "ab" * 32).metadata) == {
        "format": "tutela-onnx-1",
        "precision": "int8",
        "num_items": "120",
        "kept_items": "50",
        "dim": "6",
        "logit_scale": "20.0",
        "history_exponent": "0.8",
        "catalogue_digest": "ab" * 32,
        "promise": "NOT PRIVATE: a test.",
    }


def test_input_and_output_are_named_and_take_any_batch(files) -> None:
    session = load_onnx(files["whole", "float32"]).session
    (history,), (scores,) = session.get_inputs(), session.get_outputs()
    assert (history.name, history.type, history.shape[1]) == (
        "history",
        "tensor(float)",
        120,
    )
    assert (scores.name, scores.shape[1]) == ("scores", 120)
    assert isinstance(history.shape[0], str)
    assert session.get_session_options().intra_op_num_threads == 1


def test_no_file_tells_where_it_was_made(files) -> None:
    for path in files.values():
        content = path.read_bytes()
        for trace in (b".py", b"stack_trace", str(ROOT).encode(), b"site-packages"):
            assert trace not in content


def test_eight_bits_are_int8_with_a_scale_for_each_output(files) -> None:
    onnx = import_module("onnx")
    graph = onnx.load(files["whole", "int8"]).graph
    tables = [t for t in graph.initializer if t.name.endswith("_quantized")]
    assert {tuple(t.dims) for t in tables} == {(120, 12), (12, 120)}
    assert {t.data_type for t in tables} == {onnx.TensorProto.INT8}
    scales = [t for t in graph.initializer if t.name.endswith("_scale")]
    assert {tuple(t.dims) for t in scales} == {(12,), (120,)}


def test_another_catalogue_is_refused(files, tmp_path: Path) -> None:
    with pytest.raises(DataFormatError, match="its item ids mean other items"):
        load_onnx(files["whole", "float32"], "cd" * 32)
    save_compact(tmp_path / "s", pruned(), LABELS, "int8")
    with pytest.raises(DataFormatError, match="its item ids mean other items"):
        load_compact(tmp_path / "s", "cd" * 32)


def test_other_files_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="needs the extra export")
    for load in (load_onnx, load_compact):
        with pytest.raises(DataFormatError, match="found no file"):
            load(tmp_path / "none")
    (tmp_path / "text").write_text("no model")
    with pytest.raises(DataFormatError, match="expected an ONNX file"):
        load_onnx(tmp_path / "text")
    with pytest.raises(DataFormatError, match="expected a safetensors file"):
        load_compact(tmp_path / "text")
    onnx = import_module("onnx")
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    node = onnx.helper.make_node("Identity", ["x"], ["y"])
    graph = onnx.helper.make_graph([node], "g", [value], [_renamed(value, "y")])
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10
    )
    (tmp_path / "other.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(DataFormatError, match="expected format tutela-onnx-1"):
        load_onnx(tmp_path / "other.onnx")


def _renamed(value, name: str):
    copy = type(value)()
    copy.CopyFrom(value)
    copy.name = name
    return copy


def test_compact_files_come_back(tmp_path: Path, variant: Compact) -> None:
    save_compact(tmp_path / "s", variant, LABELS, "float32")
    back = load_compact(tmp_path / "s", "ab" * 32)
    assert back.spec == variant.spec
    assert back.kept.tolist() == variant.kept.tolist()
    assert back.catalogue_size == 120
    for name, tensor in variant.state.items():
        assert torch.equal(back.state[name], tensor)


def test_compact_eight_bits_rank_nearly_as_torch(
    tmp_path: Path, variant: Compact
) -> None:
    save_compact(tmp_path / "s", variant, LABELS, "int8")
    back = CompactStudent(load_compact(tmp_path / "s"))
    parity = compare(expected_scores(variant), back.score(HISTORIES.toarray()), 10)
    assert 0 < parity.largest_difference < 0.02
    assert parity.overlap > 0.95


def test_a_whole_student_stays_a_plain_one(tmp_path: Path) -> None:
    save_compact(tmp_path / "s", student(), LABELS, "float32")
    plain = load_student(tmp_path / "s")
    assert plain.spec == SPEC
    assert torch.equal(plain.decoder.bias, student().state[BIAS])


def test_a_plain_student_is_read_as_a_whole_one(tmp_path: Path) -> None:
    save_student(tmp_path / "s", SPEC, student().state)
    back = load_compact(tmp_path / "s", "of any catalogue")
    assert back.spec == SPEC
    assert back.is_whole


@pytest.mark.parametrize(
    "damage",
    [
        {"kept": torch.tensor([5, 3], dtype=torch.int32)},
        {"kept": torch.arange(49, dtype=torch.int32)},
        {"kept": torch.arange(71, 121, dtype=torch.int32)},
        {"kept": torch.arange(-1, 49, dtype=torch.int32)},
        {"decoder.bias": torch.zeros(3)},
        {"encoder.weight": torch.zeros(3)},
    ],
)
def test_damaged_compact_files_are_refused(tmp_path: Path, damage) -> None:
    compact = pruned()
    tensors = compact.state | {"kept": compact.kept.to(torch.int32)} | damage
    metadata = {
        "format": "tutela-compact-1",
        "num_items": "120",
        "logit_scale": "20.0",
        "history_exponent": "0.8",
    }
    save_file(tensors, tmp_path / "s", metadata)
    with pytest.raises(DataFormatError, match="it is damaged"):
        load_compact(tmp_path / "s")


def test_a_scorer_takes_a_slice_of_users() -> None:
    score = batch_scorer(CompactStudent(student()).score, HISTORIES)
    np.testing.assert_allclose(score(3, 6), expected_scores(student())[3:6], atol=1e-6)


def test_parity_by_hand() -> None:
    a = np.float32([[3, 2, 1, -np.inf], [3, 2, 1, 0]])
    b = np.float32([[3, 2, 1, -np.inf], [3, 1, 2.5, 0]])
    parity = compare(a, b, 2)
    assert parity.largest_difference == 1.5
    assert parity.overlap == 0.75
    assert parity.identical == 0.5
    assert compare(a, np.where(np.isinf(a), 0, a), 2).largest_difference == np.inf


def test_a_missing_extra_is_named(monkeypatch, tmp_path: Path, files) -> None:
    def without(name: str, *args, **kwargs):
        raise ImportError(name)

    monkeypatch.setattr("common.export.import_module", without)
    with pytest.raises(ConfigError, match=r"package onnx .* 'tutela\[export\]'"):
        save_onnx(tmp_path / "s", student(), LABELS, "float32")
    with pytest.raises(ConfigError, match="package onnxruntime "):
        load_onnx(files["whole", "float32"])
    assert not (tmp_path / "s").exists()


def test_importing_needs_no_extra() -> None:
    code = (
        "import sys, common.export, common.compression, common.compact_files\n"
        "import simulations.export_commands\n"
        "print([m for m in sys.modules if m.partition('.')[0] in "
        "('onnx', 'onnxscript', 'onnxruntime', 'onnx_ir')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT
    )
    assert done.stdout.strip() == "[]", done.stderr
