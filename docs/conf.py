"""How the documentation is built: ``sphinx-build -W -n docs docs/_build``."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sphinx.pycode import ModuleAnalyzer

import trio_kprod

project = "trio_kprod"
project_copyright = "the authors of trio_kprod"
version = release = trio_kprod.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "trio_kprod"
html_static_path = ["_static"]
html_css_files = ["wide-tables.css"]

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

_ROOT = Path(__file__).parent.parent

# ``repo:PATH`` is a file of the project that is no page. Its address stands in one place, pyproject.toml.
_homepage = re.search('^Homepage = "([^"]+)"', (_ROOT / "pyproject.toml").read_text("utf-8"), re.MULTILINE)
assert _homepage
myst_url_schemes = {
    "http": None,
    "https": None,
    "repo": {"url": _homepage[1] + "/blob/main/{{path}}", "title": "{{path}}"},
}

# Docstrings write the names of this package in single backticks, and those of parameters too.
default_role = "py:obj"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
maximum_signature_line_length = 100  # longer ones have a line for each parameter
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False

maximum_signature_line_length = 100

nitpicky = True
# Documented elsewhere. No inventory of theirs is fetched: the build needs no network.
nitpick_ignore_regex = [
    (
        r"py:.*",
        r"(trio|logging|collections|typing|typing_extensions|types|ssl|socket|os|math)(\..*)?",
    ),
    (r"py:.*", r"(_contextvars|asyncio|builtins|kafka)(\..*)?"),
    (r"py:.*", r"(datadog|opentelemetry|prometheus_client|structlog)(\..*)?"),
    # Private ones that signatures name.
    (r"py:.*", r"(trio_kprod\.)?_\w+(\..*)?"),
    (r"py:.*", r"trio_kprod\.(testing|instruments)\._.*"),
    (
        r"py:.*",
        r"(Settings|Client|Host|Headers|Delivery|Intake|Tracking|Options|Address|Serializer|Sendable|[KV]_co|[A-Z]\w?)",
    ),
    (r"py:.*", r"(Any|Callable|Iterable|Sequence|Mapping|Literal|Unpack|TracebackType|Self|NoReturn)"),
]


def _as_text(_app: Any, _env: Any, node: Any, content: Any) -> Any:
    """What is single-backticked and no object of the package, such as a parameter, is code and no link."""
    return content if node.get("reftype") == "obj" else None


def _show_order_of_source(package: str, modules: Iterable[str]) -> None:
    """Public names say that they are of `package`; autodoc looks there for the order of their members."""
    shown = ModuleAnalyzer.for_module(package)
    shown.analyze()
    for name in modules:
        module = ModuleAnalyzer.for_module(name)
        module.analyze()
        shown.tagorder.update(module.tagorder)
        shown.attr_docs.update(module.attr_docs)


def setup(app: Any) -> None:
    for package in ("trio_kprod", "trio_kprod.testing"):
        public = importlib.import_module(package)
        private = [one.name for one in pkgutil.iter_modules(public.__path__, f"{package}.")]
        _show_order_of_source(package, [name for name in private if "._" in name])
    app.connect("missing-reference", _as_text)
