"""A stand-in for the Hugging Face Hub on loopback: repositories from folders, with commits, tokens and faults."""

import hashlib
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Literal
from urllib.parse import quote, unquote, urlsplit

LARGE = (".parquet", ".safetensors", ".jsonl", ".bin")
"""Files that the Hub keeps by their sha256 (LFS); the others are git blobs."""


@dataclass
class Fault:
    """What goes wrong with the next `times` requests whose "METHOD path" holds `where`.

    A status is answered; a GET is cut after that many bytes; or one byte of it is flipped.
    """

    where: str
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    cut_after: int | None = None
    flip: bool = False
    times: int = 1


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
    store: str = ""
    """Where large files are redirected to, as the Hub redirects to its storage; "" to serve them itself."""
    commits: dict[str, dict[str, dict[str, bytes]]] = field(default_factory=dict)

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
        return known.get(revision) or self.tags.get((repo, revision))

    def fault(self, request: str) -> Fault | None:
        for fault in self.faults:
            if fault.times and fault.where in request:
                fault.times -= 1
                return fault
        return None


def handler(hub: StandInHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.answer()

        def do_GET(self) -> None:
            self.answer()

        def log_message(self, format: str, *args: object) -> None:
            pass

        def answer(self) -> None:
            path = unquote(urlsplit(self.path).path)
            hub.requests.append(f"{self.command} {path}")
            self.authorization = self.headers.get("Authorization", "").removeprefix("Bearer ")
            if self.authorization:
                hub.tokens.add(self.authorization)
            self.fault = hub.fault(f"{self.command} {path}")
            if self.fault is not None and self.fault.status:
                return self.send(self.fault.status, self.fault.headers)
            for repo in hub.repos:
                for prefix, answer in ((f"/api/{repo}", self.api), (f"/{repo.removeprefix('models/')}", self.file)):
                    if path == prefix or path.startswith(f"{prefix}/"):
                        return answer(repo, path.removeprefix(prefix).strip("/"))
            self.send(404, {"X-Error-Code": "RepoNotFound"})

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
            what, _, revision = rest.partition("/")
            commit = hub.resolve(repo, revision or "main")
            if commit is None:
                return self.send(404, {"X-Error-Code": "RevisionNotFound"})
            if what == "tree":
                return self.send(200, {}, json.dumps(list(tree(hub.commits[repo][commit]))).encode())
            self.send(200, {}, json.dumps({"id": repo.split("/", 1)[1], "sha": commit}).encode())

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
            if self.fault is not None and self.fault.flip:
                data = data[:-1] + bytes([data[-1] ^ 1])
            if self.fault is not None and self.fault.cut_after is not None:
                self.wfile.write(data[: self.fault.cut_after])
                self.wfile.flush()
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
            else:
                self.wfile.write(data)

    return Handler


def oid(name: str, data: bytes) -> str:
    """What a file's ETag is: sha256 for large files, the git blob's sha1 for others."""
    if name.endswith(LARGE):
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def tree(files: dict[str, bytes]) -> Iterator[dict[str, object]]:
    for name, data in files.items():
        entry: dict[str, object] = {"type": "file", "path": name, "size": len(data), "oid": oid(name, data)[:40]}
        if name.endswith(LARGE):
            entry["lfs"] = {"oid": oid(name, data), "size": len(data), "pointerSize": 134}
        yield entry


@contextmanager
def stand_in_hub(repos: dict[str, Path]) -> Iterator[StandInHub]:
    hub = StandInHub(repos)
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
