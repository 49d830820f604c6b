"""A second Unix user: runs a function in a child with another user id and without any group."""

import json
import os
import traceback

import pytest

UID = 54_321
"""An id that nobody has: no name, no home, no file."""

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


def as_stranger(function):
    """Return what `function` returned (plain data) in a child of user 54321, or the name of its exception."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reader)
            os.setgroups([])
            os.setresgid(UID, UID, UID)
            os.setresuid(UID, UID, UID)
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
    with os.fdopen(reader, "rb") as file:
        data = file.read()
    os.waitpid(child, 0)
    return json.loads(data)
