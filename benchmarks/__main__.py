"""`make bench`: every benchmark in turn, each in a process of its own; their documents make docs/performance.md.

python -m benchmarks [--quick] [--only NAME ...] [--keep]
"""

import argparse
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BENCHMARKS = ("pass", "guests", "verify", "store", "agent", "cluster")
"""In the order of the page."""
RESULTS = ROOT / "benchmarks" / "results"
"""The documents of the last whole run, from which docs/performance.md is made."""
BUILD = ROOT / "build" / "bench"


def main() -> int:
    """Run them; the status is that of the worst."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that they work")
    parser.add_argument("--only", nargs="+", choices=BENCHMARKS, default=BENCHMARKS)
    parser.add_argument("--keep", action="store_true", help=f"write the documents to {RESULTS.relative_to(ROOT)}")
    given = parser.parse_args()
    worst = 0
    for name in given.only:
        print(f"\n== {name}", flush=True)
        target = (RESULTS if given.keep else BUILD) / f"{name}.json"
        command = [sys.executable, "-m", f"benchmarks.bench_{name}", "--json", str(target)]
        command += ["--quick"] if given.quick else []
        worst = max(worst, subprocess.run(command, cwd=ROOT, check=False).returncode)
    return worst


if __name__ == "__main__":
    sys.exit(main())
