"""`make bad-input`: all cases. Exits 1 if an outcome is not the stated one, or if text of a note was said."""

from __future__ import annotations

import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tests.bad_input import families
from tests.bad_input.case import Verdict
from tests.bad_input.ground import lay

ENOUGH = 1000


def main(wanted: Sequence[str] = ()) -> int:
    """Print a line per family and per ill-handled case, then the sums. `wanted`: only these families."""
    began, n, ill, leaks = time.monotonic(), Counter[str](), list[Verdict](), list[Verdict]()
    with tempfile.TemporaryDirectory(prefix="bad-input-") as scratch:
        ground = lay(Path(scratch) / "ground")
        for family in families.FAMILIES:
            if wanted and family.__name__ not in wanted:
                continue
            for verdict in (case.judged(Path(scratch)) for case in family(ground)):
                n[family.__name__] += 1
                ill += [verdict] if verdict.fault else []
                leaks += [verdict] if verdict.leaks else []
                if verdict.fault or verdict.leaks:
                    said = repr(verdict.result.err.strip()[:300])
                    print(f"  {verdict.name}: {verdict.fault or 'leaks'}: {said}", flush=True)
            print(f"{family.__name__:20} {n[family.__name__]:5} cases  {time.monotonic() - began:5.0f} s", flush=True)
    took = f"{time.monotonic() - began:.0f} s, {time.process_time():.0f} of them on a core"
    print(f"cases {n.total()}, ill-handled {len(ill)}, leaks {len(leaks)} ({took})")
    if not wanted and n.total() < ENOUGH:
        print(f"fewer than {ENOUGH} cases")
    return int(bool(ill or leaks) or (not wanted and n.total() < ENOUGH))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
