"""``python -m tests.simulation FIRST [END]``: run one seed, or all from FIRST to before END."""

from __future__ import annotations

import sys
import traceback

from tests.simulation.run import fast_sealing, run


def main() -> None:
    first = int(sys.argv[1])
    end = int(sys.argv[2]) if len(sys.argv) > 2 else first + 1
    failed = 0
    with fast_sealing():
        for seed in range(first, end):
            try:
                run(seed)
            except Exception:
                failed += 1
                print(f"seed {seed}: {traceback.format_exc(limit=-3)}")
    print(f"{end - first} seeds, {failed} failed")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
