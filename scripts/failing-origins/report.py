"""What became of the requests of a failure, and where ringway sent them: the load's own count, and the access log."""

import collections
import datetime
import json

# An origin is left alone when nothing was sent there for so long; its share of the load comes every few milliseconds.
ALONE = 1.0
IDEMPOTENT = ("GET", "PUT")


class AccessLog:
    """Reads what was written since the last time."""

    def __init__(self, file):
        self.file, self.at = file, 0

    def read(self):
        with open(self.file, "rb") as log:
            log.seek(self.at)
            # The last line may be half written.
            whole, _, _ = log.read().rpartition(b"\n")
        self.at += len(whole) + 1
        return [json.loads(line) for line in whole.splitlines()]


def began(line):
    return datetime.datetime.fromisoformat(line["time"].replace("Z", "+00:00")).timestamp()


class Row:
    """One failure of one origin. `broken` and `mended` are when it failed and when that was over, `end` when the next one
    begins: requests that began in between are its own. `names` are what ringway calls the origin that fails, `names_after`
    what it calls the one that is mended: another, where it moved."""

    def __init__(self, failure, origin, broken):
        self.failure, self.origin, self.broken = failure, origin, broken
        self.mended = self.end = self.names = self.names_after = None

    def count(self, done, lines):
        """`done` are the load's requests, `lines` the access log's."""
        own = [d for d in done if self.broken <= d.began < self.end]
        idempotent = [d for d in own if d.method in IDEMPOTENT]
        self.requests = len(idempotent)
        self.what = collections.Counter(d.what for d in idempotent)
        self.failed = [d for d in own if d.what in ("error", "cut")]
        self.posts = sum(d.method == "POST" for d in own)
        self.posts_failed = sum(d.method == "POST" and d.what != "good" for d in own)
        took = sorted(d.took for d in idempotent)
        self.p99 = took[len(took) * 99 // 100] if took else 0
        self.worst = took[-1] if took else 0
        lines = [(t, line) for line in lines if self.broken <= (t := began(line)) < self.end]
        # One origin fails at a time: whatever took more than one attempt was at it.
        until = self.mended if self.names == self.names_after else self.end
        sent = sorted(t for t, l in lines if t < until and (l.get("endpoint") in self.names or l["attempts"] > 1))
        self.gone = next((t for t, after in zip([self.broken, *sent], [*sent, until]) if after - t >= ALONE), None)
        self.later = sum(self.gone is not None and t > self.gone for t in sent)
        good = (t for t, l in lines if l.get("endpoint") in self.names_after and l["attempts"] == 1 and l["status"] == 200)
        self.back = min((t for t in good if t >= self.mended), default=None)


HEAD = ["failure", "origin", "requests", "errors", "cut", "p99 ms", "worst ms", "alone s", "later", "back s", "POSTs lost"]


def cells(row):
    alone = "" if row.gone is None else f"{row.gone - row.broken:.2f}"
    back = "" if row.back is None else f"{row.back - row.mended:.2f}"
    return [row.failure, row.origin, row.requests, row.what["error"], row.what["cut"], f"{row.p99 * 1000:.0f}",
            f"{row.worst * 1000:.0f}", alone or "never", row.later, back or "never", f"{row.posts_failed}/{row.posts}"]


def table(rows):
    lines = [HEAD, *map(cells, rows)]
    widths = [max(len(str(line[n])) for line in lines) for n in range(len(HEAD))]
    for line in lines:
        fields = (str(c).ljust(w) if n < 2 else str(c).rjust(w) for n, (c, w) in enumerate(zip(line, widths)))
        yield "| " + " | ".join(fields) + " |"
        if line is HEAD:
            yield "|" + "|".join("-" * (w + 1) + ("-" if n < 2 else ":") for n, w in enumerate(widths)) + "|"


def seen_twice(origins):
    """POSTs of which more than one was seen, at one origin or at two."""
    seen = collections.Counter(name for origin in origins for name in origin.posts())
    return len(seen), [name for name, times in seen.items() if times > 1]


def sent_again(lines):
    """POSTs that ringway says it sent again after an origin had them: a second witness, for those that no origin wrote down."""
    after = {"timeout", "status", "hedge"}
    return [line["path"] for line in lines if line["method"] == "POST" and after & set(line.get("retries", []))]
