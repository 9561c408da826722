"""Examples for a training from a site's files: texts, code, and questions with answers."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

LEAST = 8
"""Fewest examples to train on."""

TEXTS = (".md", ".markdown", ".rst", ".txt", ".py", ".js", ".mjs", ".jsx", ".ts", ".tsx")
QUESTIONS = ".jsonl"
_SKIPPED = {"node_modules", "__pycache__", "venv"}
_PAIRS = (("question", "answer"), ("prompt", "completion"), ("instruction", "output"))
_UNREAD = ("context", "system")
"""Fields of public data sets on which the answer depends."""
_CHARACTERS_PER_TOKEN = 3
"""Few, so that pieces of a text are rather too short: English prose has four, code three."""


class DataError(Exception):
    """Why files cannot be trained on; the text continues a sentence that begins with the job."""


@dataclass(frozen=True)
class Example:
    """A question with its answer, or a text without a question."""

    answer: str
    question: str = ""

    @property
    def words(self) -> tuple[str, str]:
        """Question and answer without what only looks different."""
        question, answer = (" ".join(t.split()).casefold() for t in (self.question, self.answer))
        return question, answer

    @property
    def line(self) -> str:
        """A line of JSON, as files/images/training/train.py reads it."""
        if self.question:
            return json.dumps({"prompt": self.question, "completion": self.answer})
        return json.dumps({"text": self.answer})


@dataclass(frozen=True)
class Examples:
    """What is trained on, and what is held back to judge the result."""

    train: tuple[Example, ...]
    held_back: tuple[Example, ...]

    @property
    def digest(self) -> str:
        """SHA-256 of both files, one after the other."""
        return hashlib.sha256(
            f"{lines_of(self.train)}\0{lines_of(self.held_back)}".encode()
        ).hexdigest()


def lines_of(examples: Iterable[Example]) -> str:
    """A file of JSON Lines."""
    return "".join(f"{each.line}\n" for each in examples)


def read_examples(places: Iterable[str], context_tokens: int) -> list[Example]:
    """The examples of files and directories, each once, in the order of the files' names. Long
    texts are divided between paragraphs. Raises DataError."""
    found: dict[Example, None] = {}
    for place in places:
        try:
            for file in _files(Path(place)):
                found |= dict.fromkeys(_examples(file, context_tokens * _CHARACTERS_PER_TOKEN))
        except OSError as error:
            named = error.filename or place
            raise DataError(f"has {named} in data: {error.strerror}") from None
    return list(found)


def divided(
    examples: Sequence[Example], held_back: float, given: Sequence[Example], seed: int
) -> Examples:
    """Hold back a fraction of the examples, chosen by the seed, or those that are given for it.
    What differs in spaces or case only is held back together: it would be known already. Raises
    DataError if too few are left."""
    alike: dict[tuple[str, str], list[Example]] = {}
    for each in examples:
        alike.setdefault(each.words, []).append(each)
    if given:
        chosen = {each.words for each in given}
    else:
        count = max(1, round(len(alike) * held_back))
        chosen = set(sorted(alike, key=lambda words: _order(alike[words], seed))[:count])
    found = Examples(
        tuple(each for each in examples if each.words not in chosen),
        tuple(given or (each for each in examples if each.words in chosen)),
    )
    if len(found.train) < LEAST:
        raise DataError(
            f"has {len(found.train)} examples to train on besides those that are held back, and"
            f" needs at least {LEAST}; add files to data"
        )
    return found


def _order(alike: Sequence[Example], seed: int) -> bytes:
    line = min(each.line for each in alike)
    return hashlib.sha256(f"{seed}\0{line}".encode()).digest()


def _files(place: Path) -> list[Path]:
    if place.is_file():
        if place.suffix not in (*TEXTS, QUESTIONS):
            raise DataError(f"has {place} in data; files end in {', '.join((*TEXTS, QUESTIONS))}")
        return [place]
    if not place.is_dir():
        raise DataError(f"has {place} in data, which does not exist on the controller")
    found = sorted(
        each
        for each in place.rglob("*")
        if each.suffix in (*TEXTS, QUESTIONS)
        and not any(_is_skipped(part) for part in each.relative_to(place).parts)
        and each.is_file()
    )
    for each in found:
        _check_inside(each, place)
    if not found:
        raise DataError(f"has {place} in data, with no file in {', '.join((*TEXTS, QUESTIONS))}")
    return found


def _check_inside(file: Path, place: Path) -> None:
    """A link in a cloned repository may point to a file outside it, such as a key."""
    target = file.resolve()
    if not target.is_relative_to(place.resolve()):
        raise DataError(
            f"has {file} in data, a link to {target} outside of {place}; remove it, or write that"
            " file in data"
        )


def _is_skipped(part: str) -> bool:
    return part in _SKIPPED or part.startswith(".")


def _examples(file: Path, characters: int) -> Iterator[Example]:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"has {file} in data, which is not UTF-8") from None
    if file.suffix != QUESTIONS:
        yield from (Example(piece) for piece in _pieces(text, characters))
        return
    # Not splitlines: strings in JSON may have other characters that end a line.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield _of_line(line, f"{file}, line {number}")


def _of_line(line: str, place: str) -> Example:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        raise DataError(f"has data that is not JSON: {place}") from None
    if isinstance(record, dict):
        for question, answer in _PAIRS:
            pair = record.get(question), record.get(answer)
            if all(isinstance(each, str) and each.strip() for each in pair):
                return Example(str(pair[1]), _asked(record, question, place))
        text = record.get("text")
        if isinstance(text, str) and text.strip():
            return Example(text)
    raise DataError(
        f'has data without a question and an answer: {place}; write {{"question": …, "answer": …}}'
        ' or {"text": …}'
    )


def _asked(record: dict[str, object], question: str, place: str) -> str:
    """The question, with the input of Alpaca's form below its instruction. What else an answer
    depends on is refused: without it, the model would learn to guess."""
    if unread := next((key for key in _UNREAD if record.get(key)), ""):
        raise DataError(
            f"has data with {unread}, which is not read: {place}; write it in {question}"
        )
    more = record.get("input") if question == "instruction" else None
    parts = [str(record[question]), *([more] if isinstance(more, str) and more.strip() else [])]
    return "\n\n".join(parts)


def _pieces(text: str, characters: int) -> Iterator[str]:
    """Parts of a text of at most so many characters, divided between paragraphs, else between
    lines, else anywhere."""
    piece = ""
    for part in _parts(text, characters, ("\n\n", "\n")):
        if piece and len(piece) + len(part) > characters:
            yield piece.strip("\n")
            piece = ""
        piece += part
    if piece.strip():
        yield piece.strip("\n")


def _parts(text: str, characters: int, separators: Sequence[str]) -> Iterator[str]:
    if len(text) <= characters:
        yield text
    elif not separators:
        yield from (text[at : at + characters] for at in range(0, len(text), characters))
    else:
        for part in text.split(separators[0]):
            yield from _parts(part + separators[0], characters, separators[1:])
