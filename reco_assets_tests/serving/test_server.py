"""How connections are taken: what a caller who does not read can hold, and for how long."""

import socket

from reco_assets.serving.server import _bind
from reco_assets_tests.serving.conftest import RunningService
from reco_assets_tests.serving.test_live_feed import open_page
from reco_assets_tests.store.published import user


def test_connections_end_that_leave_an_answer_unread_for_a_minute() -> None:
    with _bind("127.0.0.1", 0) as listening, socket.create_connection(listening.getsockname()):
        taken, _ = listening.accept()
        with taken:
            option = getattr(socket, "TCP_USER_TIMEOUT", None)  # Linux has it
            assert option is None or taken.getsockopt(socket.IPPROTO_TCP, option) == 60_000


def test_pages_are_not_compressed_for(service: RunningService) -> None:
    with open_page(service, f"?user_id={user(1)}", compression="deflate") as page:
        assert page.protocol.extensions == []
