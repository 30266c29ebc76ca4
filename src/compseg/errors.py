"""The one error that users see."""


class CompsegError(Exception):
    """Something the user gave is at fault.

    The message is one line: the culprit (file, sample or key), what was expected, what came, and how to mend it. Verbs
    print it without a traceback and end non-zero.
    """
