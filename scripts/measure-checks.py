#!/usr/bin/env python3
"""What active checks of many endpoints cost the control thread, and how soon the admin API answers beside them.

    scripts/measure-checks.py RINGWAY --endpoints 10000 --kind http

Endpoints are addresses of 127.0.0.0/8, half of them at one nginx and half at another, in one cluster. Once all were
checked: the time of every thread that is no shard, then the longest of 100 requests of each kind, then the same once more
from the moment at which the second nginx is killed, and how long it took until the last endpoint was known to be down.
Prints one JSON line. The machine should have nothing else to do.
"""

import argparse
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

NGINX = """worker_processes 1; daemon off; error_log stderr crit; pid {dir}/{port}.pid;
events {{ worker_connections 15000; }} worker_rlimit_nofile 16000;
http {{ access_log off; keepalive_timeout 600; keepalive_requests 1000000000;
 client_body_temp_path {dir}/b; proxy_temp_path {dir}/p; fastcgi_temp_path {dir}/f; uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;
 server {{ listen 0.0.0.0:{port} backlog=16384; location / {{ return 200 "healthy\\n"; }} }} }}
"""
CLUSTER = """[admin]
address = "127.0.0.1:0"
[[listener]]
name = "edge"
address = "127.0.0.1:0"
cluster = "app"
[[cluster]]
name = "app"
endpoints = [{endpoints}]
[cluster.health]
interval = "{interval}"
timeout = "1s"
fall = 2
{kind}
"""
KINDS = {
    "tcp": 'kind = "tcp"',
    "http": 'kind = "http"\npath = "/health"\nexpect_body = { contains = "healthy" }',
    "http-close": 'kind = "http"\npath = "/health"\nexpect_body = { contains = "healthy" }\nheaders = { connection = "close" }',
}


def free_port():
    with socket.socket() as s:
        s.bind(("0.0.0.0", 0))
        return s.getsockname()[1]


def origin(folder, port):
    path = f"{folder}/{port}.conf"
    with open(path, "w") as f:
        f.write(NGINX.format(dir=folder, port=port))
    process = subprocess.Popen(["nginx", "-c", path, "-e", "stderr"], start_new_session=True)
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return process
        except OSError:
            if process.poll() is not None:
                sys.exit("nginx did not start")
            time.sleep(0.01)


def kill(process):
    """With its worker: at once, so that everything is refused from now on."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def cpu(pid):
    """Nanoseconds on a CPU, by thread that is no shard."""
    times = {}
    for thread in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{thread}/comm") as f:
            name = f.read().strip()
        if not name.startswith("shard-"):
            with open(f"/proc/{pid}/task/{thread}/schedstat") as f:
                times[f"{name}/{thread}"] = int(f.read().split()[0])
    return times


def share(pid, seconds):
    """Of one core, in percent."""
    before, began = cpu(pid), time.monotonic()
    time.sleep(seconds)
    after, took = cpu(pid), time.monotonic() - began
    return {name.split("/")[0]: round((after[name] - before.get(name, 0)) / took / 1e7, 2) for name in after}


def get(port, path):
    began = time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("GET", path)
    response = connection.getresponse()
    body = response.read()
    connection.close()
    assert response.status == 200, (path, response.status)
    return (time.monotonic() - began) * 1000, body


def status(ringway, port):
    began = time.monotonic()
    subprocess.run([ringway, "status", "--admin", f"127.0.0.1:{port}"], check=True, stdout=subprocess.DEVNULL)
    return (time.monotonic() - began) * 1000


def ask(ringway, port, times, paths):
    """Milliseconds: median and longest, by question."""
    found = {}
    for path in paths:
        one = (lambda: status(ringway, port)) if path == "ringway status" else (lambda: get(port, path)[0])
        all_of_it = sorted(one() for _ in range(times))
        found[path] = [round(all_of_it[len(all_of_it) // 2], 1), round(all_of_it[-1], 1)]
    return found


def main():
    args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    args.add_argument("ringway")
    args.add_argument("--endpoints", type=int, default=2000)
    args.add_argument("--kind", choices=KINDS, default="http")
    args.add_argument("--interval", type=int, default=2, help="seconds")
    args.add_argument("--seconds", type=int, default=20, help="of the thread's time")
    args.add_argument("--requests", type=int, default=100, help="of each kind; 0 leaves out all behind the thread's time")
    args = args.parse_args()
    paths = ["/live", "/v1/clusters/app", "/v1/clusters", "ringway status"]
    with tempfile.TemporaryDirectory() as folder:
        ports = [free_port(), free_port()]
        origins = [origin(folder, port) for port in ports]
        names = [f'"127.{1 + n // 62500}.{n // 250 % 250}.{1 + n % 250}:{ports[n % 2]}"' for n in range(args.endpoints)]
        config = CLUSTER.format(endpoints=", ".join(names), interval=f"{args.interval}s", kind=KINDS[args.kind])
        with open(f"{folder}/ringway.toml", "w") as f:
            f.write(config)
        command = [args.ringway, "run", "-c", f"{folder}/ringway.toml"]
        proxy = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            ready = json.loads(proxy.stdout.readline())
            port = int(ready["admin"].rsplit(":", 1)[1])
            downs, others = [], []

            def listen():
                for line in proxy.stderr:
                    if " is DOWN" in line:
                        downs.append(time.monotonic())
                    else:
                        others.append(line.strip())

            threading.Thread(target=listen, daemon=True).start()
            time.sleep(2 * args.interval + 1)
            result = {"endpoints": args.endpoints, "kind": args.kind, "cpu_percent": share(proxy.pid, args.seconds)}
            with open(f"/proc/{proxy.pid}/status") as f:
                result["resident_mb"] = next(int(line.split()[1]) // 1024 for line in f if line.startswith("VmRSS"))
            result["descriptors"] = len(os.listdir(f"/proc/{proxy.pid}/fd"))
            if args.requests:
                result["ms"] = ask(args.ringway, port, args.requests, paths)
                before = sum(cpu(proxy.pid).values())
                killed = time.monotonic()
                kill(origins.pop())
                # In turns, so that each kind meets the whole of it.
                found = {path: [] for path in paths}
                while len(downs) < args.endpoints // 2 or len(found[paths[0]]) < args.requests:
                    for path in paths:
                        [(_, ms)] = ask(args.ringway, port, 1, [path]).values()
                        found[path].append(ms)
                    if time.monotonic() - killed > 60:
                        break
                result["ms_while_half_go_down"] = {p: [sorted(ms)[len(ms) // 2], max(ms), len(ms)] for p, ms in found.items()}
                result["down"] = len(downs)
                if downs:
                    result["last_down_after_s"] = round(downs[-1] - killed, 2)
                result["cpu_ms_since"] = (sum(cpu(proxy.pid).values()) - before) // 1_000_000
            result["other_lines"] = others[:5]
            print(json.dumps(result))
        finally:
            proxy.kill()
            proxy.wait()
            for process in origins:
                kill(process)


main()
