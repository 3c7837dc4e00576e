"""An origin in Python (http.server, a thread per connection): ADDRESS PORT FOLDER. What README.md here asks of all three."""

import http.server
import os
import sys
import time

address, port, folder = sys.argv[1], int(sys.argv[2]), sys.argv[3]
record = open(folder + "/record", "a", buffering=1)
SMALL = open(folder + "/small", "rb").read()
BIG = open(folder + "/big", "rb").read()


def told(what):
    return os.path.exists(f"{folder}/{what}")


class Origin(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # One segment for an answer and one write for its head, as any server would.
    disable_nagle_algorithm = True
    wbufsize = -1

    def read_body(self):
        if self.headers.get("Transfer-Encoding") != "chunked":
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            return
        while length := int(self.rfile.readline(), 16):
            self.rfile.read(length + 2)
        self.rfile.readline()

    def answer(self):
        # Before the body: what is cut short was seen all the same.
        if self.command == "POST":
            record.write(f"{self.command} {self.path}\n")
        self.read_body()
        health = self.path == "/health"
        if told("maintaining"):
            return self.say(200, b"maintaining\n")
        if health:
            return self.say(200, b"healthy\n")
        if told("slow"):
            time.sleep(2)
        if told("error"):
            return self.say(500, b"error\n")
        self.say(200, BIG if self.path.startswith("/big") else SMALL)

    def say(self, status, body):
        self.send_response(status)
        self.send_header("Origin-Kind", "python")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    do_GET = do_PUT = do_POST = answer

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 1024

    def handle_error(self, *_):
        """Clients that leave are nothing to print."""


Server((address, port), Origin).serve_forever()
