"""Base of the models that check what a user writes: no unknown key, and a number is a number.

What a reader of YAML or JSON hands on is taken where nothing is lost (`2.0` and `"2"` for 2) and refused where it would
become something else in silence: true for 1, `1_000` or `٣` in a text, a number that is not finite or beyond 64 bits.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationInfo, field_validator

LARGEST = (1 << 63) - 1
_WHOLE = re.compile(r"-?(0|[1-9][0-9]{0,20})")
_REAL = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")
_NEEDED = {int: "a whole number", float: "a finite number", bool: "true or false"}


class Strict(BaseModel):
    """A model of what a user writes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*", mode="before")
    @classmethod
    def _numbers_are_numbers(cls, value: Any, info: ValidationInfo) -> Any:
        kind = _kind(cls, info.field_name or "")
        problem = next((found for leaf in _leaves(value) if (found := _problem(kind, leaf))), None) if kind else None
        if problem:
            raise ValueError(problem)
        return value


@cache
def _kind(model: type[BaseModel], name: str) -> type | None:
    """Return the kind of number that the field holds, alone or in lists and mappings; None when it holds others too."""
    field = model.model_fields[name]
    if any(isinstance(mark, BeforeValidator) for mark in field.metadata):  # it has forms of its own, such as 64MiB
        return None
    kinds = _kinds(field.annotation) - {NoneType}
    return next((kind for kind in (float, int, bool) if kind in kinds), None) if kinds <= set(_NEEDED) else None


def _kinds(annotation: Any) -> set[Any]:
    origin = get_origin(annotation)
    if origin is Annotated:
        has_form = any(isinstance(mark, BeforeValidator) for mark in annotation.__metadata__)
        return {object} if has_form else _kinds(get_args(annotation)[0])
    if origin in {Union, UnionType, list, tuple}:
        return {kind for part in get_args(annotation) if part is not ... for kind in _kinds(part)}
    if origin is dict:
        return _kinds(get_args(annotation)[1])
    return {object} if origin is Literal else {annotation}


def _leaves(value: Any) -> list[Any]:
    """Return the plain values in lists and mappings; null is the field's own to take or refuse."""
    if isinstance(value, Mapping):
        return [leaf for inner in value.values() for leaf in _leaves(inner)]
    if isinstance(value, list | tuple):
        return [leaf for inner in value for leaf in _leaves(inner)]
    return [] if value is None else [value]


def _problem(kind: type, value: Any) -> str | None:
    """Return why a value is not of the kind and does not become it without loss, None when it does."""
    needed = f"needs {_NEEDED[kind]}"
    if isinstance(value, bool) or kind is bool:
        return None if isinstance(value, bool) and kind is bool else needed
    if isinstance(value, str):
        if not (_WHOLE if kind is int else _REAL).fullmatch(value):
            return f"{needed}, in plain digits"
        value = int(value) if kind is int else float(value)
    if isinstance(value, float) and (not math.isfinite(value) or (kind is int and not value.is_integer())):
        return needed
    if not isinstance(value, int | float):
        return needed
    return "a number beyond 64 bits" if (kind is int or isinstance(value, int)) and abs(value) > LARGEST else None
