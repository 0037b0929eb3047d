"""<think>...</think> at the beginning of the content is thought; the tags may be cut anywhere."""

from proxy.core.deltas import Reasoning, Text

OPEN, CLOSE = "<think>", "</think>"


class ThinkTags:
    """Splits content into thought and text. Only at the very beginning: a later tag is text."""

    __slots__ = ("_held", "_state")

    def __init__(self) -> None:
        self._held = ""  # what may turn out to be a tag
        self._state = "start"

    def feed(self, text: str) -> list[Text | Reasoning]:
        """What is certain by now; the rest is held."""
        deltas: list[Text | Reasoning] = []
        text = self._held + text
        self._held = ""
        if self._state == "start":
            text = self._begin(text)
        if self._state == "thought":
            text = self._think(text, deltas)
        if self._state == "gap":
            text = text.lstrip()
            self._state = "text" if text else "gap"
        if self._state == "text" and text:
            deltas.append(Text(text))
        return deltas

    def close(self) -> list[Text | Reasoning]:
        """What was held: no tag came of it."""
        held, self._held = self._held, ""
        if not held:
            return []
        return [Reasoning(held) if self._state == "thought" else Text(held)]

    def _begin(self, text: str) -> str:
        visible = text.lstrip()
        if visible.startswith(OPEN):
            self._state = "thought"
            return visible.removeprefix(OPEN)
        if OPEN.startswith(visible):
            self._held = text
            return ""
        self._state = "text"
        return text

    def _think(self, text: str, deltas: list[Text | Reasoning]) -> str:
        thought, found, rest = text.partition(CLOSE)
        if found:
            self._state = "gap"
        else:
            keep = next((n for n in range(len(CLOSE) - 1, 0, -1) if thought.endswith(CLOSE[:n])), 0)
            self._held = thought[len(thought) - keep :]
            thought = thought[: len(thought) - keep]
        if thought:
            deltas.append(Reasoning(thought))
        return rest
