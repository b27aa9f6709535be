"""The torture messages of RFC 4475, bit by bit, out of the RFC's own text."""

from __future__ import annotations

import base64
import io
import re
import tarfile
from pathlib import Path, PurePosixPath

_BEGIN = "-- BEGIN MESSAGE ARCHIVE --"
_END = "-- END MESSAGE ARCHIVE --"
_ONE_WORD = re.compile(r"\s*(\S+)\s*\Z")


def appendix_messages(path: Path) -> dict[str, bytes]:
    """Every message of appendix A by its name, such as ``wsinv``; ``path`` is the RFC as plain text."""
    text = path.read_text("latin-1")
    # The last pair of markers: the script that the appendix prints holds the first.
    block = text.rpartition(_BEGIN)[2].partition(_END)[0]
    # Page headers and footers stand in between; they have several words a line, the archive has one.
    words = (_ONE_WORD.match(line) for line in block.splitlines())
    data = base64.b64decode("".join(word[1] for word in words if word is not None), validate=True)
    messages: dict[str, bytes] = {}
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as archive:
        for member in archive:
            content = archive.extractfile(member)
            if content is not None:
                messages[PurePosixPath(member.name).stem] = content.read()
    return messages
