"""The laboratory: a network of its own, three origins, a name server, and ringway in front of them.

As root all of it runs in new namespaces (network, mount, pid): this process and ringway in one, each origin in another behind a
veth pair. They and every process in them go when this process goes, however it ends. Otherwise origins listen on addresses of
the loopback, and what takes a network is left out.
"""

import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

HERE = pathlib.Path(__file__).parent
INSIDE = "FAILING_ORIGINS_INSIDE"
KINDS = ["nginx", "python", "node"]

# What the recipe shows: checks of status and body, ejection, breakers, retries. Balance is the default, round robin: policies
# that look at running requests spare an origin that hangs, and would make this too easy.
CONFIGURATION = """
[admin]
address = "unix:{folder}/admin.sock"

[log]
format = "json"

[[access_log]]
to = "file:{folder}/access.log"

[[listener]]
name = "edge"
address = "127.0.0.1:0"
cluster = "app"

[[cluster]]
name = "app"
{endpoints}

[cluster.timeouts]
connect = "500ms"
response_header = "1s"
response_body = "2s"

[cluster.pool]
idle_timeout = "4s"             # Node closes after 5 s

[cluster.health]
kind = "http"
path = "/health"
expect_status = 200
expect_body = {{ contains = "healthy" }}
interval = "1s"
timeout = "500ms"
fall = 2
rise = 2
fast_interval = "250ms"
initial = "probing"

[cluster.outlier]
consecutive_failures = 5
ejection_time = "5s"
max_ejected_percent = 50

[cluster.circuit_breaker]
failure_threshold = 5
recovery_timeout = "2s"
trial_timeout = "2s"

[cluster.retry]
attempts = 2
on = ["connect", "reset", "timeout", 500, 502, 503, 504]
"""


def needed():
    """The programs of the origins; says which are missing."""
    packages = {"nginx": "nginx", "node": "nodejs"}
    missing = [program for program in packages if not shutil.which(program)]
    if missing:
        sys.exit(f"missing: {', '.join(missing)} (Debian: apt-get install {' '.join(packages[m] for m in missing)})")


def enter_namespaces():
    """Starts this script anew in namespaces of its own. Returns why not, if it cannot be; nothing if it is there."""
    if INSIDE in os.environ:
        run("mount -t tmpfs none /run/netns")
        run("ip link set lo up")
        return None
    if os.geteuid() != 0:
        return "not root"
    for program, package in {"ip": "iproute2", "tc": "iproute2", "nft": "nftables", "unshare": "util-linux"}.items():
        if not shutil.which(program):
            return f"no {program} (Debian: {package})"
    os.makedirs("/run/netns", exist_ok=True)
    unshare = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if subprocess.run([*unshare, "true"], capture_output=True).returncode != 0:
        return "namespaces are not allowed here"
    os.execvpe("unshare", [*unshare, sys.executable, *sys.argv], {**os.environ, INSIDE: "1"})


def run(command):
    """A command that must succeed."""
    done = subprocess.run(command.split(), capture_output=True)
    if done.returncode != 0:
        raise RuntimeError(f"{command}: {done.stderr.decode().strip()}")


def eventually(what, is_so, seconds=10.0):
    until = time.time() + seconds
    while not is_so():
        if time.time() > until:
            raise RuntimeError(f"{what} did not come about within {seconds:.0f} s")
        time.sleep(0.02)


class Origin:
    """One origin, in its namespace where there is one, and all that can be done to it."""

    def __init__(self, lab, number, kind):
        self.lab, self.number, self.kind = lab, number, kind
        self.folder = lab.folder / kind
        self.folder.mkdir()
        (self.folder / "small").write_bytes((kind + "\n").encode().ljust(1024, b"."))
        (self.folder / "big").write_bytes((kind + "\n").encode().ljust(64 * 1024, b"."))
        (self.folder / "record").touch()
        self.process = None
        if lab.network:
            self.addresses = [f"10.77.{number}.2", f"10.77.{number}.3"]
            run(f"ip netns add {kind}")
            run(f"ip link add {kind} type veth peer name edge netns {kind}")
            run(f"ip addr add 10.77.{number}.1/24 dev {kind}")
            run(f"ip link set {kind} up")
            self.inside("ip link set lo up")
            for address in self.addresses:
                self.inside(f"ip addr add {address}/24 dev edge")
            self.inside("ip link set edge up")
            self.inside("nft add table inet lab")
            self.inside("nft add chain inet lab input { type filter hook input priority 0 ; }")
        else:
            self.addresses = [f"127.77.{number}.2", f"127.77.{number}.3"]
        self.address = self.addresses[0]
        self.start()

    def inside(self, command):
        run(f"ip netns exec {self.kind} {command}")

    def start(self):
        place = [self.address, str(self.lab.port), str(self.folder)]
        if self.kind == "nginx":
            text = (HERE / "nginx.conf").read_text()
            for word, value in zip(["ADDRESS", "PORT", "FOLDER"], place):
                text = text.replace(word, value)
            if os.geteuid() != 0:
                text = text.replace("user root;", "")
            (self.folder / "nginx.conf").write_text(text)
            (self.folder / "socket").unlink(missing_ok=True)
            command = ["nginx", "-p", str(self.folder), "-e", "error.log", "-c", str(self.folder / "nginx.conf")]
        elif self.kind == "python":
            command = [sys.executable, str(HERE / "origin.py"), *place]
        else:
            command = ["node", str(HERE / "origin.js"), *place]
        if self.lab.network:
            command = ["ip", "netns", "exec", self.kind, *command]
        with open(self.folder / "output", "ab") as output:
            # A session of its own: a signal reaches nginx's worker too.
            self.process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
        eventually(f"{self.kind}'s start", self.answers)

    def answers(self):
        try:
            socket.create_connection((self.address, self.lab.port), 1).close()
            return True
        except OSError:
            return False

    def signal(self, number):
        os.killpg(self.process.pid, number)

    def kill(self):
        self.signal(signal.SIGKILL)
        self.process.wait()

    def stop(self):
        self.signal(signal.SIGSTOP)

    def go_on(self):
        self.signal(signal.SIGCONT)

    def firewall(self, verdict):
        self.inside(f"nft add rule inet lab input tcp dport {self.lab.port} {verdict}")

    def open_firewall(self):
        self.inside("nft flush chain inet lab input")

    def narrow(self):
        self.inside("tc qdisc add dev edge root tbf rate 8kbit burst 1600 limit 6000")

    def widen(self):
        self.inside("tc qdisc del dev edge root")

    def tell(self, how):
        (self.folder / how).touch()

    def no_longer(self, how):
        (self.folder / how).unlink()

    def move(self):
        """Restarted under its other address, which names lead to a moment later."""
        self.kill()
        self.address = self.addresses[1 - self.addresses.index(self.address)]
        self.start()
        self.lab.write_names()

    def posts(self):
        return [line.split(" ")[1] for line in (self.folder / "record").read_text().splitlines()]


class Lab:
    def __init__(self, ringway, network):
        self.ringway, self.network = str(pathlib.Path(ringway).resolve()), network
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="failing-origins-"))
        self.port = 9000 if network else free_port()
        self.processes, self.proxy, self.dnsmasq = [], None, None
        self.origins = [Origin(self, number, kind) for number, kind in enumerate(KINDS, 1)]

    def close(self, keep):
        for process in filter(None, [self.proxy, self.dnsmasq]):
            process.kill()
            process.wait()
        for origin in self.origins:
            origin.kill()
        if not keep:
            shutil.rmtree(self.folder)

    def configure(self, by_name=False):
        """Writes the configuration; endpoints are named by their kind, or found by one name."""
        if by_name:
            endpoints = f'host = "endpoint"\nendpoints = ["app.internal:{self.port}"]'
            head = f'[runtime]\nresolver = ["127.0.0.1:{self.dns_port}"]\n'
        else:
            tables = (f'{{ name = "{o.kind}", address = "{o.address}:{self.port}" }}' for o in self.origins)
            endpoints, head = f"endpoints = [{', '.join(tables)}]", ""
        file = self.folder / "ringway.toml"
        file.write_text(head + CONFIGURATION.format(folder=self.folder, endpoints=endpoints))
        return str(file)

    def names(self, origin):
        """What ringway calls an origin where it is now."""
        return {f"app.internal:{self.port}/{origin.address}"} if self.by_name else {origin.kind}

    def start_ringway(self, by_name=False):
        """Starts ringway and waits until every origin is found good. Where clients connect."""
        self.by_name = by_name
        if self.proxy:
            self.proxy.terminate()
            self.proxy.wait()
        file = self.configure(by_name)
        with open(self.folder / "ringway.log", "ab") as log:
            self.proxy = subprocess.Popen([self.ringway, "run", "-c", file], stdout=subprocess.PIPE, stderr=log)
        line = self.proxy.stdout.readline()
        if not line:
            sys.exit("ringway did not start:\n" + (self.folder / "ringway.log").read_text())
        host, port = json.loads(line)["listeners"][0]["address"].rsplit(":", 1)
        self.edge = (host, int(port))
        kinds = set()

        def all_answer():
            try:
                with urllib.request.urlopen(f"http://{host}:{port}/get", timeout=5) as answer:
                    kinds.add(answer.headers["Origin-Kind"])
            except OSError:
                # 503 until the first checks were made.
                pass
            return kinds == set(KINDS)

        eventually("an answer of each origin", all_answer)
        return self.edge

    def start_dnsmasq(self):
        self.dns_port = 53 if self.network else free_port()
        self.write_names()
        command = ["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", f"--port={self.dns_port}", "--no-resolv",
                   "--listen-address=127.0.0.1", "--bind-interfaces", "--no-hosts", "--local-ttl=1", "--user=", "--group=",
                   f"--addn-hosts={self.folder}/names", f"--pid-file={self.folder}/dnsmasq.pid"]
        with open(self.folder / "dnsmasq.log", "ab") as log:
            self.dnsmasq = subprocess.Popen(command, stdout=log, stderr=log)
        time.sleep(0.3)

    def write_names(self):
        names = "".join(f"{origin.address} app.internal\n" for origin in self.origins)
        (self.folder / "names").write_text(names)
        if self.dnsmasq:
            self.dnsmasq.send_signal(signal.SIGHUP)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.77.1.2", 0))
        return listener.getsockname()[1]
