"""Who may read what the server has: the token, the host, the method."""

import socket
from collections.abc import Iterator

import pytest

from embedkit.errors import UsageError
from embedkit.run import RunFolder
from embedkit.view_server.address import Address, listen
from tests.support.served import Client, served


@pytest.fixture(scope="module")
def client(paged_run: RunFolder) -> Iterator[Client]:
    with served(paged_run) as found:
        yield found


def test_the_page_is_there_for_who_knows_the_token(client: Client) -> None:
    answer = client.get()
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["content-length"] == str(len(answer.body))


@pytest.mark.parametrize(
    "path", ["", "texts", "neighbors", "search", "similarity", "rows", "side_by_side.html", "nothing"]
)
def test_no_path_answers_to_another_token(client: Client, path: str) -> None:
    token = client.address.token
    for wrong in ("", "x", token[:-1], token + "x", token.swapcase(), "..", "%2e%2e", "é"):
        url = f"/{wrong}/{path}".encode("ascii", "xmlcharrefreplace").decode()
        answer = client.raw(url)
        assert (answer.status, b"prints a new address" in answer.body) == (404, True), wrong


def test_no_path_leads_out_of_the_server(client: Client) -> None:
    token = client.address.token
    for path in ("../../etc/passwd", "%2e%2e/%2e%2e/etc/passwd", "index.html", "page", "//texts"):
        assert client.raw(f"/{token}/{path}").status == 404


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "", "0.0.0.0:{port}"]
)
def test_a_name_that_leads_here_is_refused(client: Client, host: str) -> None:
    """As in DNS rebinding: the browser believes that this is the attacker's host, and says so."""
    port = client.address.port
    answer = client.raw(f"/{client.address.token}/", headers={"Host": host.format(port=port)})
    assert answer.status == 403
    assert f"ssh -L {port}:127.0.0.1:{port}" in answer.body.decode()


def test_both_names_of_this_machine_are_accepted(client: Client) -> None:
    for name in ("127.0.0.1", "localhost"):
        headers = {"Host": f"{name}:{client.address.port}"}
        assert client.raw(f"/{client.address.token}/", headers=headers).status == 200


def test_two_hosts_in_one_request_are_refused(client: Client) -> None:
    port, token = client.address.port, client.address.token
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(f"GET /{token}/ HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nHost: evil.example\r\n\r\n".encode())
        assert connection.recv(100).split()[1] in (b"400", b"403")


@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_nothing_but_get_is_answered(client: Client, method: str) -> None:
    answer = client.get("texts", method, id=1)
    assert answer.status == 405
    assert answer.headers["allow"] == "GET"


@pytest.mark.parametrize("path", ["", "texts?id=1", "texts?id=x", "nothing"])
def test_no_answer_is_kept_or_shared(client: Client, path: str) -> None:
    headers = client.raw(f"/{client.address.token}/{path}").headers
    assert headers["cache-control"] == "no-store"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["content-security-policy"] == "frame-ancestors 'self'"
    assert not [name for name in headers if name.startswith("access-control") or name in ("server", "set-cookie")]


def test_an_address_without_its_last_slash_is_found(client: Client) -> None:
    answer = client.raw(f"/{client.address.token}")
    assert (answer.status, answer.headers["location"]) == (307, f"/{client.address.token}/")


def test_it_listens_on_the_loopback_address_alone() -> None:
    listener, address = listen(0)
    with listener:
        assert listener.getsockname() == ("127.0.0.1", address.port)
        assert address.url == f"http://127.0.0.1:{address.port}/{address.token}/"


def test_every_start_has_a_token_of_its_own() -> None:
    tokens = set()
    for _ in range(3):
        listener, address = listen(0)
        listener.close()
        tokens.add(address.token)
    assert len(tokens) == 3
    assert min(map(len, tokens)) == 32


def test_a_port_that_is_used_is_named() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(UsageError, match=f"--port {port}: another program uses this port; type another one"):
            listen(port)


def test_a_browser_leaves_out_the_port_of_the_web() -> None:
    assert Address(80, "x").hosts == ("127.0.0.1:80", "localhost:80", "127.0.0.1", "localhost")
    assert Address(81, "x").hosts == ("127.0.0.1:81", "localhost:81")
