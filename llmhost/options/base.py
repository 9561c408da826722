"""What every section of the settings has in common."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """Immutable options of one component; the string below each field is its documentation.

    llmhost/docs/reference.py reads those strings. pydantic could do so too, but on every import,
    which costs a tenth of a second in each run.

    Values never appear in validation errors: an operator may have pasted a secret.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        validate_default=True,
    )
