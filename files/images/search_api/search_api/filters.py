"""Conditions on metadata, as Qdrant's filter."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr, model_validator
from qdrant_client import models

Scalar = (
    Annotated[StrictStr, Field(max_length=1024)]
    | StrictBool
    | Annotated[StrictInt, Field(ge=-(2**63), lt=2**63)]
)
Limit = Annotated[float, Field(strict=True, allow_inf_nan=False)]


class Condition(BaseModel):
    """At least one of these; all of them have to hold."""

    model_config = ConfigDict(extra="forbid")

    gt: Limit | None = None
    gte: Limit | None = None
    lt: Limit | None = None
    lte: Limit | None = None
    any: list[Scalar] | None = Field(default=None, min_length=1, max_length=256)
    prefix: str | None = Field(default=None, min_length=1, max_length=1024)

    @model_validator(mode="after")
    def _something(self) -> "Condition":
        if all(getattr(self, name) is None for name in self.model_fields_set):
            raise ValueError("needs gt, gte, lt, lte, any or prefix")
        return self


Key = Annotated[
    str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*$", max_length=128)
]
Filter = Annotated[
    dict[Key, Scalar | Annotated[list[Scalar], Field(min_length=1, max_length=256)] | Condition],
    Field(max_length=16),
]
"""By key of the metadata: a value, a list of values of which one is enough, or conditions."""


def qdrant_filter(given: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """All conditions together, as JSON; None without any."""
    conditions = [each for key, value in (given or {}).items() for each in _of(key, value)]
    return models.Filter(must=conditions).model_dump(exclude_none=True) if conditions else None


def _of(key: str, value: Any) -> list[Any]:
    place = f"metadata.{key}"
    if isinstance(value, Condition):
        return [*_ranges(place, value), *_matches(place, value)]
    return [_any(place, value if isinstance(value, list) else [value])]


def _ranges(place: str, value: Condition) -> list[Any]:
    limits = {name: getattr(value, name) for name in ("gt", "gte", "lt", "lte")}
    if all(limit is None for limit in limits.values()):
        return []
    return [models.FieldCondition(key=place, range=models.Range(**limits))]


def _matches(place: str, value: Condition) -> list[Any]:
    found: list[Any] = [_any(place, value.any)] if value.any else []
    if value.prefix:
        match = models.MatchPrefix(prefix=value.prefix)
        found.append(models.FieldCondition(key=place, match=match))
    return found


def _any(place: str, values: Sequence[Any]) -> Any:
    """One condition a type: Qdrant's own list is of one type, and knows no booleans."""
    conditions: list[Any] = []
    for kind in (str, int):
        same = [each for each in values if type(each) is kind]
        if same:
            match = models.MatchAny(any=same)
            conditions.append(models.FieldCondition(key=place, match=match))
    for each in values:
        if isinstance(each, bool):
            conditions.append(models.FieldCondition(key=place, match=models.MatchValue(value=each)))
    return conditions[0] if len(conditions) == 1 else models.Filter(should=conditions)
