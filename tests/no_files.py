"""What may lie where a file is expected, by what it is called; each is made at a path that is free."""

import contextlib
import os
import socket


def _listen(path):
    with socket.socket(socket.AF_UNIX) as server, contextlib.chdir(path.parent):  # names of sockets are short
        server.bind(path.name)


NO_FILES = {
    "a named pipe": os.mkfifo,
    "a socket": _listen,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a link to nothing": lambda path: path.symlink_to(path.with_name("nowhere")),
    "a link to itself": lambda path: path.symlink_to(path),
}
