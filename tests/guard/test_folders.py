"""Who else may write where our files lie."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from raypipe.errors import InputError
from raypipe.guard import folders


def test_a_folder_in_which_others_may_write(tmp_path: Path) -> None:
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    assert list(folders.open_to_others(inner)) == []
    (tmp_path / "a").chmod(0o777)
    assert list(folders.open_to_others(inner)) == [(tmp_path / "a", folders.ANYONE)]
    (tmp_path / "a").chmod(0o1777)
    sticky_and_of_root = os.getuid() == 0  # the sticky bit protects what lies there, and root is trusted
    assert list(folders.open_to_others(inner)) == ([] if sticky_and_of_root else [(tmp_path / "a", folders.ANYONE)])


def test_a_groups_folder_unless_the_group_is_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o770)
    monkeypatch.setattr(folders, "_is_own_group", lambda gid: False)
    assert folders.why_open(tmp_path) == "its group may write there"
    monkeypatch.setattr(folders, "_is_own_group", lambda gid: True)
    assert folders.why_open(tmp_path) is None


def test_what_belongs_to_another_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path.stat().st_uid
    monkeypatch.setattr(os, "getuid", lambda: own + 1 if own else 1)
    expected = "belongs to another user" if own else None  # root may write everywhere anyway
    assert folders.why_open(tmp_path) == expected
    assert folders.why_open(tmp_path, is_own=True) == "belongs to another user"


def test_a_private_folder(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir(mode=0o755)
    assert folders.private_folder(tmp_path / "open").stat().st_mode & 0o777 == 0o700
    (tmp_path / "link").symlink_to(tmp_path / "open")
    with pytest.raises(InputError, match="is a link"):
        folders.private_folder(tmp_path / "link")
