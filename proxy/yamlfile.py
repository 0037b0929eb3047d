"""A YAML file as plain data, with variables from the environment."""

import re
from collections.abc import Mapping
from typing import Any

import yaml

Loader: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

REFERENCE = re.compile(
    r"\$(?:(?P<dollar>\$)|\{(?P<name>[A-Za-z_]\w*)(?::-(?P<default>(?:(?!\$\{)[^}])*))?\}|(?P<bad>\{))", re.ASCII
)


TEXT = "tag:yaml.org,2002:str"

MOST = 1_000_000
"""Values in a file, aliases replaced. 10,000 keys are 70,000; some aliases of aliases make 10 ** 9 of one line."""

UNMAKEABLE = (ValueError, LookupError, AttributeError, TypeError, ArithmeticError)
"""What the constructors of PyYAML 6.0 raise for text that is not of its type: `!!int ''`, `!!bool a`, `2024-13-45`."""


class FieldError(Exception):
    """Something in the file is not as it should be.

    path: the field, as `upstreams.main.timeouts.idle` or `routes[0].model`; "" for the file as a whole.
    place: line, or line and column, from 1; () when only the path says where it is.
    """

    def __init__(self, path: str, message: str, place: tuple[int, ...] = ()) -> None:
        super().__init__(message)
        self.path = path
        self.message = message
        self.place = place


def join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


class Variable(str):
    """A value that was entirely one ${...}: becomes whatever its field wants. quoted: it has quotes in the file."""

    __slots__ = ("quoted",)
    quoted: bool

    def scalar(self) -> Any:
        """What YAML makes of the text: a number, true or false, nothing, or the text itself."""
        loader = Loader("")
        tag: str = loader.resolve(yaml.ScalarNode, str(self), (True, False))  # type: ignore[no-untyped-call]
        if tag.rpartition(":")[2] not in ("int", "float", "bool", "null"):
            return str(self)
        try:
            return loader.construct_document(yaml.ScalarNode(tag, str(self)))
        except UNMAKEABLE:
            return str(self)


class File:
    """One YAML file, variables replaced.

    data: dicts, lists and scalars, some of them a Variable. Raises FieldError for what is no YAML, for keys that are
    given twice, for variables that are not set, and for more than MOST values.
    """

    def __init__(self, text: str, env: Mapping[str, str]) -> None:
        self._env = env
        self._lines: dict[str, int] = {}
        self._sizes: dict[int, int] = {}
        try:
            self._loader = Loader(text)
            node = self._loader.get_single_node()
            if node is not None:
                self._visit(node, "")
            self.data = None if node is None else self._loader.construct_document(node)
        except yaml.MarkedYAMLError as error:
            # What stands in quotes here may be a part of a key.
            problem = re.sub(r"'[^']{2,}'", "...", " ".join(filter(None, (error.context, error.problem))))
            mark = error.problem_mark
            raise FieldError("", f"not YAML: {problem}", (mark.line + 1, mark.column + 1) if mark else ()) from None
        except yaml.reader.ReaderError as error:
            before = text[: error.position]
            place = before.count("\n") + 1, len(before) - before.rfind("\n")
            raise FieldError("", f"not YAML: {error.reason}", place) from None
        except UNMAKEABLE:
            raise FieldError("", "not YAML: a value, or an escape in it, can't be read") from None

    def line(self, path: str) -> int | None:
        """The line of the field, or else of the nearest one around it."""
        while path and path not in self._lines:
            path = path[: max(path.rfind("."), path.rfind("["), 0)]
        return self._lines.get(path)

    def _visit(self, node: yaml.Node, path: str) -> int:
        """Notes the lines, replaces the variables, refuses double keys: all this before merge keys are resolved.

        Returns how many values it is, with each alias replaced by what it stands for.
        """
        line = node.start_mark.line + 1
        self._lines.setdefault(path, line)
        if id(node) in self._sizes:
            return self._sizes[id(node)]
        self._sizes[id(node)] = size = 1  # so long for an anchor that contains itself, which is refused later
        if isinstance(node, yaml.MappingNode):
            size += self._visit_mapping(node, path)
        elif isinstance(node, yaml.SequenceNode):
            size += sum(self._visit(item, f"{path}[{index}]") for index, item in enumerate(node.value))
        elif isinstance(node, yaml.ScalarNode):
            self._visit_scalar(node, path)
        if size > MOST:
            raise FieldError(path, f"more than {MOST:,} values, when aliases are replaced", (line,))
        self._sizes[id(node)] = size
        return size

    def _visit_mapping(self, node: yaml.MappingNode, path: str) -> int:
        names = set()
        size = 0
        for key, value in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                size += self._visit(value, path)
                continue
            name = join(path, str(key.value))
            line = key.start_mark.line + 1
            if name in names:
                raise FieldError(name, "this key is given twice", (line, key.start_mark.column + 1))
            names.add(name)
            self._lines[name] = line
            if isinstance(key, yaml.ScalarNode):
                self._make(key, name)
            size += self._visit(value, name)
        return size

    def _visit_scalar(self, node: yaml.ScalarNode, path: str) -> None:
        if node.tag != TEXT:
            self._make(node, path)
        elif "$" in node.value:
            try:
                node.value = substitute(node.value, self._env)
            except ValueError as error:
                raise FieldError(path, str(error), (node.start_mark.line + 1,)) from None
            if isinstance(node.value, Variable):
                node.value.quoted = node.style in ("'", '"')

    def _make(self, node: yaml.ScalarNode, path: str) -> None:
        """Raises FieldError for one that can't be made what its tag, or its look, says."""
        try:
            self._loader.construct_object(node)
        except UNMAKEABLE:
            sort = node.tag.rpartition(":")[2]
            message = f"this has the look or the tag of a YAML {sort} and is none; if it is text, put it in quotes"
            raise FieldError(path, message, (node.start_mark.line + 1,)) from None


def substitute(text: str, env: Mapping[str, str]) -> str:
    """The text with ${NAME} and ${NAME:-default} replaced, the default also for an empty variable, and $$ made $.

    Raises ValueError for a variable that is not set, and for `${` that begins none.
    """

    def value(match: re.Match[str]) -> str:
        if match["dollar"]:
            return "$"
        if match["bad"]:
            raise ValueError("`${` begins no variable; allowed: ${NAME}, ${NAME:-default}, $${ for a literal ${")
        name, default = match["name"], match["default"]
        if name not in env and default is None:
            raise ValueError(f"the variable {name} is not set; set it, or write a default: ${{{name}:-...}}")
        return env.get(name) or default or ""

    whole = REFERENCE.fullmatch(text)
    if whole and whole["name"]:
        return Variable(value(whole))
    return REFERENCE.sub(value, text)


def plain(value: Any) -> Any:
    """A value of any type; variables in it are what YAML makes of them, or text when they stand in quotes."""
    match value:
        case Variable():
            return str(value) if value.quoted else value.scalar()
        case dict():
            return {key: plain(each) for key, each in value.items()}
        case list():
            return [plain(each) for each in value]
    return value
