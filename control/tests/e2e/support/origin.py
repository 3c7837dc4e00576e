# An origin for control/tests/e2e/retry.rs: PORT FOLDER. Logs each whole request; files in the folder make it misbehave.
import http.server, os, socket, struct, sys

port, folder = int(sys.argv[1]), sys.argv[2]
log = open(folder + "/log", "a", buffering=1)


class Origin(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        log.write(f"{self.command} {self.path} {len(body)}\n")
        if os.path.exists(folder + "/reset"):
            self.close_connection = True
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return
        self.send_response(503 if os.path.exists(folder + "/busy") else 200)
        self.send_header("Content-Length", "3")
        self.end_headers()
        self.wfile.write(b"ok\n")

    do_GET = do_PUT = do_POST = answer

    def log_message(self, *_):
        pass


http.server.ThreadingHTTPServer(("127.0.0.1", port), Origin).serve_forever()
