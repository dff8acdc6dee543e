"""The first import of kafka-python, without the warnings that this import alone causes.

kafka-python 3.0 reads its schemas with `importlib.resources.read_text` while it is imported. Python 3.11 and
3.12 warn of that function; 3.13 no longer does. So an import of this package would fail under ``-W error``.

This module is imported before every other one, so all schemas are loaded in here: a test shows that later
imports load none. The filters of `warnings` belong to the whole process. They are changed for this import
only, and only if it happens here; the new filter matches no other warning and no other module.
"""

from __future__ import annotations

import sys
import warnings

if sys.version_info[:2] in ((3, 11), (3, 12)) and "kafka" not in sys.modules:
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore",
            r"(read|open)_text is deprecated",
            DeprecationWarning,
            # `read_text` names its caller; it calls `open_text`, which names the module of both.
            module=r"kafka\.protocol\.schemas\.load_json|importlib\.resources\._legacy",
        )
        import kafka as kafka
