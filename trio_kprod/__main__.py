"""``python -m trio_kprod``."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; say what to install where it lacks something."""
    try:
        from ._cli import main as command
    except ModuleNotFoundError as error:
        if error.name not in ("click", "tqdm"):
            raise
        print(f"the command line needs {error.name}: pip install 'trio_kprod[cli]'", file=sys.stderr)
        sys.exit(2)
    command()


if __name__ == "__main__":
    main()
