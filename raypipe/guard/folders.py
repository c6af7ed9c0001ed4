"""Who else can write where our files lie, and a folder of our own."""

from __future__ import annotations

import grp
import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path

from raypipe.errors import InputError

ANYONE = "anyone may write there"


def open_to_others(path: Path) -> Iterator[tuple[Path, str]]:
    """Where somebody else may put or replace what lies at `path`: it or one of its parents, and why.

    A folder of root with the sticky bit, such as /tmp, lets nobody touch what belongs to others.
    """
    path = path.resolve()
    for place in [place for place in (path, *path.parents) if place.exists()]:
        if (why := why_open(place)) is not None:
            yield place, why


def why_open(path: Path, is_own: bool = False) -> str | None:
    """Why somebody else may write this file or folder; None if nobody may. `is_own`: not even root's will do."""
    status = path.lstat()
    if status.st_uid not in ({os.getuid()} if is_own else {0, os.getuid()}):
        return "belongs to another user"
    if stat.S_ISLNK(status.st_mode):
        return "is a link"
    if status.st_mode & stat.S_ISVTX and status.st_uid == 0:
        return None
    if status.st_mode & stat.S_IWOTH:
        return ANYONE
    return "its group may write there" if status.st_mode & stat.S_IWGRP and not _is_own_group(status.st_gid) else None


def _is_own_group(gid: int) -> bool:
    """Is the group a user's own, as most systems make one per user?"""
    try:
        group, user = grp.getgrgid(gid), pwd.getpwuid(os.getuid())
    except KeyError:
        return False
    return gid == user.pw_gid and group.gr_name == user.pw_name and set(group.gr_mem) <= {user.pw_name}


def private_folder(path: Path) -> Path:
    """A folder that its owner alone can look into; made if it is not there. Raises `InputError` if it is another's."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        raise InputError(f"{path} is a link or belongs to another user: remove it")
    path.chmod(0o700)
    return path
