"""The one exception a user meets."""


class SlimlineError(Exception):
    """Bad input or an impossible request, told in one sentence: what, where, what to do.

    The command line prints the sentence and exits with code 2; it never shows a traceback for it.
    """
