"""Sums what libFuzzer prints with -print_coverage=1: branches (edges) reached per file of the proxy."""
import collections
import re
import sys

files = collections.defaultdict(lambda: [0, 0])
for line in sys.stdin:
    found = re.match(r"(?:UN)?COVERED_FUNC: hits: \d+ edges: (\d+)/(\d+) .*?/src/((?:http|config)/\S+?\.rs):\d+", line)
    if found and int(found[2]) > 0:
        files[found[3]][0] += int(found[1])
        files[found[3]][1] += int(found[2])
for name, (reached, edges) in sorted(files.items()):
    print(f"{name}: {reached} of {edges} edges, {100 * reached // edges} %")
