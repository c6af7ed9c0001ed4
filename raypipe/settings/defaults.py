"""Settings that did not exist when a step was made: it was made with what is now their default."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args, get_origin

from pydantic import BaseModel, TypeAdapter

from raypipe.settings.config import Config

NO_DEFAULT = object()
_AS_JSON: TypeAdapter[Any] = TypeAdapter(Any)


def filled_in(recorded: Mapping[str, Any], settings: Mapping[str, Any], path: Sequence[str] = ()) -> dict[str, Any]:
    """`recorded` with the keys of `settings` that it lacks and whose value in `settings` is the config's default.

    Keys may be dotted paths (`data.max_labelled`), as in a step's settings.json.
    """
    whole = dict(recorded)
    for key, value in settings.items():
        place = [*path, *([key] if path[:1] == ["arms"] else key.split("."))]
        if key not in whole:
            if _default_at(place) == value:
                whole[key] = value
        elif isinstance(value, Mapping) and isinstance(whole[key], Mapping):
            whole[key] = filled_in(whole[key], value, place)
    return whole


def _default_at(path: Sequence[str], section: type[BaseModel] = Config) -> Any:
    """The default of the config key at `path`, as JSON; NO_DEFAULT if there is no such key, or it must be given."""
    key, *rest = path
    field = section.model_fields.get(key)
    if field is None:
        return NO_DEFAULT
    if not rest:
        return NO_DEFAULT if field.is_required() else _AS_JSON.dump_python(field.default, mode="json")
    named = rest[1:] if get_origin(field.annotation) is dict else rest  # arms: the key after it is an arm's name
    inside = _section_of(field.annotation)
    return _default_at(named, inside) if named and inside is not None else NO_DEFAULT


def _section_of(annotation: Any) -> type[BaseModel] | None:
    """The section that a field holds, also as one of its alternatives or as the values of a dict."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((section for inner in get_args(annotation) if (section := _section_of(inner))), None)
