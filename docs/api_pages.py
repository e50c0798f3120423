"""A page a room from the docstrings of its modules: what is public, and every setting with type, bounds and default.

The sources are read, not imported: pages are the same whatever is installed.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import typer

from tandemrec.cli import app
from tandemrec.report.leaderboard import table_of

BOUNDS = {
    "ge": "≥ {}",
    "gt": "> {}",
    "le": "≤ {}",
    "lt": "< {}",
    "min_length": "at least {} long",
    "max_length": "at most {} long",
    "pattern": "matches {}",
}
"""Arguments of `Field` → words."""

ORDER = (
    *("errors", "data", "recommender", "work", "evaluation", "training", "conventional", "llm", "selection"),
    *("augmentation", "aggregation", "report", "experiment", "doctor", "cli"),
)
"""The rooms, each before those that import it; rooms that are not named follow."""


@dataclass(frozen=True)
class Module:
    """A source file of a room."""

    path: Path
    name: str

    @cached_property
    def tree(self) -> ast.Module:
        """Its syntax tree."""
        return ast.parse(self.path.read_text(encoding="utf-8"))

    @cached_property
    def classes(self) -> list[ast.ClassDef]:
        """Public classes."""
        return [node for node in self.tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]

    @cached_property
    def aliases(self) -> dict[str, str]:
        """Name → the choices or the union that it stands for, of those assigned here."""
        found = {}
        for node in self.tree.body:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                value = node.value
                if isinstance(value, ast.Subscript) and ast.unparse(value.value) == "Annotated":
                    value = _arguments(value)[0]
                if isinstance(value, ast.BinOp | ast.Subscript):
                    found[node.targets[0].id] = ast.unparse(value)
        return found

    @cached_property
    def functions(self) -> list[ast.FunctionDef]:
        """Public functions."""
        return [node for node in self.tree.body if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")]


@dataclass(frozen=True)
class Package:
    """All modules, and what names of types stand for."""

    modules: dict[str, list[Module]]

    @classmethod
    def read(cls, root: Path) -> Package:
        """The modules below a folder, by room."""
        found: dict[str, list[Module]] = {}
        for path in sorted(root.rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            if parts[-1] == "__main__" or parts == ("__init__",):
                continue
            name = ".".join(part for part in parts if part != "__init__")
            found.setdefault(parts[0], []).append(Module(path, name))
        return cls(found)

    def aliases(self, node: ast.ClassDef) -> dict[str, str]:
        """Name → the choices or the union that it stands for where a class is written, own names and imported ones."""
        home = next(module for module in self.every if node in module.tree.body)
        found = {}
        for imported in home.tree.body:
            if isinstance(imported, ast.ImportFrom):
                source = next((module for module in self.every if f"tandemrec.{module.name}" == imported.module), None)
                names = {name.name for name in imported.names}
                found |= {name: text for name, text in (source.aliases if source else {}).items() if name in names}
        return found | home.aliases

    @cached_property
    def every(self) -> list[Module]:
        """The modules of all rooms."""
        return [module for several in self.modules.values() for module in several]

    @cached_property
    def definitions(self) -> dict[str, tuple[str, ast.ClassDef]]:
        """Name of a class → its room and itself."""
        return {
            node.name: (room, node)
            for room, several in self.modules.items()
            for module in several
            for node in module.tree.body
            if isinstance(node, ast.ClassDef)
        }

    @cached_property
    def configs(self) -> dict[str, str]:
        """Name of a class with settings → its room."""
        found = {"Config": "recommender"}
        while new := {
            name: room
            for name, (room, node) in self.definitions.items()
            if name not in found and any(base in found for base in _bases(node))
        }:
            found |= new
        return found

    def page(self, room: str) -> str:
        """What is public in a room."""
        modules = self.modules[room]
        heading = next((module for module in modules if module.path.name == "__init__.py"), modules[0])
        parts = [f"# {room}", _doc(heading.tree), "Written by `python docs/build.py` from the docstrings."]
        for module in modules:
            if module.classes or module.functions:
                parts += [f"## {module.name}", "" if module is heading else _doc(module.tree)]
                parts += [part for node in module.classes for part in self._class(node)]
                parts += [part for node in module.functions for part in _function(node)]
        return "\n\n".join(part for part in parts if part) + "\n"

    def _class(self, node: ast.ClassDef) -> Iterator[str]:
        yield f"### {node.name}"
        yield _doc(node)
        if node.name in self.configs:
            fields, elsewhere = self._settings(node)
            rows = [self._field(field, text, self.aliases(owner)) for owner, field, text in fields]
            if rows:
                yield table_of(["setting", "type", "default", "bounds", "meaning"], rows)
            if elsewhere:
                links = (f"[{base}]({self.configs[base]}.md#{base.lower()})" for base in elsewhere)
                yield f"Further settings: those of {' and '.join(links)}."
        methods = [f"- `{_signature(method)}`: {_sentence(method)}" for method in _methods(node)]
        if methods:
            yield "\n".join(methods)

    def _settings(self, node: ast.ClassDef) -> tuple[list[tuple[ast.ClassDef, ast.AnnAssign, str]], list[str]]:
        """Settings of a class and of its private bases, which have no section, each with the class that has it; and the
        bases that have a section.
        """
        fields = [(node, field, text) for field, text in _fields(node)]
        elsewhere: list[str] = []
        for base in _bases(node):
            if base not in self.configs or base == "Config":
                continue
            if not base.startswith("_"):
                elsewhere.append(base)
                continue
            more, others = self._settings(self.definitions[base][1])
            known = {ast.unparse(field.target) for _, field, _ in fields}
            fields += [one for one in more if ast.unparse(one[1].target) not in known]
            elsewhere += [other for other in others if other not in elsewhere]
        return fields, elsewhere

    def _field(self, field: ast.AnnAssign, text: str, aliases: Mapping[str, str]) -> list[str]:
        default, bounds = _default(field.value)
        assert isinstance(field.target, ast.Name)
        return [f"`{field.target.id}`", f"`{_type(field.annotation, aliases)}`", default, bounds, text]


def _type(annotation: ast.expr, aliases: Mapping[str, str]) -> str:
    """A type as it is written, with the choices in place of names that stand for some."""
    if isinstance(annotation, ast.Subscript) and ast.unparse(annotation.value) == "Annotated":
        annotation = _arguments(annotation)[0]
    text = ast.unparse(annotation)
    for name, value in aliases.items():
        if value.startswith("Literal"):
            text = re.sub(rf"\b{name}\b", lambda _, value=value: value, text)
    return aliases.get(text, text)


def _bases(node: ast.ClassDef) -> list[str]:
    """Names of a class's bases, without type arguments."""
    return [ast.unparse(base).partition("[")[0] for base in node.bases]


def api_pages(root: Path, folder: Path) -> dict[Path, str]:
    """Every page below `folder`: one a room, and one that lists them."""
    package = Package.read(root)
    rooms = sorted(package.modules, key=lambda room: (ORDER.index(room) if room in ORDER else len(ORDER), room))
    pages = {folder / f"{room}.md": commands() if room == "cli" else package.page(room) for room in rooms}
    rows = [[f"[{room}]({room}.md)", _first(package.modules[room])] for room in rooms]
    text = "A room imports only from rooms above it; docs/design.md says why. Written by `python docs/build.py`."
    pages[folder / "README.md"] = f"# Rooms\n\n{text}\n\n{table_of(['room', 'what it holds'], rows)}\n"
    return pages


def commands() -> str:
    """The verbs of the command line with their arguments and options."""
    parts = ["# cli", "The command `tandem`. Written by `python docs/build.py`."]
    for name, command in _leaves(typer.main.get_command(app), "tandem"):
        rows = []
        for one in command.params:
            if one.name != "help":
                shown = ", ".join(one.opts) if one.param_type_name == "option" else str(one.name).upper()
                default = "" if one.default is None or one.required else str(one.default)
                rows.append([f"`{shown}`", "required" if one.required else default, getattr(one, "help", None) or ""])
        parts += [
            f"## {name}",
            (command.help or "").strip(),
            table_of(["", "default", "meaning"], rows) if rows else "",
        ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _leaves(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Commands that are no groups, by what is typed."""
    if hasattr(command, "commands"):
        for word, other in command.commands.items():
            yield from _leaves(other, f"{name} {word}")
    else:
        yield name, command


def _first(modules: Sequence[Module]) -> str:
    heading = next((module for module in modules if module.path.name == "__init__.py"), modules[0])
    return _doc(heading.tree).partition("\n\n")[0].replace("\n", " ")


def _doc(node: ast.Module | ast.ClassDef | ast.FunctionDef) -> str:
    """A docstring; its sections become lists."""
    text = ast.get_docstring(node) or ""
    text = re.sub(r"^(Args|Attributes|Returns|Raises):$", r"\n\1:\n", text, flags=re.MULTILINE)
    return re.sub(r"^    (\S)", r"- \1", text, flags=re.MULTILINE).replace("\n\n\n", "\n\n").strip()


def _sentence(node: ast.FunctionDef) -> str:
    """The first paragraph of a docstring on one line."""
    return " ".join((ast.get_docstring(node) or "").partition("\n\n")[0].split())


def _function(node: ast.FunctionDef) -> list[str]:
    return [f"### {node.name}", f"```python\n{_signature(node)}\n```", _doc(node)]


def _signature(node: ast.FunctionDef) -> str:
    names = ["self", "cls"]
    arguments = ast.unparse(node.args)
    for name in names:
        arguments = arguments.removeprefix(name).removeprefix(", ")
    if any(ast.unparse(mark) in {"property", "cached_property"} for mark in node.decorator_list):
        return f"{node.name}: {ast.unparse(node.returns) if node.returns else 'Any'}"
    return f"{node.name}({arguments}) -> {ast.unparse(node.returns) if node.returns else 'None'}"


def _methods(node: ast.ClassDef) -> Iterator[ast.FunctionDef]:
    """Public methods with a docstring, but for checks of settings."""
    for method in node.body:
        if isinstance(method, ast.FunctionDef) and not method.name.startswith("_") and ast.get_docstring(method):
            yield method


def _fields(node: ast.ClassDef) -> Iterator[tuple[ast.AnnAssign, str]]:
    """Settings with the text below each."""
    for place, field in enumerate(node.body):
        if not isinstance(field, ast.AnnAssign) or not isinstance(field.target, ast.Name):
            continue
        if field.target.id.startswith("_") or ast.unparse(field.annotation).startswith("ClassVar"):
            continue
        below = node.body[place + 1] if place + 1 < len(node.body) else None
        documented = isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
        yield field, " ".join(str(below.value.value).split()) if documented else ""  # type: ignore[union-attr]


def _default(value: ast.expr | None) -> tuple[str, str]:
    """The default of a setting and its bounds."""
    if value is None:
        return "required", ""
    if not (isinstance(value, ast.Call) and ast.unparse(value.func) == "Field"):
        return _code(value), ""
    named = {keyword.arg: keyword.value for keyword in value.keywords if keyword.arg}
    factory = named.get("default_factory")
    default = _code(value.args[0]) if value.args else "required"
    if factory is not None:
        default = {"dict": "`{}`", "list": "`[]`"}.get(ast.unparse(factory), _code(factory))
    bounds = [BOUNDS[name].format(ast.unparse(bound)) for name, bound in named.items() if name in BOUNDS]
    return default, ", ".join(bounds)


def _code(value: ast.expr) -> str:
    text = ast.unparse(value)
    return "required" if text == "..." else f"`{text}`"


def _arguments(node: ast.Subscript) -> list[ast.expr]:
    return list(node.slice.elts) if isinstance(node.slice, ast.Tuple) else [node.slice]
