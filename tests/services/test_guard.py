"""The door: every route of all three services, from everybody who should not come in; one test per known fault.

The faults are those that Ray, Jupyter, MLflow, Open OnDemand, jobperf, Dask, Starlette and uvicorn had.
"""

import http.client
import json
import re
import socket
import time
from pathlib import Path

import pytest

from aifbench.services.app import OPEN, create_app, make_services, routes_of, scope_of
from aifbench.services.guard import Bucket, needs
from aifbench.services.service import Service
from aifbench.services.settings import Settings
from tests.services.live import Live

ROOT = Path(__file__).parents[2]
UNSAFE = ("POST", "PUT", "DELETE", "PATCH", "TRACE", "CONNECT", "OPTIONS", "PROPFIND", "X")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with Live(tmp_path_factory.mktemp("all"), project=ROOT) as live:
        yield live


@pytest.fixture
def patient(server):
    """The server for tests that ask so often that they are told to wait: they do, and ask again."""
    ask = server.ask

    def again(*arguments, **more):
        while (answer := ask(*arguments, **more)).status == 429:
            time.sleep(0.2)
        return answer

    server.ask = again
    yield server
    server.ask = ask


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    folder = tmp_path_factory.mktemp("app")
    settings = Settings(project=ROOT, results=folder / "results", state=folder / "state", runtime=folder / "run")
    return create_app(settings, make_services(settings, ["client", "monitor", "log"]))


def routes(app):
    """Return (method, path with example ids, scope) of every route, also those that no document shows."""
    found = set()
    for route in routes_of(app):
        path = re.sub(r"\{[a-z_:]+\}", "example-1", route.path)
        found |= {(method, path, scope_of(route.dependant)) for method in route.methods}
    return sorted(found, key=str)


def refused(answer, status):
    assert answer.status == status, answer.body
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == status


def test_the_walk_sees_all_routes(app):
    found = routes(app)
    paths = {path for _, path, _ in found}
    for path in ("/metrics", "/readyz", "/openapi.json", "/api/v1/log/stream", "/api/v1/log:batch", "/api/v1/services"):
        assert path in paths
    documented = {
        (method.upper(), re.sub(r"\{[a-z_]+\}", "example-1", path))
        for path, methods in app.openapi()["paths"].items()
        for method in methods
    }
    assert documented <= {(method, path) for method, path, _ in found}
    assert len(documented) > 20


def test_every_route_says_the_scope_it_needs(app):
    open_paths = {path.replace("{file}", "example-1") for path in OPEN}
    assert [(method, path) for method, path, scope in routes(app) if scope is None and path not in open_paths] == []
    changing = [path for method, path, scope in routes(app) if method not in {"GET", "HEAD"} and scope == "read"]
    assert changing == ["/api/v1/runs/example-1:ticket"]  # changes nothing of the user's


def test_a_route_without_a_scope_is_not_served(tmp_path):
    class Careless(Service):
        name = "careless"

    settings = Settings(project=tmp_path, results=tmp_path, state=tmp_path / "state", runtime=tmp_path)
    careless = Careless(settings)
    careless.router.get("/careless")(lambda: "hello")
    with pytest.raises(ValueError, match="careless says no scope"):
        create_app(settings, [careless])
    nested = Careless(settings)
    nested.router.include_router(careless.router)
    with pytest.raises(ValueError, match="no plain route"):
        create_app(settings, [nested])
    with pytest.raises(ValueError, match="no scope 'admin'"):
        needs("admin")


def test_walk_without_a_token_and_with_a_wrong_one(app, patient):
    """Ray CVE-2023-48022 (no authentication), Jupyter CVE-2024-28179 (streams skipped it)."""
    for method, path, scope in routes(app):
        if scope is not None:
            refused(patient.ask(method, path, token=None), 401)
            for wrong in (f"Bearer {'x' * 43}", "Bearer ", "Bearer", patient.token(), f"Basic {patient.token()}"):
                refused(patient.ask(method, path, token=None, headers={"Authorization": wrong}), 401)
            refused(patient.ask(method, path, token=None, headers={"Cookie": f"token={patient.token()}"}), 401)
            refused(patient.ask(method, f"{path}?token={patient.token()}", token=None), 401)


def test_a_wrong_token_is_told_apart_from_none(patient):
    for method, path in (("GET", "/api/v1/services"), ("POST", "/api/v1/runs")):
        none = patient.ask(method, path, token=None).json()["detail"]
        wrong = patient.ask(method, path, token=None, headers={"Authorization": f"Bearer {'x' * 43}"}).json()["detail"]
        assert none == "send the token as 'Authorization: Bearer <token>'"
        assert "this token is not the server's" in wrong


def test_walk_with_a_parameter_that_the_route_does_not_have(app, patient):
    for method, path, scope in routes(app):
        if scope is not None and not path.startswith("/api/v1/reports/"):
            token = "ingest" if scope == "ingest" else "launch"
            answer = patient.ask(method, f"{path}?colour%0a=red", b"{}", token=token)
            refused(answer, 422)
            assert answer.json()["detail"].startswith("query.colour\\n: no such parameter; "), path


def test_a_dry_run_where_there_is_none_launches_nothing(server):
    answer = server.post("/api/v1/runs?dry_run=true", {"preset": "storage-quick"})
    refused(answer, 422)
    assert answer.json()["detail"] == "query.dry_run: no such parameter; there are none here"
    assert server.get("/api/v1/runs").json()["runs"] == []
    options = server.get("/api/v1/log?levle=1").json()["detail"]
    assert options == "query.levle: no such parameter; allowed: level, limit, run, since"


def test_walk_with_a_token_of_too_little_scope(app, patient):
    for method, path, scope in routes(app):
        if scope == "launch":
            refused(patient.ask(method, path, token="read"), 403)
            refused(patient.ask(method, path, token="ingest"), 403)
        elif scope == "read":
            ticketed = path.startswith("/api/v1/reports/")  # opened by a ticket that only a reader gets
            refused(patient.ask(method, path, token="ingest"), 401 if ticketed else 403)
        elif scope == "ingest":
            refused(patient.ask(method, path, token="read"), 403)


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8080", "localhost.evil.example", "127.0.0.1.evil.example:80", "0.0.0.0", "[::2]",
     "localhost:80@evil.example", "localhost:x", "10.0.0.1", ""],
)  # fmt: skip
def test_walk_with_the_name_of_another_host(app, patient, host):
    """Ray CVE-2025-62593: a page that rebinds its name to this machine comes with that name, whatever the browser."""
    for method, path, _ in routes(app):
        for agent in ("Mozilla/5.0", "curl/8"):
            refused(patient.ask(method, path, headers={"Host": host, "User-Agent": agent}), 400)


def test_names_of_this_machine_are_fine(server):
    for host in ("localhost", "localhost:8080", "LOCALHOST:1", "127.0.0.1:65535", "[::1]:80"):
        assert server.get("/api/v1/services", headers={"Host": host}).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "https://localhost:8080"},
        {"Origin": "http://localhost:8888"},
        {"Origin": "http://localhost"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "something-new"},
        {"Origin": "http://localhost:8080", "Sec-Fetch-Site": "cross-site"},
    ],
)
def test_walk_from_a_page_of_another_origin(app, patient, headers):
    """CSRF, also from another port of this host (`same-site`), where another user may serve a page."""
    for method, path, scope in routes(app):
        if scope is not None:
            refused(patient.ask(method, path, headers=headers), 403)


def test_a_page_of_our_own_may_ask(server):
    own = {"Origin": "http://localhost:8080", "Sec-Fetch-Site": "same-origin"}
    assert server.get("/api/v1/services", headers=own).status == 200
    assert server.ask("DELETE", "/api/v1/log/configs/none", headers=own).status == 404


@pytest.mark.parametrize("method", UNSAFE)
@pytest.mark.parametrize("path", ["/", "/healthz", "/app.js", "/api/v1/services", "/api/v1/none", "/none", "*"])
def test_no_unsafe_method_passes_anywhere_without_a_token(patient, method, path):
    """Ray CVE-2026-27482: the guard knew POST and PUT, and DELETE passed."""
    answer = patient.ask(method, path, token=None)
    assert answer.status in {400, 401, 405}
    evil = patient.ask(method, path, headers={"Origin": "http://evil.example"})
    assert evil.status in {400, 403, 405}


def test_no_answer_allows_another_origin_or_sets_a_cookie(app, patient):
    """jupyter-patient-proxy #590: cookies of localhost reach every port of it."""
    answers = [patient.ask(method, path, token=None) for method, path, _ in routes(app)]
    answers += [patient.get("/", token=None), patient.get("/api/v1/services"), patient.get("/none/at/all")]
    preflight = {"Origin": "http://evil.example", "Access-Control-Request-Method": "DELETE"}
    answers.append(patient.ask("OPTIONS", "/api/v1/log/configs/x", token=None, headers=preflight))
    for answer in answers:
        names = {name.lower() for name in answer.headers}
        assert not any(name.startswith("access-control-") for name in names)
        assert "set-cookie" not in names
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        assert "patient" not in names


def test_headers_of_a_proxy_are_believed_by_nobody(patient):
    """jobperf trusted X-Forwarded-User."""
    forged = {
        "X-Forwarded-User": "root",
        "X-Forwarded-For": "127.0.0.1",
        "X-Remote-User": "root",
        "Forwarded": "for=::1",
    }
    refused(patient.get("/api/v1/services", token=None, headers=forged), 401)
    refused(patient.get("/api/v1/services", headers={"Host": "evil.example", "X-Forwarded-Host": "localhost"}), 400)


@pytest.mark.parametrize(
    "path",
    ["/../settings.py", "/..%2fsettings.py", "/%2e%2e/settings.py", "/.%2e/app.py", "/..%5capp.py", "//etc/passwd",
     "/%2fetc%2fpasswd", "/app.js%00.html", "/app.js/", "/./app.js/../../app.py", "/index.html%23/../../app.py",
     "/__init__.py", "/web", "/.", "/..", "/~root", "/app.js;x"],
)  # fmt: skip
def test_only_files_of_the_page_are_given(patient, path):
    """MLflow CVE-2024-1483, Grafana CVE-2021-43798, Aim: a path taken from the client."""
    answer = patient.get(path)
    assert answer.status in {400, 404, 405}
    assert b"import" not in answer.body


def test_a_range_changes_nothing(server):
    """Starlette CVE-2025-62727: a header of many ranges took quadratic time."""
    ranges = "bytes=" + ",".join(f"{n}-" for n in range(5000))
    answer = server.get("/app.js", headers={"Range": ranges})
    assert answer.status == 200
    assert "accept-ranges" not in answer.headers


def test_a_large_body_is_refused_whole_or_in_chunks(server):
    path = "/api/v1/log:batch"
    assert server.post(path, b" " * (1 << 20)).status == 400  # no JSON, but not too large
    refused(server.post(path, b" " * ((1 << 20) + 1)), 413)
    connection = server.connection()
    headers = {"Authorization": f"Bearer {server.token()}"}
    chunks = (b" " * 65536 for _ in range(17))
    connection.request("POST", path, chunks, headers, encode_chunked=True)
    assert connection.getresponse().status == 413
    connection.close()


def test_lengths_that_lie_do_no_harm(server):
    for length in ("-1", "x", "1e9", "99999999999999999999"):
        connection = server.connection()
        connection.putrequest("POST", "/api/v1/log")
        connection.putheader("Authorization", f"Bearer {server.token()}")
        connection.putheader("Content-Length", length)
        connection.endheaders()
        assert connection.getresponse().status in {400, 413}
        connection.close()
    assert server.get("/healthz").status == 200


def test_two_hosts_are_one_too_many(server):
    connection = server.connection()
    connection.putrequest("GET", "/api/v1/services", skip_host=True)
    connection.putheader("Host", "localhost")
    connection.putheader("Host", "evil.example")
    connection.putheader("Authorization", f"Bearer {server.token()}")
    connection.endheaders()
    assert connection.getresponse().status == 400
    connection.close()


def test_hostile_requests_leave_no_secret_and_no_terminal_code_in_the_output(tmp_path):
    """uvicorn CVE-2020-7694 (terminal codes in its log), Jupyter PYSEC-2022-179 (secrets in it)."""
    with Live(tmp_path, "log") as server:
        for line in (b"GET /\x1b[2J HTTP/1.1", b"\x1b]0;title\x07", b"GET /%1b%5b31m HTTP/1.1", b"\x16\x03\x01\x02"):
            with socket.socket(socket.AF_UNIX) as raw:
                raw.connect(str(server.socket))
                raw.sendall(line + b"\r\nHost: localhost\r\nX: \x1b[31m\r\n\r\n")
                raw.settimeout(2)
                raw.recv(1000)
        token = server.token()
        server.get(f"/api/v1/log?token={token}")
        server.get("/api/v1/log", headers={"Cookie": token})
        (server.results / ".services" / "log").rename(server.results / "away")
        (server.results / ".services" / "log").write_text("")
        server.get("/api/v1/log/status")
        server.stop()
        said = server.output.read_bytes()
        assert token.encode() not in said
        assert b"\x1b" not in said


def test_an_unexpected_error_is_a_problem_without_details(tmp_path):
    import asyncio

    import httpx

    class Broken(Service):
        name = "broken"

    settings = Settings(project=tmp_path, results=tmp_path, state=tmp_path / "state", runtime=tmp_path)
    broken = Broken(settings)

    @broken.router.get("/broken", dependencies=[needs("read")])
    async def fail():
        raise RuntimeError("a secret of the inside")

    app = create_app(settings, [broken])
    token = (settings.state / "token-read").read_text().strip()

    async def ask():
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.get("/api/v1/broken", headers={"Authorization": f"Bearer {token}"})

    answer = asyncio.run(ask())
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert "secret" not in answer.text
    assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_a_signed_request_is_as_good_as_the_token_and_its_answer_is_signed_too(server):
    headers, proof = server.signature("GET", "/api/v1/log?limit=3")
    answer = server.get("/api/v1/log?limit=3", token=None, headers=headers)
    assert (answer.status, answer.headers["aifbench-proof"]) == (200, proof)
    body = json.dumps({"preset": "none"}).encode()
    headers, proof = server.signature("POST", "/api/v1/runs:validate", body)
    answer = server.ask("POST", "/api/v1/runs:validate", body, token=None, headers=headers)
    assert (answer.status, answer.headers["aifbench-proof"]) == (422, proof)
    headers, proof = server.signature("DELETE", "/api/v1/log/configs/none", key=server.token("read"))
    answer = server.ask("DELETE", "/api/v1/log/configs/none", token=None, headers=headers)
    assert (answer.status, answer.headers["aifbench-proof"]) == (403, proof)
    assert server.get("/api/v1/services").headers["aifbench-proof"] is None


def test_a_signature_is_good_for_one_method_address_and_body(patient):
    headers, _ = patient.signature("GET", "/api/v1/services")
    for method, target in (("GET", "/api/v1/services?"), ("GET", "/api/v1/log"), ("POST", "/api/v1/runs")):
        answer = patient.ask(method, target, b"{}" if method == "POST" else None, token=None, headers=headers)
        assert answer.status in {401, 200}
        assert (answer.status == 200) == (target == "/api/v1/services?")  # an empty query is none
    headers, _ = patient.signature("POST", "/api/v1/runs", b'{"preset": "storage-quick"}')
    answer = patient.ask("POST", "/api/v1/runs", b'{"preset": "inference-quick"}', token=None, headers=headers)
    refused(answer, 400)
    assert answer.json()["detail"] == "the body is not the one that was signed"
    assert patient.get("/api/v1/runs").json()["runs"] == []


@pytest.mark.parametrize("of", ["a wrong key", "nothing", "half", "the nonce of another"])
def test_a_wrong_signature_is_nobody_s_and_gets_no_proof(patient, of):
    headers, _ = patient.signature("GET", "/api/v1/services", key="x" * 43 if of == "a wrong key" else None)
    if of == "nothing":
        headers["Authorization"] = "aifbench-hmac nonce=, body=, mac="
    elif of == "half":
        headers["Authorization"] = headers["Authorization"][:-1]
    elif of == "the nonce of another":
        headers["Authorization"] = re.sub(r"nonce=\w+", "nonce=" + "0" * 32, headers["Authorization"])
    answer = patient.get("/api/v1/services", token=None, headers=headers)
    refused(answer, 401)
    assert answer.headers["aifbench-proof"] is None


def test_too_many_requests_are_told_to_wait(tmp_path):
    """CVE-2025-53636: a flood of log entries."""
    with Live(tmp_path, "log") as server:
        statuses = [server.get("/api/v1/services", token=None).status for _ in range(300)]
        assert 429 in statuses
        assert server.get("/api/v1/services").status == 200, "strangers take nothing from those who have a token"


def test_a_bucket_fills_with_time_and_never_above_its_brim():
    now = [0.0]
    bucket = Bucket(2.0, 3, lambda: now[0])
    assert [bucket.take() for _ in range(4)] == [True, True, True, False]
    now[0] += 0.5
    assert [bucket.take(), bucket.take()] == [True, False]
    now[0] += 1000
    assert [bucket.take() for _ in range(4)] == [True, True, True, False]


def test_the_sixty_fifth_stream_is_refused_and_the_others_live(server):
    streams = []
    try:
        for _ in range(64):
            connection = server.connection()
            connection.request("GET", "/api/v1/log/stream", headers={"Authorization": f"Bearer {server.token()}"})
            answer = connection.getresponse()
            assert answer.status == 200
            streams.append((connection, answer))
        more = server.get("/api/v1/log/stream")
        refused(more, 503)
        assert more.headers["retry-after"] == "5"
        assert "aif_sse_subscribers 64.0" in server.get("/metrics").body.decode()
        assert server.get("/api/v1/services").status == 200
    finally:
        for connection, answer in streams:
            answer.close()
            connection.close()


def test_the_pulse_is_open_and_says_nothing(patient):
    answer = patient.get("/healthz", token=None)
    assert (answer.status, answer.json()) == (200, {"status": "ok"})
    refused(patient.get("/readyz", token=None), 401)
    assert patient.get("/readyz", token="read").status == 200


def test_the_page_is_open_and_holds_no_inline_script(patient):
    answer = patient.get("/", token=None)
    assert answer.status == 200
    text = answer.body.decode()
    assert patient.token() not in text
    assert not re.search(r"<script(?![^>]*\bsrc=)|\bon[a-z]+=|\bstyle=|javascript:", text)
    for name in re.findall(r'(?:src|href)="([a-z]+\.(?:js|css))"', text):
        assert patient.get(f"/{name}", token=None).status == 200


def test_no_script_of_the_page_makes_markup_of_text():
    for file in (ROOT / "src/aifbench/services/web").glob("*.js"):
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", file.read_text()
        ), file


def test_tokens_are_not_in_the_arguments_or_the_environment_of_the_process(server):
    for name in ("cmdline", "environ"):
        assert server.token().encode() not in Path(f"/proc/{server.process.pid}/{name}").read_bytes()


def test_openapi_is_complete_and_needs_the_token(server):
    document = json.loads(server.get("/openapi.json", token="read").body)
    assert document["openapi"].startswith("3.1")
    assert "/api/v1/log/configs/{name}" in document["paths"]


def test_http_1_0_without_a_host_is_refused(server):
    with socket.socket(socket.AF_UNIX) as raw:
        raw.connect(str(server.socket))
        raw.sendall(f"GET /api/v1/services HTTP/1.0\r\nAuthorization: Bearer {server.token()}\r\n\r\n".encode())
        answer = http.client.HTTPResponse(raw)
        answer.begin()
        assert answer.status == 400
