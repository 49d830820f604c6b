"""A second Unix user: runs a function in a child with another user id and without any group."""

import contextlib
import json
import os
import signal
import socket
import traceback

import pytest

UID = 54_321
"""An id that nobody has: no name, no home, no file."""

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


def become_stranger():
    """Be user 54321 from now on."""
    os.setgroups([])
    os.setresgid(UID, UID, UID)
    os.setresuid(UID, UID, UID)


@contextlib.contextmanager
def stranger_at_work(function):
    """Run `function` in a child of user 54321; give what waits until it has stopped itself, and what ends it.

    The latter returns what `function` returned (plain data), or the name of its exception.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reader)
            become_stranger()
            try:
                found = function()
            except OSError as error:
                found = type(error).__name__
            os.write(writer, json.dumps(found).encode())
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)
    os.close(writer)

    def result():
        os.kill(child, signal.SIGCONT)
        with os.fdopen(reader, "rb") as file:
            return json.loads(file.read())

    try:
        yield lambda: os.waitpid(child, os.WUNTRACED), result
    finally:
        with contextlib.suppress(ProcessLookupError):  # it ended, and was waited for, instead of stopping
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def as_stranger(function):
    """Return what `function` returned (plain data) in a child of user 54321, or the name of its exception."""
    with stranger_at_work(function) as (_, result):
        return result()


class Squatter:
    """Another user who listens on a port of the loopback, answers each request with the same, and keeps what came."""

    def __init__(self, port, answer, kept):
        self.port, self.answer, self.kept = port, answer, kept

    def __enter__(self):
        ready, listening = os.pipe()
        self.kept.touch()
        file = self.kept.open("ab", buffering=0)
        self.child = os.fork()
        if self.child == 0:
            try:
                become_stranger()
                with socket.create_server(("127.0.0.1", self.port)) as listener:
                    os.write(listening, b"x")
                    while True:
                        connection, _ = listener.accept()
                        connection.settimeout(2)
                        with contextlib.suppress(OSError):
                            file.write(connection.recv(65536))
                            connection.sendall(self.answer)
                        connection.close()
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(0)
        os.close(listening)
        assert os.read(ready, 1) == b"x", "the port could not be taken"
        os.close(ready)
        file.close()
        return self

    def __exit__(self, *_):
        os.kill(self.child, signal.SIGKILL)
        os.waitpid(self.child, 0)

    def requests(self):
        """The first lines of what came."""
        return [line for line in self.kept.read_bytes().decode().split("\r\n") if line.endswith(" HTTP/1.1")]
