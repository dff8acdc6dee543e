"""What the instruments need is optional."""

from __future__ import annotations

import subprocess
import sys

OPTIONAL = {"opentelemetry", "prometheus_client", "datadog", "structlog"}


def test_importing_the_package_imports_no_optional_library() -> None:
    """Nor does importing `trio_kprod.instruments`, and `logs` needs none of them."""
    code = "import sys, trio_kprod, trio_kprod.instruments.logs; print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not OPTIONAL & {name.partition(".")[0] for name in ran.stdout.split()}
