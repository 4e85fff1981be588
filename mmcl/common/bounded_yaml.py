"""PyYAML's safe loader with bounds on depth, on what aliases multiply, and on numbers; keys are there once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml
from yaml.composer import Composer
from yaml.constructor import SafeConstructor
from yaml.resolver import Resolver

if TYPE_CHECKING or not yaml.__with_libyaml__:
    from yaml.parser import Parser
    from yaml.reader import Reader
    from yaml.scanner import Scanner

    class CParser(Reader, Scanner, Parser):
        """Text to events in Python, where PyYAML was built without libyaml."""

        def __init__(self, text: str) -> None:
            Reader.__init__(self, text)
            Scanner.__init__(self)
            Parser.__init__(self)

else:
    from yaml.cyaml import CParser  # seven times as fast

MOST_NODES = 200_000  # values of a file, aliases written out
DEEPEST = 60
LONGEST_NUMBER = 4000  # characters
MOST_BITS = 63  # of a whole number, besides its sign: what a tensor can hold


class BoundedLoader(Composer, CParser, SafeConstructor, Resolver):
    """The safe loader, with bounds. An alias counts as much as what it stands for, and never stands for itself.

    Its base classes are those of ``yaml.SafeLoader``. The composer is the one in Python, since libyaml's has no bounds.
    """

    def __init__(self, text: str) -> None:
        CParser.__init__(self, text)
        Composer.__init__(self)
        SafeConstructor.__init__(self)
        Resolver.__init__(self)
        self.depth, self.count = 0, 0
        self.sizes: dict[str, int] = {}  # anchor -> values below it, once they have been read

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """One value of the file with all that is below it.

        Raises:
            YAMLError: a bound is passed.
        """
        event = self.peek_event()
        anchor = getattr(event, "anchor", None)
        if isinstance(event, yaml.AliasEvent):
            if anchor in self.anchors and anchor not in self.sizes:
                raise yaml.YAMLError(f"'*{anchor}' stands inside what it stands for")
            self._add(self.sizes.get(str(anchor), 0))
            return super().compose_node(parent, index)
        before = self.count
        self._add(1)
        self.depth += 1
        if self.depth > DEEPEST:
            raise yaml.YAMLError(f"nested deeper than {DEEPEST} levels")
        node = super().compose_node(parent, index)
        self.depth -= 1
        if isinstance(node, yaml.ScalarNode):
            self._check_scalar(node)
        elif isinstance(node, yaml.MappingNode):
            self._check_keys(node)
        if anchor is not None:
            self.sizes[anchor] = self.count - before
        return node

    def _add(self, count: int) -> None:
        self.count += count
        if self.count > MOST_NODES:
            raise yaml.YAMLError(f"more than {MOST_NODES} values, those that aliases stand for counted")

    def _check_scalar(self, node: yaml.ScalarNode) -> None:
        if "\0" in node.value:  # no file can be called so, and there is nothing to show
            raise yaml.YAMLError("a text with a null character in it")
        plain = not node.style and not node.tag.endswith((":str", ":null"))
        if plain and len(node.value) > LONGEST_NUMBER:
            raise yaml.YAMLError(f"a number or date of {len(node.value)} characters")

    def _check_keys(self, node: yaml.MappingNode) -> None:
        """A key that is there twice: YAML would keep the last one. What ``<<`` merges in may be given anew."""
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if (key.tag, key.value) in seen:
                    raise yaml.YAMLError(f"'{key.value[:60]}' is there twice, the second time in line {_line(key)}")
                seen.add((key.tag, key.value))

    def whole_number(self, node: yaml.ScalarNode) -> int | str:
        """A whole number that a tensor can hold; 1:30, which YAML 1.1 takes for 90, is text.

        Raises:
            YAMLError: it has more digits.
        """
        if ":" in node.value:
            return str(node.value)
        number: int = self.construct_yaml_int(node)
        if number.bit_length() > MOST_BITS:
            raise yaml.YAMLError(f"a whole number of {number.bit_length()} bits: {MOST_BITS} are the most")
        return number

    def fraction(self, node: yaml.ScalarNode) -> float | str:
        """A number with a point; 1:30.5 is text."""
        return str(node.value) if ":" in node.value else float(self.construct_yaml_float(node))

    yaml_constructors = {
        **SafeConstructor.yaml_constructors,
        "tag:yaml.org,2002:int": whole_number,
        "tag:yaml.org,2002:float": fraction,
    }


def _line(node: yaml.Node) -> int:
    line: int = node.start_mark.line + 1
    return line
