"""The one error that users see, the hint that it ends with, and the end that a signal asks for."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import shorten

ALIKE = 0.6  # the cutoff of difflib.get_close_matches, which knows upper from lower case


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


@contextmanager
def reading(path: str | Path, fix: str) -> Iterator[None]:
    """Turn all that a library raises over a damaged file into one line that names the file.

    What the system refuses (permissions, too many open files, memory) is no damage and passes through, with the path.

    Args:
        path: Of the file.
        fix: What to do where it is damaged.

    Raises:
        CompsegError: The file is damaged.
    """
    try:
        with naming(path):
            yield
    except CompsegError:
        raise
    except Exception as error:  # of which kinds, no library promises
        if is_refusal(error):
            raise
        raise CompsegError(f"{path}: damaged, or something else ({cause(error)}); {fix}") from error


@contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Give an error of the system the path that it happened at, where it names none, as while bytes are written."""
    try:
        yield
    except OSError as error:
        # A library that raises an OSError of its own words has no errno.
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


def cause(error: BaseException) -> str:
    """What an exception says, in a few words; its kind where it says nothing."""
    lines = str(error).strip().splitlines() or [""]
    # torch's own advice is to load the file in the way that runs code of whoever wrote it.
    words = "it holds more than tensors and plain values" if "weights_only" in str(error) else lines[0]
    return shorten(words, 120, placeholder="...") or type(error).__name__


def is_refusal(error: BaseException) -> bool:
    """Whether the system refused (permission, memory, too many open files), not a file that is damaged."""
    # A damaged file may send a library to a place before its start, which the system calls an invalid argument.
    # What is not there is for its reader to say.
    no_refusals = (None, errno.EINVAL, errno.EOVERFLOW, errno.ENOENT, errno.ENOTDIR)
    refused = isinstance(error, OSError) and error.errno not in no_refusals
    return refused or is_out_of_memory(error)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the host or the device had no memory left."""
    # torch has a class of its own for CUDA alone; by name, for this file must not wait for torch.
    words = ("can't allocate memory", "out of memory", "not enough memory")
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or (isinstance(error, RuntimeError) and any(word in str(error).lower() for word in words))
    )


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
    if likeness_of(given, best) >= ALIKE:
        return f"did you mean '{best}'?"
    return f"{label}: {', '.join(names) or 'nothing'}"


def likeness_of(word: str, other: str) -> float:
    """How much of two words is the same, in [0, 1], in any case; from `ALIKE` on one may be the other, mistyped."""
    return _ratio(word.lower(), other.lower())


def _ratio(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, one, other).ratio()
