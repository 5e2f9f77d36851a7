"""The four rooms: who may import whom, and what no file may do."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ALLOWED = {
    "common": {"common"},
    "server": {"server", "common"},
    "client": {"client", "common"},
    "simulations": {"simulations", "server", "client", "common"},
}
FILES = sorted(path for room in ALLOWED for path in (ROOT / room).rglob("*.py"))
NAMES = [path.relative_to(ROOT).as_posix() for path in FILES]
each_file = pytest.mark.parametrize("name", NAMES)


def tree(name):
    return ast.parse((ROOT / name).read_text(encoding="utf-8"))


def imported(name):
    """Top-level packages that a file imports, wherever the import stands."""
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield name.split("/")[0] if node.level else node.module.split(".")[0]


def test_every_room_has_files():
    assert {name.split("/")[0] for name in NAMES} == set(ALLOWED)


@each_file
def test_imports_point_from_simulations_to_the_sides_to_common(name):
    rooms = set(imported(name)) & {*ALLOWED, "tests"}
    assert rooms <= ALLOWED[name.split("/")[0]]


@each_file
def test_only_the_dp_module_imports_opacus(name):
    assert ("opacus" in set(imported(name))) == (name == "client/dp.py")


@each_file
def test_nothing_unpickles(name):
    assert not {"pickle", "cloudpickle", "dill", "joblib"} & set(imported(name))


@each_file
def test_no_check_vanishes_with_optimisation(name):
    assert not [n.lineno for n in ast.walk(tree(name)) if isinstance(n, ast.Assert)]


@each_file
def test_every_module_says_what_it_is(name):
    assert ast.get_docstring(tree(name))


@each_file
def test_no_file_is_too_long(name):
    assert len((ROOT / name).read_text(encoding="utf-8").splitlines()) <= 400


@each_file
def test_no_file_hides_behind_an_empty_name(name):
    words = Path(name).stem.lower().split("_")
    empty = {"util", "utils", "helper", "helpers", "manager", "handler", "process"}
    assert not empty & set(words)
