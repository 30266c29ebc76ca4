"""The one error that users see, and the end that a signal asks for."""


class CompsegError(Exception):
    """Something the user gave is at fault.

    The message is one line: the culprit (file, sample or key), what was expected, what came, and how to mend it. Verbs
    print it without a traceback and end non-zero.
    """


def require(holds: bool, message: str) -> None:
    """Refuse a value that the user gave.

    Raises:
        CompsegError: `holds` is false; the message is `message`.
    """
    if not holds:
        raise CompsegError(message)


class Stopped(BaseException):
    """A signal asked the process to end, and it ends in order. No `Exception`, so that nothing catches it by accident.

    Args:
        message: One line: what is done and how to go on.
        exit_code: 128 and the signal's number, as a shell has it.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code
