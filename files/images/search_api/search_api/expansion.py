"""Query expansion: the best results of a first search add their vectors to the query (Rocchio)."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from search_api.collections import DENSE, KEYWORDS

BEST = 3
"""Results that expand a query; tuned on the odd questions of Cranfield."""


def expanded_vector(query: Sequence[float], points: Sequence[Mapping[str, Any]]) -> list[float]:
    """The query's direction and the mean of the points', with equal weight. Qdrant stores unit
    vectors, so only the query needs its length taken out."""
    size = math.sqrt(sum(number * number for number in query)) or 1.0
    vectors = [point["vector"][DENSE] for point in points]
    columns = zip(query, *vectors, strict=True)
    return [own / size + sum(others) / len(vectors) for own, *others in columns]


def common_words(points: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Sparse vector with the mean weight of each word of the points, as Qdrant reads it; Qdrant
    multiplies by the inverse document frequency itself."""
    weights: dict[int, float] = defaultdict(float)
    for point in points:
        found = point["vector"].get(KEYWORDS) or {"indices": [], "values": []}
        for index, value in zip(found["indices"], found["values"], strict=True):
            weights[index] += value / len(points)
    return {"indices": [*weights], "values": [*weights.values()]}
