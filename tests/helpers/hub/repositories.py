"""What a Hub holds: repositories with commits, branches and tags; files with git or LFS object ids."""

import hashlib
import io
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.parquet as pq

LFS_SUFFIXES = (".parquet", ".safetensors", ".whl", ".png", ".arrow", ".bin")


def parquet(**columns):
    """The bytes of a Parquet file."""
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


def split(name):
    """Where `push_to_hub` puts a split of one file."""
    return f"data/{name}-00000-of-00001.parquet"


@dataclass
class Blob:
    data: bytes
    lfs: bool = False

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @property
    def oid(self) -> str:
        """What git calls the object; an LFS file is a pointer to git."""
        data = self.data
        if self.lfs:
            data = f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(self.data)}\n".encode()
        return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()

    @property
    def etag(self) -> str:
        return self.sha256 if self.lfs else self.oid

    def info(self, path: str) -> dict:
        entry = {"type": "file", "path": path, "size": len(self.data), "oid": self.oid}
        if self.lfs:
            entry["lfs"] = {"oid": self.sha256, "size": len(self.data), "pointerSize": 134}
        return entry


@dataclass
class Commit:
    oid: str
    title: str
    files: dict[str, Blob]


@dataclass
class Repo:
    type: str
    id: str
    private: bool = False
    commits: list[Commit] = field(default_factory=list)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def commit(self, branch: str, title: str, files: dict[str, Blob]) -> Commit:
        oid = hashlib.sha1(f"{self.type}{self.id}{len(self.commits)}{title}".encode()).hexdigest()
        self.commits.append(Commit(oid, title, files))
        self.branches[branch] = oid
        return self.commits[-1]

    def at(self, revision: str) -> Commit | None:
        oid = self.branches.get(revision) or self.tags.get(revision) or revision
        return next((commit for commit in self.commits if commit.oid == oid), None)

    @property
    def files(self) -> dict[str, bytes]:
        """Contents on the main branch."""
        return {path: blob.data for path, blob in self.at("main").files.items()}
