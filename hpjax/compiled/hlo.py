"""XLA's optimised programs, read: instructions by computation, with shapes and what they call."""

import json
import math
import re
from dataclasses import dataclass, field
from functools import cached_property

BYTES = {"pred": 1, "bf16": 2, "f16": 2, "f32": 4, "f64": 8, "c64": 8, "token": 0, "opaque": 0}


@dataclass(frozen=True)
class Shape:
    """An array's element type and sizes."""

    dtype: str
    sizes: tuple[int, ...]

    @property
    def elements(self) -> int:
        """How many values it has."""
        return math.prod(self.sizes)

    @property
    def bytes(self) -> int:
        """How much memory it takes."""
        width = BYTES.get(self.dtype)
        if width is None:
            width = max(1, int((re.search(r"\d+", self.dtype) or ["8"])[0]) // 8)
        return self.elements * width


@dataclass
class Instruction:
    """A line of a computation."""

    name: str
    shapes: list[Shape]  # more than one where it is a tuple
    opcode: str
    operands: list[str]
    text: str  # what follows the operands
    root: bool

    @property
    def bytes(self) -> int:
        """How much memory the result takes."""
        return sum(shape.bytes for shape in self.shapes)

    def attribute(self, name: str) -> str:
        """Returns the text of an attribute; empty where it has none of that name."""
        found = re.search(rf"\b{name}=(\{{[^}}]*\}}|\"[^\"]*\"|[^,\s]+)", self.text)
        return found[1].strip('"') if found else ""

    def numbers(self, name: str) -> list[int]:
        """Returns an attribute's numbers."""
        return [int(n) for n in re.findall(r"\d+", self.attribute(name))]

    @property
    def called(self) -> list[str]:
        """The computations that a loop, a call or a branch runs."""
        names = [self.attribute(key) for key in ("body", "to_apply", "calls")]
        names += re.findall(r"%([\w.-]+)", self.attribute("branch_computations"))
        return [name.lstrip("%") for name in names if name]

    @property
    def trips(self) -> int | None:
        """How often a loop's body runs; None where the compiler doesn't know."""
        found = re.search(r'"known_trip_count":\{"n":"(\d+)"', self.text)
        return int(found[1]) if found else None

    @cached_property
    def config(self) -> dict:
        """The backend's settings."""
        start = self.text.find("backend_config=")
        if start < 0:
            return {}
        try:
            return json.JSONDecoder().raw_decode(self.text[start + len("backend_config=") :])[0]
        except ValueError:
            return {}


@dataclass
class Computation:
    """Instructions in order."""

    name: str
    instructions: list[Instruction] = field(default_factory=list)

    @cached_property
    def by_name(self) -> dict[str, Instruction]:
        """The instructions by name."""
        return {i.name: i for i in self.instructions}

    @cached_property
    def users(self) -> dict[str, list[Instruction]]:
        """What reads each instruction's result."""
        users: dict[str, list[Instruction]] = {i.name: [] for i in self.instructions}
        for instruction in self.instructions:
            for operand in dict.fromkeys(instruction.operands):
                users.setdefault(operand, []).append(instruction)
        return users

    @property
    def root(self) -> Instruction:
        """What the computation returns."""
        return next((i for i in self.instructions if i.root), self.instructions[-1])

    def shape(self, name: str) -> Shape:
        """Returns the first shape of an instruction's result."""
        return self.by_name[name].shapes[0]


@dataclass
class Module:
    """A compiled program."""

    entry: Computation
    computations: dict[str, Computation]


_HEAD = re.compile(r"^(ENTRY )?%?([\w.-]+) \(.*\{$")
_LINE = re.compile(r"^\s+(ROOT )?%?([\w.-]+) = (.*)$")
_SHAPE = re.compile(r"(\w+)\[([\d,]*)\]")


def parse(text: str) -> Module:
    """Returns the program in `compiled.as_text()`."""
    computations: dict[str, Computation] = {}
    current, entry = None, None
    for line in text.splitlines():
        if current is None:
            if head := _HEAD.match(line):
                current = computations[head[2]] = Computation(head[2])
                entry = current if head[1] else entry
        elif line.startswith("}"):
            current = None
        elif found := _LINE.match(line):
            current.instructions.append(_parse_instruction(found[2], found[3], bool(found[1])))
    assert entry is not None, "no entry computation"
    return Module(entry, computations)


def _parse_instruction(name: str, rest: str, root: bool) -> Instruction:
    shape_end = _closing(rest, 0) if rest.startswith("(") else rest.index(" ")
    opcode_end = rest.index("(", shape_end)
    operands_end = _closing(rest, opcode_end)
    shapes = [
        Shape(dtype, tuple(int(n) for n in sizes.split(",") if n))
        for dtype, sizes in _SHAPE.findall(rest[:shape_end])
    ]
    inside = rest[opcode_end:operands_end]
    opcode = rest[shape_end:opcode_end].strip()
    operands = re.findall(r"%([\w.-]+)", inside)
    text = (inside + rest[operands_end:]) if opcode in ("parameter", "constant") else rest[operands_end:]
    return Instruction(name, shapes, opcode, operands, text, root)


def _closing(text: str, start: int) -> int:
    """Returns where the bracket that opens at `start` is closed, plus one."""
    depth = 0
    for i in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[i], 0)
        if depth == 0:
            return i + 1
    return len(text)
