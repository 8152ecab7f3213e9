"""How HTTP says no, and what all of the API's handlers share."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Any, Final

from tornado.web import HTTPError, RequestHandler

from seatws.errors import ClientError, NotReady, RateLimited, StoreError, Unauthenticated
from seatws.logs import about, request_id_of
from seatws.messages import encode
from seatws.plugins import ConnectRequest
from seatws.web.origins import Origins

log = logging.getLogger(__name__)

_STATUS: Final = {
    "invalid_message": 400,
    "unauthenticated": 401,
    "forbidden": 403,
    "seat_taken": 409,
    "not_holder": 409,
    "limit_reached": 409,
    "rate_limited": 429,
    "store_unavailable": 503,
}
_CODE: Final = {
    401: "unauthenticated",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    429: "rate_limited",
    503: "store_unavailable",
}


class ProblemHandler(RequestHandler):
    """Answers every error as `application/problem+json` (RFC 9457)."""

    route = "other"
    """What it is counted as."""

    methods = "GET, HEAD"
    """What the address takes, for those who ask with another method (RFC 9110 15.5.6)."""
    request_id = ""
    """The request's name in the log and in the answer: the client's (or proxy's) own, if good."""

    def set_default_headers(self) -> None:
        """Give the request's id back (Tornado calls it first, and again before an error)."""
        if not self.request_id:
            self.request_id = request_id_of(self.request.headers.get("X-Request-ID"))
        self.set_header("X-Request-ID", self.request_id)

    def send_problem(self, status: int, code: str, detail: str, **facts: Any) -> None:
        """Finish with an error; `code` is a word of PROTOCOL section 4, `facts` its fields."""
        self.set_status(status)
        self.set_header("Content-Type", "application/problem+json")
        title = HTTPStatus(status).phrase
        problem = {"type": "about:blank", "title": title, "status": status, "code": code}
        self.finish(encode(problem | {"detail": detail} | facts))

    def send_error_of(self, error: ClientError | StoreError) -> None:
        """Finish with what went wrong."""
        facts = error.facts() if isinstance(error, ClientError) else {}
        if isinstance(error, Unauthenticated):
            self.set_header("WWW-Authenticate", "Bearer")
        elif isinstance(error, RateLimited):
            self.set_header("Retry-After", str(-(-error.retry_after_ms // 1000)))
        elif isinstance(error, StoreError):
            self.set_header("Retry-After", "1")
        self.send_problem(_STATUS[error.code], error.code, str(error), **facts)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Answer what a handler raised, or Tornado; never with a traceback."""
        _, error, _ = kwargs.get("exc_info", (None, None, None))
        if isinstance(error, NotReady):
            self.set_header("Retry-After", "1")
            self.send_problem(503, "store_unavailable", "sign-in is not possible yet")
            return
        if isinstance(error, ClientError | StoreError):
            self.send_error_of(error)
            return
        if status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            self.set_header("Allow", self.methods)
        code = _CODE.get(status_code, "invalid_message" if status_code < 500 else "internal_error")
        status = HTTPStatus(status_code)
        self.send_problem(status_code, code, status.description or status.phrase)

    def log_exception(self, *args: Any) -> None:
        """Log bugs with their traceback; refusals are not bugs.

        Tornado would add the whole request: in its query and headers there may be a token.
        """
        if not isinstance(args[1], ClientError | StoreError | NotReady | HTTPError):
            log.error(
                "%s failed; this is a bug",
                type(self).__name__,
                exc_info=args[1],
                extra=about(self.request_id),
            )


class ApiHandler(ProblemHandler):
    """What the API's handlers share: CORS, and errors as problems."""

    methods = "GET, HEAD, OPTIONS"

    def set_default_headers(self) -> None:
        """CORS, by `server.allowed_origins`, and nothing kept by caches."""
        super().set_default_headers()
        self.clear_header("Server")
        origins: Origins = self.settings["origins"]
        origin = self.request.headers.get("Origin", "")
        if origins.allows_all:
            self.set_header("Access-Control-Allow-Origin", "*")
        else:
            self.set_header("Vary", "Origin")
            if origins.allows(origin):
                self.set_header("Access-Control-Allow-Origin", origin)
            if origins.names(origin):
                self.set_header("Access-Control-Allow-Credentials", "true")
        self.set_header("Access-Control-Expose-Headers", "ETag, Retry-After, X-Request-ID")
        self.set_header("Cache-Control", "no-store")
        self.set_header("X-Content-Type-Options", "nosniff")

    def options(self, *args: str) -> None:
        """Answer a preflight."""
        del args
        self.set_header("Access-Control-Allow-Methods", self.methods)
        self.set_header(
            "Access-Control-Allow-Headers",
            "Authorization, Content-Type, If-None-Match, X-Request-ID",
        )
        self.set_header("Access-Control-Max-Age", "600")
        self.set_status(204)

    def send_json(self, value: Any) -> None:
        """Finish with JSON."""
        self.set_header("Content-Type", "application/json")
        self.finish(encode(value))


def request_of(handler: ProblemHandler, client_id: str | None) -> ConnectRequest:
    """What plugins may look at to find out who is asking."""
    request = handler.request
    headers = request.headers
    offered = headers.get("Sec-WebSocket-Protocol", "")
    return ConnectRequest(
        client_id=client_id,
        headers=headers,
        query={
            name: [value.decode(errors="replace") for value in values]
            for name, values in request.query_arguments.items()
        },
        # Not asked where there are none: Tornado would set up a parser first.
        cookies={name: morsel.value for name, morsel in handler.cookies.items()}
        if "Cookie" in headers
        else {},
        subprotocols=[word.strip() for word in offered.split(",") if word.strip()],
        address=request.remote_ip or "",
        request_id=handler.request_id,
    )


class NotFoundHandler(ApiHandler):
    """Every other address."""

    def prepare(self) -> None:
        """Say so."""
        self.send_problem(404, "not_found", "there is nothing at this address")
