"""What every section of the settings has in common."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

from llmhost.options.kind import Mistake, example_of, given


class Section(BaseModel):
    """Immutable options of one component. The string below each field is its documentation.

    llmhost/docs/reference.py reads those strings. pydantic would read them on every import, which
    takes a tenth of a second.

    The schema of a section is built on first use, because most runs use few services.
    """

    model_config = ConfigDict(
        defer_build=True,
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        validate_default=True,
    )

    @model_validator(mode="before")
    @classmethod
    def _is_a_record(cls, value: Any) -> Any:
        if isinstance(value, cls | Mapping):
            if isinstance(value, Mapping) and not all(isinstance(key, str) for key in value):
                raise Mistake(f"has a key that is not text; write keys such as {example_of(cls)}")
            return value
        raise Mistake(f"is {given(value)}; write a mapping, such as {example_of(cls)}")
