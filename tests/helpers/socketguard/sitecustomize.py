"""On the path of child processes: a connection to anything but loopback is refused, and said."""

import socket

_connect, _lookup = socket.socket.connect, socket.getaddrinfo


def connect(self, address):
    if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1", "localhost"):
        raise ConnectionRefusedError(f"a test tried to reach {address}")
    return _connect(self, address)


def getaddrinfo(host, *arguments, **options):
    if host not in ("127.0.0.1", "::1", "localhost", None, ""):
        raise socket.gaierror(socket.EAI_NONAME, f"a test tried to look up {host}")
    return _lookup(host, *arguments, **options)


socket.socket.connect = connect
socket.getaddrinfo = getaddrinfo
