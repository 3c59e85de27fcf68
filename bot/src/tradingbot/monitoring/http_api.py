"""The bot's two HTTP servers: probes and metrics for everyone, control over mTLS for the operator alone."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from aiohttp import web
from pydantic import BaseModel, ValidationError

from tradingbot.engine.strategies import field_errors
from tradingbot_api import names
from tradingbot_api.bot_http import (
    BotInfo,
    ConfigReply,
    DrainRequest,
    DrainStatus,
    ErrorReply,
    ExchangeWait,
    FieldError,
    Grant,
    GrantReply,
    RaiseIncarnation,
    Reservation,
    ReservationReply,
)

MAX_BODY: Final = 256 * 1024
TLS_CERTIFICATE: Final = "tls.crt"
TLS_KEY: Final = "tls.key"
TLS_AUTHORITY: Final = "ca.crt"

M = TypeVar("M", bound=BaseModel)


class ControlError(Exception):
    """A call that is refused: `status` is HTTP's, `code` is stable."""

    def __init__(self, status: int, code: str, message: str, fields: list[FieldError] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.fields = fields or []


class Controls(Protocol):
    """What the operator may ask of a bot; every method may raise ControlError."""

    def info(self) -> BotInfo:
        """Versions."""

    def status_lines(self) -> AsyncIterator[bytes]:
        """The status stream, a JSON line each."""

    async def put_config(self, body: bytes) -> ConfigReply:
        """Commit a BotConfig in JSON and put in force what may be; it is read leniently, as safe mode must be seen."""

    async def put_grant(self, grant: Grant) -> GrantReply:
        """Take the right to add exposure."""

    async def put_reservation(self, reservation: Reservation) -> ReservationReply:
        """See how much exposure the fleet's limits leave this bot."""

    async def raise_incarnation(self, request: RaiseIncarnation) -> None:
        """Take a greater incarnation."""

    async def put_wait(self, wait: ExchangeWait) -> None:
        """Send the exchange nothing for a while."""

    async def drain(self, request: DrainRequest) -> DrainStatus:
        """Begin to drain."""


class Probes(Protocol):
    """What probes and Prometheus ask."""

    def unhealthy(self) -> str | None:
        """Why the process should be restarted, or None."""

    def not_ready(self) -> str | None:
        """Why the bot is not reconciled with the exchange, or does not see or reach it; or None."""

    def metrics_text(self) -> bytes:
        """Prometheus text."""


@dataclass(slots=True)
class Server:
    """A running server and the port that it listens on."""

    runner: web.AppRunner
    port: int

    async def close(self) -> None:
        """Stop listening and end open requests."""
        await self.runner.cleanup()


async def serve(app: web.Application, host: str, port: int, tls: ssl.SSLContext | None = None) -> Server:
    """Listen; port 0 takes a free one. OSError where the port is taken."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5, handle_signals=False)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port, ssl_context=tls, reuse_address=True)
        await site.start()
    except BaseException:
        await runner.cleanup()
        raise
    return Server(runner, int(runner.addresses[0][1]))


def probe_app(probes: Probes) -> web.Application:
    """GET /healthz, /readyz, /metrics."""

    def answer(problem: Callable[[], str | None]) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handle(_: web.Request) -> web.Response:
            reason = problem()
            return web.Response(text=f"{reason or 'ok'}\n", status=503 if reason else 200)

        return handle

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(
            body=probes.metrics_text(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        )

    app = web.Application()
    app.router.add_get("/healthz", answer(probes.unhealthy))
    app.router.add_get("/readyz", answer(probes.not_ready))
    app.router.add_get("/metrics", metrics)
    return app


def control_tls(directory: Path) -> ssl.SSLContext:
    """A context that demands a certificate of the operator's authority; OSError or ssl.SSLError on bad files."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(directory / TLS_CERTIFICATE, directory / TLS_KEY)
    context.load_verify_locations(directory / TLS_AUTHORITY)
    context.verify_mode = ssl.CERT_REQUIRED
    # Nobody resumes a session; handling tickets costs a client 24 KiB a connection, and a fifth of the handshake.
    context.num_tickets = 0
    return context


def control_app(controls: Controls) -> web.Application:
    """The protocol of tradingbot_api.bot_http."""
    app = web.Application(middlewares=[_operator_only, _errors], client_max_size=MAX_BODY)

    async def info(_: web.Request) -> web.Response:
        return _json(controls.info())

    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson", "Cache-Control": "no-store"})
        await response.prepare(request)
        lines = controls.status_lines()
        async for line in lines:
            try:
                await response.write(line)
            except ConnectionResetError:
                break  # the operator went away
        return response

    async def config(request: web.Request) -> web.Response:
        return _json(await controls.put_config(await request.read()))

    async def grant(request: web.Request) -> web.Response:
        return _json(await controls.put_grant(await _body(request, Grant)))

    async def reservation(request: web.Request) -> web.Response:
        return _json(await controls.put_reservation(await _body(request, Reservation)))

    async def incarnation(request: web.Request) -> web.Response:
        await controls.raise_incarnation(await _body(request, RaiseIncarnation))
        return web.json_response({})

    async def wait(request: web.Request) -> web.Response:
        await controls.put_wait(await _body(request, ExchangeWait))
        return web.json_response({})

    async def drain(request: web.Request) -> web.Response:
        return _json(await controls.drain(await _body(request, DrainRequest)), status=202)

    app.router.add_get("/v1/info", info)
    app.router.add_get("/v1/status/stream", stream)
    app.router.add_put("/v1/config", config)
    app.router.add_put("/v1/grant", grant)
    app.router.add_put("/v1/reservation", reservation)
    app.router.add_put("/v1/incarnation", incarnation)
    app.router.add_put("/v1/wait", wait)
    app.router.add_post("/v1/drain", drain)
    return app


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@web.middleware
async def _operator_only(request: web.Request, handler: Handler) -> web.StreamResponse:
    """The authority also signs certificates of bots: only the operator's name may control one."""
    transport = request.transport
    certificate: dict[str, Any] = (transport.get_extra_info("peercert") if transport else None) or {}
    if ("DNS", names.OPERATOR_SERVER_NAME) not in certificate.get("subjectAltName", ()):
        return _refuse(403, "NotTheOperator", f"expected a client certificate for {names.OPERATOR_SERVER_NAME}", [])
    return await handler(request)


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except ControlError as error:
        return _refuse(error.status, error.code, str(error), error.fields)


async def _body(request: web.Request, model: type[M]) -> M:
    try:
        return model.model_validate_json(await request.read())
    except ValidationError as error:
        fields = field_errors(error, "")
        text = "; ".join(f"{item.field}: {item.message}" for item in fields)
        raise ControlError(422, "Invalid", text, fields) from error


def _json(model: BaseModel, status: int = 200) -> web.Response:
    return web.Response(text=model.model_dump_json(by_alias=True), status=status, content_type="application/json")


def _refuse(status: int, code: str, message: str, fields: list[FieldError]) -> web.Response:
    return _json(ErrorReply(code=code, message=message, fields=fields), status)
