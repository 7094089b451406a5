"""More requests than can be answered: the others are turned away at once, and everything else goes on."""

import socket
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx

from reco_assets_tests.serving.conftest import RunningService, Serve, running_service
from reco_assets_tests.serving.own_server import own_server
from reco_assets_tests.store.conftest import settings_for
from reco_assets_tests.store.published import post, user

MOST = 3


@contextmanager
def held(service: RunningService, n: int) -> Iterator[list[socket.socket]]:
    """So many requests that wait for the rest of their body."""
    host, port = service.url.removeprefix("http://").split(":")
    head = (
        f"POST /api/track HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\n"
        "Content-Length: 2\r\n\r\n{"
    )
    with ExitStack() as stack:
        sockets = []
        for _ in range(n):
            sock = stack.enter_context(socket.create_connection((host, int(port)), timeout=20))
            sock.sendall(head.encode())
            sockets.append(sock)
        yield sockets


def wait_until_full(client: httpx.Client) -> httpx.Response:
    """The first answer of a service that is full."""
    deadline = time.monotonic() + 30
    while (answer := client.get("/api/feeds")).status_code != 503:
        assert time.monotonic() < deadline, answer
    return answer


def turned_away(client: httpx.Client) -> int:
    lines = client.get("/metrics").text.splitlines()
    return int(float(next(line.split()[1] for line in lines if line.startswith("reco_turned_away_total "))))


def test_what_is_too_much_is_turned_away_until_there_is_room(serve: Serve) -> None:
    service = serve(service_max_requests=MOST, track_timeout_s=60)
    client = service.client
    with held(service, MOST) as sockets:
        answer = wait_until_full(client)
        before = turned_away(client)
        assert answer.json()["error"]["code"] == "overloaded"
        assert answer.headers["retry-after"] == "1"
        assert answer.json()["error"]["request_id"] == answer.headers["x-request-id"]
        assert answer.headers["cache-control"] == "no-store"
        for path in ("/api/health/live", "/api/health/ready"):
            assert client.get(path).status_code == 200
        for path in ("/api/feeds", "/reco.js", "/nowhere"):
            assert client.get(path).status_code == 503
        assert turned_away(client) == before + 3
        sockets[0].sendall(b"}")  # one is answered: there is room for one
        assert sockets[0].recv(12) == b"HTTP/1.1 400"
        deadline = time.monotonic() + 30
        while client.get("/reco.js").status_code != 200:
            assert time.monotonic() < deadline
    deadline = time.monotonic() + 30
    while client.get("/reco.js").status_code != 200:  # callers who left are not counted for ever
        assert time.monotonic() < deadline


def test_a_page_of_another_origin_can_read_that_it_was_turned_away(serve: Serve) -> None:
    service = serve(service_max_requests=1, track_timeout_s=60, cors_origins=("https://app.example",))
    with held(service, 1):
        wait_until_full(service.client)
        answer = service.client.get("/api/feeds", headers={"Origin": "https://app.example"})
        assert answer.status_code == 503
        assert answer.headers["access-control-allow-origin"] == "https://app.example"


def test_a_burst_while_the_database_hangs(open_tmp_path: Path) -> None:
    with own_server(open_tmp_path / "postgres") as server:
        server.query(f"INSERT INTO users (id) VALUES ('{user(1)}')")
        server.query(f"INSERT INTO posts (id, author_id, title) VALUES ('{post(1)}', '{user(1)}', 'One')")
        settings = settings_for(server.url, service_max_requests=MOST)
        with running_service(settings) as service, httpx.Client(base_url=service.url, timeout=60) as client:
            event = {"user_id": str(user(1)), "post_id": str(post(1)), "interaction_type": "view"}

            def call(number: int) -> str:
                if number % 2:
                    answer = client.get("/api/feeds", params={"user_id": str(user(1))})
                    return "fed" if answer.status_code == 200 else answer.json()["error"]["code"]
                answer = client.post("/api/track", json=event)
                return "stored" if answer.status_code == 200 else answer.json()["error"]["code"]

            def recover() -> None:
                deadline = time.monotonic() + 30
                while call(0) != "stored":
                    assert time.monotonic() < deadline, "it does not recover"
                    time.sleep(0.1)

            recover()
            counts: Counter[str] = Counter()
            with ThreadPoolExecutor(60) as threads:
                for _ in range(20):  # again if the hang was noticed before the burst began
                    if counts["overloaded"]:
                        break
                    with server.hanging():
                        answers = threads.map(call, range(60))
                        assert client.get("/api/health/live").status_code == 200
                        counts = Counter(answers)  # all are answered while it still hangs
                    assert counts.keys() <= {"overloaded", "unavailable", "fed"}
                    assert turned_away(client) == counts["overloaded"]
                    recover()
            assert counts["overloaded"]


def test_many_who_ask_for_health_take_one_connection(open_tmp_path: Path) -> None:
    with (
        own_server(open_tmp_path / "postgres") as server,
        running_service(settings_for(server.url)) as service,
        httpx.Client(base_url=service.url, timeout=60) as client,
        ThreadPoolExecutor(40) as threads,
        server.hanging(),
    ):
        answers = [threads.submit(client.get, "/api/health/ready") for _ in range(40)]
        most = 0
        while not all(answer.done() for answer in answers):
            stats = service.service.primary.stats()
            most = max(most, stats["in_use"] + stats["waiting"])
            time.sleep(0.005)
        assert {answer.result().status_code for answer in answers} <= {200, 503}
        # One look, and the service's own: gauges, trending posts. It would be 40.
        assert most <= 5
