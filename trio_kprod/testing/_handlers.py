"""One request to one reply, on the cluster's state: who may ask what, and which function answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from kafka.protocol.metadata.api_versions import ApiVersionsResponse
from kafka.protocol.sasl import SaslAuthenticateResponse, SaslHandshakeResponse

from . import _fetch, _produce, _topics
from ._cluster import Cluster
from ._codes import Code
from ._faults import Plan, Target
from ._sasl import MECHANISMS, AuthenticationFailed, Exchange, start_exchange
from ._wire import APIS, BadRequest, Request


@dataclass(slots=True)
class Session:
    """What a connection has shown of itself."""

    authenticated: bool
    exchange: Exchange | None = None


class Reply(NamedTuple):
    """What to do after a request.

    `response` is None where the protocol has no answer. With `close` the connection ends after it. A
    reply with `wait` is not final: handle the request again after a change, or send it after `wait` seconds.
    """

    response: Any
    close: bool = False
    wait: float = 0.0


Handler = Callable[[Cluster, Request, Plan], Reply]


def handle(cluster: Cluster, request: Request, plan: Plan, session: Session) -> Reply:
    """Apply a request and give its reply. Raises `BadRequest` for what a client must not ask."""
    with cluster.lock:
        name = request.api.name
        # ApiVersions is how clients learn what is served, so too new a version of it has an answer as well.
        if request.version > cluster.max_version(name, request.version) and name != "ApiVersions":
            raise BadRequest(f"{name} version {request.version} is not served here")
        if name == "SaslHandshake":
            return _handshake(cluster, request, plan, session)
        if name == "SaslAuthenticate":
            return _authenticate(cluster, request, plan, session)
        if not session.authenticated and name != "ApiVersions":
            raise BadRequest(f"{name} before authentication")
        return _HANDLERS[name](cluster, request, plan)


def targets(cluster: Cluster, request: Request) -> list[Target]:
    """The topics and partitions a request is about, for faults to match."""
    find = _TARGETS.get(request.api.name)
    with cluster.lock:
        found = find(cluster, request.body, request.version) if find else []
    return found or [(None, None)]


def _produce_targets(cluster: Cluster, body: Any, version: int) -> list[Target]:
    return [(entry.name, entry.partition) for entry in _produce.entries(cluster, body, version)]


def _fetch_targets(cluster: Cluster, body: Any, version: int) -> list[Target]:
    found: list[Target] = []
    for group in body.topics:
        topic = cluster.topic_by_id(group.topic_id) if version >= 13 else None
        name = topic.name if topic else group.topic
        found += [(name, part.partition) for part in group.partitions]
    return found


def _offsets_targets(_cluster: Cluster, body: Any, _version: int) -> list[Target]:
    return [(group.name, part.partition_index) for group in body.topics for part in group.partitions]


def _metadata_targets(cluster: Cluster, body: Any, _version: int) -> list[Target]:
    """Each topic, and each of its partitions: a fault may be about either."""
    names: list[str | None] = list(cluster.topics) if body.topics is None else []
    for asked in body.topics or ():
        by_id = cluster.topic_by_id(asked.topic_id) if asked.name is None else None
        names.append(by_id.name if by_id else asked.name)
    found: list[Target] = []
    for name in names:
        topic = cluster.topics.get(name or "")
        found += [(name, None), *((name, index) for index in range(len(topic.partitions) if topic else 0))]
    return found


def _named_targets(_cluster: Cluster, body: Any, _version: int) -> list[Target]:
    return [(topic.name, None) for topic in body.topics]


def _deleted_targets(cluster: Cluster, body: Any, version: int) -> list[Target]:
    if version < 6:
        return [(name, None) for name in body.topic_names]
    found = [cluster.topic_by_id(topic.topic_id) if topic.name is None else topic for topic in body.topics]
    return [(topic.name, None) for topic in found if topic is not None]


_TARGETS: dict[str, Callable[[Cluster, Any, int], list[Target]]] = {
    "Produce": _produce_targets,
    "Fetch": _fetch_targets,
    "ListOffsets": _offsets_targets,
    "Metadata": _metadata_targets,
    "CreateTopics": _named_targets,
    "DeleteTopics": _deleted_targets,
}


# ---------------------------------------------------------------------------------------------------------
# Data


def _handle_produce(cluster: Cluster, request: Request, plan: Plan) -> Reply:
    response, refused = _produce.produce(cluster, request.body, request.version, plan)
    if request.body.acks == 0:
        # No answer is sent that could report a refusal, so Kafka closes the connection.
        return Reply(None, close=refused)
    return Reply(response)


def _handle_fetch(cluster: Cluster, request: Request, plan: Plan) -> Reply:
    response, speaks = _fetch.fetch(cluster, request.body, request.version, plan)
    wait = 0.0 if speaks or request.body.min_bytes <= 0 else max(request.body.max_wait_ms, 0) / 1000
    return Reply(response, wait=wait)


def _plain(answer: Callable[[Cluster, Any, int, Plan], Any]) -> Handler:
    return lambda cluster, request, plan: Reply(answer(cluster, request.body, request.version, plan))


# ---------------------------------------------------------------------------------------------------------
# The connection itself


def _handle_api_versions(cluster: Cluster, request: Request, plan: Plan) -> Reply:
    scripted = plan.answer_for()
    code = scripted.code if scripted else Code.NONE
    version, served = request.version, list(APIS.values())
    if version > cluster.max_version(request.api.name, request.api.max_version):
        # KIP-511: in version 0, which every client can read, and with the versions of ApiVersions only.
        code, version, served = Code.UNSUPPORTED_VERSION, 0, [request.api]
    keys = [
        ApiVersionsResponse.ApiVersion(
            version=version,
            api_key=api.key,
            min_version=api.min_version,
            max_version=cluster.max_version(api.name, api.max_version),
        )
        for api in served
    ]
    return Reply(ApiVersionsResponse(version=version, error_code=int(code), api_keys=keys))


def _handshake(cluster: Cluster, request: Request, plan: Plan, session: Session) -> Reply:
    users, mechanism = cluster.options.sasl_users, request.body.mechanism
    scripted = plan.answer_for()
    code = Code.NONE.value
    if scripted is not None:
        code = scripted.code
    elif users is None:
        code = Code.ILLEGAL_SASL_STATE
    elif mechanism not in MECHANISMS:
        code = Code.UNSUPPORTED_SASL_MECHANISM
    else:
        session.exchange = start_exchange(mechanism, users)
    mechanisms = [] if users is None else list(MECHANISMS)
    response = SaslHandshakeResponse(version=request.version, error_code=int(code), mechanisms=mechanisms)
    return Reply(response, close=bool(code))


def _authenticate(cluster: Cluster, request: Request, plan: Plan, session: Session) -> Reply:
    scripted = plan.answer_for()
    if scripted is not None:
        return _authenticated(request, scripted.code, scripted.message, b"", 0.0)
    if session.exchange is None:
        return _authenticated(request, Code.ILLEGAL_SASL_STATE, "No SaslHandshake came before", b"", 0.0)
    try:
        data = session.exchange.step(request.body.auth_bytes)
    except AuthenticationFailed as error:
        return _authenticated(request, Code.SASL_AUTHENTICATION_FAILED, str(error), b"", 0.0)
    if not session.exchange.done:
        return _authenticated(request, Code.NONE, None, data, 0.0)
    session.authenticated, session.exchange = True, None
    return _authenticated(request, Code.NONE, None, data, cluster.options.sasl_session_lifetime or 0.0)


def _authenticated(request: Request, code: int, message: str | None, data: bytes, lifetime: float) -> Reply:
    response = SaslAuthenticateResponse(
        version=request.version,
        error_code=int(code),
        error_message=message,
        auth_bytes=data,
        session_lifetime_ms=int(lifetime * 1000),
    )
    return Reply(response, close=bool(code))


_HANDLERS: dict[str, Handler] = {
    "Produce": _handle_produce,
    "Fetch": _handle_fetch,
    "ListOffsets": _plain(_fetch.list_offsets),
    "Metadata": _plain(_topics.metadata),
    "ApiVersions": _handle_api_versions,
    "CreateTopics": _plain(_topics.create_topics),
    "DeleteTopics": _plain(_topics.delete_topics),
    "InitProducerId": _plain(_produce.init_producer_id),
}
