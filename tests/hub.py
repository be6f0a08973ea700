"""A stand-in for the Hugging Face Hub on loopback: one commit a repository, files from folders."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit


@dataclass
class StandInHub:
    """repos: "datasets/owner/name" or "models/owner/name" -> folder."""

    repos: dict[str, Path]
    url: str = ""
    requests: list[str] = field(default_factory=list)

    def commit(self, repo: str) -> str:
        names = sorted(p.relative_to(self.repos[repo]).as_posix() for p in self.repos[repo].rglob("*") if p.is_file())
        digest = hashlib.sha1(usedforsecurity=False)
        for name in names:
            digest.update(name.encode() + (self.repos[repo] / name).read_bytes())
        return digest.hexdigest()


def handler(hub: StandInHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def log_message(self, format: str, *args: object) -> None:
            hub.requests.append(format % args)

        def answer(self, body: bool) -> None:
            path = unquote(urlsplit(self.path).path)
            for repo, folder in hub.repos.items():
                if path.startswith(f"/api/{repo}/revision/") or path == f"/api/{repo}":
                    return self.send(json.dumps({"id": repo.split("/", 1)[1], "sha": hub.commit(repo)}).encode(), body)
                if path.startswith(f"/api/{repo}/tree/"):
                    return self.send(json.dumps(list(tree(folder))).encode(), body)
                prefix = f"/{repo.removeprefix('models/')}/resolve/{hub.commit(repo)}/"
                if path.startswith(prefix) and (folder / path.removeprefix(prefix)).is_file():
                    data = (folder / path.removeprefix(prefix)).read_bytes()
                    return self.send(data, body, hub.commit(repo))
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def send(self, data: bytes, body: bool, commit: str | None = None) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            if commit is not None:
                self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
                self.send_header("X-Repo-Commit", commit)
            self.end_headers()
            if body:
                self.wfile.write(data)

    return Handler


def tree(folder: Path) -> Iterator[dict[str, object]]:
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        oid = hashlib.sha1(path.read_bytes(), usedforsecurity=False).hexdigest()
        yield {
            "type": "file",
            "path": path.relative_to(folder).as_posix(),
            "size": path.stat().st_size,
            "oid": oid,
        }


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
