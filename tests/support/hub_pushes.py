"""What the stand-in hub answers when files are pushed, as huggingface_hub 2.4 does it without Xet.

A repository is created, a branch is made, files are announced (preupload), large ones go to storage by their sha256
(LFS batch, PUT, verify), and a commit of lines of JSON names them. Storage keeps the bytes that arrived, and the
listing has their own sha256, whatever the commit says.
"""

import base64
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

if TYPE_CHECKING:
    from tests.support.hub import StandInHub

GITATTRIBUTES = b"*.parquet filter=lfs diff=lfs merge=lfs -text\n"
Files = dict[str, bytes]


@dataclass
class Answer(Exception):
    """Ends a request with a status and JSON."""

    status: int
    data: Any = None
    headers: dict[str, str] | None = None


@dataclass
class Pushed:
    """A request that may change something. token: of the caller."""

    hub: "StandInHub"
    method: str
    path: str
    token: str
    body: bytes

    def answer(self) -> Answer:
        try:
            self._dispatch()
        except Answer as answer:
            return answer
        raise AssertionError(f"the stand-in hub knows no {self.method} {self.path}")

    def _dispatch(self) -> None:
        if self.path.startswith("/storage/"):
            return self._store(self.path.rpartition("/")[2])
        namespaces = self.hub.accounts.get(self.token)
        if namespaces is None:
            raise Answer(401, {"error": "Invalid"}, {"X-Error-Message": "Invalid credentials in Authorization header"})
        if self.path == "/api/validate-yaml":
            raise Answer(200, {"errors": [], "warnings": []})
        if self.path == "/api/repos/create":
            return self._create(namespaces)
        for repo in self.hub.repos:
            for prefix, then in ((f"/api/{repo}/", self._api), (f"/{repo}.git/info/lfs/objects/", self._lfs)):
                if self.path.startswith(prefix):
                    if self.hub.is_hidden(repo, self.token):
                        break
                    return then(repo, self.path.removeprefix(prefix), namespaces)
        raise Answer(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})

    def _create(self, namespaces: set[str]) -> None:
        asked = json.loads(self.body)
        repo = f"{asked['type']}s/{asked['organization']}/{asked['name']}"
        if asked["organization"] not in namespaces:
            raise Answer(403, {"error": f"You don't have the rights to create one under {asked['organization']}"})
        url = {"url": f"{self.hub.url}/{repo}"}
        if repo in self.hub.repos:
            raise Answer(409, url | {"error": "You already created this dataset repo"})
        self.hub.make_repo(repo, self.token if asked.get("visibility") == "private" else None)
        raise Answer(200, url)

    def _api(self, repo: str, rest: str, namespaces: set[str]) -> None:
        what, _, revision = rest.partition("/")
        if what == "paths-info":
            paths = parse_qs(self.body.decode())["paths"]
            entries = self.hub.tree(self._files(repo, revision))
            raise Answer(200, [entry for entry in entries if entry["path"] in paths])
        if repo.split("/")[1] not in namespaces:
            raise Answer(403, {"error": f"the token has no right to write to {repo}"})
        known: dict[str, Callable[[str, str], None]] = {
            "branch": self._branch,
            "preupload": self._preupload,
            "commit": self._commit,
        }
        known[what](repo, revision)

    def _branch(self, repo: str, name: str) -> None:
        there = (repo, name) in self.hub.branches
        if self.method == "DELETE":
            if not there:
                raise Answer(404, {"error": "no such branch"}, {"X-Error-Code": "RevisionNotFound"})
            del self.hub.branches[repo, name]
        elif there:
            raise Answer(409, {"error": "Reference already exists"})
        else:
            self.hub.branches[repo, name] = self.hub.commit(repo)
        raise Answer(200)

    def _preupload(self, repo: str, revision: str) -> None:
        there = {entry["path"]: entry for entry in self.hub.tree(self._files(repo, revision))}
        raise Answer(200, {"files": [self._mode(file["path"], there) for file in json.loads(self.body)["files"]]})

    def _mode(self, path: str, there: dict[Any, Any]) -> dict[str, Any]:
        found = there.get(path, {})
        oid = found.get("lfs", found).get("oid")
        mode = "lfs" if path.endswith(self.hub.large) else "regular"
        return {"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid}

    def _lfs(self, repo: str, rest: str, namespaces: set[str]) -> None:
        asked = json.loads(self.body)
        if rest == "verify":
            raise Answer(200 if len(self.hub.storage.get(asked["oid"], b"")) == asked["size"] else 404)
        assert "basic" in asked["transfers"]
        raise Answer(200, {"transfer": "basic", "objects": [self._object(repo, one) for one in asked["objects"]]})

    def _object(self, repo: str, asked: dict[str, Any]) -> dict[str, Any]:
        oid = asked["oid"]
        if hashlib.sha256(self.hub.storage.get(oid, b"")).hexdigest() == oid:
            return asked
        upload = {"href": f"{self.hub.url}/storage/{oid}"}
        verify = {"href": f"{self.hub.url}/{repo}.git/info/lfs/objects/verify"}
        return asked | {"actions": {"upload": upload, "verify": verify}}

    def _store(self, oid: str) -> None:
        assert self.token == "", "the token went to the storage"
        self.hub.puts.append(oid)
        self.hub.storage[oid] = self.body
        raise Answer(200)

    def _commit(self, repo: str, revision: str) -> None:
        lines = [json.loads(line) for line in self.body.splitlines()]
        parent = lines[0]["value"].get("parentCommit")
        if parent is not None and parent != self.hub.resolve(repo, revision):
            raise Answer(412, {"error": "A commit has happened since. Please refresh and try again."})
        files = dict(self._files(repo, revision))
        changed = [self._apply(files, line["key"], line["value"]) for line in lines[1:]]
        self.hub.pushes.append((revision, changed))
        commit = self.hub.set_files(repo, revision, files)
        raise Answer(200, {"commitUrl": f"{self.hub.url}/{repo}/commit/{commit}", "commitOid": commit})

    def _apply(self, files: Files, key: str, value: dict[str, Any]) -> str:
        path: str = value["path"]
        if key == "file":
            files[path] = base64.b64decode(value["content"])
        elif key == "lfsFile":
            if value["oid"] not in self.hub.storage:
                raise Answer(400, {"error": f"no object {value['oid']} in storage"})
            files[path] = self.hub.storage[value["oid"]]
        else:
            assert key == "deletedFile"
            del files[path]
        return path

    def _files(self, repo: str, revision: str) -> Files:
        commit = self.hub.resolve(repo, revision)
        if commit is None:
            raise Answer(404, {"error": "Invalid rev id"}, {"X-Error-Code": "RevisionNotFound"})
        return self.hub.commits[repo][commit]


def below(entries: Iterator[dict[str, Any]], folder: str, recursive: bool) -> Iterator[dict[str, Any]]:
    """Entries of a folder; if not recursive, the folders in it in place of what they have."""
    folders = set()
    for entry in entries:
        rest = entry["path"].removeprefix(f"{folder}/") if folder else entry["path"]
        if folder and not entry["path"].startswith(f"{folder}/"):
            continue
        if recursive or "/" not in rest:
            yield entry
        else:
            folders.add(entry["path"].removesuffix(rest) + rest.partition("/")[0])
    for name in sorted(folders):
        yield {"type": "directory", "path": name, "oid": "0" * 40, "size": 0}
