"""A server behind a certificate of a private authority: every request that we send knows `ca_file`."""

import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from aifbench.core.benchmark import ServerNotReady
from aifbench.core.system import System
from aifbench.inference import preflight
from aifbench.inference.params import InferenceParams
from aifbench.inference.server import InferenceServer

STREAM = b'data: {"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":"length"}]}\n\ndata: [DONE]\n\n'
CURVE = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]


class Handler(BaseHTTPRequestHandler):
    """Knows its version and models, and streams one token."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.answer(b'{"version": "1.2.3", "data": [{"id": "m", "owned_by": "us"}]}')

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(STREAM)

    def answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Give the URL of a server whose certificate was signed by our own authority, and that authority's certificate."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl binary to make certificates with")
    folder = tmp_path_factory.mktemp("certificates")

    def make(*options: str) -> None:
        subprocess.run([openssl, *options], cwd=folder, check=True, capture_output=True)

    make("req", "-x509", *CURVE, "-subj", "/CN=our authority", "-keyout", "ca.key", "-out", "ca.pem")
    make("req", *CURVE, "-subj", "/CN=server", "-keyout", "server.key", "-out", "server.csr")
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1\n")
    signed = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "names"]
    make("x509", "-req", "-in", "server.csr", *signed, "-out", "server.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem", folder / "server.key")
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.handle_error = lambda *_: None  # type: ignore[method-assign]  # a client that hangs up is no news
    httpd.socket = context.wrap_socket(httpd.socket, server_side=True)
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    yield f"https://127.0.0.1:{httpd.server_port}", folder / "ca.pem"
    httpd.shutdown()
    thread.join(5)
    httpd.server_close()


def params(url: str, **engine: object) -> InferenceParams:
    values = {"kind": "openai", "url": url, "model": "m", **engine}
    return InferenceParams.model_validate({"engine": values, "prompt_text": "x"})


def test_a_server_that_our_own_authority_vouches_for(served: tuple[str, Path]) -> None:
    url, file = served
    case, server = params(url, ca_file=str(file)), InferenceServer()
    assert list(preflight.check(case, System(name="here"))) == []
    assert server.wait_ready(url, case, 5.0, lambda: True)["requests_sent"] == 1
    facts = server.describe(url, case)
    assert (facts["models"], facts["version"]) == ([{"id": "m", "owned_by": "us"}], {"version": "1.2.3"})


def test_without_its_file_nobody_vouches_and_the_line_says_what_to_give(served: tuple[str, Path]) -> None:
    url, _ = served
    (error,) = preflight.check(params(url), System(name="here"))
    assert "its certificate is not trusted: unable to get local issuer certificate; `ca_file` names" in str(error)
    with pytest.raises(ServerNotReady, match=r"tls: unable to get local issuer certificate \(no requests sent\)"):
        InferenceServer().wait_ready(url, params(url), 5.0, lambda: True)
