#!/usr/bin/env python3
"""Measures what the sysctls of facts.toml do, in a network namespace of its own: the machine is not changed.

    kernel-tuning/measure.py [NAME...]

It needs root and about half a minute. Each measurement prints one line; the figures in facts.toml are from here.
"""

import errno
import fcntl
import os
import resource
import select
import socket
import struct
import subprocess
import sys
import time

IP_BIND_ADDRESS_NO_PORT = 24
TCP_CONGESTION, TCP_INFO = 13, 11
F_SETPIPE_SZ = 1031


def sysctl(key, value):
    with open("/proc/sys/" + key.replace(".", "/"), "w") as file:
        file.write(str(value))


def counter(name):
    """One of the counters of `nstat`."""
    with open("/proc/net/netstat") as file:
        lines = file.read().splitlines()
    for names, values in zip(lines[::2], lines[1::2]):
        found = dict(zip(names.split(), values.split()))
        if name in found:
            return int(found[name])
    raise KeyError(name)


def listener(address, backlog, reuseport=False):
    socket_ = socket.socket()
    socket_.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if reuseport:
        socket_.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    socket_.bind(address)
    socket_.listen(backlog)
    return socket_


def burst(address, count, seconds):
    """Connects `count` times at once; how many are established within `seconds`, as the client's kernel sees it."""
    poll, sockets = select.poll(), {}
    for _ in range(count):
        client = socket.socket()
        client.setblocking(False)
        client.connect_ex(address)
        sockets[client.fileno()] = client
        poll.register(client, select.POLLOUT)
    done, until = 0, time.monotonic() + seconds
    while done < count and (left := until - time.monotonic()) > 0:
        for fd, event in poll.poll(left * 1000):
            poll.unregister(fd)
            done += event == select.POLLOUT
    return done, sockets


def somaxconn():
    """A burst of connections while the proxy does not accept (a busy moment)."""
    for value in (128, 4096, 65535):
        sysctl("net.core.somaxconn", value)
        with listener(("127.0.0.1", 0), 65535) as server:
            before = counter("ListenOverflows")
            done, clients = burst(server.getsockname(), 6000, 0.8)
            drops = counter("ListenOverflows") - before
            for client in clients.values():
                client.close()
        print(f"somaxconn={value}: {done} of 6000 connected within 0.8 s, {drops} overflows")


def port_range():
    """Connections from one address, and from nine, to one destination, with a range of 1000 ports."""
    sysctl("net.ipv4.ip_local_port_range", "20000 20999")
    for addresses in (1, 9):
        with listener(("127.0.0.1", 9000), 65535) as server:
            held, began = [], time.monotonic()
            for n in range(10_000):
                client = socket.socket()
                client.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
                client.bind((f"127.0.1.{1 + n % addresses}", 0))
                held.append(client)
                if (failed := client.connect_ex(server.getsockname())):
                    break
                held.append(server.accept()[0])
            took = time.monotonic() - began
            count = len(held) // 2
            print(f"ip_local_port_range of 1000, {addresses} addresses: {count} connections, then "
                  f"{errno.errorcode[failed]}; {took:.2f} s")
            for each in held:
                each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                each.close()
    sysctl("net.ipv4.ip_local_port_range", "32768 60999")


def tw_reuse():
    """Short connections that the connecting side closes first, 200 ports, 4 s, to an address outside 127/8."""
    subprocess.run(["ip", "address", "add", "10.9.9.1/32", "dev", "lo"], check=True)
    sysctl("net.ipv4.ip_local_port_range", "20000 20199")
    for value in (0, 2, 1):
        sysctl("net.ipv4.tcp_tw_reuse", value)
        with listener(("10.9.9.1", 9000 + value), 1024) as server:
            good = refused = 0
            until = time.monotonic() + 4
            while time.monotonic() < until:
                with socket.socket() as client:
                    if client.connect_ex(server.getsockname()):
                        refused += 1
                        time.sleep(0.001)
                        continue
                    accepted = server.accept()[0]
                    client.shutdown(socket.SHUT_WR)
                    accepted.recv(1)
                    accepted.close()
                    client.recv(1)
                    good += 1
            print(f"tcp_tw_reuse={value}: {good} connections in 4 s over 200 ports"
                  f"{', then EADDRNOTAVAIL' if refused else ''}")
    sysctl("net.ipv4.ip_local_port_range", "32768 60999")
    subprocess.run(["ip", "address", "del", "10.9.9.1/32", "dev", "lo"], check=True)


def notsent_lowat():
    """What the kernel takes for a client that does not read, from a sender that may send more."""
    for value in (4294967295, 131072, 16384):
        sysctl("net.ipv4.tcp_notsent_lowat", value)
        with listener(("127.0.0.1", 0), 16) as server, socket.socket() as client:
            client.connect(server.getsockname())
            sender = server.accept()[0]
            # The client reads for a while, so that the send buffer has grown as it does in a download.
            for _ in range(500):
                sender.sendall(bytes(65536))
                got = 0
                while got < 65536:
                    got += len(client.recv(65536))
            sender.setblocking(False)
            taken, stalled = 0, 0
            while stalled < 3:
                try:
                    taken += sender.send(bytes(65536))
                    stalled = 0
                except BlockingIOError:
                    stalled += 1
                    time.sleep(0.3)
            unread = struct.unpack("i", fcntl.ioctl(client, 0x541B, bytes(4)))[0]
            print(f"tcp_notsent_lowat={value}: the kernel holds {taken // 1024} KiB, {unread // 1024} KiB of them at "
                  f"the receiver, {(taken - unread) // 1024} KiB at the sender")
            sender.close()
    sysctl("net.ipv4.tcp_notsent_lowat", 4294967295)


def slow_start():
    """The congestion window before and after 3 s without a byte, cubic, segments of 1460 bytes."""
    for value in (1, 0):
        sysctl("net.ipv4.tcp_slow_start_after_idle", value)
        with listener(("127.0.0.1", 0), 16) as server, socket.socket() as client:
            client.setsockopt(socket.IPPROTO_TCP, TCP_CONGESTION, b"cubic")
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1460)
            client.connect(server.getsockname())
            peer = server.accept()[0]

            def window():
                return struct.unpack_from("I", client.getsockopt(socket.IPPROTO_TCP, TCP_INFO, 104), 80)[0]

            def exchange(count):
                for _ in range(count):
                    client.sendall(bytes(200_000))
                    left = 200_000
                    while left:
                        left -= len(peer.recv(left))

            exchange(50)
            before = window()
            time.sleep(3)
            client.sendall(b"x")
            after = window()
            print(f"tcp_slow_start_after_idle={value}: window of {before} segments, {after} after 3 s of silence")
            peer.close()
    sysctl("net.ipv4.tcp_slow_start_after_idle", 1)


def migrate_req():
    """200 connections wait to be accepted on two SO_REUSEPORT listeners, and one of those is closed."""
    for value in (0, 1):
        sysctl("net.ipv4.tcp_migrate_req", value)
        one = listener(("127.0.0.1", 0), 1024, reuseport=True)
        with listener(one.getsockname(), 1024, reuseport=True):
            done, clients = burst(one.getsockname(), 200, 1)
            one.close()
            time.sleep(0.1)
            reset = sum(c.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0 for c in clients.values())
            print(f"tcp_migrate_req={value}: {reset} of {done} waiting connections were reset")
            for client in clients.values():
                client.close()


def pipes():
    """Pipes of 1 MiB that an ordinary user may have (machine-wide setting, only read)."""
    with open("/proc/sys/fs/pipe-user-pages-soft") as file:
        pages = int(file.read())
    if (child := os.fork()) == 0:
        os.setgroups([])
        os.setresuid(54321, 54321, 54321)
        whole, sizes = 0, []
        for _ in range(200):
            read, _write = os.pipe()
            try:
                fcntl.fcntl(read, F_SETPIPE_SZ, 1 << 20)
                whole += 1
            except PermissionError:
                pass
            sizes.append(fcntl.fcntl(read, 1032))
        print(f"pipe-user-pages-soft={pages}: {whole} of 200 pipes have 1 MiB, the last {sizes[-1]} bytes", flush=True)
        os._exit(0)
    os.waitpid(child, 0)


ALL = [somaxconn, port_range, tw_reuse, notsent_lowat, slow_start, migrate_req, pipes]


def main():
    here = os.readlink("/proc/self/ns/net")
    if sys.argv[1:2] != ["--apart-from"]:
        os.execvp("unshare", ["unshare", "-n", sys.executable, __file__, "--apart-from", here, *sys.argv[1:]])
    if here == sys.argv[2]:
        sys.exit("no network namespace of its own")
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    wanted = sys.argv[3:]
    for measure in ALL:
        if not wanted or measure.__name__ in wanted:
            measure()


main()
