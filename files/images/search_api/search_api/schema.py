"""Bodies of requests and answers."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from search_api.collections import internal
from search_api.filters import Filter
from search_api.keywords import Language

Name = Annotated[str, Field(min_length=1, max_length=512)]
CollectionName = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_-]{0,63}$", examples=["documents"])
]
Threshold = Annotated[
    float,
    Field(
        ge=0,
        le=1,
        description="Least score of a result. A score is about ranks, in every mode: 1 is first in"
        " every ranking, 0.5 first in one of two and in the other not at all.",
    ),
]
Mode = Literal["hybrid", "meaning", "words"]


class Body(BaseModel):
    """A request's body; an unknown key is a mistake."""

    model_config = ConfigDict(extra="forbid")


def _example(**body: Any) -> ConfigDict:
    return ConfigDict(json_schema_extra={"examples": [body]})


DOCUMENT_EXAMPLE = {
    "id": "handbook/gpus.md",
    "text": "The H100 has 80 GB of memory.",
    "metadata": {"lang": "en", "year": 2026, "path": "handbook/gpus.md"},
}


class Asked(Body):
    """What every search says."""

    query: str = Field(min_length=1, max_length=8192, examples=["memory of an H100"])
    collection: CollectionName | None = Field(default=None, description="None: the default one.")
    limit: int = Field(default=10, ge=1, le=100, description="Most results.")
    offset: int = Field(default=0, ge=0, le=1000, description="Results to skip.")
    filter: Filter | None = Field(
        default=None,
        description="Conditions on metadata; all of them have to hold.",
        examples=[{"lang": "en", "year": {"gte": 2020}, "tag": ["gpu", "cpu"]}],
    )
    mode: Mode = "hybrid"
    highlight: bool = Field(default=False, description="Say where the words of the query are.")
    distinct: bool = Field(
        default=False, description="Leave out results whose text is nearly that of a better one."
    )
    expand: bool | None = Field(
        default=None,
        description="Search again with what the best results say; None: as the service is set.",
    )
    rerank: bool | None = Field(
        default=None,
        description="Let the reranking model order the best results; None: where there is one.",
    )


class Question(Asked):
    """What is looked for."""

    model_config = _example(
        query="memory of an H100", limit=5, filter={"lang": "en"}, threshold=0.3, highlight=True
    )

    threshold: Threshold = 0.0


class HybridQuestion(Asked):
    """The same question in the words of another interface: `/search/hybrid`."""

    model_config = _example(
        query="memory of an H100", collection="documents", limit=5, score_threshold=0.3
    )

    score_threshold: Threshold = 0.0

    def question(self) -> Question:
        """In our own words."""
        given = self.model_dump(exclude={"score_threshold", "filter"})
        return Question(**given, filter=self.filter, threshold=self.score_threshold)


class Result(BaseModel):
    """A document, by its best passage."""

    id: str
    score: float
    text: str
    metadata: dict[str, Any]
    passage: int = Field(description="Number of the passage in its document, from 0.")
    passages: int = Field(description="Passages of the document.")
    start: int = Field(description="Position of the passage's first character in the document.")
    rerank_score: float | None = None
    highlights: list[tuple[int, int]] | None = Field(
        default=None, description="Characters of `text`: from, and up to."
    )


class Results(BaseModel):
    """The best first."""

    results: list[Result]
    reranked: bool = Field(description="Whether the reranking model was in time.")
    next_offset: int | None = Field(description="Offset of the next page, where there is one.")


class NewDocument(Body):
    """A document to be found; one with the same `id` is replaced."""

    model_config = _example(**DOCUMENT_EXAMPLE)

    id: Name
    text: str = Field(min_length=1, max_length=100_000)
    metadata: dict[str, Any] = Field(default_factory=dict)


class NewDocuments(Body):
    """Documents to be added or replaced."""

    model_config = _example(documents=[DOCUMENT_EXAMPLE])

    collection: CollectionName | None = None
    documents: Annotated[list[NewDocument], Field(min_length=1, max_length=256)]


class DocumentNames(Body):
    """Documents to be removed; unknown names are skipped."""

    model_config = _example(ids=["handbook/gpus.md"])

    collection: CollectionName | None = None
    ids: Annotated[list[Name], Field(min_length=1, max_length=1024)]


FieldKind = Literal["keyword", "integer", "float", "boolean", "path"]
FieldName = Annotated[
    str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*$", max_length=128)
]


def _public(name: str) -> str:
    if internal(name):
        raise ValueError("a name cannot end with -- and a number")
    return name


class NewCollection(Body):
    """A collection to be created; what is not given is the service's default."""

    model_config = _example(
        name="handbook",
        language="detect",
        fields={"lang": "keyword", "year": "integer", "path": "path"},
    )

    name: Annotated[CollectionName, AfterValidator(_public)]
    language: Language | Literal["detect"] | None = Field(
        default=None,
        description="Of stems and stop words; `none` for Chinese, Japanese, Korean; `detect`: that"
        " of the first documents.",
        examples=["english"],
    )
    passage_characters: int | None = Field(
        default=None, ge=0, le=100_000, description="Longest passage; 0: documents are not split."
    )
    passage_overlap: int | None = Field(default=None, ge=0, le=10_000)
    fields: Annotated[dict[FieldName, FieldKind], Field(max_length=32)] | None = Field(
        default=None,
        description="Keys of the metadata with an index, which makes filters fast.",
        examples=[{"lang": "keyword", "year": "integer", "path": "path"}],
    )


class CollectionState(BaseModel):
    """A collection, and how far re-embedding is."""

    name: str
    documents: int
    passages: int
    language: str
    mean_words: float | None
    fields: dict[str, str]
    model: str
    vector_length: int
    reembedded_passages: int | None = Field(
        default=None, description="While it is re-embedded: passages that are done."
    )


class Collections(BaseModel):
    """Names of all collections."""

    collections: list[str]


class Loaded(BaseModel):
    """All lines of a bulk load are stored."""

    lines: int
