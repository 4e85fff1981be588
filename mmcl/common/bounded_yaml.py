"""PyYAML's safe loader with bounds on depth, on what aliases multiply, and on numbers."""

from __future__ import annotations

from typing import Any

import yaml

MOST_NODES = 200_000  # values of a file, aliases written out
DEEPEST = 60
LONGEST_NUMBER = 4000  # characters


class BoundedLoader(yaml.SafeLoader):
    """The safe loader, with bounds. An alias counts as much as what it stands for, and never stands for itself."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
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
        if isinstance(node, yaml.ScalarNode) and node.style is None and not node.tag.endswith((":str", ":null")):
            self._check_scalar(node)
        if anchor is not None:
            self.sizes[anchor] = self.count - before
        return node

    def _add(self, count: int) -> None:
        self.count += count
        if self.count > MOST_NODES:
            raise yaml.YAMLError(f"more than {MOST_NODES} values, those that aliases stand for counted")

    def _check_scalar(self, node: yaml.ScalarNode) -> None:
        if len(node.value) > LONGEST_NUMBER:
            raise yaml.YAMLError(f"a number or date of {len(node.value)} characters")
