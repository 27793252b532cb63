"""A workflow as ComfyUI exports it for programs, and its nodes by the names people gave them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, cast

from gpubroker.errors import InvalidValue


@dataclass(frozen=True, slots=True)
class Workflow:
    """Nodes by id, each with its class and its inputs.

    Raises:
        InvalidValue: it is not a workflow in the API format.
    """

    nodes: Mapping[str, Mapping[str, Any]]

    def __post_init__(self) -> None:
        if "nodes" in self.nodes and "links" in self.nodes:
            problem = "it was saved for the editor; use ComfyUI's menu entry Export (API)"
            raise InvalidValue("workflow", "…", problem)
        if not self.nodes:
            raise InvalidValue("workflow", "{}", "it has no nodes")
        for name, node in cast("Mapping[str, object]", self.nodes).items():
            if not _is_node(node):
                raise InvalidValue("workflow", name, "a node needs class_type and inputs")

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """From a file of JSON.

        Raises:
            InvalidValue: it is none. OSError: it cannot be read.
        """
        return cls.parse(Path(path).read_text(encoding="utf-8"))

    @classmethod
    def parse(cls, text: str) -> Self:
        """From JSON.

        Raises:
            InvalidValue: it is none.
        """
        try:
            nodes: object = json.loads(text)
        except ValueError as error:
            raise InvalidValue("workflow", "…", f"it is no JSON: {error}") from error
        if not isinstance(nodes, dict):
            raise InvalidValue("workflow", "…", "it is no JSON object")
        return cls(cast("dict[str, Mapping[str, Any]]", nodes))

    def title(self, node_id: str) -> str:
        """What people call a node: its title, or else its class; its id where there is no such."""
        node = self.nodes.get(node_id)
        if node is None:
            return f"node {node_id}"
        meta: object = node.get("_meta")
        title = cast("Mapping[str, object]", meta).get("title") if isinstance(meta, Mapping) else ""
        return title if isinstance(title, str) and title else str(node["class_type"])

    def find(self, node: str) -> str:
        """The id of a node.

        Args:
            node: its title, or ``#`` and its id.

        Raises:
            InvalidValue: there is none, or several.
        """
        if node.startswith("#") and node[1:] in self.nodes:
            return node[1:]
        found = [name for name in self.nodes if self.title(name) == node]
        if not found:
            titles = [self.title(name) for name in self.nodes]
            raise InvalidValue.unknown("node", node, titles, noun="node")
        if len(found) > 1:
            problem = f"several nodes have this title; say #{' or #'.join(found)}"
            raise InvalidValue("node", node, problem)
        return found[0]

    def check(self, node: str, name: str) -> None:
        """Make sure that an input is there, and is a value to be filled in.

        Raises:
            InvalidValue: it is not.
        """
        inputs = self.nodes[self.find(node)]["inputs"]
        if name not in inputs:
            raise InvalidValue.unknown(f"input of {node}", name, inputs, noun="input")
        if isinstance(inputs[name], list):
            raise InvalidValue(f"input of {node}", name, "it is fed by another node")

    def filled(self, values: Mapping[tuple[str, str], object]) -> Workflow:
        """A copy with other values, by node and input.

        Raises:
            InvalidValue: there is no such node or input.
        """
        nodes = {name: {**node, "inputs": {**node["inputs"]}} for name, node in self.nodes.items()}
        for (node, name), value in values.items():
            self.check(node, name)
            nodes[self.find(node)]["inputs"][name] = value
        return Workflow(nodes)


def _is_node(node: object) -> bool:
    if not isinstance(node, Mapping):
        return False
    told = cast("Mapping[str, object]", node)
    return isinstance(told.get("class_type"), str) and isinstance(told.get("inputs"), Mapping)
