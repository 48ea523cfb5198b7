"""The one exception a user meets, and the names that a sentence suggests."""

import difflib
from collections.abc import Iterable

SUGGESTED = 3


class SlimlineError(Exception):
    """Bad input or an impossible request, told in one sentence: what, where, what to do.

    The command line prints the sentence and exits with code 2; it never shows a traceback for it.
    """


def near_names(name: object, known: Iterable[str]) -> str:
    """The names most like one that matches nothing, else the first ones; ``none`` where there are none.

    YAML reads the name 0 as a number; then it says that quotes are missing.
    """
    names = list(known)
    near = ", ".join(difflib.get_close_matches(str(name), names, n=SUGGESTED) or names[:SUGGESTED]) or "none"
    return near if isinstance(name, str) else f"{near} (a name is a text: write it in quotes)"
