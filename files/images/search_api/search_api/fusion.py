"""Reciprocal rank fusion: several rankings joined without comparing their scores."""

from collections.abc import Hashable, Sequence
from typing import TypeVar

K = 60
"""Cormack, Clarke and Buettcher: Reciprocal Rank Fusion outperforms Condorcet (SIGIR 2009)."""

Item = TypeVar("Item", bound=Hashable)


def fuse(*rankings: Sequence[Item], k: int = K) -> list[tuple[Item, float]]:
    """Items with their score, the best first: the sum of 1 / (k + rank), ranks counting from 1.

    Equal scores keep the order of the first ranking that has them.
    """
    scores: dict[Item, float] = {}
    for ranking in rankings:
        for rank, item in enumerate(ranking, start=1):
            scores[item] = scores.get(item, 0.0) + 1 / (k + rank)
    return sorted(scores.items(), key=lambda pair: -pair[1])
