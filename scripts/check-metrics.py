#!/usr/bin/env python3
"""Parses what /metrics says with the Prometheus project's own parsers (pip install prometheus-client), in both formats, and
compares them; prints how many families and samples there are, how many bytes, and how long a scrape takes.

usage: check-metrics.py HOST:PORT [SCRAPES]   the admin address of a process that nobody uses meanwhile
"""

import sys
import time
import urllib.request

from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_prometheus

OPEN = "application/openmetrics-text;version=1.0.0"
# What a scrape itself, or time, changes.
MOVES = {"ringway_shard_turns_total", "process_open_fds", "process_cpu_seconds_total", "process_resident_memory_bytes",
         "process_virtual_memory_bytes"}


def scrape(address, accept):
    request = urllib.request.Request(f"http://{address}/metrics", headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=30) as response:
        return response.headers["Content-Type"], response.read().decode()


def samples(families):
    found = {}
    for family in families:
        assert family.documentation and family.type != "unknown", family.name
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in found, key
            found[key] = sample.value
    return found


def main():
    address, scrapes = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 20
    kind, text = scrape(address, "text/plain")
    assert kind.startswith("text/plain; version=0.0.4"), kind
    families = list(parse_prometheus(text))
    plain = samples(families)
    kind, text_open = scrape(address, OPEN)
    assert kind.startswith(OPEN.replace(";", "; ")), kind
    strict = samples(parse_openmetrics(text_open))
    still = lambda found: {key: value for key, value in found.items() if key[0] not in MOVES}
    assert still(plain) == still(strict), "the two formats differ"
    took = []
    for _ in range(scrapes):
        began = time.perf_counter()
        scrape(address, OPEN)
        took.append((time.perf_counter() - began) * 1000)
    took.sort()
    print(f"{len(families)} families, {len(plain)} samples, {len(text)} bytes")
    print(f"a scrape takes {took[len(took) // 2]:.2f} ms at the median, {took[-1]:.2f} ms at most, of {scrapes}")


if __name__ == "__main__":
    main()
