"""`models[].parameters`: default sampling parameters of a model."""

from typing import Annotated

from llmhost.options.base import Section
from llmhost.options.types import Fraction, FreeText, Items, Tokens, number, whole

_Penalty = Annotated[float, number(-2, 2, example=0.5)]


class Parameters(Section):
    """A parameter that is not declared has the engine's default."""

    temperature: Annotated[float, number(0, 2, example=0.7)] | None = None
    """Randomness; 0: always the most likely token."""

    top_k: Annotated[int, whole(0, 1_000_000, "tokens", 40)] | None = None
    """Consider only this many of the most likely tokens; 0: all."""

    top_p: Fraction | None = None
    """Consider only the most likely tokens whose probabilities add up to this."""

    min_p: Annotated[float, number(0, 1, example=0.05)] | None = None
    """Consider only tokens with at least this fraction of the highest probability."""

    repeat_penalty: Annotated[float, number(0, 100, example=1.1, above=True)] | None = None
    """Penalty for repeated tokens; 1: none."""

    presence_penalty: _Penalty | None = None
    """Penalty for a token that occurred before, independent of the count."""

    frequency_penalty: _Penalty | None = None
    """Penalty for each occurrence of a token."""

    seed: Annotated[int, whole(0, 2**63 - 1, example=42)] | None = None
    """The same seed gives the same answer, if the engine supports it."""

    max_tokens: Tokens | None = None
    """Maximum length of an answer, unless a request sets another one. With vLLM, requests cannot
    exceed it."""

    stop: Items[FreeText] = ()
    """Texts that end an answer."""

    @property
    def given(self) -> dict[str, object]:
        """The declared parameters."""
        return {name: value for name, value in self if value not in (None, ())}
