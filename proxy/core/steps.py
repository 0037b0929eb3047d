"""Steps of a history, and the writer that makes them of its entries: RESPONSES.md 4.4, the table of groups.

Calls that the model made at once stand in one step, each with its output, wherever the items stood; a step always has
an output for each of its calls, and no two calls of a history have the same id.
"""

from typing import Literal

from msgspec import Struct

from proxy.core.calls import NOT_EXECUTED, Answer, Call
from proxy.core.content import Content, told
from proxy.errors import RequestError


class Said(Struct, gc=False):
    """A message that is not the model's. Developer messages are system messages here."""

    role: Literal["system", "user"]
    content: Content


class Called(Struct, gc=False):
    """A call with its output. arguments: JSON text, as far as the model wrote it well."""

    id: str
    name: str
    arguments: str
    output: Content


class Acted(Struct, gc=False):
    """What the model did at once: it thought, said something, refused, called functions; never nothing but thought.

    reasoning, text, refusal: "" for none; a dialect sets reasoning to None where it must not go back.
    """

    reasoning: str | None
    text: str
    refusal: str
    calls: list[Called]


Step = Said | Acted


class Spoken(Struct, gc=False):
    """A message of the model's."""

    text: str
    refusal: str


class Thought(Struct, gc=False):
    """text: "" when it can't be read here."""

    id: str | None
    text: str


Entry = Said | Spoken | Thought | Call | Answer
"""What an item says, before it has found its step."""


class Writer:
    """Entries -> steps, by way of groups: a group is what the model did at once.

    A group is answered when outputs of its calls have been met: what the model did next, it did knowing them.
    strict: defects are refused instead of mended. ignored: types of items left out.
    """

    def __init__(self, strict: bool) -> None:
        self.steps: list[Step] = []
        self.ignored: list[str] = []
        self._strict = strict
        self._ids: dict[str, int] = {}
        self._number = 0
        self._begin_group()

    def _begin_group(self) -> None:
        self._number += 1
        self._thoughts: list[Thought] = []
        self._texts: list[str] = []
        self._refusals: list[str] = []
        self._calls: list[Called] = []
        self._answered = False

    def end_group(self) -> None:
        """Write the open group, if there is anything in it that may stand alone."""
        if self._texts or self._refusals or self._calls:
            reasoning = "\n\n".join(thought.text for thought in self._thoughts if thought.text)
            self.steps.append(Acted(reasoning, "\n\n".join(self._texts), "\n\n".join(self._refusals), self._calls))
        elif self._thoughts:
            item = f"Item '{self._thoughts[-1].id}' of type 'reasoning'"
            complain(self._strict, f"{item} was provided without its required following item.")
        else:
            return
        self._begin_group()

    def write(self, entry: Entry) -> None:
        match entry:
            case Said():
                self._say(entry)
            case Spoken():
                self._speak(entry)
            case Thought():
                self._think(entry)
            case Call():
                self._call(entry)
            case Answer():
                self._answer(entry)

    def _say(self, step: Said) -> None:
        self.end_group()
        self.steps.append(step)

    def _think(self, thought: Thought) -> None:
        if self._answered or (not self._calls and (self._texts or self._refusals)):
            self.end_group()
        self._thoughts.append(thought)

    def _speak(self, message: Spoken) -> None:
        # A text behind a call that waits for its output joins the call: nothing may stand between the two.
        if self._answered or (not self._calls and (self._texts or self._refusals)):
            self.end_group()
        if message.text:
            self._texts.append(message.text)
        if message.refusal:
            self._refusals.append(message.refusal)

    def _call(self, call: Call) -> None:
        if call.cut:
            return
        if call.output is None and call.unknown:
            self.ignored.append(call.unknown)
            return
        if self._answered:
            self.end_group()
        self._answered = call.settled
        call.group = self._number
        self._calls.append(Called(self._unique(call.id), call.name, call.arguments, self._output(call)))

    def _output(self, call: Call) -> Content:
        if call.output is not None:
            return call.output
        if call.unanswered is not None:
            return call.unanswered
        complain(self._strict, f"No tool output found for function call {call.id}.")
        return NOT_EXECUTED

    def _answer(self, answer: Answer) -> None:
        if answer.call is not None:
            self._answered = self._answered or answer.call.group == self._number
        elif answer.late:
            self._say(Said("user", told(f"Additional output of {answer.call_id or answer.item_id}:", answer.content)))
        elif answer.unknown:
            self.ignored.append(answer.unknown)
        elif answer.approval:
            raise RequestError(f"No mcp_approval_request found with id {answer.call_id}.", param="input")
        else:
            complain(self._strict, f"No tool call found for function call output with call_id {answer.call_id}.")
            self._mend(answer)

    def _mend(self, answer: Answer) -> None:
        """An output without its call: the call is made up if its name is known; else the user says it."""
        if answer.name:
            self._call(Call(answer.call_id, answer.name, "{}", output=answer.content, settled=True))
        else:
            self._say(Said("user", told(f"Output of {answer.call_id or 'a tool'}:", answer.content)))

    def _unique(self, id: str | None) -> str:
        """The id, or one made from it if there is none or another call has it; the same for the same history."""
        if id and id not in self._ids:
            self._ids[id] = 0
            return id
        base = id or "call"
        number = self._ids.get(base, 0)
        while True:
            number += 1
            made = f"{base}_{number}"
            if made not in self._ids:
                break
        self._ids[base] = number
        self._ids[made] = 0
        return made


def complain(strict: bool, message: str) -> None:
    """A defect of the history that only a strict reader refuses."""
    if strict:
        raise RequestError(message, param="input")
