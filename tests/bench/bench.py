#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The figures of the product, each against its bound, ratios side by side in one run.

usage: bench.py [--runs N] [--json FILE] [ROW...]

Every ratio compares with libfuse's passthrough_ll (option cache=always: its fastest) or with a
plain folder, on the same disk, the two taking turns; a figure is the median of the runs. The rows
are in rows_*.py.
"""

import argparse
import json
import os
import sys

from benchlib import ROWS, Bench
import rows_meta  # noqa: F401  each registers its rows
import rows_data  # noqa: F401
import rows_sync  # noqa: F401


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--runs", type=int, default=5, help="runs of each (default 5)")
    p.add_argument("--json", default="bench.json", help="where the figures go (default bench.json)")
    p.add_argument("rows", nargs="*", metavar="ROW", help="which: " + ", ".join(ROWS))
    o = p.parse_args()
    unknown = [r for r in o.rows if r not in ROWS]
    if unknown or o.runs < 1:
        p.error(f"no such row: {', '.join(unknown)}; there are {', '.join(ROWS)}"
                if unknown else "--runs takes a whole number from 1 on")
    bench = Bench(o.runs)
    for name in o.rows or ROWS:
        ROWS[name](bench)
    with open(o.json, "w") as f:
        json.dump({"runs": o.runs, "cpus": os.cpu_count(), "kernel": os.uname().release,
                   "rows": bench.rows}, f, indent=1)
        f.write("\n")
    missed = [r["name"] for r in bench.rows if not r["met"]]
    print(f"{len(bench.rows) - len(missed)} of {len(bench.rows)} bounds met; figures in {o.json}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
