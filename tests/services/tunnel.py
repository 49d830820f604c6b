"""The near end of `ssh -L`: a port of this machine that leads to a Unix socket. It keeps what was sent through it."""

import contextlib
import socket
import threading


class Tunnel:
    """`with Tunnel(path) as tunnel:` listens on `tunnel.port`; `tunnel.sent` is all that came from this side."""

    def __init__(self, path):
        self.path, self.sent = str(path), b""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]

    def __enter__(self):
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._listener.close()

    def _accept(self):
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.socket(socket.AF_UNIX)
            try:
                far.connect(self.path)
            except OSError:  # as ssh does where nobody listens
                near.close()
                far.close()
                continue
            threading.Thread(target=self._carry, args=(near, far, True), daemon=True).start()
            threading.Thread(target=self._carry, args=(far, near, False), daemon=True).start()

    def _carry(self, source, sink, keep):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self.sent += data if keep else b""
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
