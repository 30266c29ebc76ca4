"""The one error that users see, the hint that it ends with, and the end that a signal asks for."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class CompsegError(Exception):
    """Something that the user gave is wrong.

    The message is one line: the culprit (file, sample or key), what was expected, what was given, and how to fix it.
    Verbs print it without a traceback and exit with a code other than 0.
    """


def require(holds: bool, message: str) -> None:
    """Refuse a value that the user gave.

    Raises:
        CompsegError: `holds` is false; the message is `message`.
    """
    if not holds:
        raise CompsegError(message)


class Stopped(BaseException):
    """A signal asked the process to end, and it ends in order. No `except Exception` catches it by accident.

    Args:
        message: One line: what is done and how to continue.
        exit_code: 128 plus the signal's number, as in a shell.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def closest(word: object, known: Iterable[object], label: str = "known") -> str:
    """`did you mean 'x'?` for the known word most like the given one, else all known words after `label`.

    Case is ignored, except to choose between equally similar words.
    """

    def similarity(name: str) -> tuple[float, bool, float]:
        # Of equally similar words the one with the same first letter: the first letter is seldom mistyped.
        return _ratio(given.lower(), name.lower()), given[:1] == name[:1], _ratio(given, name)

    given, names = str(word), sorted(str(name) for name in known)
    best = max(names, key=similarity, default="")
    if similarity(best)[0] >= 0.6:  # the cutoff of difflib.get_close_matches, which is case-sensitive
        return f"did you mean '{best}'?"
    return f"{label}: {', '.join(names) or 'nothing'}"


def _ratio(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, one, other).ratio()
