#!/usr/bin/env python3
"""What reloads cost: memory and descriptors over hundreds of them with thousands of tunnels open, or the time of one with many
routes and what requests notice of it.

    scripts/measure-reloads.py RINGWAY --tunnels 4000 --reloads 500
    scripts/measure-reloads.py RINGWAY --routes 10000 --reloads 20 [--shards 2]
    scripts/measure-reloads.py RINGWAY --routes 10000 --reloads 20 --pinned

Each reload changes a listener, a cluster and a route by name, so that old ones go and new ones come. Tunnels echo a byte
before the first reload and after the last. Ids that are gone rest for half a minute, so memory grows for as long if there are
tens of reloads a second, and no longer. With --routes, one route among many changes each time, and one client, a process of its own, asks all
along: a second in which a reload begins, a second without in turn, and its latencies are printed for both. With --pinned there is one
shard, on the first CPU, where the client is too, and where control may not be; all else has the other CPUs. Prints one JSON line.
"""

import argparse
import gc
import json
import multiprocessing
import os
import resource
import selectors
import socket
import subprocess
import sys
import tempfile
import threading
import time


def echo(listener):
    """Echoes on every connection, in one thread."""
    ready = selectors.DefaultSelector()
    ready.register(listener, selectors.EVENT_READ)
    while True:
        for key, _ in ready.select():
            if key.fileobj is listener:
                conn, _ = listener.accept()
                conn.setblocking(False)
                ready.register(conn, selectors.EVENT_READ)
                continue
            try:
                data = key.fileobj.recv(4096)
            except OSError:
                data = b""
            if data:
                key.fileobj.send(data)
            else:
                ready.unregister(key.fileobj)
                key.fileobj.close()


def configuration(n, at, routes, shards=2):
    text = [
        f"[runtime]\nshards = {shards}\n[admin]\naddress = \"127.0.0.1:0\"\n[log]\nlevel = \"warn\"\n",
        '[[listener]]\nname = "tunnels"\nprotocol = "tcp"\naddress = "127.0.0.1:0"\ncluster = "echo"\n',
        '[[listener]]\nname = "edge"\naddress = "127.0.0.1:0"\n',
        f'[[cluster]]\nname = "echo"\nendpoints = ["{at}"]\n',
    ]
    if routes:
        for m in range(routes):
            status = 200 + (n % 50 if m == routes // 2 else 0)
            host, path = f"h{m % 100}.example.com", f"/p/{m}"
            text.append(f'[[route]]\nname = "r{m}"\nmatch = {{ host = "{host}", path = "{path}" }}\nrespond = {{ status = {status} }}\n')
        text.append('[[route]]\nname = "rest"\nrespond = { status = 200 }\n')
    else:
        text.append(f'[[listener]]\nname = "l{n}"\naddress = "127.0.0.1:0"\ncluster = "c{n}"\n')
        text.append(f'[[cluster]]\nname = "c{n}"\nendpoints = ["{at}"]\n[[route]]\nname = "r{n}"\nrespond = {{ status = 200 }}\n')
    return "".join(text)


def seen(pid):
    with open(f"/proc/{pid}/status") as f:
        rss = next(int(line.split()[1]) for line in f if line.startswith("VmRSS"))
    return {"rss_kib": rss, "descriptors": len(os.listdir(f"/proc/{pid}/fd"))}


def ask(at, cpus, over, out):
    """Asks on one connection until it is over, and notes when and how long."""
    os.sched_setaffinity(0, cpus)
    gc.disable()
    conn, took = socket.create_connection(at), []
    conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while not over.is_set():
        begun = time.monotonic()
        conn.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        if not conn.recv(4096).startswith(b"HTTP/1.1 200"):
            raise SystemExit("a request failed")
        took.append((begun, time.monotonic() - begun))
        time.sleep(0.0002)
    out.send(took)


def percentile(values, share):
    values = sorted(values)
    return round(values[min(len(values) - 1, int(len(values) * share))] * 1e6) if values else None


def main():
    args = argparse.ArgumentParser()
    args.add_argument("ringway")
    args.add_argument("--tunnels", type=int, default=0)
    args.add_argument("--reloads", type=int, default=500)
    args.add_argument("--routes", type=int, default=0)
    args.add_argument("--shards", type=int, default=2)
    args.add_argument("--pinned", action="store_true")
    args = args.parse_args()
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    cpus = sorted(os.sched_getaffinity(0))
    of_client = set(cpus)
    if args.pinned:
        if len(cpus) < 2 or not args.routes:
            raise SystemExit("--pinned needs two CPUs, and --routes")
        args.shards, of_client = 1, set(cpus[:1])
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    threading.Thread(target=echo, args=(listener,), daemon=True).start()
    at = "127.0.0.1:%d" % listener.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/ringway.toml"

        def write(n):
            with open(path, "w") as f:
                f.write(texts.get(n) or configuration(n, at, args.routes, args.shards))

        # Made before anything is timed.
        texts = {n: configuration(n, at, args.routes, args.shards) for n in range(args.reloads + 1) if args.routes}
        write(0)
        process = subprocess.Popen([args.ringway, "run", "-c", path], stdout=subprocess.PIPE, text=True)
        try:
            ready = json.loads(process.stdout.readline())
            where = {l["name"]: l["address"].rsplit(":", 1) for l in ready["listeners"]}
            address = {name: (host, int(port)) for name, (host, port) in where.items()}
            tunnels = [socket.create_connection(address["tunnels"]) for _ in range(args.tunnels)]

            def ask_all():
                for conn in tunnels:
                    conn.sendall(b"x")
                assert all(conn.recv(1) == b"x" for conn in tunnels)

            ask_all()

            def reload(n):
                write(n)
                command = [args.ringway, "reload", "--json", "--admin", ready["admin"]]
                done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
                return json.loads(done.stdout)["took_ms"]

            if args.routes:
                over, (out, mine) = multiprocessing.Event(), multiprocessing.Pipe(False)
                client = multiprocessing.Process(target=ask, args=(address["edge"], of_client, over, mine))
                client.start()
                if args.pinned:
                    os.sched_setaffinity(0, cpus[1:])
                time.sleep(1)
                took, windows = [], []
                for n in range(1, args.reloads + 1):
                    windows.append(time.monotonic())
                    took.append(reload(n))
                    time.sleep(max(0, windows[-1] + 2 - time.monotonic()))
                over.set()
                calm, during = [], []
                for at, t in out.recv():
                    since = min((at - begun for begun in windows if at >= begun), default=2)
                    if since < 2:
                        (during if since < 1 else calm).append(t)
                client.join()
                sorted_ms = {key: sorted(one[key] for one in took) for key in took[0]}
                result = {
                    "routes": args.routes,
                    "reloads": args.reloads,
                    "shards": args.shards,
                    "pinned": args.pinned,
                    "file_bytes": os.path.getsize(path),
                    "median_ms": {key: round(all[len(all) // 2], 1) for key, all in sorted_ms.items()},
                    "longest_ms": {key: round(all[-1], 1) for key, all in sorted_ms.items()},
                    "calm_us": {"p50": percentile(calm, 0.5), "p99.9": percentile(calm, 0.999)},
                    "reloading_us": {"p50": percentile(during, 0.5), "p99.9": percentile(during, 0.999)},
                }
            else:
                result = {"tunnels": args.tunnels, "before": seen(process.pid)}
                for n in range(1, args.reloads + 1):
                    reload(n)
                    if n % max(1, args.reloads // 10) == 0:
                        result[f"after_{n}"] = seen(process.pid)
                time.sleep(1)
                ask_all()
                result["a_second_later"] = seen(process.pid)
            print(json.dumps(result))
        finally:
            process.terminate()
            process.wait(40)


if __name__ == "__main__":
    sys.exit(main())
