"""A stand-in for the Hugging Face Hub on loopback: repositories from folders, with commits, tokens and faults.

Files can be pushed to it by the tokens of its accounts (hub_pushes.py).
"""

import hashlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qs, quote, unquote, urlsplit

from tests.support.hub_pushes import GITATTRIBUTES, Pushed, below

LARGE = (".parquet", ".safetensors", ".jsonl", ".bin")
"""Files that the Hub keeps by their sha256 (LFS); the others are git blobs."""


@dataclass
class Fault:
    """What goes wrong with the next `times` requests whose "METHOD path" holds `where`.

    A status is answered; the answer is cut after that many bytes; one byte is flipped, of the answer or of what is put;
    or the connection is dropped before anything is done. Nothing goes wrong with the first `skip` of them.
    """

    where: str
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    cut_after: int | None = None
    flip: bool = False
    drop: bool = False
    times: int = 1
    skip: int = 0


@dataclass
class Lock:
    """Who may read a repository: the bearer of the token. Of a gated one anybody sees the commit and the names."""

    token: str
    kind: Literal["private", "gated"]


@dataclass
class StandInHub:
    """repos: "datasets/owner/name" or "models/owner/name" -> folder; its content now is the branch main."""

    repos: dict[str, Path]
    url: str = ""
    requests: list[str] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)
    tags: dict[tuple[str, str], str] = field(default_factory=dict)
    locks: dict[str, Lock] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    one_at_a_time: threading.Lock = field(default_factory=threading.Lock)
    store: str = ""
    """Where large files are redirected to, as the Hub redirects to its storage; "" to serve them itself."""
    commits: dict[str, dict[str, dict[str, bytes]]] = field(default_factory=dict)
    accounts: dict[str, set[str]] = field(default_factory=dict)
    """Tokens, and the owners whose repositories each may write. Other tokens are not accepted, if there are any."""
    new_repos: Path = Path()
    """Where folders of created repositories are made."""
    branches: dict[tuple[str, str], str] = field(default_factory=dict)
    storage: dict[str, bytes] = field(default_factory=dict)
    """Large files that were put, by the sha256 that they should have."""
    puts: list[str] = field(default_factory=list)
    pushes: list[tuple[str, list[str]]] = field(default_factory=list)
    """Each commit: its branch and the files that it changed."""
    large: tuple[str, ...] = LARGE
    before: Callable[[str, int], object] = lambda request, port: None
    """Called with "METHOD path" of each request, and its caller's port. If it returns true, nothing is done."""
    after: Callable[[str, int], object] = lambda request, port: None
    """The same when a push is done and not answered yet."""

    def commit(self, repo: str) -> str:
        """The commit that main is at; it can be had from now on, whatever becomes of main."""
        folder = self.repos[repo]
        files = {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
        digest = hashlib.sha1(usedforsecurity=False)
        for name, data in files.items():
            digest.update(name.encode() + data)
        self.commits.setdefault(repo, {})[digest.hexdigest()] = files
        return digest.hexdigest()

    def resolve(self, repo: str, revision: str) -> str | None:
        """The commit of a branch, tag or commit; None if there is none."""
        main = self.commit(repo)
        known = {"main": main} | {commit: commit for commit in self.commits[repo]}
        return known.get(revision) or self.tags.get((repo, revision)) or self.branches.get((repo, revision))

    def fault(self, request: str) -> Fault | None:
        for fault in self.faults:
            if fault.times and fault.where in request:
                if fault.skip:
                    fault.skip -= 1
                    continue
                fault.times -= 1
                return fault
        return None

    def make_repo(self, repo: str, private_to: str | None = None) -> Path:
        """A new repository, as the Hub makes one: with .gitattributes. Private to a token, or public."""
        self.repos[repo] = self.new_repos / repo
        self.repos[repo].mkdir(parents=True)
        (self.repos[repo] / ".gitattributes").write_bytes(GITATTRIBUTES)
        if private_to is not None:
            self.locks[repo] = Lock(private_to, "private")
        return self.repos[repo]

    def files(self, repo: str, revision: str = "main") -> dict[str, bytes]:
        """The files of a branch."""
        commit = self.resolve(repo, revision)
        assert commit is not None
        return self.commits[repo][commit]

    def set_files(self, repo: str, revision: str, files: dict[str, bytes]) -> str:
        """Commit files to a branch. Returns the commit."""
        if revision != "main":
            digest = hashlib.sha1(repr(sorted(files.items())).encode(), usedforsecurity=False).hexdigest()
            self.commits[repo][digest] = files
            self.branches[repo, revision] = digest
            return digest
        for path in [path for path in self.repos[repo].rglob("*") if path.is_file()]:
            path.unlink()
        for name, data in files.items():
            (self.repos[repo] / name).parent.mkdir(parents=True, exist_ok=True)
            (self.repos[repo] / name).write_bytes(data)
        return self.commit(repo)

    def tree(self, files: dict[str, bytes]) -> Iterator[dict[str, Any]]:
        """What the API says about files."""
        for name, data in files.items():
            entry: dict[str, Any] = {"type": "file", "path": name, "size": len(data)}
            entry["oid"] = oid(name, data, self.large)[:40]
            if name.endswith(self.large):
                entry["lfs"] = {"oid": oid(name, data), "size": len(data), "pointerSize": 134}
            yield entry

    def is_hidden(self, repo: str, token: str) -> bool:
        """Whether a repository is private, and the token is not the one that sees it."""
        lock = self.locks.get(repo)
        return lock is not None and lock.kind == "private" and token != lock.token


def handler(hub: StandInHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.answer()

        def do_GET(self) -> None:
            self.answer()

        def do_POST(self) -> None:
            self.answer()

        def do_PUT(self) -> None:
            self.answer()

        def do_DELETE(self) -> None:
            self.answer()

        def log_message(self, format: str, *args: object) -> None:
            pass

        def answer(self) -> None:
            path = unquote(urlsplit(self.path).path)
            body = self.body()
            if hub.before(f"{self.command} {path}", self.client_address[1]):
                return self.drop()
            hub.requests.append(f"{self.command} {path}")
            self.authorization = self.headers.get("Authorization", "").removeprefix("Bearer ")
            if self.authorization:
                hub.tokens.add(self.authorization)
            self.fault = hub.fault(f"{self.command} {path}")
            if self.fault is not None and self.fault.drop:
                return self.drop()
            if self.fault is not None and self.fault.status:
                return self.send(self.fault.status, self.fault.headers)
            if self.command in ("POST", "PUT", "DELETE"):
                return self.pushed(path, body)
            if hub.accounts and self.authorization not in {"", *hub.accounts}:
                return self.send(401, {"X-Error-Message": "Invalid credentials in Authorization header"})
            for repo in hub.repos:
                for prefix, answer in ((f"/api/{repo}", self.api), (f"/{repo.removeprefix('models/')}", self.file)):
                    if path == prefix or path.startswith(f"{prefix}/"):
                        return answer(repo, path.removeprefix(prefix).strip("/"))
            self.send(404, {"X-Error-Code": "RepoNotFound"})

        def body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))
            chunks = []
            while size := int(self.rfile.readline(), 16):
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(chunks)

        def pushed(self, path: str, body: bytes) -> None:
            if self.fault is not None and self.fault.flip:
                body = body[:-1] + bytes([body[-1] ^ 1])
            with hub.one_at_a_time:
                answer = Pushed(hub, self.command, path, self.authorization, body).answer()
            hub.after(f"{self.command} {path}", self.client_address[1])
            data = json.dumps(answer.data).encode() if answer.data is not None else b""
            self.send(answer.status, {"Content-Type": "application/json"} | (answer.headers or {}), data)

        def drop(self) -> None:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

        def locked(self, repo: str, names_only: bool) -> bool:
            """Answer that the repository is not for this caller, if so."""
            lock = hub.locks.get(repo)
            if lock is None or self.authorization == lock.token or (names_only and lock.kind == "gated"):
                return False
            if lock.kind == "private":
                self.send(401 if not self.authorization else 404, {"X-Error-Code": "RepoNotFound"})
            else:
                self.send(401 if not self.authorization else 403, {"X-Error-Code": "GatedRepo"})
            return True

        def api(self, repo: str, rest: str) -> None:
            if self.locked(repo, names_only=True):
                return
            if rest == "refs":
                branches = [
                    {"name": name, "ref": name, "targetCommit": at}
                    for (of, name), at in hub.branches.items()
                    if of == repo
                ]
                return self.send(200, {}, json.dumps({"branches": branches, "converts": [], "tags": []}).encode())
            what, _, revision = rest.partition("/")
            revision, _, folder = revision.partition("/")
            commit = hub.resolve(repo, revision or "main")
            if commit is None:
                return self.send(404, {"X-Error-Code": "RevisionNotFound"})
            if what == "tree":
                query = parse_qs(urlsplit(self.path).query)
                is_recursive = query.get("recursive", ["true"])[0].lower() == "true"
                found = list(below(hub.tree(hub.commits[repo][commit]), folder, is_recursive))
                if folder and not found:
                    return self.send(404, {"X-Error-Code": "EntryNotFound"})
                return self.send(200, {}, json.dumps(found).encode())
            lock = hub.locks.get(repo)
            about = {"id": repo.split("/", 1)[1], "sha": commit, "private": lock is not None and lock.kind == "private"}
            self.send(200, {}, json.dumps(about).encode())

        def file(self, repo: str, rest: str) -> None:
            if self.locked(repo, names_only=False):
                return
            _, revision, name = rest.split("/", 2)
            commit = hub.resolve(repo, revision)
            if commit is None:
                return self.send(404, {"X-Error-Code": "RevisionNotFound"})
            data = hub.commits[repo][commit].get(name)
            if data is None:
                return self.send(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
            headers = {"ETag": f'"{oid(name, data)}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
            if hub.store and name.endswith(LARGE):
                headers |= {
                    "X-Linked-Size": str(len(data)),
                    "X-Linked-ETag": headers["ETag"],
                    "Location": hub.store + quote(f"/{repo.removeprefix('models/')}/resolve/{commit}/{name}"),
                }
                return self.send(302, headers)
            begin = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").split("-")[0])
            if begin:
                headers["Content-Range"] = f"bytes {begin}-{len(data) - 1}/{len(data)}"
            self.send(206 if begin else 200, headers, data[begin:])

        def send(self, status: int, headers: dict[str, str], data: bytes = b"") -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command == "HEAD":
                return
            if self.fault is not None and self.fault.flip and self.command == "GET":
                data = data[:-1] + bytes([data[-1] ^ 1])
            if self.fault is not None and self.fault.cut_after is not None:
                self.wfile.write(data[: self.fault.cut_after])
                self.wfile.flush()
                self.drop()
            else:
                self.wfile.write(data)

    return Handler


def oid(name: str, data: bytes, large: tuple[str, ...] = LARGE) -> str:
    """What a file's ETag is: sha256 for large files, the git blob's sha1 for others."""
    if name.endswith(large):
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


@contextmanager
def stand_in_hub(repos: dict[str, Path], new_repos: Path = Path()) -> Iterator[StandInHub]:
    hub = StandInHub(repos, new_repos=new_repos)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(hub))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
