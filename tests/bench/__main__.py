"""`make bench`: all networks against all tools; then docs/benchmarks.md is written.

Takes hours, and is continued where it was cut off; `python tests/bench --help` has the options.
"""

from __future__ import annotations

import sys

import vs_peers

if __name__ == "__main__":
    if "--write" not in sys.argv:
        sys.argv += ["--write", "docs/benchmarks.md"]
    vs_peers.main()
