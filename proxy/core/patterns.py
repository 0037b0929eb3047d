"""Names of models with wildcards: * for any characters, ? for one."""

import fnmatch
import re
from collections.abc import Iterable


def is_pattern(name: str) -> bool:
    return "*" in name or "?" in name


def pattern(names: Iterable[str]) -> re.Pattern[str]:
    """Takes (by `match`) what any of the names and patterns takes.

    The expressions of fnmatch never go back, however long the text is that a client sends.
    """
    return re.compile("|".join(fnmatch.translate(each.replace("[", "[[]")) for each in names) or r"(?!)")
