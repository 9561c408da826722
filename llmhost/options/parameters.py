"""`models[].parameters`: how a model samples unless a request says otherwise."""

from typing import Annotated

from llmhost.options.base import Section
from llmhost.options.types import Fraction, FreeText, Items, Tokens, number, whole

_Penalty = Annotated[float, number(-2, 2, example=0.5)]


class Parameters(Section):
    """What is not declared keeps the engine's own default."""

    temperature: Annotated[float, number(0, 2, example=0.7)] | None = None
    """Randomness in the choice of a token; 0: always the most likely one."""

    top_k: Annotated[int, whole(0, 1_000_000, "tokens", 40)] | None = None
    """Only this many of the most likely tokens are considered; 0: all."""

    top_p: Fraction | None = None
    """Only the most likely tokens whose probabilities add up to this are considered."""

    min_p: Annotated[float, number(0, 1, example=0.05)] | None = None
    """Only tokens with this fraction of the most likely one's probability are considered."""

    repeat_penalty: Annotated[float, number(0, 100, example=1.1, above=True)] | None = None
    """Penalty for tokens that were already generated; 1: none."""

    presence_penalty: _Penalty | None = None
    """Penalty for a token that was already generated, no matter how often."""

    frequency_penalty: _Penalty | None = None
    """Penalty for a token for each time that it was generated."""

    seed: Annotated[int, whole(0, 2**63 - 1, example=42)] | None = None
    """The same seed gives the same answer, as far as the engine supports it."""

    max_tokens: Tokens | None = None
    """Longest answer in tokens."""

    stop: Items[FreeText] = ()
    """Texts that end an answer."""

    @property
    def given(self) -> dict[str, object]:
        """What is not left to the engine."""
        return {name: value for name, value in self if value not in (None, ())}
