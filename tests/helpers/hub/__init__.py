"""A Hugging Face Hub on loopback, for tests: `HubServer`, and `OtherHub`, which does things in other ways."""

from helpers.hub.another_make import OtherHub
from helpers.hub.repositories import Blob, Repo, parquet, split
from helpers.hub.routes import TOKEN
from helpers.hub.server import HubServer

__all__ = ["TOKEN", "Blob", "HubServer", "OtherHub", "Repo", "parquet", "split"]
