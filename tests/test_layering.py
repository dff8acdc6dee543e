"""The shape of the package: imports go one way, kafka-python has what is used of it, functions stay small."""

from __future__ import annotations

import ast
import graphlib
import importlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

import trio_kprod

ROOT = Path(trio_kprod.__file__).parent

#: From the bottom to the top. A module may import what stands above it in this list, never what stands
#: below; those on one line belong together. A new module must be given its place.
LAYERS = [
    {"_kafka_python", "_version", "_messages", "_errors"},
    {"_speedups"},
    {"_counters"},
    {"_turns", "_waiting"},
    {"_instruments"},
    {"_settings"},
    {"_typing"},
    {"_core"},
    {"_client"},
    {"_intake", "_ledger", "_room", "_telling"},
    {"_buffer", "_demand", "_ending", "_outcomes", "_receipts"},
    {"_delivery"},
    {"_lifetime"},
    {"_producer"},
    {"__init__"},
    {"instruments"},
    {"_cli"},
    {"__main__"},
]

#: What is passed up to users names its type: a hook is given the producer.
TYPES_FROM_ABOVE = {"_instruments": {"_producer"}}

#: The same within the packages.
INNER_LAYERS = {
    "_settings": [
        {"_checks", "_problems"},
        {"_parse", "_security"},
        {"_options", "_other_clients"},
        {"_config"},
        {"_translate"},
        {"__init__"},
    ],
    "_client": [
        {"_troubles"},
        {"_transport"},
        {"_diagnosis", "_reasons"},
        {"_exchange"},
        {"_writer"},
        {"_sasl"},
        {"_handshake"},
        {"_connection"},
        {"_second_look"},
        {"_protocol"},
        {"_produce_codec"},
        {"_steps"},
        {"_endpoints"},
        {"_race"},
        {"_any_broker"},
        {"_brokers"},
        {"_probe"},
        {"_host"},
        {"_client"},
        {"__init__"},
    ],
    "instruments": [
        {"_common", "_prometheus_metrics"},
        {"logs", "opentelemetry", "prometheus", "statsd"},
        {"__init__"},
    ],
}

#: Packages of which others may import the face only, which is their `__init__`.
FACES = {"_settings", "_core", "_client"}

#: The only modules that may import kafka-python, and those that may do so inside of functions.
KAFKA_USERS = {
    "_client/_any_broker",
    "_client/_brokers",
    "_client/_handshake",
    "_client/_probe",
    "_client/_protocol",
    "_client/_sasl",
    "_core/_records",
    "_kafka_python",
}
KAFKA_USERS_WHEN_ASKED = {"_settings/_options", "_settings/_security"}

#: What the produce core does without: it is told what happened, and when.
NOT_IN_CORE = {"trio", "socket", "ssl", "select", "selectors", "threading", "time", "asyncio", "concurrent"}

LONGEST_FUNCTION = 50


def modules() -> dict[str, ast.Module]:
    """Every module of the package by its path without suffix, such as ``_core/_batch``."""
    return {
        path.relative_to(ROOT).with_suffix("").as_posix(): ast.parse(path.read_text("utf-8"), str(path))
        for path in sorted(ROOT.rglob("*.py"))
    }


MODULES = modules()


def imports(tree: ast.AST) -> Iterator[tuple[ast.Import | ast.ImportFrom, str, str]]:
    """Every import as (statement, module with its leading dots, imported name or "")."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = "." * node.level + (node.module or "")
            yield from ((node, source, alias.name) for alias in node.names)


def own_imports(module: str, tree: ast.AST) -> set[str]:
    """The modules of the package that this one imports, by their paths; type-only imports included."""
    found: set[str] = set()
    for _, source, name in imports(tree):
        if source == "trio_kprod" or source.startswith("trio_kprod."):
            base = source.split(".")[1:]
        elif source.startswith("."):
            dots = len(source) - len(source.lstrip("."))
            base = module.split("/")[:-1][: len(module.split("/")) - dots]
            base += [part for part in source.lstrip(".").split(".") if part]
        else:
            continue
        found.add(existing([*base, name]) or existing(base) or "/".join([*base, "?"]))
    return found - {module}


def existing(parts: list[str]) -> str | None:
    path = "/".join(part for part in parts if part)
    if path in MODULES:
        return path
    package = f"{path}/__init__" if path else "__init__"
    return package if package in MODULES else None


def layer(module: str) -> tuple[int, ...]:
    top, *inner = module.split("/")
    place = [number_of(top, LAYERS)]
    if top in INNER_LAYERS:
        place.append(number_of(inner[0], INNER_LAYERS[top]))
    return tuple(place)


def number_of(name: str, layers: Sequence[set[str]]) -> int:
    for number, names in enumerate(layers):
        if name in names:
            return number
    raise AssertionError(f"{name} has no place in the layers")


def is_testing(module: str) -> bool:
    return module.startswith("testing/")


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_one_way(module: str) -> None:
    """A module imports only modules of its own layer or below; `testing` may import all."""
    if is_testing(module):
        return
    upward = {other for other in own_imports(module, MODULES[module]) if layer(other) > layer(module)}
    assert upward <= TYPES_FROM_ABOVE.get(module, set())


@pytest.mark.parametrize("module", MODULES)
def test_packages_are_entered_by_their_face(module: str) -> None:
    """Outside of a package, only its `__init__` is imported."""
    own = module.split("/")[0]
    for other in own_imports(module, MODULES[module]):
        package, *inside = other.split("/")
        if package in FACES and package != own:
            assert inside == ["__init__"]


@pytest.mark.parametrize("module", MODULES)
def test_nothing_imports_testing(module: str) -> None:
    """`trio_kprod.testing` stands outside."""
    if not is_testing(module):
        assert not [other for other in own_imports(module, MODULES[module]) if is_testing(other)]


def test_imports_make_no_circle() -> None:
    """Not within a layer either, but for names that only annotations use."""
    graph = {name: own_imports(name, without_type_only(tree)) for name, tree in MODULES.items()}
    assert list(graphlib.TopologicalSorter(graph).static_order())


def without_type_only(tree: ast.Module) -> ast.Module:
    """The module without its ``if TYPE_CHECKING:`` blocks at the top level."""
    kept = [
        node
        for node in tree.body
        if not (isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"))
    ]
    return ast.Module(body=kept, type_ignores=[])


@pytest.mark.parametrize("module", [name for name in MODULES if name.startswith("_core/")])
def test_core_does_no_io(module: str) -> None:
    """The produce core has no sockets, no threads and no clock."""
    used = {source.split(".")[0] for _, source, _ in imports(MODULES[module])}
    assert not used & NOT_IN_CORE


# ---------------------------------------------------------------------------------------------------------
# kafka-python


def is_kafka(source: str) -> bool:
    return source == "kafka" or source.startswith("kafka.")


@pytest.mark.parametrize("module", MODULES)
def test_only_the_named_modules_import_kafka_python(module: str) -> None:
    """What depends on its version is in few places; settings ask it only when an option is about it."""
    if is_testing(module) or module in KAFKA_USERS:
        return
    users = [node for node, source, _ in imports(MODULES[module]) if is_kafka(source)]
    if module in KAFKA_USERS_WHEN_ASKED:
        users = [node for node in users if node.col_offset == 0]
    assert not [ast.unparse(node) for node in users]


def kafka_names() -> set[tuple[str, str]]:
    """Every (module, name) of kafka-python that the package uses: imported, or taken from a module."""
    found: set[tuple[str, str]] = set()
    for tree in MODULES.values():
        aliases: dict[str, str] = {}
        for node, source, name in imports(tree):
            if is_kafka(source):
                found.add((source, name))
                as_name = next(one.asname for one in node.names if one.name in (name, source))
                aliases[as_name or name or source] = f"{source}.{name}".rstrip(".")
        for used in ast.walk(tree):
            if isinstance(used, ast.Attribute) and ast.unparse(used.value) in aliases:
                found.add((aliases[ast.unparse(used.value)], used.attr))
    return found


def resolve(path: str) -> object:
    """A module, or what a module has, by its dotted path."""
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError:
        parent, _, name = path.rpartition(".")
        found: object = getattr(importlib.import_module(parent), name)
        return found


@pytest.mark.parametrize(("source", "name"), sorted(kafka_names()), ids="-".join)
def test_kafka_python_has(source: str, name: str) -> None:
    """Each thing of kafka-python that is used exists in the installed version."""
    owner = resolve(source)
    assert not name or hasattr(owner, name) or importlib.import_module(f"{source}.{name}")


# ---------------------------------------------------------------------------------------------------------
# Size


def functions() -> Iterator[tuple[str, int]]:
    """Every function of the package with its number of lines, without its docstring."""
    for module, tree in MODULES.items():
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                yield f"{module}:{node.name}", length(node)


def length(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    assert node.end_lineno is not None
    lines = node.end_lineno - node.lineno + 1
    if ast.get_docstring(node, clean=False) is not None:
        assert node.body[0].end_lineno is not None
        lines -= node.body[0].end_lineno - node.body[0].lineno + 1
    return lines


def test_no_function_is_longer_than_fifty_lines() -> None:
    """Not counting its docstring."""
    assert [(name, lines) for name, lines in functions() if lines > LONGEST_FUNCTION] == []
