"""Requests from bytes and answers to bytes: the only module here that knows kafka-python's protocol classes.

The versions are those of Apache Kafka 4.1 as far as kafka-python has them. Produce is advertised from
version 0, as Kafka does for clients that take its absence for a broker without compression, and served
from version 3.
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

from kafka.protocol.admin import (
    CreateTopicsRequest,
    CreateTopicsResponse,
    DeleteTopicsRequest,
    DeleteTopicsResponse,
)
from kafka.protocol.consumer import FetchRequest, FetchResponse, ListOffsetsRequest, ListOffsetsResponse
from kafka.protocol.metadata import MetadataRequest, MetadataResponse
from kafka.protocol.metadata.api_versions import ApiVersionsRequest, ApiVersionsResponse
from kafka.protocol.producer import (
    InitProducerIdRequest,
    InitProducerIdResponse,
    ProduceRequest,
    ProduceResponse,
)
from kafka.protocol.sasl import (
    SaslAuthenticateRequest,
    SaslAuthenticateResponse,
    SaslHandshakeRequest,
    SaslHandshakeResponse,
)

_HEADER = struct.Struct(">hhi")
_SIZE = struct.Struct(">i")


class BadRequest(Exception):
    """The bytes are no request this broker can read; the connection they came over has to end."""


class Api(NamedTuple):
    """A kind of request: its classes, and the versions advertised and served."""

    name: str
    request: Any
    response: Any
    min_version: int
    max_version: int
    served_from: int = 0

    @property
    def key(self) -> int:
        """The number that stands for it in requests."""
        return int(self.request.API_KEY)


APIS = {
    api.key: api
    for api in (
        Api("Produce", ProduceRequest, ProduceResponse, 0, 13, served_from=3),
        Api("Fetch", FetchRequest, FetchResponse, 4, 16),
        Api("ListOffsets", ListOffsetsRequest, ListOffsetsResponse, 1, 10),
        Api("Metadata", MetadataRequest, MetadataResponse, 0, 13),
        Api("SaslHandshake", SaslHandshakeRequest, SaslHandshakeResponse, 1, 1),
        Api("ApiVersions", ApiVersionsRequest, ApiVersionsResponse, 0, 4),
        Api("CreateTopics", CreateTopicsRequest, CreateTopicsResponse, 2, 7),
        Api("DeleteTopics", DeleteTopicsRequest, DeleteTopicsResponse, 1, 6),
        Api("InitProducerId", InitProducerIdRequest, InitProducerIdResponse, 0, 5),
        Api("SaslAuthenticate", SaslAuthenticateRequest, SaslAuthenticateResponse, 0, 2),
    )
}


class Request(NamedTuple):
    """A decoded request. `body` is None for a version of ApiVersions that is too new to be read."""

    api: Api
    version: int
    correlation_id: int
    body: Any


def decode_request(frame: bytes) -> Request:
    """The request in a frame (without its length). Raises `BadRequest`."""
    if len(frame) < _HEADER.size:
        raise BadRequest(f"a request of {len(frame)} bytes has no header")
    key, version, correlation_id = _HEADER.unpack_from(frame)
    api = APIS.get(key)
    if api is None:
        raise BadRequest(f"no such api: {key}")
    if max(api.min_version, api.served_from) <= version <= api.max_version:
        return Request(api, version, correlation_id, _decode_body(api, version, frame))
    if api.name == "ApiVersions":
        return Request(api, version, correlation_id, None)
    raise BadRequest(f"{api.name} version {version} is not served")


def _decode_body(api: Api, version: int, frame: bytes) -> Any:
    try:
        return api.request.decode(frame, version=version, header=True)
    except Exception as error:  # what garbage raises depends on where it ends: no list would be complete
        raise BadRequest(f"{api.name} version {version} cannot be decoded: {error!r}") from error


def encode_response(request: Request, response: Any) -> bytes:
    """The whole frame that answers a request. The version is the one the response was made with."""
    response.with_header(correlation_id=request.correlation_id)
    return bytes(response.encode(header=True, framed=True))


class FrameBuffer:
    """Cuts what comes over a connection into frames."""

    def __init__(self, max_size: int) -> None:
        self._max_size = max_size
        self._data = bytearray()

    def feed(self, data: bytes | bytearray) -> None:
        """Add what was received."""
        self._data += data

    def next_frame(self) -> bytes | None:
        """A whole frame without its length, or None until more is fed. Raises `BadRequest`."""
        if len(self._data) < _SIZE.size:
            return None
        (size,) = _SIZE.unpack_from(self._data)
        if not 0 <= size <= self._max_size:
            raise BadRequest(f"a request of {size} bytes; at most {self._max_size} are allowed")
        end = _SIZE.size + size
        if len(self._data) < end:
            return None
        frame = bytes(memoryview(self._data)[_SIZE.size : end])
        del self._data[:end]
        return frame
