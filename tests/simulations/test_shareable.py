"""What a report says of its machine: the names of things, never where they lie."""

import doctest
import shlex

import pytest

import simulations.shareable
from common.config import defaults
from simulations.shareable import (
    shareable_command,
    shareable_config,
    without_folders,
)


def test_doctests():
    assert doctest.testmod(simulations.shareable).failed == 0


@pytest.mark.parametrize(
    ("value", "left"),
    [
        ("/home/ada/rows.csv", "rows.csv"),
        ("/home/ada/ratings/", "ratings"),
        ("~/ratings", "ratings"),
        ("../ada/ratings", "ratings"),
        ("file:///home/ada/rows.csv", "rows.csv"),
        (r"C:\Users\ada\rows.csv", "rows.csv"),
        (r"\\server\ada\rows", "rows"),
        ("ml-100k", "ml-100k"),
        ("synthetic:num_users=9,num_items=5", "synthetic:num_users=9,num_items=5"),
        ("", ""),
    ],
)
def test_the_last_part_of_a_path_is_left(value, left):
    assert without_folders(value) == left


@pytest.mark.parametrize("out", [["--out", "/home/ada/x"], ["--out=/home/ada/x"]])
def test_a_command_keeps_its_words_and_loses_its_folders(out):
    words = ["/home/ada/.venv/bin/tutela", "simulate", "/home/ada/movies.toml", *out]
    told = shareable_command([*words, "--set", "data.private=/home/ada/my rows"])
    assert shlex.split(told)[:3] == ["tutela", "simulate", "movies.toml"]
    assert shlex.split(told)[-2:] == ["--set", "data.private=my rows"]
    assert shlex.split(told.replace("=x", " x"))[3:5] == ["--out", "x"]
    assert "ada" not in told


def test_a_config_loses_its_folders_alone():
    flat = defaults() | {"data.private": "/home/ada/movies", "data.public": "ml-100k"}
    told = shareable_config(flat)
    assert told["data.private"] == "movies"
    assert told | {"data.private": "/home/ada/movies"} == flat
    assert {key: type(value) for key, value in told.items()} == {
        key: type(value) for key, value in flat.items()
    }


def test_the_defaults_hold_no_folder():
    assert shareable_config(defaults()) == defaults()
