"""A schema registry in memory, on a loopback port: what serializers use of Confluent's REST interface."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class _Handler(BaseHTTPRequestHandler):
    server: _Registry

    def do_POST(self) -> None:
        """Register a schema for a subject: ``/subjects/NAME/versions``."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        _, _, subject, _ = self.path.partition("?")[0].split("/")
        schemas = self.server.schemas
        if body["schema"] not in schemas:
            schemas.append(body["schema"])
        self._answer(200, {"id": schemas.index(body["schema"]) + 1, "subject": subject, "version": 1, **body})

    def do_GET(self) -> None:
        """Nothing is known."""
        self._answer(404, {"error_code": 40401, "message": "not found"})

    def _answer(self, status: int, content: object) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Nothing."""


class _Registry(ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.schemas: list[str] = []


@contextmanager
def open_registry() -> Iterator[str]:
    """Serve while the block runs; gives the address."""
    with _Registry() as registry:
        thread = threading.Thread(target=registry.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{registry.server_port}"
        finally:
            registry.shutdown()
            thread.join()
