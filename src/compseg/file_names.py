"""From names to file names: the one place where what a user or a stranger has called something becomes part of a path.

docs/reference/file-names.md has the rules for people.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import count

from compseg.errors import require

# Of the 255 that file systems allow: the rest is for endings and for the name of a file that is being written.
MOST_BYTES = 120
DIGITS = 8
# Names of devices on Windows, with any ending; and what Zarr calls its own file in each folder.
_RESERVED = re.compile(r"^(con|prn|aux|nul|(?:com|lpt)[0-9¹²³]|zarr(?=\.json$))(?=\.|$)", re.IGNORECASE)


def file_name(name: str) -> str:
    """A name as the name of a file or folder; one that fits already stays as it is.

    Letters and digits of any script, `.`, `_`, `-` and `+` are kept, in Unicode's composed form (NFC); any other
    character becomes `_`. It neither begins with `.` or `_` nor ends with `.`, is no reserved word, has 1 to 120 bytes
    in UTF-8, and stays the same when it is given again. Several names may become the same; see `file_names`.
    """
    composed = unicodedata.normalize("NFC", name).strip()
    kept = "".join(char if unicodedata.category(char)[0] in "LMN" or char in "._-+" else "_" for char in composed)
    # Beginning with a dot it would be hidden, and with two underscores a name that Zarr keeps for itself.
    text = _RESERVED.sub(r"\1_", kept.lstrip("._").rstrip("."), count=1) or "unnamed"
    return text if len(text.encode()) <= MOST_BYTES else _marked(text, name)


def file_names(names: Iterable[str], endings: Sequence[str] = ("",)) -> dict[str, str]:
    """A file name for each of several names, so that no two files are the same, on any file system.

    As `file_name`, but where two would share a file, also one that differs in case alone, only the first keeps it: the
    one that fits as it is, then the shorter one. The other gets the first digits of its SHA-256. So the result depends
    on the names and not on their order.

    Args:
        names: Each once.
        endings: Of all files that are written for a name: `a` with `_mask.png` and `a_mask` with `.png` are one.

    Raises:
        CompsegError: A name comes twice.
    """
    listed = list(names)
    twice = next((name for name, times in Counter(listed).items() if times > 1), None)
    require(twice is None, f"{twice!r}: the name comes twice, and files of one would overwrite the other's; rename one")
    found, taken = {}, set[str]()
    for name in sorted(listed, key=lambda name: (file_name(name) != name, len(name), name)):
        for candidate in _candidates(name):
            files = {same_file(candidate + ending) for ending in endings}
            if files.isdisjoint(taken):
                break
        taken |= files
        found[name] = candidate
    return {name: found[name] for name in listed}


def same_file(name: str) -> str:
    """A key that is equal for names that some file system does not tell apart: by case, or by how accents are coded."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())


def printable(name: str) -> str:
    r"""A name in one line, with escapes in place of what a terminal or a font would obey: `\n`, `\x1b`, `\udcff`."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in name)


def _candidates(name: str) -> Iterator[str]:
    yield file_name(name)
    # Without an end, for somebody may have made names that end in the digits of another.
    yield from (_marked(file_name(name), name + attempt * "'") for attempt in count())


def _marked(text: str, name: str) -> str:
    """A text, cut where it is too long, with the first digits of a name's SHA-256."""
    digest = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:DIGITS]
    return text.encode()[: MOST_BYTES - DIGITS - 1].decode(errors="ignore") + f"-{digest}"
