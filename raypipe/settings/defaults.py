"""Settings in which a finished step may differ from what is in force now, and yet be the same step.

Those that did not exist when it was made: it was made with what is now their default. And those that no output depends
on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import TypeAdapter

from raypipe.settings.config import Config
from raypipe.settings.yamlfile import fields_at

NO_DEFAULT = object()
NO_EFFECT = {"checkpoint_every", "eval_every"}  # of a training: the same weights come out
_AS_JSON: TypeAdapter[Any] = TypeAdapter(Any)


def filled_in(recorded: Mapping[str, Any], settings: Mapping[str, Any], path: Sequence[str] = ()) -> dict[str, Any]:
    """`recorded` with the keys of `settings` that it lacks and whose value in `settings` is the config's default.

    Keys without effect have their value in `settings`. Keys may be dotted paths (`data.max_labelled`), as in a step's
    settings.json.
    """
    whole = dict(recorded)
    for key, value in settings.items():
        place = [*path, *([key] if path[:1] == ["arms"] else key.split("."))]
        if key in NO_EFFECT:
            whole[key] = value
        elif key not in whole:
            if _default_at(place) == value:
                whole[key] = value
        elif isinstance(value, Mapping) and isinstance(whole[key], Mapping):
            whole[key] = filled_in(whole[key], value, place)
    return whole


def _default_at(path: Sequence[str]) -> Any:
    """The default of the config key at `path`, as JSON; NO_DEFAULT if there is no such key, or it must be given."""
    field = fields_at(Config, tuple(path[:-1])).get(path[-1])
    if field is None or field.is_required():
        return NO_DEFAULT
    return _AS_JSON.dump_python(field.default, mode="json")
