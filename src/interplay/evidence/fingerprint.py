"""Which code a trial's numbers come from: a hash of the study and of all that it imports from the same package.

A finished trial is reused only when its fingerprint still fits. Comments, docstrings, formatting, claims and figures
change no number, so they do not count; neither does the harness. A package that exports names lazily does not count
either: the module behind each name does, for those that import it.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import inspect
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType

from interplay.evidence.study import Study

_HARNESS = "interplay.evidence"


def fingerprint(study: Study) -> str:
    """Twelve hexadecimal digits that change when code behind the study's trial changes."""
    module = inspect.getmodule(study.trial_function)
    digest = hashlib.sha256()
    for name, tree in sorted(_imported_with(module).items()):
        digest.update(name.encode())
        digest.update(ast.dump(tree).encode())
    return digest.hexdigest()[:12]


def _imported_with(module: ModuleType | None) -> dict[str, ast.Module]:
    """The module and everything that it imports, directly or not, from its own top-level package."""
    if module is None or not getattr(module, "__file__", None):
        return {}
    trees: dict[str, ast.Module] = {}
    waiting = {module.__name__}
    while waiting:
        name = waiting.pop()
        # A script's own module is called __main__, which cannot be looked up.
        path = module.__file__ if name == module.__name__ else _source(name)
        if path is None:
            waiting |= _lazily_exported(name) - set(trees)
            continue
        if name in trees or name.startswith(_HARNESS):
            continue
        trees[name] = _parse(path) if name != module.__name__ else _without_claims_and_figure(_parse(path))
        inside = f"{name}.__init__" if path.endswith("__init__.py") else name
        waiting |= _imports(trees[name], inside) - set(trees)
        if _is_lazy(trees[name]):
            trees[name] = ast.Module(body=[], type_ignores=[])
    return trees


@cache
def _parse(path: str) -> ast.Module:
    tree = ast.parse(Path(path).read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
            and ast.get_docstring(node, clean=False) is not None
        ):
            node.body = node.body[1:] or [ast.Pass()]
    return tree


@cache
def _source(name: str) -> str | None:
    """Path of a module's source, or None where the name is a class or function of a module."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, AttributeError, ValueError):
        return None
    return spec.origin if spec and spec.origin and spec.origin.endswith(".py") else None


def _imports(tree: ast.Module, module: str) -> set[str]:
    """Modules of the same top-level package that a module imports."""
    names: set[str] = set()
    for node in _executed(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parent = module.split(".")[: -node.level] if node.level else []
            source = ".".join([*parent, *([node.module] if node.module else [])])
            names |= {source} | {f"{source}.{alias.name}" for alias in node.names}
    own = {name for name in names if name.partition(".")[0] == module.partition(".")[0]}
    # Importing a.b.c runs a and a.b as well.
    return own | {name.rsplit(".", depth)[0] for name in own for depth in range(1, name.count(".") + 1)}


def _is_lazy(tree: ast.Module) -> bool:
    """Whether a package imports its public names when they are asked for: its text is then a list, and no number's."""
    return any(isinstance(node, ast.FunctionDef) and node.name == "__getattr__" for node in tree.body)


def _lazily_exported(name: str) -> set[str]:
    """The module that a name comes from where its package exports it lazily, as the type checker is told."""
    package, _, attribute = name.rpartition(".")
    path = _source(package) if package else None
    if path is None or not _is_lazy(_parse(path)):
        return set()
    for node in ast.walk(_parse(path)):
        if isinstance(node, ast.ImportFrom) and node.module and attribute in {alias.name for alias in node.names}:
            return {node.module}
    return set()


def _executed(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those that only a type checker reads."""
    yield node
    for child in ast.iter_child_nodes(node):
        if not (isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"):
            yield from _executed(child)


def _without_claims_and_figure(tree: ast.Module) -> ast.Module:
    kept = [node for node in tree.body if not (_is_figure(node) or _is_claim(node))]
    return ast.Module(body=kept, type_ignores=[])


def _is_figure(node: ast.stmt) -> bool:
    return isinstance(node, ast.FunctionDef) and any(
        isinstance(decorator, ast.Attribute) and decorator.attr == "figure" for decorator in node.decorator_list
    )


def _is_claim(node: ast.stmt) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Call)
        and isinstance(node.value.func, ast.Attribute)
        and node.value.func.attr == "claim"
    )
