"""Names of functions as an upstream may see them: letters, digits, _ and -, at most 64 when made up here."""

import re
from hashlib import blake2b

_LIMIT = 64
_foreign = re.compile("[^a-zA-Z0-9_-]")


def plain(name: str | None) -> str:
    """A name without the characters that upstreams refuse; models invent such names (pitfall 37)."""
    return _foreign.sub("_", name) if name else "unknown"


def flat(*words: str | None) -> str:
    """One name of several words, such as namespace and function: the same one for the same words (pitfall 41)."""
    given = [word for word in words if word]
    name = plain("__".join(given))
    if len(name) <= _LIMIT:
        return name
    digest = blake2b("\0".join(given).encode(), digest_size=4).hexdigest()
    return f"{name[:50]}_{digest}"
