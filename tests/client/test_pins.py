"""Which bundles a client's owner allowed, and what another one would change."""

import hashlib
import io
import stat
import zipfile

import pytest
from typer.testing import CliRunner

from client.__main__ import app
from client.deploy.pins import (
    MOST_FILES,
    UnpinnedBundle,
    changes_since,
    check_bundle,
    compare,
    hash_of,
    kept_bundle,
    pin,
    printable,
    read_bundle,
)
from client.settings import read_settings
from common.errors import ConfigError, DataFormatError, NoConsent

PROJECT = b'[project]\nname = "x"\ndependencies = ["a==1"]\n'
OTHER = "0" * 64


def pack(files, **more):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as packed:
        for name, text in {"pyproject.toml": PROJECT, **files, **more}.items():
            packed.writestr(name, text)
    return content.getvalue()


OLD = pack({"client/app.py": "one\ntwo\n", "gone.py": "x\n"})
NEW = pack(
    {
        "pyproject.toml": PROJECT.replace(b"a==1", b"a==2"),
        "client/app.py": "one\nthree\n",
        "new.py": "import os\n",
        ".info/CONTENT": "whatever",
    }
)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "settings.toml").write_text(
        '# mine\nruns = ["a"]  # the first\n\n[budget.user]\ntarget-epsilon = 3.0\n'
    )
    (tmp_path / "settings.toml").chmod(0o600)
    return tmp_path


class TestTheCheck:
    def test_a_pinned_bundle_passes_by_its_own_bytes(self):
        name = hashlib.sha256(OLD).hexdigest()
        assert check_bundle(OLD, (name, name), (OTHER, name)) == name

    def test_none_pinned_is_none_allowed(self):
        with pytest.raises(
            UnpinnedBundle, match=f"{hash_of(OLD)}, the owner pinned none"
        ):
            check_bundle(OLD, (hash_of(OLD),), ())

    @pytest.mark.parametrize("place", [0, len(OLD) // 2, len(OLD) - 1])
    def test_one_changed_byte_is_another_bundle(self, place):
        changed = bytearray(OLD)
        changed[place] ^= 1
        with pytest.raises(UnpinnedBundle, match="the owner pinned"):
            check_bundle(bytes(changed), (), (hash_of(OLD),))

    def test_a_false_name_is_refused_though_the_name_is_pinned(self):
        with pytest.raises(UnpinnedBundle, match=hash_of(NEW)):
            check_bundle(NEW, (hash_of(OLD),), (hash_of(OLD),))

    def test_pinned_bytes_under_another_name_are_refused_too(self):
        with pytest.raises(UnpinnedBundle, match="came as no hash"):
            check_bundle(OLD, ("../\x1b[31m", hash_of(OLD)), (hash_of(OLD),))

    def test_the_refusal_is_a_lack_of_consent(self):
        assert issubclass(UnpinnedBundle, NoConsent)


class TestTheSettings:
    def test_no_bundle_is_allowed_by_default(self, folder):
        assert read_settings(folder).bundles == ()

    @pytest.mark.parametrize("value", ['["abc"]', f'["{"A" * 64}"]', "[1]", "true"])
    def test_only_whole_hashes_are_taken(self, folder, value):
        (folder / "settings.toml").write_text(f"bundles = {value}\n")
        with pytest.raises(ConfigError, match="bundles"):
            read_settings(folder)

    def test_a_pin_keeps_comments_mode_and_all_else(self, folder):
        name = pin(folder, OLD)
        text = (folder / "settings.toml").read_text()
        assert "# mine" in text
        assert "# the first" in text
        settings = read_settings(folder)
        assert settings.bundles == (name,) == (hash_of(OLD),)
        assert settings.budget["user"].target_epsilon == 3.0
        mode = stat.S_IMODE((folder / "settings.toml").stat().st_mode)
        assert mode == 0o600
        assert kept_bundle(folder, name) == OLD

    def test_pins_add_up_in_order_and_only_forgets(self, folder):
        for content in (OLD, NEW, OLD):
            pin(folder, content)
        assert read_settings(folder).bundles == (hash_of(NEW), hash_of(OLD))
        pin(folder, NEW, only=True)
        assert read_settings(folder).bundles == (hash_of(NEW),)

    def test_damaged_settings_are_left_alone(self, folder):
        (folder / "settings.toml").write_text("runs = [")
        with pytest.raises(ConfigError):
            pin(folder, OLD)
        assert (folder / "settings.toml").read_text() == "runs = ["

    def test_a_kept_bundle_that_was_changed_is_not_compared_with(self, folder):
        name = pin(folder, OLD)
        (folder / "bundles" / f"{name}.fab").write_bytes(NEW)
        assert kept_bundle(folder, name) is None
        assert changes_since(folder, (name,), NEW).against == ""


class TestTheChanges:
    def test_files_are_named_and_lines_are_shown(self, folder):
        name = pin(folder, OLD)
        found = changes_since(folder, (name,), NEW)
        assert found.against == name
        assert found.added == ("new.py",)
        assert found.removed == ("gone.py",)
        assert found.changed == ("client/app.py", "pyproject.toml")
        assert found.project == ("project.dependencies: ['a==1'] -> ['a==2']",)
        for line in ("-two", "+three", "+import os", "-x", "+++ new.py"):
            assert line in found.diff

    def test_equal_files_are_no_change(self):
        found = compare(read_bundle(OLD), read_bundle(OLD))
        assert not any((found.added, found.removed, found.changed, found.diff))

    @pytest.mark.parametrize(
        ("before", "after", "shown"),
        [
            (b"# x\nrun()\n", b"# x\rrun()\n", "+# x\\x0drun()"),
            (b"a\n", b"a\r\n", "+a\\x0d"),
            (b"a\nb\n", b"a\x0cb\n", "+a\\x0cb"),
            (b"a\nb\n", "a\u2028b\n".encode(), "+a\\x2028b"),
            (b"a\n", b"a", "-"),
            (b"", b"\n", "+"),
        ],
    )
    def test_a_change_of_line_ends_alone_is_shown(self, before, after, shown):
        assert shown in compare({"x.py": before}, {"x.py": after}).diff

    def test_a_line_cannot_steer_the_terminal(self):
        assert printable("a\x1b[2K\rb\u202e") == "a\\x1b[2K\\x0db\\x202e"
        found = compare({}, {"x.py": b"\x1b]0;t\x07\xff"})
        assert not any("\x1b" in line for line in found.diff)
        assert found.added == ("x.py",)


class TestForeignFiles:
    @pytest.mark.parametrize("content", [b"", b"no zip", NEW[:-30]])
    def test_what_is_no_bundle_is_an_error_of_ours(self, content):
        with pytest.raises(DataFormatError, match="Flower App Bundle"):
            read_bundle(content)

    def test_a_zip_without_a_project_is_none(self):
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w") as packed:
            packed.writestr("a.py", "")
        with pytest.raises(DataFormatError, match=r"pyproject\.toml"):
            read_bundle(content.getvalue())

    def test_what_unpacks_to_too_much_is_not_unpacked(self, monkeypatch):
        monkeypatch.setattr("client.deploy.pins.MOST_BYTES", 100)
        with pytest.raises(DataFormatError, match="at most"):
            read_bundle(pack({"big.py": "x" * 101}))
        many = {f"{n}.py": "" for n in range(MOST_FILES)}
        with pytest.raises(DataFormatError, match="at most"):
            read_bundle(pack(many))

    @pytest.mark.parametrize("name", ["client/__pycache__/app.pyc", "a.so", "data"])
    def test_what_runs_and_cannot_be_read_is_refused(self, name):
        with pytest.raises(DataFormatError, match=name):
            read_bundle(pack({name: "x"}))

    @pytest.mark.parametrize(
        "code",
        [
            b"# coding: utf-7\n# +AAo-import os\n",
            b"#!/bin/sh\n# -*- coding: latin-1 -*-\n",
            b"\r# coding=utf-7\n",  # a second line to Python, not to tokenize
            b"\x0c\r\n#coding:utf-7\n",
            b"# coding: no-such-one\n",
            b"\xef\xbb\xbf# coding: latin-1\n",
            b"x = 1\ny = '\xff'\n",
        ],
    )
    def test_code_that_is_read_otherwise_than_it_is_shown_is_refused(self, code):
        with pytest.raises(DataFormatError, match=r"read before it is pinned.*odd\.py"):
            read_bundle(pack({"odd.py": code}))

    @pytest.mark.parametrize(
        "code",
        [
            b"",
            b"# -*- coding: utf-8 -*-\n",
            b"\xef\xbb\xbf# coding: utf-8\nx = 1\n",
            b"# vim: set fileencoding=UTF8 :\n",
            b"x = 1\n\n# coding: utf-7\n",  # too late to count
            "# é\n".encode(),
        ],
    )
    def test_code_in_utf8_is_taken_whatever_it_is_called(self, code):
        assert read_bundle(pack({"fine.py": code}))["fine.py"] == code

    def test_only_code_has_to_be_utf8(self):
        assert "notes.md" in read_bundle(pack({"notes.md": b"# coding: utf-7\xff"}))

    @pytest.mark.filterwarnings("ignore:Duplicate name")
    def test_two_files_of_one_name_hide_nothing(self):
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w") as packed:
            for text in (PROJECT, b"other"):
                packed.writestr("pyproject.toml", text)
        with pytest.raises(DataFormatError, match="two files"):
            read_bundle(content.getvalue())


class TestTheVerb:
    def run(self, *arguments, **more):
        return CliRunner().invoke(app, ["pin", *map(str, arguments)], **more)

    @pytest.fixture
    def bundle(self, tmp_path):
        path = tmp_path / "new.fab"
        path.write_bytes(NEW)
        return path

    def test_it_shows_asks_and_pins(self, folder, bundle):
        pin(folder, OLD)
        done = self.run(folder, bundle, input="y\n")
        assert done.exit_code == 0, done.output
        for text in ("1 files added: new.py", "+three", "a==2", hash_of(NEW)):
            assert text in done.output
        assert read_settings(folder).bundles == (hash_of(OLD), hash_of(NEW))

    def test_a_no_pins_nothing(self, folder, bundle):
        assert self.run(folder, bundle, input="n\n").exit_code == 1
        assert read_settings(folder).bundles == ()

    def test_yes_does_not_ask_and_twice_is_once(self, folder, bundle):
        assert self.run(folder, bundle, "--yes").exit_code == 0
        again = self.run(folder, bundle, "--yes")
        assert "pinned already" in again.output
        assert read_settings(folder).bundles == (hash_of(NEW),)

    def test_a_missing_bundle_or_folder_is_named(self, folder, tmp_path):
        missing = self.run(folder, tmp_path / "none.fab")
        assert isinstance(missing.exception, ConfigError)
        assert "none.fab" in str(missing.exception)
        assert isinstance(self.run(tmp_path / "no", "x").exception, ConfigError)
