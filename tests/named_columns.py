"""Which words speak of an NC number without saying which column it is."""

import re


def unnamed(text: str) -> list[str]:
    """'NC1' ... 'NC4' of a text that names no column of that number: there are two columns of NC1 and six of NC2."""
    return [nc for nc in re.findall(r"\bNC[1-4]\b", text) if not re.search(rf"\b{nc.lower()}(_[a-z_]+)?\b", text)]
