"""A double of Qdrant that searches exactly and fast enough to measure its clients.

`python -m benchmarks.stack.vectors PORT`
"""

import math
import sys
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search_api.fusion import fuse
from tests.doubles import qdrant


class Exact(qdrant.Collection):
    """Dense vectors in one matrix, and lists of points by keyword."""

    def __init__(self, parameters: dict[str, Any]) -> None:
        super().__init__(parameters)
        self._names: list[str] = []
        self._rows: list[list[float]] = []
        self._having: dict[int, list[tuple[int, float]]] = defaultdict(list)
        self._matrix: NDArray[np.float32] | None = None

    def upsert(self, points: list[dict[str, Any]]) -> None:
        """Add new points; replacing points is not supported."""
        super().upsert(points)
        for point in points:
            number = len(self._names)
            self._names.append(str(point["id"]))
            self._rows.append(point["vector"]["dense"])
            keywords = point["vector"]["keywords"]
            for index, value in zip(keywords["indices"], keywords["values"], strict=True):
                self._having[index].append((number, value))
        self._matrix = None

    def _dense(self, query: list[float], _using: str) -> dict[str, float]:
        if self._matrix is None:
            self._matrix = np.asarray(self._rows, dtype=np.float32)
        scores = self._matrix @ np.asarray(query, dtype=np.float32)
        best = np.argpartition(-scores, min(1000, len(scores) - 1))[:1000]
        return {self._names[number]: float(scores[number]) for number in best}

    def _sparse(self, query: dict[str, Any], _using: str) -> dict[str, float]:
        scores: dict[str, float] = defaultdict(float)
        for index, weight in zip(query["indices"], query["values"], strict=True):
            having = self._having.get(index, [])
            for number, value in having:
                scores[self._names[number]] += (
                    weight * value * _rarity(len(self._names), len(having))
                )
        return scores


def _rarity(documents: int, having: int) -> float:
    return math.log((documents - having + 0.5) / (having + 0.5) + 1)


def fused(
    dense: Sequence[Sequence[float]],
    sparse: Sequence[dict[int, float]],
    vector: Sequence[float],
    words: dict[int, float],
) -> list[int]:
    """Numbers of all documents, the best first, by complete rankings of vectors and words."""
    near = np.asarray(dense, dtype=np.float32) @ np.asarray(vector, dtype=np.float32)
    having = {index: sum(index in each for each in sparse) for index in words}
    rarity = {index: _rarity(len(sparse), count) for index, count in having.items()}
    scores = {
        number: sum(rarity[index] * each[index] for index in words if index in each)
        for number, each in enumerate(sparse)
    }
    by_words = sorted((n for n, score in scores.items() if score > 0), key=lambda n: -scores[n])
    by_meaning = [int(number) for number in np.argsort(-near, kind="stable")]
    return [number for number, _ in fuse(by_meaning, by_words)]


if __name__ == "__main__":
    qdrant.Collection = Exact  # type: ignore[misc]
    qdrant.serve(int(sys.argv[1])).serve_forever()
