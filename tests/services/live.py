"""A real `aifbench serve` in a process of its own, and a plain client of its socket."""

import hashlib
import hmac
import http.client
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src"


class Unix(http.client.HTTPConnection):
    """HTTP to a Unix socket."""

    def __init__(self, path, timeout=10):
        super().__init__("localhost:8080", timeout=timeout)
        self.path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Answer:
    def __init__(self, found):
        self.status, self.headers, self.body = found.status, found.headers, found.read()

    def json(self):
        return json.loads(self.body)


class Live:
    """`with Live(folder) as server: server.get("/api/v1/...")`; `folder` gets project, results, state and runtime."""

    def __init__(self, folder, *services, tcp=None, environment=None, project=None, here=False):
        self.folder = Path(folder)
        self.project, self.results = project or self.folder / "project", self.folder / "results"
        self.state, self.runtime = self.folder / "state" / "aifbench", self.folder / "run" / "aifbench"
        self.socket = self.runtime / "serve.sock"
        self.services, self.tcp, self.environment = services, tcp, environment or {}
        self.here = here
        self.process = None

    def __enter__(self):
        self.results.mkdir(parents=True, exist_ok=True)
        self.project.mkdir(parents=True, exist_ok=True)
        (self.folder / "run").mkdir(exist_ok=True)
        self.start()
        return self

    def __exit__(self, *_):
        self.stop()

    def command(self):
        options = ["--project", str(self.project), "--results", str(self.results)]
        options += [] if self.here is None else ["--open" if self.here else "--no-open"]
        options += [] if self.tcp is None else ["--tcp", str(self.tcp)]
        return [sys.executable, "-m", "aifbench", "serve", *self.services, *options]

    def start(self):
        """Start and wait until it answers."""
        environment = {
            **os.environ,
            "PYTHONPATH": str(SOURCE),
            "XDG_STATE_HOME": str(self.folder / "state"),
            "XDG_RUNTIME_DIR": str(self.folder / "run"),
            **self.environment,
        }
        self.output = self.folder / "output.txt"
        with self.output.open("wb") as file:
            self.process = subprocess.Popen(self.command(), stdout=file, stderr=subprocess.STDOUT, env=environment)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                if self.ask("GET", "/healthz", token=None).status == 200:
                    return
            except (OSError, IndexError, http.client.HTTPException):
                time.sleep(0.05)
        raise AssertionError(f"did not start: {self.said()}")

    def stop(self, number=signal.SIGTERM):
        """End it by a signal and return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise

    def said(self):
        """What it has printed so far."""
        return self.output.read_text()

    @property
    def tokens(self):
        """The folder of its tokens: on a port, each start has new ones."""
        host = socket.gethostname().partition(".")[0]
        return self.state if self.tcp is None else self.state / f"tcp-{host}-{self.port}"

    @property
    def port(self):
        return int(self.said().split("http://127.0.0.1:")[1].split("/")[0])

    def token(self, scope="launch"):
        return (self.tokens / f"token-{scope}").read_text().strip()

    def signature(self, method, target, body=b"", key=None):
        """The header with which the page signs a request, and what the answer to it must carry."""
        secret = (key or self.token()).encode()
        nonce, digest = secrets.token_hex(16), hashlib.sha256(body).hexdigest()
        mac, proof = (
            hmac.new(secret, "\n".join(words).encode(), hashlib.sha256).hexdigest()
            for words in (("ask", nonce, method, target, digest), ("answer", nonce))
        )
        return {"Authorization": f"aifbench-hmac nonce={nonce}, body={digest}, mac={mac}"}, proof

    def connection(self, timeout=10):
        if self.tcp is None:
            return Unix(self.socket, timeout)
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)

    def ask(self, method, target, body=None, *, token="launch", headers=None, timeout=10):
        """Ask once. `body`: bytes or something for JSON; `token`: a scope, or None for a request without one."""
        connection = self.connection(timeout)
        sent = {"Authorization": f"Bearer {self.token(token)}"} if token else {}
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            sent["Content-Type"] = "application/json"
        try:
            connection.request(method, target, body, {**sent, **(headers or {})})
            return Answer(connection.getresponse())
        finally:
            connection.close()

    def get(self, target, **more):
        return self.ask("GET", target, **more)

    def post(self, target, body, **more):
        return self.ask("POST", target, body, **more)

    def events(self, target, *, token="launch", headers=None, timeout=10):
        """Yield (event, data, id) of a stream until it ends or `timeout` seconds pass without a byte."""
        connection = self.connection(timeout)
        connection.request("GET", target, headers={"Authorization": f"Bearer {self.token(token)}", **(headers or {})})
        answer = connection.getresponse()
        assert answer.status == 200, answer.read()
        found = {}
        try:
            while line := answer.readline():
                text = line.decode().rstrip("\n")
                if not text:
                    if "data" in found:
                        yield found.get("event", "message"), json.loads(found["data"]), found.get("id")
                    found = {}
                elif not text.startswith(":"):
                    name, _, value = text.partition(": ")
                    found[name] = value
        finally:
            connection.close()
