#!/usr/bin/env python3
"""What an access log costs: CPU per request with one and without, of ringway, nginx and HAProxy beside each other.

    scripts/measure-access-log.py RINGWAY [--rounds 14] [--seconds 1] [--only ringway]

One shard, worker or thread each on the first CPU; wrk with 64 connections and an nginx as origin on the others, where ringway's log
thread is too. Each proxy runs twice, with a log and without, and all are up at once; a round asks each for a second, in another order
each time. CPU is that of all threads of the process (/proc/PID/task/*/schedstat). ringway and nginx write JSON, nginx through a
buffer of 64 KiB, HAProxy `option httplog`, all to files. Prints one JSON line: microseconds a request without and with, and the
ratios of the rounds.
"""

import argparse
import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time

NGINX = """
worker_processes 1; daemon off; pid %(folder)s/%(name)s.pid; error_log /dev/null;
events { worker_connections 4096; }
http {
  client_body_temp_path %(folder)s; proxy_temp_path %(folder)s; fastcgi_temp_path %(folder)s;
  uwsgi_temp_path %(folder)s; scgi_temp_path %(folder)s; keepalive_requests 100000000;
  %(http)s
}
"""
# What ringway's line says, as far as nginx knows it.
FORMAT = """
  log_format json escape=json '{"time":"$time_iso8601","request_id":"$request_id","listener":"edge","route":"all","cluster":"app",'
    '"endpoint":"$upstream_addr","client":"$remote_addr:$remote_port","method":"$request_method","host":"$host","path":"$uri",'
    '"query":"$args","user_agent":"$http_user_agent","referer":"$http_referer","version":"$server_protocol","status":$status,'
    '"request_length":$request_length,"response_body_bytes":$body_bytes_sent,"duration":$request_time,'
    '"connect":"$upstream_connect_time","response":"$upstream_header_time","transfer":"$upstream_response_time",'
    '"request_number":$connection_requests}';
"""


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def wait_for(port):
    for _ in range(200):
        with contextlib.suppress(OSError):
            return socket.create_connection(("127.0.0.1", port)).close()
        time.sleep(0.02)
    raise SystemExit(f"nothing listens on {port}")


def cpu_ns(pid):
    """Of the process and its children, all threads."""
    total = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        with contextlib.suppress(OSError):
            with open(f"/proc/{pid}/task/{task}/schedstat") as f:
                total += int(f.read().split()[0])
            with open(f"/proc/{pid}/task/{task}/children") as f:
                total += sum(cpu_ns(int(child)) for child in f.read().split())
    return total


class Machine:
    def __init__(self, folder):
        self.folder, self.processes = folder, []
        self.cpus = sorted(os.sched_getaffinity(0))

    def start(self, cpus, command, **more):
        pin = lambda: os.sched_setaffinity(0, cpus)
        process = subprocess.Popen(command, preexec_fn=pin, stderr=subprocess.DEVNULL, **more)
        self.processes.append(process)
        return process

    def write(self, name, text):
        with open(f"{self.folder}/{name}", "w") as f:
            f.write(text)
        return f.name

    def nginx(self, name, cpus, http):
        path = self.write(f"{name}.conf", NGINX % {"folder": self.folder, "name": name, "http": http})
        return self.start(cpus, [shutil.which("nginx") or "/usr/sbin/nginx", "-p", self.folder, "-c", path])


def ringway(machine, program, origin, log):
    written = f'[[access_log]]\nto = "file:{machine.folder}/ringway.log"\nformat = "json"\n' if log else ""
    path = machine.write(
        f"ringway-{log}.toml",
        '[runtime]\nshards = 1\n[log]\nlevel = "warn"\n[[listener]]\nname = "edge"\naddress = "127.0.0.1:0"\n'
        f'[[route]]\nname = "all"\ncluster = "app"\n[[cluster]]\nname = "app"\nendpoints = ["127.0.0.1:{origin}"]\n{written}',
    )
    process = machine.start(machine.cpus, [program, "run", "-c", path], stdout=subprocess.PIPE, text=True)
    ready = json.loads(process.stdout.readline())
    return process, int(ready["listeners"][0]["address"].rsplit(":", 1)[1])


def nginx(machine, _, origin, log):
    port = free_port()
    written = f"{FORMAT} access_log {machine.folder}/nginx.log json buffer=64k;" if log else "access_log off;"
    http = (
        f"upstream app {{ server 127.0.0.1:{origin}; keepalive 64; keepalive_requests 100000000; }} {written}"
        f"server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://app; proxy_http_version 1.1;"
        ' proxy_set_header Connection ""; } }'
    )
    return machine.nginx(f"proxy-{log}", machine.cpus[:1], http), port


def haproxy(machine, _, origin, log):
    port = free_port()
    path = machine.write(
        f"haproxy-{log}.cfg",
        f"global\n nbthread 1\n{' log stdout format raw local0' if log else ''}\ndefaults\n mode http\n http-reuse always\n"
        f"{' log global' if log else ''}\n {'option httplog' if log else ''}\n timeout connect 5s\n timeout client 60s\n"
        f" timeout server 60s\nfrontend edge\n bind 127.0.0.1:{port}\n default_backend app\nbackend app\n server o 127.0.0.1:{origin}\n",
    )
    with open(f"{machine.folder}/haproxy.log" if log else "/dev/null", "w") as out:
        return machine.start(machine.cpus[:1], [shutil.which("haproxy") or "/usr/sbin/haproxy", "-db", "-f", path], stdout=out), port


def round_of(machine, process, port, seconds):
    """Microseconds of CPU a request."""
    command = ["wrk", "-t1", "-c64", f"-d{seconds}", f"http://127.0.0.1:{port}/item?page=2"]
    before = cpu_ns(process.pid)
    wrk = machine.start(machine.cpus[1:], command, stdout=subprocess.PIPE, text=True)
    told, _ = wrk.communicate()
    # What still waits to be written is of this round.
    time.sleep(0.1)
    requests = int(re.search(r"(\d+) requests in", told).group(1))
    if "Non-2xx" in told or not requests:
        raise SystemExit(f"requests failed: {told}")
    return (cpu_ns(process.pid) - before) / 1000 / requests


def quartiles(values):
    values = sorted(values)
    at = lambda share: round(values[int((len(values) - 1) * share)], 3)
    return [at(0.25), at(0.5), at(0.75)]


def main():
    args = argparse.ArgumentParser()
    args.add_argument("ringway")
    args.add_argument("--rounds", type=int, default=14)
    args.add_argument("--seconds", type=int, default=1)
    args.add_argument("--only", default="ringway,nginx,haproxy")
    args = args.parse_args()
    folder = tempfile.mkdtemp(dir=os.environ.get("TMPDIR"))
    os.chmod(folder, 0o777)
    machine = Machine(folder)
    if len(machine.cpus) < 2:
        raise SystemExit("this needs two CPUs")
    try:
        origin = free_port()
        machine.nginx(
            "origin",
            machine.cpus[1:],
            f"access_log off; server {{ listen 127.0.0.1:{origin}; location / {{ return 200 hello; }} }}",
        )
        wait_for(origin)
        kinds = {"ringway": ringway, "nginx": nginx, "haproxy": haproxy}
        proxies = [(name, log, *kinds[name](machine, args.ringway, origin, log)) for name in args.only.split(",") for log in (0, 1)]
        costs = {(name, log): [] for name, log, _, _ in proxies}
        for *_, process, port in proxies:
            wait_for(port)
            round_of(machine, process, port, 1)
        for n in range(args.rounds):
            for name, log, process, port in proxies[n % len(proxies) :] + proxies[: n % len(proxies)]:
                costs[name, log].append(round_of(machine, process, port, args.seconds))
        result = {"rounds": args.rounds}
        for name in args.only.split(","):
            without, logged = costs[name, 0], costs[name, 1]
            ratios = [one / other for one, other in zip(logged, without)]
            result[name] = {"without_us": quartiles(without), "with_us": quartiles(logged), "ratio": quartiles(ratios)}
        print(json.dumps(result))
    finally:
        for process in machine.processes:
            process.terminate()
        for process in machine.processes:
            process.wait(10)
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
