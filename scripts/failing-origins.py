#!/usr/bin/env python3
"""Lets origins fail, one after the other and in every way, and counts what clients see of it through ringway.

    sudo scripts/failing-origins.py [--ringway target/release/ringway] [--rate 1200] [--only stop,drop] [--keep]

Needs nginx and Node beside Python 3.9 (Debian: nginx, nodejs); for the failures of the network root, iproute2 and nftables;
for the move to another address dnsmasq. What is missing is said, and what needs it skipped. Nothing outside of its own
namespaces (as root) or of the loopback (otherwise) is touched. It takes five minutes.

Three origins (nginx, Python's http.server, Node) stand behind a ringway with active checks, ejection, circuit breakers and
retries (`CONFIGURATION` in failing-origins/lab.py). Clients ask at a steady rate, mostly for small answers, now and then with
a POST (failing-origins/load.py). Each failure happens to each origin in turn: it lasts `--hold` seconds, is mended, and when
the origin answers again it is the next one's turn. "moved in DNS" is killed and started under another address, which dnsmasq then has for the name
that all three have in common. In the table, for each:

    requests    idempotent ones (GET, PUT) that began from the failure on until the next one
    errors      of them: any status but 200, or an exchange that broke before a byte of the answer
    cut         of them: broke after the answer had begun. Bytes that the client has cannot be taken back, so nothing can
                mend these; they are counted apart, and the total says what the share is with them
    p99, worst  of their times, from when they were due
    alone       seconds from the failure until ringway sent nothing there for a second
    later       attempts at it after that, until it was mended: trials of its breaker, and what a blind check let in again
    back        seconds from the mending until the origin answered a client
    POSTs lost  of those that were sent. A POST is never sent twice, so those that were at the origin then are lost

It holds if of 10,000 idempotent requests at most one is an error while an origin is well, which two always are, and no POST
arrived twice. Exit status: 0 if both hold, 1 if not, 2 if the load could not be kept up, so that nothing is shown.
"""

import argparse
import os
import platform
import shutil
import signal
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "failing-origins"))
import lab as laboratory
import report
from load import Load

# A failure's name, what does it, what mends it, and whether it takes a network of its own.
FAILURES = [
    ("killed", lambda o: o.kill(), lambda o: o.start(), False),
    ("stopped", lambda o: o.stop(), lambda o: o.go_on(), False),
    ("dropped by nft", lambda o: o.firewall("drop"), lambda o: o.open_firewall(), True),
    ("rejected by nft", lambda o: o.firewall("reject"), lambda o: o.open_firewall(), True),
    ("reset by nft", lambda o: o.firewall("reject with tcp reset"), lambda o: o.open_firewall(), True),
    ("answers after 2 s", lambda o: o.tell("slow"), lambda o: o.no_longer("slow"), False),
    ("8 kbit/s by tbf", lambda o: o.narrow(), lambda o: o.widen(), True),
    ("answers 500", lambda o: o.tell("error"), lambda o: o.no_longer("error"), False),
    ("says maintaining", lambda o: o.tell("maintaining"), lambda o: o.no_longer("maintaining"), False),
]
# Seconds that the load may be behind its rate.
BEHIND_MAX = 3.0
MOVED = ("moved in DNS", lambda o: o.move(), None, False)


def options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ringway", default="target/release/ringway", help="the binary")
    parser.add_argument("--rate", type=int, default=1200, help="requests a second")
    parser.add_argument("--hold", type=float, default=6.0, help="seconds that a failure lasts")
    parser.add_argument("--only", default="", help="failures whose names contain one of these words, with commas")
    parser.add_argument("--keep", action="store_true", help="leaves logs and records in their folder")
    return parser.parse_args()


def during(lab, load, log, failure, does, mends, hold):
    """One failure of each origin in turn, under load. Its rows, and the access log's lines."""
    rows = []
    load.start()
    time.sleep(1)
    for origin in lab.origins:
        if rows:
            rows[-1].end = time.time()
        rows.append(report.Row(failure, origin.kind, time.time()))
        rows[-1].names = rows[-1].names_after = lab.names(origin)
        does(origin)
        if mends:
            time.sleep(hold)
            # Before it is mended: a start takes its time.
            rows[-1].mended = time.time()
            mends(origin)
        else:
            # It is well already, elsewhere.
            rows[-1].mended = time.time()
            rows[-1].names_after = lab.names(origin)
            time.sleep(hold)
        before = load.answers[origin.kind]
        until = time.time() + 20
        while load.answers[origin.kind] < before + 50 and time.time() < until:
            time.sleep(0.05)
        time.sleep(1)
    rows[-1].end = time.time()
    done = load.stop()
    # The log is written by a thread of its own.
    time.sleep(0.5)
    lines = log.read()
    for row in rows:
        row.count(done, lines)
    return rows, lines


def main():
    asked = options()
    laboratory.needed()
    if not os.access(asked.ringway, os.X_OK):
        sys.exit(f"no {asked.ringway}: cargo build --release, or say --ringway PATH")
    why_no_network = laboratory.enter_namespaces()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    wanted = [word for word in asked.only.split(",") if word]
    if not any(word in failure for failure, *_ in [*FAILURES, MOVED] for word in wanted or [""]):
        sys.exit(f"no failure is called so; there are: {', '.join(failure for failure, *_ in [*FAILURES, MOVED])}")
    lab = laboratory.Lab(asked.ringway, network=why_no_network is None)
    rows, again, behind, serial = [], [], 0.0, 0
    try:
        print(f"{platform.release()}, {os.cpu_count()} CPUs, {asked.rate} requests/s; logs in {lab.folder}")
        edge = lab.start_ringway()
        log = report.AccessLog(lab.folder / "access.log")
        for failure, does, mends, takes_network in [*FAILURES, MOVED]:
            if not any(word in failure for word in wanted or [""]):
                continue
            if takes_network and why_no_network:
                print(f"skipped: {failure}: {why_no_network}")
                continue
            if not mends:
                if not shutil.which("dnsmasq"):
                    print(f"skipped: {failure}: no dnsmasq (Debian: dnsmasq-base)")
                    continue
                lab.start_dnsmasq()
                edge = lab.start_ringway(by_name=True)
            load = Load(edge, asked.rate, serial)
            new, lines = during(lab, load, log, failure, does, mends, asked.hold)
            serial, behind = load.serial, max(behind, load.behind)
            rows += new
            again += report.sent_again(lines)
            for row in new:
                for d in row.failed[:5]:
                    if d.method in report.IDEMPOTENT:
                        print(f"  {failure}, {row.origin}, {d.began - row.broken:.3f} s: {d.method} {d.path} {d.what}: {d.detail}")
            print(f"{failure}: {sum(row.requests for row in new)} requests, {sum(row.what['error'] for row in new)} errors",
                  flush=True)
            if lab.proxy.poll() is not None:
                asked.keep = True
                sys.exit(f"ringway ended by itself, with status {lab.proxy.returncode}: see {lab.folder}/ringway.log")
        posts, twice = report.seen_twice(lab.origins)
    finally:
        lab.close(asked.keep)
    print(*report.table(rows), sep="\n")
    verdict(rows, posts, twice, again, behind)


def verdict(rows, posts, twice, again, behind):
    requests = sum(row.requests for row in rows)
    errors, cut, pages = (sum(row.what[what] for row in rows) for what in ("error", "cut", "page"))
    each = 10_000 / max(requests, 1)
    print(f"{errors} errors of {requests} idempotent requests: {errors * each:.2f} of 10,000 (at most 1); with {cut} answers that"
          f" were cut {(errors + cut) * each:.2f}")
    print(f"{pages} pages that said maintaining with 200, before the checks saw them")
    print(f"{len(twice)} of {posts} POSTs were seen twice, {len(again)} were sent again after an origin had them (none may be)")
    for name in [*twice, *again][:10]:
        print(f"  {name}")
    if behind > BEHIND_MAX:
        print(f"the load was {behind:.1f} s behind: choose a lower --rate, or a machine that has nothing else to do")
        sys.exit(2)
    sys.exit(0 if errors * 10_000 <= requests and not twice and not again else 1)


if __name__ == "__main__":
    main()
