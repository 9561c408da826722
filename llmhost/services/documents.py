"""A small PDF for requests that exercise a document converter: text, a formula and a picture."""

from collections.abc import Sequence

SENTENCE = "A cat is an animal."
"""The text of the PDF."""

_FORMULA = "E = m c^2"
_PICTURE_PIXELS = 32


def sample_pdf() -> bytes:
    """One page in A4 (PDF 1.4, ISO 32000-1 7.5)."""
    text = f"/F1 12 Tf 72 760 Td ({SENTENCE}) Tj 160 -60 Td /F1 18 Tf ({_FORMULA}) Tj"
    page = f"BT {text} ET q 200 0 0 200 72 420 cm /I1 Do Q".encode()
    gradient = bytes(8 * (x ^ y) for y in range(_PICTURE_PIXELS) for x in range(_PICTURE_PIXELS))
    picture = b"/Type /XObject /Subtype /Image /ColorSpace /DeviceGray /BitsPerComponent 8"
    picture += b" /Width %d /Height %d" % (_PICTURE_PIXELS, _PICTURE_PIXELS)
    return _file(
        (
            b"<< /Type /Catalog /Pages 2 0 R >>",
            b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 4 0 R"
            b" /Resources << /Font << /F1 5 0 R >> /XObject << /I1 6 0 R >> >> >>",
            _stream(b"", page),
            b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
            _stream(picture, gradient),
        )
    )


def _stream(entries: bytes, data: bytes) -> bytes:
    return b"<< %s /Length %d >>\nstream\n%s\nendstream" % (entries, len(data), data)


def _file(objects: Sequence[bytes]) -> bytes:
    """Objects, their offsets and the trailer."""
    data, offsets = b"%PDF-1.4\n", []
    for number, text in enumerate(objects, start=1):
        offsets.append(len(data))
        data += b"%d 0 obj\n%s\nendobj\n" % (number, text)
    entries = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    count = len(objects) + 1
    table = b"xref\n0 %d\n0000000000 65535 f \n%s" % (count, entries)
    trailer = b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (count, len(data))
    return data + table + trailer
