"""The clients: requests at a steady rate, however slow the answers, on keep-alive connections.

Of 40 requests one is a PUT with a body, one a POST whose body is sent whole, and one a POST whose body is sent in two parts,
100 ms apart, as chunks every other time: what fails in between was surely written in part. Of 200 one GET asks for 64 KiB.
All others are GETs of 1 KiB. Each has a name of its own; the answers' bodies are counted.
"""

import collections
import heapq
import select
import socket
import threading
import time

SMALL = 1024
BIG = 64 * 1024
# A client that waited so long has no answer.
PATIENCE = 12.0
PAUSE_IN_BODY = 0.1

# What became of a request. "error" is a status other than 200, or an exchange that broke before a byte of the answer came;
# "cut" broke after one; "page" is a 200 that says "maintaining".
Done = collections.namedtuple("Done", "began method path what took detail")


class Connection:
    __slots__ = ("socket", "out", "got", "request", "began", "later", "head", "left", "body", "status")

    def __init__(self, address):
        self.socket = socket.socket()
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.connect_ex(address)
        self.request = None
        self.out = b""


class Load(threading.Thread):
    """Runs until `stop`. `done` has what became of each request, `last` when an origin last answered 200 with what it should."""

    def __init__(self, address, rate, serial):
        super().__init__(daemon=True)
        self.address, self.rate, self.serial = address, rate, serial
        self.done, self.last, self.answers = [], {}, collections.Counter()
        # How late the latest request was begun, seconds: this process had no CPU then, or could not keep up.
        self.behind = 0.0
        self.stopping = False
        self.poll = select.epoll()
        self.connections, self.idle, self.timers = {}, [], []
        self.busy = 0

    def stop(self):
        self.stopping = True
        self.join()
        return self.done

    def run(self):
        due = time.time()
        overdue = due + 1
        while not self.stopping or self.busy:
            now = time.time()
            if not self.stopping:
                self.behind = max(self.behind, now - due)
            while now >= due and not self.stopping:
                self.begin(due)
                due += 1 / self.rate
            while self.timers and self.timers[0][0] <= now:
                _, _, connection, request = heapq.heappop(self.timers)
                if connection.request is request:
                    connection.out, connection.later = connection.out + connection.later, b""
                    self.send(connection)
            if now >= overdue:
                overdue = now + 1
                for connection in list(self.connections.values()):
                    if connection.request and now - connection.began > PATIENCE:
                        self.end(connection, "no answer")
            next_event = min(due, self.timers[0][0]) if self.timers else due
            for number, events in self.poll.poll(0.05 if self.stopping else max(0.001, next_event - time.time())):
                connection = self.connections.get(number)
                if connection and events & select.EPOLLOUT:
                    self.send(connection)
                if connection and events & ~select.EPOLLOUT:
                    self.receive(connection)
        for connection in list(self.connections.values()):
            self.close(connection)

    def begin(self, due):
        n = self.serial
        self.serial += 1
        kind, later, fields, body = n % 40, b"", "", b""
        if kind == 10:
            method, path, body = "POST", f"/post-{n}", b"p" * 600
        elif kind == 20:
            method, path, body, later = "POST", f"/post-{n}", b"p" * 600, b"p" * 600
        elif kind == 30:
            method, path, body = "PUT", f"/put-{n}", b"p" * 600
        else:
            method, path = "GET", f"/big-{n}" if n % 200 == 1 else f"/get-{n}"
        if later and n % 80 == 20:
            fields = "Transfer-Encoding: chunked\r\n"
            body, later = b"258\r\n" + body + b"\r\n", b"258\r\n" + later + b"\r\n0\r\n\r\n"
        elif body:
            fields = f"Content-Length: {len(body) + len(later)}\r\n"
        while self.idle:
            connection = self.idle.pop()
            if connection.socket.fileno() >= 0:
                break
        else:
            connection = Connection(self.address)
            self.connections[connection.socket.fileno()] = connection
            self.poll.register(connection.socket, select.EPOLLIN | select.EPOLLRDHUP)
        connection.request = request = (method, path)
        connection.began, connection.got, connection.head = due, b"", False
        connection.left, connection.body, connection.status = 0, b"", 0
        connection.later = later
        connection.out = f"{method} {path} HTTP/1.1\r\nHost: app\r\n{fields}\r\n".encode() + body
        if later:
            heapq.heappush(self.timers, (due + PAUSE_IN_BODY, n, connection, request))
        self.busy += 1
        self.send(connection)

    def send(self, connection):
        if not connection.out:
            return
        try:
            sent = connection.socket.send(connection.out)
            connection.out = connection.out[sent:]
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:
            # Its answer may have come all the same; the end of it will.
            connection.out = b""
        if connection.socket.fileno() >= 0:
            interest = select.EPOLLIN | (select.EPOLLOUT if connection.out else 0)
            self.poll.modify(connection.socket, interest)

    def receive(self, connection):
        try:
            got = connection.socket.recv(65536)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            return self.end(connection, error.strerror) if connection.request else self.close(connection)
        if not connection.request:
            # Its end, between two requests.
            return self.close(connection)
        if not got:
            return self.end(connection, "closed")
        connection.got += got
        if not connection.head and not self.read_head(connection):
            return
        connection.left -= len(connection.got)
        connection.body = connection.body or connection.got[:16]
        connection.got = b""
        if connection.left <= 0:
            self.finish(connection)

    def read_head(self, connection):
        head, end, rest = connection.got.partition(b"\r\n\r\n")
        if not end:
            return False
        lines = head.decode("latin-1").split("\r\n")
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        connection.status = int(lines[0].split(" ")[1])
        connection.head = fields
        connection.left = int(fields.get("content-length", 0))
        connection.got = rest
        return True

    def finish(self, connection):
        fields, path = connection.head, connection.request[1]
        expected = BIG if path.startswith("/big") else SMALL
        what = detail = ""
        if connection.status != 200:
            what, detail = "error", f"{connection.status} {fields.get('ringway-reason', '')}"
        elif connection.body.startswith(b"maintaining"):
            what = "page"
        elif connection.left < 0 or int(fields.get("content-length", 0)) != expected:
            what, detail = "error", "a body of another length"
        origin = fields.get("origin-kind")
        if not what and origin:
            self.last[origin] = connection.began
            self.answers[origin] += 1
        self.note(connection, what or "good", detail)
        # Answered before all of it was sent: the rest would have to follow before anything else could.
        if fields.get("connection", "").lower() == "close" or connection.out or connection.later:
            self.close(connection)
        else:
            self.idle.append(connection)

    def end(self, connection, why):
        """The exchange broke, or took too long."""
        began = connection.head or connection.got
        self.note(connection, "cut" if began else "error", f"{why} after {connection.status or 'nothing'}")
        self.close(connection)

    def note(self, connection, what, detail):
        method, path = connection.request
        self.done.append(Done(connection.began, method, path, what, time.time() - connection.began, detail))
        connection.request = None
        self.busy -= 1

    def close(self, connection):
        self.connections.pop(connection.socket.fileno(), None)
        connection.socket.close()
