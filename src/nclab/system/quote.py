"""Values on a command line of nclab-train, by the grammar of Hydra's overrides."""

import re


def quoted(value: str) -> str:
    r"""The value in single quotes, in which the grammar takes everything as it is.

    >>> print(quoted("ünï"), quoted("it's"), quoted("a\\"))
    'ünï' 'it\'s' 'a\\'
    """
    # Backslashes stay as they are, but for those right before a quote.
    end = value[len(value.rstrip("\\")) :]
    return "'" + re.sub(r"(\\*)'", r"\1\1\\'", value) + end + "'"
