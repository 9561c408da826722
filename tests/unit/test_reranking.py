"""Measures of models that rerank. Expected values are worked by hand, or published."""

import random

import pytest

from benchmarks.search.cranfield import judge
from llmhost.making.collection import Collection
from llmhost.making.reranking import CANDIDATES, candidates, rank_correlation, reranked_ndcg


def collection(documents: dict[str, str], question: str, grades: dict[str, float]) -> Collection:
    return Collection(documents, {"q": question}, {"q": grades})


def test_what_is_relevant_comes_first_and_the_best_of_the_rest_follows() -> None:
    """A rare word counts more than a common one, and in a short text more than in a long one."""
    documents = {f"other {n}": "the flow of air is steady" for n in range(20)}
    documents |= {
        "good": "nothing in common",
        "better": "nothing in common either",
        "long": f"a wing {'and much more of this ' * 20}",
        "short": "the wing",
        "none": "granite",
    }
    found = candidates(collection(documents, 'the "wing" of AIR', {"good": 1, "better": 2}))["q"]
    assert found[:4] == ["better", "good", "short", "long"]
    assert {*found[4:]} == {f"other {n}" for n in range(20)}


def test_number_of_candidates_is_limited() -> None:
    documents = {str(n): "wing" for n in range(100)}
    grades = {str(n): 1.0 for n in range(50, 90)}
    found = candidates(collection(documents, "wing", grades))["q"]
    assert len(found) == CANDIDATES == 30 and {*found} < {*grades}
    few = candidates(collection(documents, "wing", {"7": 1}))["q"]
    assert len({*few}) == 30 and few[0] == "7"
    assert candidates(collection(documents, "?!", {"7": 1}))["q"] == ["7"]


def test_ndcg_of_three_texts() -> None:
    """Order c, a, b: 3 / log2(3) + 1 / log2(4) = 2.39279 of the best 3 + 1 / log2(3) = 3.63093."""
    three = collection(dict.fromkeys("abc", ""), "", {"a": 3.0, "b": 1.0})
    ordered = {"q": ["a", "b", "c"]}
    assert reranked_ndcg(three, ordered, {"q": [0.1, -4, 7]}) == pytest.approx(0.65900, abs=1e-5)
    assert reranked_ndcg(three, ordered, {"q": [3, 2, 1]}) == 1


def test_equal_scores_gain_nothing_by_the_order_of_the_candidates() -> None:
    """The worst order c, b, a: 1 / log2(3) + 3 / log2(4) = 2.13093 of 3.63093."""
    three = collection(dict.fromkeys("abc", ""), "", {"a": 3.0, "b": 1.0})
    found = reranked_ndcg(three, {"q": ["a", "b", "c"]}, {"q": [5, 5, 5]})
    assert found == pytest.approx(0.58688, abs=1e-5)


def test_ndcg_is_that_of_the_benchmarks() -> None:
    """benchmarks/search has an nDCG of its own."""
    chance = random.Random(3)
    names = [str(n) for n in range(40)]
    relevant = {f"q{n}": {*chance.sample(names, 1 + n)} for n in range(12)}
    judged = {name: dict.fromkeys(right, 1.0) for name, right in relevant.items()}
    every = Collection(dict.fromkeys(names, ""), dict.fromkeys(relevant, ""), judged)
    ordered = {name: chance.sample(names, 30) for name in relevant}
    scores = {name: [chance.random() for _ in range(30)] for name in relevant}
    rankings = [
        [text for _, text in sorted(zip(scores[name], ordered[name], strict=True), reverse=True)]
        for name in relevant
    ]
    expected = judge(rankings, [*relevant.values()]).ndcg_at_10
    assert reranked_ndcg(every, ordered, scores) == pytest.approx(expected)


def test_rank_correlation_of_the_textbook() -> None:
    """https://en.wikipedia.org/wiki/Spearman%27s_rank_correlation_coefficient: -29/165."""
    iq = [106, 100, 86, 101, 99, 103, 97, 113, 112, 110]
    hours = [7, 27, 2, 50, 28, 29, 20, 12, 6, 17]
    assert rank_correlation(iq, hours) == pytest.approx(-29 / 165)


def test_rank_correlation_sees_the_order_only() -> None:
    """With a tie: ranks 1, 2.5, 2.5, 4 and 1, 2, 3, 4, thus 4.5 / sqrt(4.5 * 5)."""
    assert rank_correlation([1, 2, 3], [-5, 0.1, 900]) == pytest.approx(1)
    assert rank_correlation([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    assert rank_correlation([1, 2, 2, 3], [1, 2, 3, 4]) == pytest.approx(0.948683, abs=1e-6)
    assert rank_correlation([1, 1, 1], [1, 2, 3]) == 0
