"""How often a case is measured, and when repeating may stop."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, GetJsonSchemaHandler, WithJsonSchema, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from aifbench.core.strict import Strict

_PERCENT = re.compile(r"^\s*(\d+(\.\d+)?)\s*%\s*$", re.ASCII)
_SHARE_SCHEMA = {
    "anyOf": [
        {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
        {"type": "string", "pattern": _PERCENT.pattern},
    ]
}


def _share(value: Any) -> Any:
    found = _PERCENT.match(value) if isinstance(value, str) else None
    if found:
        return float(found[1]) / 100
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("needs a share, such as 5%")
    return value


class Until(Strict):
    """Stop repeating a case once the 95 % interval of a metric is narrow enough."""

    metric: str = Field(description="name of a metric of the benchmark, such as time_to_first_token_s")
    half_width: Annotated[float, BeforeValidator(_share), WithJsonSchema(_SHARE_SCHEMA)] = Field(
        gt=0, lt=1, description="half of the 95 % interval over the mean, such as 5%"
    )


class Repetitions(Strict):
    """How often each case is measured; the unit of replication of every interval."""

    min: int = Field(5, ge=1, description="fewest repetitions of a case")
    max: int = Field(5, ge=1, description="most repetitions of a case; with `until` the rule may stop before")
    until: Until | None = Field(None, description="stopping rule")

    @model_validator(mode="before")
    @classmethod
    def _from_number(cls, value: Any) -> Any:
        if isinstance(value, int) and not isinstance(value, bool):
            return {"min": value, "max": value}
        if isinstance(value, Mapping) and "min" in value and "max" not in value:
            return {**value, "max": value["min"]}
        if not isinstance(value, Mapping | Repetitions):
            raise ValueError("needs a whole number, or a mapping with `min` and `max`")
        return value

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Allow the short form, a number, in the schema as the validator does."""
        return {"anyOf": [{"type": "integer", "minimum": 1}, handler.resolve_ref_schema(handler(schema))]}

    @model_validator(mode="after")
    def _ordered(self) -> Repetitions:
        if self.max < self.min:
            raise ValueError(f"max = {self.max} is below min = {self.min}")
        return self

    @property
    def spare(self) -> int:
        """Most invalid repetitions that others may replace, one for every five; with more, the case is invalid."""
        return -(-self.min // 5)
