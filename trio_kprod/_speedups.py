"""The compiled parts, if they are there: chosen here, once, when the package is imported.

`trio_kprod_speedups` (``pip install 'trio_kprod[speedups]'``) is a distribution of its own. Nothing needs it.
All that it does stands in this package in Python as well, which is the reference.
"""

from __future__ import annotations

import importlib
import os
import warnings
from typing import Any, Final

from ._version import __version__

_NAME = "trio_kprod_speedups"


def find() -> Any:
    """The compiled module; None where it is not installed, is of another version or is not wanted.

    The environment variable ``TRIO_KPROD_PURE=1`` says that it is not wanted.
    """
    if os.environ.get("TRIO_KPROD_PURE") == "1":
        return None
    try:
        found = importlib.import_module(_NAME)
    except ImportError as error:
        if error.name != _NAME:
            _warn(f"it cannot be loaded: {error}")
        return None
    if found.__version__ != __version__:
        _warn(f"it is of version {found.__version__}, but trio_kprod of version {__version__}")
        return None
    return found


def _warn(reason: str) -> None:
    text = f"trio_kprod works without {_NAME}, which is installed, because {reason}"
    warnings.warn(text, RuntimeWarning, stacklevel=2)


#: The compiled module, or None where the Python is used.
compiled: Final = find()


def speedups_in_use() -> bool:
    """Whether the compiled parts of `trio_kprod_speedups` are at work, or else the Python."""
    return compiled is not None
