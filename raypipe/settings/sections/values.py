"""What sections are made of: their base, and the kinds of values that several of them hold."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from raypipe.guard import limits

Fraction = Annotated[float, Field(ge=0, le=1)]
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
Name = Annotated[str, Field(pattern=NAME)]  # becomes a directory name


class Section(BaseModel):
    """Base of all sections: an unknown key is refused, and nothing changes afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), use_attribute_docstrings=True)


_SCHEME = r"[A-Za-z][A-Za-z0-9+.-]*:"
_USER = re.compile(rf"(?:{_SCHEME}/*|//)[^@]*?(?::|%3a)[^@]*(?:@|%40)|[^/@:]+:[^/@]*@", re.IGNORECASE)
_QUERY = re.compile(r"[?&][^=]*(key|secret|token|password|pwd|sig|credential|auth)[^=]*=", re.IGNORECASE)


def no_credential(uri: str) -> str:
    """Refuses a user with a password in every spelling, also in those that are no URI, and a key in the query."""
    if _USER.match(uri) or _QUERY.search(uri):
        raise ValueError("holds a credential; give it to the cluster's environment, not to the config")
    return uri


def location(uri: str) -> str:
    """A path or URI as it is. Raises `ValueError` if it is neither, or holds a credential."""
    if re.match(rf"{_SCHEME}(?!//)", no_credential(uri)):
        raise ValueError("is neither a path nor a URI; write scheme://..., or ./ before a name with a colon")
    return uri


def _folder(path: str) -> str:
    if re.match(_SCHEME, no_credential(path)):
        raise ValueError(
            "must be a path, and no URI: mount the store, or copy what is there (runs: raypipe upload, download)"
        )
    return path


Location = Annotated[str, Field(min_length=1), AfterValidator(location)]  # a path, or a URI without a credential
LocalPath = Annotated[str, Field(min_length=1), AfterValidator(_folder)]


def _expression(pattern: str) -> str:
    try:
        limits.compiled(pattern)
    except ValueError as error:
        raise ValueError(f"{pattern!r} is {error}") from None
    return pattern


Pattern = Annotated[str, AfterValidator(_expression)]  # a regular expression
