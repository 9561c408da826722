"""Which models a policy refuses, judged by everything that says what they were made from."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmhost.models.lineage import Ancestor, Lineage, declared, of_card, of_metadata
from llmhost.models.policy import violations
from llmhost.options.policy import ModelPolicy

# What bartowski's GGUF of the model says of itself.
DISTILL: dict[str, Any] = {
    "general.name": "DeepSeek R1 Distill Qwen 14B",
    "general.basename": "DeepSeek-R1-Distill-Qwen",
    "general.organization": "Deepseek Ai",
    "general.license": "mit",
}
CODER: dict[str, Any] = {
    "general.name": "My Assistant",
    "general.license": "apache-2.0",
    "general.base_model.count": 1,
    "general.base_model.0.name": "Qwen2.5 Coder 14B",
    "general.base_model.0.organization": "Qwen",
    "general.base_model.0.repo_url": "https://huggingface.co/Qwen/Qwen2.5-Coder-14B",
}
CARD = """---
license: other
license_name: exaone
base_model:
- yanolja/EEVE-Korean-10.8B-v1.0
base_model_relation: quantized
---
# A model
"""


def refusals(lineage: Lineage, **rules: Any) -> list[str]:
    return list(violations(ModelPolicy(**rules), lineage))


def named(name: str, publisher: str = "") -> Lineage:
    return Lineage((Ancestor(name, publisher, "its source"),))


@pytest.mark.parametrize("rule", ["qwen", "Qwen", "QWEN", "deepseek-ai", "DeepSeek", "deepseek ai"])
def test_distillation_is_refused_by_either_publisher(rule: str) -> None:
    (told,) = refusals(of_metadata(DISTILL), denied_publishers=[rule])
    assert told.startswith(f"is refused by policy_denied_publishers '{rule}': 'Deepseek Ai/")
    assert told.endswith("in the file")


def test_base_model_in_the_metadata_is_refused_and_named() -> None:
    (told,) = refusals(of_metadata(CODER), denied_publishers=["qwen"])
    assert "'Qwen/Qwen2.5-Coder-14B', in general.base_model.0 of the file" in told
    assert refusals(of_metadata(CODER), denied_publishers=["deepseek"]) == []


def test_older_metadata_keys_count_too() -> None:
    old = of_metadata({"general.source.huggingface.repository": "Qwen/Qwen1.5-7B"})
    (told,) = refusals(old, denied_publishers=["qwen"])
    assert "'Qwen/Qwen1.5-7B', in general.source of the file" in told


def test_base_model_that_is_declared_is_refused() -> None:
    lineage = declared("models/mine.gguf", ["Qwen/Qwen3-8B"], None)
    (told,) = refusals(lineage, denied_publishers=["qwen"])
    assert "'Qwen/Qwen3-8B', in base_models of the inventory" in told


def test_model_card_counts() -> None:
    (told,) = refusals(of_card(CARD), denied_publishers=["yanolja"])
    assert "in the model card" in told
    assert of_card(CARD).licences == ("exaone",)


@pytest.mark.parametrize(
    "source",
    [
        "hf:Qwen/Qwen2.5-14B-GGUF/qwen2.5-14b-q4_k_m.gguf",
        "https://huggingface.co/Qwen/Qwen2.5-14B-GGUF/resolve/main/model.gguf",
        "https://hf.co/bartowski/Qwen2.5-14B-GGUF/resolve/main/model.gguf",
        "ollama:qwen2.5",
        "https://example.org/files/Qwen2.5-14B-Q4_K_M.gguf",
        "/srv/models/CodeQwen1.5-7B.gguf",
    ],
)
def test_source_alone_is_enough(source: str) -> None:
    assert refusals(declared(source, [], None), denied_publishers=["qwen"])


@pytest.mark.parametrize(
    ("rule", "name"),
    [
        ("qwen", "Llama-3.2-3B-Instruct"),
        ("meta", "metamath-7b"),
        ("seek", "DeepSeeker"),
        ("meta-llama", "Llama-3.2-3B"),
        ("---", "anything"),
    ],
)
def test_other_names_are_left_alone(rule: str, name: str) -> None:
    assert refusals(named(name), denied_publishers=[rule]) == []


def test_without_rules_everything_is_allowed() -> None:
    assert refusals(of_metadata(DISTILL) + of_metadata(CODER)) == []


def test_allowed_publishers_cover_the_model_and_its_ancestors() -> None:
    lineage = declared("hf:bartowski/EEVE/e.gguf", ["yanolja/EEVE", "upstage/SOLAR"], None)
    everyone = ["Bartowski", "YANOLJA", "upstage"]
    assert refusals(lineage, allowed_publishers=everyone) == []
    (told,) = refusals(lineage, allowed_publishers=everyone[:2])
    assert told == (
        "is not covered by policy_allowed_publishers: 'upstage/SOLAR', in base_models of the"
        " inventory"
    )


def test_unknown_publisher_is_not_allowed() -> None:
    (told,) = refusals(declared("m.gguf", [], None), allowed_publishers=["yanolja"])
    assert "has no known publisher" in told


def test_organisation_counts_as_publisher() -> None:
    assert refusals(of_metadata(DISTILL), allowed_publishers=["deepseek-ai"]) == []


def test_licences() -> None:
    lineage = declared("m.gguf", [], "CC-BY-NC-4.0")
    assert refusals(lineage, denied_licences=["cc-by-nc-4.0"]) == [
        "is refused by policy_denied_licences: its licence is 'cc-by-nc-4.0'"
    ]
    assert refusals(lineage, allowed_licences=["mit"]) == [
        "is not covered by policy_allowed_licences: its licence is 'cc-by-nc-4.0'"
    ]
    assert refusals(of_metadata(DISTILL), allowed_licences=["MIT"]) == []
    (told,) = refusals(named("m"), allowed_licences=["mit"])
    assert "has no known license" in told
    assert refusals(named("m"), denied_licences=["mit"]) == []


def test_named_licence_stands_for_other() -> None:
    named_licence = {"general.license": "other", "general.license.name": "qwen-research"}
    assert of_metadata(named_licence).licences == ("qwen-research",)
    titled = {"general.license": "apache-2.0", "general.license.name": "Apache License 2.0"}
    assert of_metadata(titled).licences == ("apache-2.0",)


@pytest.mark.parametrize(
    "card",
    [
        "# no front matter",
        "---\nbase_model: [\n---\n",
        "---\n- a list\n---\n",
        "---\nbase_model: {a: b}\nlicense: 7\n---\n",
        "---\nreleased: 2024-13-45\n---\n",
        "---\n" + "[" * 600,
        "---\n",
    ],
)
def test_card_that_says_nothing_says_nothing(card: str) -> None:
    assert of_card(card) == Lineage()


@pytest.mark.parametrize("begin", ["\n---\n", " \n\n---\n", "\ufeff---\n", "--- \n"])
def test_card_begins_after_blank_lines(begin: str) -> None:
    """As the hub reads it (huggingface_hub/repocard.py, REGEX_YAML_BLOCK)."""
    assert of_card(f"{begin}license: cc-by-nc-4.0\n---\n").licences == ("cc-by-nc-4.0",)


def test_card_with_the_results_of_a_benchmark_is_read() -> None:
    """That of intfloat/multilingual-e5-large has 160 KiB, with the license at its end."""
    results = "".join(
        f"  - task:\n      type: STS\n    metrics:\n    - license: none\n      value: {n}\n"
        for n in range(2000)
    )
    front = f"tags:\n- mteb\nmodel-index:\n- name: m\n  results:\n{results}base_model:\n- a/b\n"
    found = of_card(f"---\n{front}license: cc-by-nc-4.0\n---\nlicense: mit\n")
    assert found.licences == ("cc-by-nc-4.0",)
    assert found.ancestors == (Ancestor("b", "a", "the model card"),)


def test_each_of_several_licences_is_judged() -> None:
    lineage = declared("m", [], "mit, cc-by-nc-4.0")
    (told,) = refusals(lineage, denied_licences=["cc-by-nc-4.0"])
    assert "its licence is 'cc-by-nc-4.0'" in told
    (told,) = refusals(lineage, allowed_licences=["mit"])
    assert "its licence is 'cc-by-nc-4.0'" in told
    assert refusals(lineage, allowed_licences=["mit", "cc-by-nc-4.0"]) == []


def test_card_without_its_end_is_read() -> None:
    assert of_card("---\nbase_model: a/b\n").ancestors == (Ancestor("b", "a", "the model card"),)


@given(st.text(max_size=60), st.text("abz/.-", min_size=1, max_size=10))
def test_any_text_is_judged(text: str, rule: str) -> None:
    lineage = of_card(f"---\n{text}") + declared(text, [text], text) + of_metadata({text: text})
    for told in refusals(lineage, denied_publishers=[rule], allowed_licences=[rule]):
        assert told.startswith(("is ", "has "))


@given(st.sampled_from(["Qwen", "DeepSeek", "LLaMA", "EXAONE"]), st.text(max_size=20))
def test_name_with_its_maker_in_front_is_refused(maker: str, rest: str) -> None:
    assert refusals(named(f"{maker}-{rest}"), denied_publishers=[maker.lower()])
