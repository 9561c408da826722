"""`models[].parameters`: how a model samples when a request does not say."""

from pydantic import Field

from llmhost.options.base import Section


class Parameters(Section):
    """The engine's own defaults stand for what is not given."""

    temperature: float | None = Field(default=None, ge=0, le=2)
    """How much chance there is in the choice of a token; 0: always the likeliest."""

    top_k: int | None = Field(default=None, ge=0)
    """Only so many of the likeliest tokens are chosen from; 0: all."""

    top_p: float | None = Field(default=None, gt=0, le=1)
    """Only the likeliest tokens are chosen from whose probabilities add up to this."""

    min_p: float | None = Field(default=None, ge=0, le=1)
    """Only tokens are chosen from with this fraction of the likeliest one's probability."""

    repeat_penalty: float | None = Field(default=None, gt=0)
    """By how much tokens that came already are made less likely; 1: not at all."""

    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    """By how much a token that came already is made less likely, however often it came."""

    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    """By how much a token is made less likely each time that it came."""

    seed: int | None = Field(default=None, ge=0)
    """Equal seeds, equal answers, as far as the engine can."""

    max_tokens: int | None = Field(default=None, ge=1)
    """Longest answer in tokens."""

    stop: tuple[str, ...] = ()
    """Texts that end an answer."""

    @property
    def given(self) -> dict[str, object]:
        """What is not left to the engine."""
        return {name: value for name, value in self if value not in (None, ())}
