#!/usr/bin/env python3
"""Uses the dashboard as a person would, in headless Chromium, with a real proxy under load behind it.

    scripts/use-dashboard.py target/debug/ringway [--shots FOLDER] [--chromium PATH] [--seconds N]

Three origins, one of which has a name that is markup, and a proxy whose changes need a token. The page is looked at well,
with an endpoint down, with everything down, lost and upgraded, at 1280x800 and 360x740, in light and dark; an endpoint is
drained, put back and given another weight by keyboard, checked by hand; a listener, a cluster and the node are drained and called
back; a connection is listed and closed. Fails on any error that the browser tells
of, on a request to anywhere else, and on what does not fit the width. --shots keeps pictures of every stage; look at them.
Speaks the DevTools protocol over a pipe: it needs Python and Chromium, and nothing else.
"""

import argparse
import base64
import http.client
import http.server
import json
import os
import queue
import shutil
import signal
import socket
import socketserver
import subprocess
import sys
import tempfile
import threading
import time

HOSTILE = "<img src=x onerror=document.title=1>.sock"
TOKEN = "a-token-of-forty-three-characters-or-even-more"
PATIENCE = 20


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


# --- what is behind the proxy -----------------------------------------------------------------------------------------


class Origin:
    """Answers /health and everything else, at a port or a path; may die and come back."""

    def __init__(self, where, delay=0.0):
        self.where, self.delay, self.at, self.open = where, delay, None, set()
        self.start()

    def start(self):
        delay, open_ones = self.delay, self.open

        class Answers(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self):
                open_ones.add(self.request)
                super().setup()

            def finish(self):
                super().finish()
                open_ones.discard(self.request)

            def do_GET(self):
                if self.path != "/health":
                    time.sleep(delay)
                status = 500 if self.path == "/bad" else 200
                body = b"x" * (20_000 if self.path == "/large" else 300)
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

            def address_string(self):
                return "proxy"

        unix = isinstance(self.where, str)
        family = socketserver.UnixStreamServer if unix else socketserver.TCPServer
        threads = type("Server", (socketserver.ThreadingMixIn, family), {
            "daemon_threads": True, "allow_reuse_address": True, "handle_error": lambda *_: None})
        if unix and os.path.exists(self.where):
            os.unlink(self.where)
        self.at = threads(self.where if unix else ("127.0.0.1", self.where), Answers)
        threading.Thread(target=self.at.serve_forever, args=(0.1,), daemon=True).start()

    def die(self):
        self.at.shutdown()
        self.at.server_close()
        for conn in list(self.open):
            try:
                conn.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        if isinstance(self.where, str):
            os.unlink(self.where)


class Load:
    """Clients that ask on kept connections, and one that holds a connection open and says nothing."""

    def __init__(self, port, clients=3):
        self.port, self.ends = port, False
        for number in range(clients):
            threading.Thread(target=self.run, args=(number,), daemon=True).start()

    def run(self, number):
        asked = 0
        while not self.ends:
            try:
                client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
                while not self.ends:
                    asked += 1
                    path = "/large" if asked % 7 == 0 else "/none" if asked % 97 == 0 else "/"
                    client.request("GET", path)
                    client.getresponse().read()
                    time.sleep(0.004 + 0.002 * number)
            except (OSError, http.client.HTTPException):
                time.sleep(0.05)


class Proxy:
    def __init__(self, program, folder, origins):
        self.program, self.admin, self.edge, self.db = program, free_port(), free_port(), free_port()
        self.file = os.path.join(folder, "ringway.toml")
        token = os.path.join(folder, "token")
        with open(token, "w") as out:
            out.write(TOKEN)
        os.chmod(token, 0o600)
        endpoints = ", ".join(json.dumps(one) for one in origins)
        with open(self.file, "w") as out:
            out.write(f"""
[runtime]
shards = 2
[admin]
address = "127.0.0.1:{self.admin}"
token = {{ file = {json.dumps(token)} }}
[[access_log]]
to = "file:/dev/null"
[[listener]]
name = "edge"
address = "127.0.0.1:{self.edge}"
cluster = "app"
[[listener]]
name = "db"
protocol = "tcp"
address = "127.0.0.1:{self.db}"
cluster = "database"
[[route]]
name = "none"
match = {{ path = "/none" }}
respond = {{ status = 404 }}
[[cluster]]
name = "app"
endpoints = [{endpoints}]
[cluster.health]
kind = "http"
path = "/health"
interval = "300ms"
timeout = "5s"
[[cluster]]
name = "database"
endpoints = [{json.dumps(origins[0])}]
[drain.deploy]
window = "5s"
""")
        self.output = open(os.path.join(folder, "ringway.log"), "ab")
        self.start()

    def start(self):
        self.child = subprocess.Popen([self.program, "run", "-c", self.file], stdout=self.output, stderr=self.output)
        wait("the proxy", lambda: self.ask("/live") or self.child.poll() is not None)
        if self.child.poll() is not None:
            sys.exit(open(self.output.name).read())

    def ask(self, path):
        try:
            client = http.client.HTTPConnection("127.0.0.1", self.admin, timeout=5)
            client.request("GET", path)
            return json.loads(client.getresponse().read())
        except (OSError, ValueError, http.client.HTTPException):
            return None

    def pid(self):
        return self.ask("/v1/dashboard")["process"]["pid"]


def wait(what, true_yet, patience=PATIENCE, seen=lambda: ""):
    end = time.monotonic() + patience
    while time.monotonic() < end:
        found = true_yet()
        if found:
            return found
        time.sleep(0.05)
    sys.exit(f"not in time: {what} {seen()}")


# --- the browser ------------------------------------------------------------------------------------------------------


class Browser:
    """Chromium, told by its pipe: messages in JSON, each ended by a zero byte."""

    def __init__(self, program, folder):
        theirs_in, self.out = os.pipe()
        self.into, theirs_out = os.pipe()

        # The two ends may lie where the others are to go.
        ends = [os.dup2(theirs_in, 203), os.dup2(theirs_out, 204)]

        def place():
            os.dup2(203, 3)
            os.dup2(204, 4)

        command = [program, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars",
                   "--disable-background-networking", "--remote-debugging-pipe", f"--user-data-dir={folder}/chromium",
                   "about:blank"]
        self.child = subprocess.Popen(command, preexec_fn=place, close_fds=False, stdout=subprocess.DEVNULL,
                                      stderr=subprocess.DEVNULL)
        for end in [theirs_in, theirs_out, *ends]:
            os.close(end)
        self.number, self.answers, self.events = 0, {}, queue.SimpleQueue()
        self.came = threading.Condition()
        threading.Thread(target=self.read, daemon=True).start()
        target = self.call("Target.createTarget", {"url": "about:blank"})["targetId"]
        self.target = target
        self.page = self.call("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        for part in ["Page", "Runtime", "Log", "Network"]:
            self.tell(f"{part}.enable")

    def read(self):
        rest = b""
        while True:
            piece = os.read(self.into, 1 << 20)
            if not piece:
                return
            *messages, rest = (rest + piece).split(b"\0")
            for message in map(json.loads, messages):
                if "id" in message:
                    with self.came:
                        self.answers[message["id"]] = message
                        self.came.notify_all()
                else:
                    self.events.put(message)

    def call(self, method, params=None, page=None):
        self.number += 1
        number = self.number
        message = {"id": number, "method": method, "params": params or {}}
        if page:
            message["sessionId"] = page
        os.write(self.out, json.dumps(message).encode() + b"\0")
        with self.came:
            if not self.came.wait_for(lambda: number in self.answers, PATIENCE):
                sys.exit(f"the browser does not answer {method}")
            answer = self.answers.pop(number)
        if "error" in answer:
            sys.exit(f"{method}: {answer['error']}")
        return answer["result"]

    def tell(self, method, **params):
        return self.call(method, params, self.page)

    def eval(self, script):
        answer = self.tell("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            sys.exit(f"{script}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def wait(self, what, script, patience=PATIENCE):
        return wait(f"{what}; the page:", lambda: self.eval(script), patience, lambda: self.eval("document.body.innerText"))

    def look(self, width, height, scheme):
        self.tell("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500)
        self.tell("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def key(self, key, code=None, text=""):
        code = code or {"Tab": 9, "Enter": 13, "Escape": 27}[key]
        text = "\r" if key == "Enter" else text
        for kind in ["keyDown", "keyUp"]:
            self.tell("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code,
                      **({"text": text} if text and kind == "keyDown" else {}))

    def click(self, script):
        """Presses the middle of an element, as a mouse does, so that it must be there and nothing above it."""
        place = self.eval(f"""(() => {{ const node = {script}; if (!node) return null;
            node.scrollIntoView({{ block: 'center', behavior: 'instant' }}); const r = node.getBoundingClientRect();
            const [x, y] = [r.x + r.width / 2, r.y + r.height / 2]; const top = document.elementFromPoint(x, y);
            return node.contains(top) ? [x, y] : null; }})()""")
        if not place:
            sys.exit(f"nothing to press: {script}")
        for kind in ["mousePressed", "mouseReleased"]:
            self.tell("Input.dispatchMouseEvent", type=kind, x=place[0], y=place[1], button="left", clickCount=1)

    def end(self):
        self.child.terminate()
        self.child.wait()


BUTTON = "[...document.querySelectorAll('{within} button')].find(b => b.getAttribute('aria-label') === {label})"


def button(label, within="#clusters"):
    return BUTTON.format(within=within, label=json.dumps(label))


TEXT = "(document.getElementById('{}')?.textContent ?? '')"


class Use:
    """What is done with the page, in order."""

    def __init__(self, browser, proxy, origins, shots):
        self.browser, self.proxy, self.origins, self.shots = browser, proxy, origins, shots
        self.expects_loss = False

    def say(self, text):
        self.check_told()
        print(f"ok: {text}", flush=True)

    def check_told(self):
        """Nothing that the browser told of is an error, nor a request to elsewhere."""
        own = f"http://127.0.0.1:{self.proxy.admin}/"
        while not self.browser.events.empty():
            event = self.browser.events.get()
            params = event["params"]
            if event["method"] == "Runtime.exceptionThrown":
                sys.exit(f"the page failed: {json.dumps(params)[:2000]}")
            if event["method"] == "Network.requestWillBeSent" and not params["request"]["url"].startswith((own, "about:")):
                sys.exit(f"a request to elsewhere: {params['request']['url']}")
            if event["method"] == "Log.entryAdded" and params["entry"]["level"] == "error":
                entry = params["entry"]
                # A lost process and a missing token are told of as failed requests.
                if entry["source"] != "network" or not (self.expects_loss or "401" in entry["text"]):
                    sys.exit(f"the browser complains: {entry}")

    def shoot(self, name, whole=False):
        """Pictures of both widths in both schemes; in each, nothing is wider than the page."""
        for width, height in [(1280, 800), (360, 740)]:
            for scheme in ["light", "dark"]:
                self.browser.look(width, height, scheme)
                wide = self.browser.eval("document.documentElement.scrollWidth")
                if wide > width:
                    sys.exit(f"{name}: {wide} pixels wide where there are {width}")
                if not self.shots:
                    continue
                time.sleep(0.4)
                self.browser.eval("scrollTo({ top: 0, behavior: 'instant' })")
                tall = self.browser.eval("document.documentElement.scrollHeight") if whole else height
                step = 1500 if whole else height
                for number, top in enumerate(range(0, tall, step)):
                    clip = {"x": 0, "y": top, "width": width, "height": min(step, tall - top), "scale": 1}
                    picture = self.browser.tell("Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=whole)
                    piece = f"-{number}" if whole else ""
                    with open(os.path.join(self.shots, f"{name}-{width}-{scheme}{piece}.png"), "wb") as out:
                        out.write(base64.b64decode(picture["data"]))
        self.browser.look(1280, 800, "light")

    def state(self, name):
        clusters = self.proxy.ask("/v1/clusters")["clusters"]
        return next(one["state"] for one in clusters[0]["endpoints"] if one["name"] == name)

    def title(self, what, wanted):
        self.browser.wait(what, f"{TEXT.format('now-title')}.includes({json.dumps(wanted)})")

    def run(self, seconds):
        browser, proxy = self.browser, self.proxy
        browser.look(1280, 800, "light")
        browser.tell("Page.navigate", url=f"http://127.0.0.1:{proxy.admin}/")
        self.title("a well proxy", "All is well")
        rows = "document.querySelectorAll('#cluster-list tbody tr').length"
        browser.wait("endpoints", f"{rows} === 5")
        if not browser.eval(f"document.body.textContent.includes({json.dumps(HOSTILE)})"):
            sys.exit("the name that is markup is not shown as it is")
        if browser.eval("document.querySelectorAll('img, iframe, object').length"):
            sys.exit("a name became markup")
        browser.wait("traffic", "parseFloat(document.querySelector('.number').textContent) > 5")
        self.say("the page is there, and a name that is markup is text")
        time.sleep(seconds)
        self.shoot("well")
        self.shoot("well-whole", whole=True)
        self.say("it fits 360 pixels, in light and dark")
        self.reached_by_keyboard()
        self.drain()
        self.weigh()
        self.drains()
        self.check_by_hand()
        self.kill()
        self.hidden()
        self.dies()
        self.restarted()
        self.upgraded()

    def reached_by_keyboard(self):
        """Everything that can be pressed is reached by Tab, shows that it is, and has a name."""
        browser = self.browser
        nameless = browser.eval("""[...document.querySelectorAll('button, input, select, a')].filter(n => n.offsetParent !== null
            && !(n.getAttribute('aria-label') || n.textContent.trim() || n.labels?.length)).map(n => n.outerHTML)""")
        if nameless:
            sys.exit(f"without a name: {nameless}")
        wanted = set(browser.eval("""[...document.querySelectorAll('button, input, select, nav a')].filter(n => n.offsetParent !== null)
            .map(n => n.getAttribute('aria-label') || n.id || n.textContent)"""))
        browser.eval("document.activeElement?.blur(); scrollTo(0, 0)")
        reached = set()
        for _ in range(150):
            browser.key("Tab")
            one = browser.eval("""(() => { const n = document.activeElement; const s = getComputedStyle(n);
                return [n.getAttribute('aria-label') || n.id || n.textContent, n.matches(':focus-visible') && s.outlineStyle !== 'none']; })()""")
            if one[0] in reached and wanted <= reached:
                break
            if not one[1] and one[0] != "" and not browser.eval("document.activeElement === document.body"):
                sys.exit(f"the focus on {one[0]!r} is not to be seen")
            reached.add(one[0])
        if wanted - reached:
            sys.exit(f"not reached by Tab: {wanted - reached}")
        self.say(f"{len(wanted)} buttons, fields and links are reached by Tab, with a focus to be seen")

    def drain(self):
        """By keyboard: the button, the token that is asked for, the question; and back."""
        browser, name = self.browser, self.origins[0].name
        label = f"Drain app/{name}"
        browser.eval(f"{button(label)}.focus()")
        browser.key("Enter")
        browser.wait("a question", "document.getElementById('ask').open")
        if "The other 3 endpoints in use get its share." not in browser.eval(TEXT.format("ask-text")):
            sys.exit("it does not say who gets its requests")
        self.shoot("question")
        browser.key("Tab")
        browser.key("Enter")
        browser.wait("the token's question", "document.getElementById('token-dialog').open")
        browser.eval("document.getElementById('token-input').focus()")
        browser.tell("Input.insertText", text=TOKEN)
        browser.key("Enter")
        browser.wait("the question again", "document.getElementById('ask').open")
        browser.key("Tab")
        browser.key("Enter")
        wait("the drain", lambda: self.state(name) == "drain")
        browser.wait("it on the page", f"!!{button(f'Put back app/{name}')}")
        if not browser.eval("document.activeElement.matches('#clusters button')"):
            sys.exit("whoever uses the keyboard lost the place")
        self.shoot("drained")
        browser.click(button(f"Put back app/{name}"))
        browser.wait("a question", "document.getElementById('ask').open")
        browser.key("Escape")
        browser.wait("no question", "!document.getElementById('ask').open")
        if self.state(name) != "drain":
            sys.exit("Escape did it")
        browser.click(button(f"Put back app/{name}"))
        browser.click("document.getElementById('ask-yes')")
        wait("it back", lambda: self.state(name) == "ready")
        if browser.eval("localStorage.length + document.cookie.length"):
            sys.exit("the token is kept elsewhere than in this tab")
        self.title("all well", "All is well")
        self.say("an endpoint is drained and put back, with the token, by keyboard and mouse")

    def weigh(self):
        """By keyboard alone: the number is what is asked for, and Enter says yes."""
        browser, name = self.browser, self.origins[0].name

        def weight():
            clusters = self.proxy.ask("/v1/clusters")["clusters"]
            return next(one["weight"] for one in clusters[0]["endpoints"] if one["name"] == name)

        for wanted, shown in [("5", "1"), ("1", "5")]:
            browser.eval(f"{button(f'Weight app/{name}')}.focus()")
            browser.key("Enter")
            browser.wait("a question", "document.getElementById('ask').open")
            if browser.eval("document.activeElement.id + document.activeElement.value") != f"ask-number{shown}":
                sys.exit("it does not begin with the weight that it has")
            # More than there may be is not sent.
            browser.tell("Input.insertText", text="257")
            browser.key("Enter")
            if not browser.eval("document.getElementById('ask').open && document.activeElement.validity.rangeOverflow"):
                sys.exit("a weight of 257 was taken")
            browser.eval("document.getElementById('ask-number').select()")
            browser.tell("Input.insertText", text=wanted)
            self.shoot(f"weight-{wanted}")
            browser.key("Enter")
            wait("the weight", lambda: weight() == int(wanted))
            browser.wait("it on the page", f"{button(f'Weight app/{name}')}.closest('tr').querySelector('[data-label=Weight]').textContent === '{wanted}'")
        browser.wait("no drift", "!document.getElementById('problems').textContent.includes('not what the file says')")
        self.title("all well", "All is well")
        self.say("a weight is changed, and back, by keyboard")

    def drains(self):
        """A listener and a cluster by mouse, the node by keyboard; each is asked about first, and called off."""
        browser, proxy = self.browser, self.proxy
        within = {"listener db": "#listeners", "cluster database": "#clusters", "node": "header"}

        def drains(what):
            shown = proxy.ask("/v1/drain")
            if what == "node":
                return shown["node"] is not None
            kind, name = what.split()
            return any(one["name"] == name for one in shown[f"{kind}s"])

        for what, place in within.items():
            back = "Call off drain" if what == "node" else f"Call off {what}"
            browser.click(button(f"Drain {what}", place))
            browser.wait("a question", "document.getElementById('ask').open")
            self.shoot(f"drain-{what.split()[0]}-question")
            browser.key("Escape")
            time.sleep(0.2)
            if drains(what):
                sys.exit(f"{what}: Escape did it")
            if what == "node":
                browser.eval(f"{button(f'Drain {what}', place)}.focus()")
                browser.key("Enter")
                browser.wait("a question", "document.getElementById('ask').open")
                browser.key("Tab")
                browser.key("Enter")
            else:
                browser.click(button(f"Drain {what}", place))
                browser.click("document.getElementById('ask-yes')")
            wait(f"{what} to drain", lambda: drains(what))
            browser.wait("it on the page", f"!!{button(back, place)}")
            browser.wait("it among what is told", "document.getElementById('problems').textContent.includes('drains')")
            self.shoot(f"drains-{what.split()[0]}")
            browser.click(button(back, place))
            browser.click("document.getElementById('ask-yes')")
            wait(f"{what} to be back", lambda: not drains(what))
            browser.wait("it on the page", f"!!{button(f'Drain {what}', place)}")
            self.title("all well", "All is well")
        browser.wait("traffic", "parseFloat(document.querySelector('.number').textContent) > 5")
        self.say("a listener, a cluster and the node are drained and called off")

    def check_by_hand(self):
        browser = self.browser
        browser.click(button(f"Check app/{self.origins[1].name}"))
        browser.wait("its bytes", "document.getElementById('ask-bytes').textContent.includes('GET /health')")
        self.shoot("check")
        browser.key("Escape")
        self.say("a check by hand shows its bytes")

    def kill(self):
        browser = self.browser
        held = socket.create_connection(("127.0.0.1", self.proxy.edge))
        own = "%s:%d" % held.getsockname()
        browser.click("document.querySelector('#connections-form button')")
        there = f"[...document.querySelectorAll('#connection-rows tr')].find(r => r.textContent.includes({json.dumps(own)}))"
        browser.wait("the connection", f"!!{there}")
        self.shoot("connections", whole=True)
        browser.click(f"{there}.querySelector('button')")
        browser.wait("a question", "document.getElementById('ask').open")
        browser.click("document.getElementById('ask-yes')")
        held.settimeout(PATIENCE)
        try:
            ended = held.recv(1) == b""
        except ConnectionResetError:
            ended = True
        browser.wait("the list without it", f"!{there}")
        if not ended:
            sys.exit("the connection is still open")
        self.say("a connection is listed and closed")

    def hidden(self):
        """Nothing is asked for while another tab is in front."""
        browser = self.browser
        other = browser.call("Target.createTarget", {"url": "about:blank"})["targetId"]
        browser.call("Target.activateTarget", {"targetId": other})
        hides = wait("a hidden page", lambda: browser.eval("document.hidden") or None, 5) if self.can_hide() else False
        if hides:
            time.sleep(1.5)
            asked = "performance.getEntriesByType('resource').length"
            before = browser.eval(asked)
            time.sleep(3)
            if browser.eval(asked) != before:
                sys.exit("it asks while nobody sees it")
        browser.call("Target.closeTarget", {"targetId": other})
        browser.call("Target.activateTarget", {"targetId": browser.target})
        browser.wait("a page that asks", "!document.hidden && document.getElementById('live').textContent === 'live'")
        self.say("it asks only while it is seen" if hides else "(this browser hides no page: not tried)")

    def can_hide(self):
        time.sleep(0.5)
        return self.browser.eval("document.hidden")

    def dies(self):
        """One origin, then all of them."""
        browser, (one, two, three) = self.browser, self.origins
        two.die()
        self.title("one down", "One thing is wrong")
        browser.wait("what it is", "document.getElementById('problems').textContent.includes('1 of 4 endpoints down')")
        browser.wait("since when, and why", "/for \\d+ s/.test(document.getElementById('problems').textContent)"
                     " && document.getElementById('problems').textContent.includes('refused')")
        # Whoever looks for one thing is still told of the other.
        browser.eval("document.getElementById('find').focus()")
        browser.tell("Input.insertText", text="database")
        browser.wait("what is looked for", "document.querySelectorAll('#cluster-list article').length === 1")
        if "down" not in browser.eval(TEXT.format("problems")):
            sys.exit("what is wrong is not said while something is looked for")
        browser.eval("document.getElementById('find').value = ''")
        browser.wait("all of them", "document.querySelectorAll('#cluster-list article').length === 2")
        self.shoot("one-down")
        one.die()
        three.die()
        browser.wait("nothing left", f"document.querySelector('.problem[data-tone=bad] h3')?.textContent.includes('nothing to send')")
        time.sleep(4)
        self.shoot("all-down")
        self.shoot("all-down-whole", whole=True)
        for origin in [one, two, three]:
            origin.start()
        browser.wait("all up", "!document.querySelector('.problem[data-tone=bad] h3')?.textContent.includes('nothing to send')")
        self.say("what is down is said first, with why and since when, and that it is back")

    def restarted(self):
        browser, proxy = self.browser, self.proxy
        self.expects_loss = True
        proxy.child.kill()
        proxy.child.wait()
        browser.wait("a lost process", "document.getElementById('live').textContent === 'lost'")
        time.sleep(2)
        self.shoot("lost")
        proxy.start()
        browser.wait("it back", "document.getElementById('live').textContent === 'live'")
        browser.wait("that it is another", "document.getElementById('news').textContent.includes('Another process')")
        browser.wait("its number", f"document.getElementById('process').textContent.includes('pid {proxy.child.pid}')")
        browser.wait("its traffic", "parseFloat(document.querySelector('.number').textContent) > 5")
        time.sleep(1)
        self.check_told()
        self.expects_loss = False
        self.say("a lost process is shown as lost, and comes back by itself")

    def upgraded(self):
        browser, proxy = self.browser, self.proxy
        before = proxy.pid()
        browser.eval("window.seen = []; new MutationObserver(() => seen.push(document.getElementById('live').textContent))"
                     ".observe(document.getElementById('live'), { childList: true, characterData: true, subtree: true })")
        proxy.child.send_signal(signal.SIGUSR2)
        now = wait("another process", lambda: (proxy.ask("/v1/dashboard") or {"process": {"pid": before}})["process"]["pid"] != before and proxy.pid())
        browser.wait("it on the page", f"document.getElementById('process').textContent.includes('pid {now}')", 5)
        time.sleep(2)
        if browser.eval("seen.includes('lost')"):
            sys.exit("it was lost on the way")
        browser.wait("its traffic", "parseFloat(document.querySelector('.number').textContent) > 5")
        self.shoot("upgraded")
        os.kill(now, signal.SIGKILL)
        proxy.child.wait()
        self.say("it follows an upgrade without a loss")


def main():
    about = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    about.add_argument("ringway")
    about.add_argument("--shots", help="a folder for pictures")
    about.add_argument("--chromium", default=shutil.which("chromium") or shutil.which("google-chrome"))
    about.add_argument("--seconds", type=float, default=3, help="how long it runs before the first pictures")
    asked = about.parse_args()
    if not asked.chromium:
        sys.exit("no chromium here: apt-get install chromium")
    if asked.shots:
        os.makedirs(asked.shots, exist_ok=True)
    # Chromium may still write there while it ends.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        places = [free_port(), free_port(), os.path.join(folder, HOSTILE)]
        origins = [Origin(where, delay) for where, delay in zip(places, [0.0, 0.02, 0.001])]
        extra = Origin(free_port())
        for origin in origins:
            unix = isinstance(origin.where, str)
            origin.name = f"unix:{origin.where}" if unix else f"127.0.0.1:{origin.where}"
        names = [origin.name for origin in origins] + [f"127.0.0.1:{extra.where}"]
        proxy = Proxy(os.path.abspath(asked.ringway), folder, names)
        load, browser = Load(proxy.edge), Browser(asked.chromium, folder)
        use = Use(browser, proxy, origins, asked.shots)
        # Not among those that die one by one: it dies with the last of them.
        die = origins[2].die
        origins[2].die = lambda: (die(), extra.die())
        start = origins[2].start
        origins[2].start = lambda: (start(), extra.start())
        try:
            use.run(asked.seconds)
        finally:
            load.ends = True
            browser.end()
            if proxy.child.poll() is None:
                proxy.child.kill()
                proxy.child.wait()


if __name__ == "__main__":
    main()
