#!/usr/bin/env python3
"""CPU per request of ringway and nginx as reverse proxies: same origin, same load, runs in alternation.

Each proxy has one shard or worker, pinned to the second CPU that this process may use; the origin (nginx, `return 200`)
and the load (wrk) share the first.
CPU is what the kernel charged to every thread of the proxy (/proc/PID/task/*/schedstat, nanoseconds). Each round runs
nginx, ringway, ringway, nginx; the two nginx runs of a round, compared with each other, tell how far the machine can be
believed. Prints Markdown for docs/performance.md; progress goes to stderr.
"""

import argparse
import glob
import json
import os
import platform
import re
import select
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time

CONNECTIONS = 64
WARM_SECONDS = 1
LOAD_CPU, PROXY_CPU = (sorted(os.sched_getaffinity(0)) + [None, None])[:2]

NGINX_COMMON = """
daemon off; worker_processes 1; user root; pid {dir}/{name}.pid; error_log /dev/null crit;
worker_rlimit_nofile 65536;
events {{ use epoll; worker_connections 8192; multi_accept off; accept_mutex off; }}
http {{
  access_log off; server_tokens off; tcp_nodelay on;
  keepalive_timeout 3600s; keepalive_requests 1000000000; keepalive_time 24h;
  client_body_temp_path {dir}/{name}-body; proxy_temp_path {dir}/{name}-proxy;
  fastcgi_temp_path {dir}/{name}-f; uwsgi_temp_path {dir}/{name}-u; scgi_temp_path {dir}/{name}-s;
  {http}
}}
"""
NGINX_ORIGIN = 'server {{ listen 127.0.0.1:{port} backlog=4096; location / {{ return 200 "{body}"; }} }}'
# The same fields that ringway adds by default, so that both write the same head.
NGINX_PROXY = """
  upstream origin {{ server 127.0.0.1:{origin} max_fails=0;
    keepalive 1024; keepalive_requests 1000000000; keepalive_time 24h; keepalive_timeout 3600s; }}
  server {{ listen 127.0.0.1:{port} reuseport backlog=4096;
    location / {{ proxy_pass http://origin; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_set_header Host $http_host; proxy_set_header X-Forwarded-For $remote_addr;
      proxy_set_header X-Forwarded-Proto $scheme; proxy_set_header X-Forwarded-Host $http_host;
      proxy_set_header Via "1.1 compare"; add_header Via "1.1 compare"; proxy_buffer_size 8k; proxy_buffers 8 8k;
      proxy_request_buffering off; proxy_next_upstream off; }} }}
"""
RINGWAY = """
[runtime]
shards = 1
node = "compare"
[[listener]]
name = "edge"
address = "127.0.0.1:0"
protocol = "http"
cluster = "origin"
[[cluster]]
name = "origin"
endpoints = ["127.0.0.1:{origin}"]
pool = {{ idle = 1024 }}
"""


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_for(port, seconds=5):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=0.2).close()
            return
        except OSError:
            select.select([], [], [], 0.02)
    sys.exit(f"nothing listens on port {port}")


class Proxy:
    """A started process tree; ends with the `with` block."""

    def __init__(self, command, cpu, port=None):
        self.process = subprocess.Popen(["taskset", "-c", str(cpu), *command], stdin=subprocess.DEVNULL,
                                        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self.port = port

    def __enter__(self):
        if self.port is None:
            if not select.select([self.process.stdout], [], [], 10)[0]:
                self.stop()
                sys.exit("ringway printed no ready line within 10 s")
            line = self.process.stdout.readline()
            if not line:
                sys.exit(f"ringway ended with {self.process.wait()}")
            self.port = int(json.loads(line)["listeners"][0]["address"].rsplit(":", 1)[1])
        wait_for(self.port)
        return self

    def __exit__(self, *_):
        self.stop()

    def pids(self):
        pid = self.process.pid
        with open(f"/proc/{pid}/task/{pid}/children") as f:
            return [pid, *map(int, f.read().split())]

    def stop(self):
        pids = self.pids()
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            for pid in pids:
                try:
                    os.kill(pid, 9)
                except ProcessLookupError:
                    pass
            self.process.wait(5)

    def cpu(self):
        """Nanoseconds on a CPU, of every thread, io_uring's kernel workers included."""
        total = 0
        for pid in self.pids():
            for path in glob.glob(f"/proc/{pid}/task/*/schedstat"):
                with open(path) as f:
                    total += int(f.read().split()[0])
        return total

    def ticks(self):
        """(user, system) clock ticks: coarse, for the split only."""
        user = system = 0
        for pid in self.pids():
            with open(f"/proc/{pid}/stat") as f:
                fields = f.read().rsplit(")", 1)[1].split()
            user, system = user + int(fields[11]), system + int(fields[12])
        return user, system


def steal():
    with open("/proc/stat") as f:
        fields = next(line for line in f if line.startswith(f"cpu{PROXY_CPU} ")).split()[1:]
    return int(fields[7]), sum(map(int, fields[:8]))


def load(port, seconds):
    out = subprocess.run(["taskset", "-c", str(LOAD_CPU), "wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s",
                          f"http://127.0.0.1:{port}/"], capture_output=True, text=True, timeout=seconds + 30).stdout
    done = re.search(r"(\d+) requests in", out)
    if not done or "Socket errors" in out or "Non-2xx" in out:
        sys.exit(f"the load met errors, so the run is void:\n{out}")
    return int(done.group(1))


def run(name, start, seconds):
    with start() as proxy:
        load(proxy.port, WARM_SECONDS)
        cpu, ticks, stolen = proxy.cpu(), proxy.ticks(), steal()
        requests = load(proxy.port, seconds)
        cpu, ticks2, stolen2 = proxy.cpu() - cpu, proxy.ticks(), steal()
    user, system = ticks2[0] - ticks[0], ticks2[1] - ticks[1]
    result = {"us": cpu / 1000 / requests, "rps": requests / seconds, "user": user / max(1, user + system),
              "steal": (stolen2[0] - stolen[0]) / max(1, stolen2[1] - stolen[1])}
    print(f"{name:8} {result['us']:6.2f} us/request {result['rps']:9.0f}/s", file=sys.stderr)
    return result


def text(command):
    done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    return (done.stdout + done.stderr).strip().splitlines()[0]


def machine(binary):
    with open("/proc/cpuinfo") as f:
        model = next((l.split(":", 1)[1].strip() for l in f if l.startswith("model name")), "unknown")
    yield "kernel", platform.release()
    yield "CPU", f"{model}, {os.cpu_count()} visible"
    yield "nginx", text(["nginx", "-v"]).split("/", 1)[-1]
    yield "wrk", text(["wrk", "-v"]).split(" [")[0]
    yield "ringway", text([binary, "--version"]) if binary else "not run: nginx against itself"
    yield "date", time.strftime("%Y-%m-%d", time.gmtime())


def span(values, digits=2):
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} - {max(values):.{digits}f})"


def report(args, rounds, binary):
    a = [r for one in rounds for r in (one[0], one[3])]
    b = [r for one in rounds for r in (one[1], one[2])]
    ratios = [(o[1]["us"] + o[2]["us"]) / (o[0]["us"] + o[3]["us"]) for o in rounds]
    same = [o[3]["us"] / o[0]["us"] for o in rounds]
    print(f"{len(rounds)} rounds of nginx, ringway, ringway, nginx, {args.seconds} s each after {WARM_SECONDS} s of "
          f"warm-up; {CONNECTIONS} keep-alive connections, a response body of {args.body} bytes, keep-alive upstream, "
          "no access log, one shard or worker on a CPU of its own, origin and load on another. Median (least - most).\n")
    print("| proxy | µs CPU per request | of it in user space | requests per second |\n|---|---|---|---|")
    for name, runs in (("nginx", a), ("ringway" if binary else "nginx again", b)):
        print(f"| {name} | {span([r['us'] for r in runs])} | {statistics.median(r['user'] for r in runs):.0%} "
              f"| {span([r['rps'] for r in runs], 0)} |")
    print(f"\nRatio ringway / nginx per round: **{span(ratios, 3)}**; below 1 ringway needs less. "
          f"The same binary against itself (second nginx run / first): {span(same, 3)}.")
    worst = max(r["steal"] for r in a + b)
    if abs(statistics.median(same) - 1) > 0.02 or worst > 0.01:
        print(f"\n**Void**: the machine was not steady: itself against itself is off by more than 2 %, or steal "
              f"({worst:.1%} at worst) was above 1 %.")
    print("\n| fact | value |\n|---|---|")
    for fact, value in machine(binary):
        print(f"| {fact} | {value} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ringway", default="target/release/ringway", help="the binary to measure")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=int, default=10, help="of each run")
    parser.add_argument("--body", type=int, default=128, help="bytes of the origin's response body")
    parser.add_argument("--itself", action="store_true", help="nginx in both places: what the method can resolve")
    args = parser.parse_args()
    binary = None if args.itself else args.ringway
    for tool in ["nginx", "wrk", "taskset", *filter(None, [binary])]:
        if not shutil.which(tool):
            sys.exit(f"{tool} is missing")
    if PROXY_CPU is None:
        sys.exit("needs two CPUs: one for the proxy, one for origin and load")

    with tempfile.TemporaryDirectory() as folder:
        def nginx(name, cpu, port, http):
            path = f"{folder}/{name}.conf"
            with open(path, "w") as f:
                f.write(NGINX_COMMON.format(dir=folder, name=name, http=http))
            return Proxy(["nginx", "-c", path, "-e", "/dev/null"], cpu, port)

        origin_port = free_port()
        with nginx("origin", LOAD_CPU, origin_port, NGINX_ORIGIN.format(port=origin_port, body="x" * args.body)):
            def start_nginx():
                port = free_port()
                return nginx("proxy", PROXY_CPU, port, NGINX_PROXY.format(port=port, origin=origin_port))

            def start_ringway():
                path = f"{folder}/ringway.toml"
                with open(path, "w") as f:
                    f.write(RINGWAY.format(origin=origin_port))
                return Proxy([binary, "run", "-c", path], PROXY_CPU)

            other = ("ringway", start_ringway) if binary else ("itself", start_nginx)
            order = [("nginx", start_nginx), other, other, ("nginx", start_nginx)]
            rounds = [[run(name, start, args.seconds) for name, start in order] for _ in range(args.rounds)]
    report(args, rounds, binary)


if __name__ == "__main__":
    main()
