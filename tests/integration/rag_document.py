"""A document with three invented facts, which no model can know, and a question for each.

No two neighbours of its paragraphs fit into a chunk of 256 tokens: docling would join them.
"""

import io
from dataclasses import dataclass
from html import escape
from zipfile import ZipFile

PARAGRAPHS = (
    "The harbour of Velmora lies behind a long reef, and ships wait for the tide before they enter."
    " The lighthouse of Velmora was built in 1887 by the engineer Ottilie Brandt, after two"
    " fishing boats were lost in one winter. Its lamp burned rapeseed oil at first, and later"
    " paraffin. A keeper lived on the upper floor with his family, and a school boat called for"
    " the children each morning. Today the lamp is electric, the keeper's rooms are a small museum,"
    " and visitors climb its two hundred steps for the view over the reef.",
    "Astronomers of the observatory on Mount Kessin keep a list of bodies that few people have"
    " seen twice. The comet Harrow returns every 143 years, and its last visit was recorded by a"
    " school teacher with a borrowed telescope. Its tail is faint and slightly green, and it can"
    " be seen best before dawn, low above the eastern horizon. Clouds hid it on most nights of that"
    " spring, so that only eleven drawings of it exist. They are kept in the library of the"
    " observatory, together with the notes of the teacher. A copy of the best one hangs in the"
    " entrance hall, between a map of the moon and the portrait of the first director. Each summer"
    " a class of pupils draws the comet as it may look on its next visit, and the drawings are put"
    " into a box that nobody will open before that night.",
    "Each autumn the village of Tirrow holds a market at which its bakers compete for a wooden"
    " spoon. The plum bread of Tirrow is called quenna, and every household has its own recipe for"
    " it. Some bake it with rye and honey, others with wheat, walnuts and a glass of cider. The"
    " dough rests overnight in a cool cellar and is baked in a stone oven that the whole village"
    " shares. Guests are given the first slice, with salted butter, and are expected to praise it"
    " loudly before they are allowed a second one.",
)


@dataclass(frozen=True)
class Question:
    """What is asked, the paragraph that has the answer, and the word that must be in it."""

    text: str
    paragraph: int
    fact: str


QUESTIONS = (
    Question("Who built the lighthouse of Velmora?", 0, "Ottilie Brandt"),
    Question("How often does the comet Harrow return?", 1, "143"),
    Question("What is the plum bread of Tirrow called?", 2, "quenna"),
)

_TYPES = (
    '<?xml version="1.0"?><Types xmlns="http://schemas.openxmlformats.org/package/2006/'
    'content-types"><Default Extension="rels" ContentType="application/vnd.openxmlformats-'
    'package.relationships+xml"/><Override PartName="/word/document.xml" ContentType="application/'
    'vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"/></Types>'
)
_RELATIONS = (
    '<?xml version="1.0"?><Relationships xmlns="http://schemas.openxmlformats.org/package/2006/'
    'relationships"><Relationship Id="r1" Type="http://schemas.openxmlformats.org/officeDocument/'
    '2006/relationships/officeDocument" Target="word/document.xml"/></Relationships>'
)
_NAMESPACE = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"


def docx() -> bytes:
    """The document as Word writes it, with the parts that a reader needs."""
    body = "".join(
        f'<w:p><w:r><w:t xml:space="preserve">{escape(text)}</w:t></w:r></w:p>'
        for text in PARAGRAPHS
    )
    document = f'<w:document xmlns:w="{_NAMESPACE}"><w:body>{body}</w:body></w:document>'
    buffer = io.BytesIO()
    with ZipFile(buffer, "w") as archive:
        archive.writestr("[Content_Types].xml", _TYPES)
        archive.writestr("_rels/.rels", _RELATIONS)
        archive.writestr("word/document.xml", f'<?xml version="1.0"?>{document}')
    return buffer.getvalue()
