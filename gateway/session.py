"""The life of one session over a WebSocket, readable from top to bottom.

Must never let a frame that can cost money pass before its response is held and written down.
"""

import asyncio
import logging
from dataclasses import dataclass, field
from typing import Final, NamedTuple, cast

import msgspec

from gateway.admission import OpenCall
from gateway.call import CallPath
from gateway.client import ClientGone
from gateway.exchange import DRAIN_S, LINGER_S, query_of, session_headers
from gateway.headers import KEY_PROTOCOL, TO_CLIENT
from gateway.ledger.record import Outcome
from gateway.refusals import BudgetRefused, InvalidRequest, Refusal, to_error, to_failure
from gateway.sockets import (
    BROKEN_OFF,
    GOING_AWAY,
    NORMAL,
    POLICY,
    TROUBLE,
    Closing,
    HandoverFailed,
    HandshakeRefused,
    Line,
    LineClosed,
    SocketClient,
    accept_line,
    connect_line,
)
from gateway.turns import Turns
from gateway.upstream import UpstreamFailed
from gateway.wire.facts import Asked, BadRequest, ErrorBody
from gateway.wire.live import Conversation, Frame, LiveFormat, SessionFormat, bytes_of
from gateway.wire.splice import SMALL_BYTES, refuse_crowds

log = logging.getLogger("taximeter.call")

_NAMES: Final = ("model", "deployment")


class Parting(NamedTuple):
    """How a session came to its end.

    Attributes:
        outcome: Of the responses that were open.
        closing: What the other side is told.
        error: What the client is told before.
    """

    outcome: Outcome
    closing: Closing
    error: ErrorBody | None = None


@dataclass(slots=True, kw_only=True)
class Session:
    """One session.

    Attributes:
        client: The one who called.
        call: The handshake, routed once its model is known.
        conversation: Reads the frames.
        turns: Its responses.
        ours: The line to the client.
        theirs: The line to the provider; ``None`` until a frame has named the model.
        connected: Done once that line is there.
        is_heard: Whether the client still listens.
    """

    client: SocketClient
    call: OpenCall
    conversation: Conversation
    turns: Turns
    ours: Line | None = None
    theirs: Line | None = None
    connected: asyncio.Event = field(default_factory=asyncio.Event)
    is_heard: bool = True


@dataclass(slots=True, kw_only=True)
class Sessions:
    """Serves sessions, each in a task of its own.

    Attributes:
        path: The steps of a call, which every response goes through.
        frame_bytes_max: Largest frame taken from a client.
    """

    path: CallPath
    frame_bytes_max: int
    _tasks: set["asyncio.Task[None]"] = field(default_factory=set, init=False)
    _stopping: asyncio.Event = field(default_factory=asyncio.Event, init=False)

    async def serve(self, client: SocketClient) -> None:
        """Answer a handshake; the session itself goes on after this has returned.

        Args:
            client: The one who called.
        """
        call = self.path.open(client)
        self.path.watcher.opened()
        session = None
        try:
            session = await self._begin(call, client)
        except Refusal as refusal:
            await self.path.refuse(call, client, refusal)
        except HandshakeRefused as refused:
            self.path.endings.refuse(call, refused.status, "handshake", "upstream_error")
            headers = TO_CLIENT.choose(refused.headers)
            headers.append(("x-taximeter-request-id", call.id))
            client.respond(refused.status, headers, refused.body)
        except UpstreamFailed as failed:
            error = to_failure(failed)
            self.path.endings.refuse(call, error.status, error.code, "upstream_error")
            await self.path.say(call, client, error, [])
        except HandoverFailed:
            log.warning("the session's socket could not be taken over id=%s", call.id)
        finally:
            if session is None:
                self.path.watcher.closed()
        if session is not None:
            task = asyncio.create_task(self._live(session))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def stop(self) -> None:
        """Tell every session to come to its end."""
        self._stopping.set()

    async def _begin(self, call: OpenCall, client: SocketClient) -> Session:
        """Let a session in and connect both sides."""
        admission = self.path.admission
        admission.identify(call, client)
        await admission.read(call, client)
        if not isinstance(call.format, LiveFormat):
            raise InvalidRequest(f"{client.path} takes no WebSocket")
        assert call.facts is not None
        is_late = call.format.names_model_late
        assert call.surface is not None
        if not is_late or call.surface.provider is not None:
            admission.route(call)
        conversation = cast(SessionFormat, call.format).open_conversation(call.model)
        turns = Turns(self.path, client, call, conversation)
        session = Session(client=client, call=call, conversation=conversation, turns=turns)
        admission.tag(call, client)
        told = [("x-taximeter-request-id", call.id)]
        if call.provider is not None:
            told += await turns.check()
            await self._connect(session)
        chosen = None if session.theirs is None else session.theirs.subprotocol
        try:
            session.ours = await accept_line(
                client,
                chosen or _subprotocol_of(_offered(client)),
                told,
                self.frame_bytes_max,
            )
        except HandoverFailed:
            if session.theirs is not None:
                await session.theirs.close(Closing(GOING_AWAY, ""))
            raise
        turns.wait_gone = session.ours.wait_closed
        return session

    async def _connect(self, session: Session) -> None:
        call = session.call
        assert call.provider is not None
        names = {name: call.model for name in _NAMES}
        session.theirs = await connect_line(
            call.provider.base_url + call.path + query_of(call.asked.query, names),
            session_headers(call),
            [one for one in _offered(session.client) if not one.startswith(KEY_PROTOCOL)],
            call.provider.call_s_max,
        )
        session.connected.set()

    async def _live(self, session: Session) -> None:
        """Carry a session to its end; every way out leaves no response without its record."""
        up = asyncio.create_task(self._carry_up(session))
        down = asyncio.create_task(self._carry_down(session))
        stop = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait({up, down, stop}, return_when=asyncio.FIRST_COMPLETED)
            parting = _parting_of(up, down)
            session.turns.parting = parting.outcome
            session.is_heard = False
            up.cancel()
            await self._part(session, parting, down)
            await session.turns.end_all(parting.outcome)
        except Refusal as down_store:
            log.warning("session ended without a record reason=%s", down_store)
        finally:
            for task in (up, down, stop):
                task.cancel()
            await asyncio.gather(up, down, stop, return_exceptions=True)
            session.turns.abort()
            self.path.watcher.closed()

    async def _part(
        self, session: Session, parting: Parting, down: "asyncio.Task[Parting]"
    ) -> None:
        """Take leave of both sides; the provider may first tell what is being used."""
        ours, theirs = session.ours, session.theirs
        assert ours is not None
        try:
            if parting.error is not None:
                await ours.send(session.conversation.shape_error(parting.error))
        except LineClosed:
            pass
        closing = asyncio.create_task(ours.close(parting.closing))
        if theirs is not None:
            if not down.done() and not session.turns.is_idle:
                await self._drain(session, theirs, down)
            code = parting.closing.code
            code = NORMAL if parting.error is not None and code == POLICY else code
            await theirs.close(Closing(code, parting.closing.reason))
        await closing

    async def _drain(self, session: Session, theirs: Line, down: "asyncio.Task[Parting]") -> None:
        """Wait until the open responses have told what they used, or for so long."""
        assert session.call.provider is not None
        drains = session.call.provider.drains and self.path.drains.begin()
        try:
            await self._hear_out(session, theirs, down, is_drained=drains)
        finally:
            if drains:
                self.path.drains.end()

    async def _hear_out(
        self, session: Session, theirs: Line, down: "asyncio.Task[Parting]", *, is_drained: bool
    ) -> None:
        try:
            for key in () if is_drained else session.turns.keys:
                cancel = session.conversation.cancel(key)
                if cancel is not None:
                    await theirs.send(cancel)
        except LineClosed:
            return
        await asyncio.wait({down}, timeout=DRAIN_S if is_drained else LINGER_S)

    async def _carry_up(self, session: Session) -> Parting:
        """Carry the client's frames to the provider, each after what it asks for was let in."""
        ours = session.ours
        assert ours is not None
        while True:
            try:
                frame = await ours.receive()
            except LineClosed as left:
                return Parting("client_disconnected", left.closing)
            try:
                frame = await self._admit(session, frame)
            except ClientGone:
                return Parting("client_disconnected", Closing(GOING_AWAY, ""))
            except InvalidRequest as invalid:
                await ours.send(session.conversation.shape_error(to_error(invalid)))
                continue
            except UpstreamFailed as failed:
                error = to_failure(failed)
                self.path.endings.refuse(session.call, error.status, error.code, "upstream_error")
                return Parting("upstream_error", Closing(TROUBLE, ""), error)
            except HandshakeRefused as refused:
                self.path.endings.refuse(
                    session.call, refused.status, "handshake", "upstream_error"
                )
                body = refused.body.decode("utf-8", "replace")
                error = ErrorBody(
                    status=refused.status,
                    code="upstream_refused",
                    kind="server_error",
                    message=f"the provider refused the session: {body[:1000]}",
                    details={},
                )
                return Parting("upstream_error", Closing(TROUBLE, ""), error)
            assert session.theirs is not None
            try:
                await session.theirs.send(frame)
            except LineClosed as broken:
                return _left_by_provider(broken.closing)

    async def _admit(self, session: Session, frame: Frame) -> Frame:
        """Let in what a frame asks for; gives the frame to send."""
        try:
            if len(frame) > SMALL_BYTES:
                refuse_crowds(bytes_of(frame))
            asks = session.conversation.read_client(frame)
        except BadRequest as bad:
            raise InvalidRequest(str(bad)) from None
        call = session.call
        if session.theirs is None:
            if asks.model is None:
                raise InvalidRequest("the first frame has to name the model")
            assert call.facts is not None
            call.facts = msgspec.structs.replace(call.facts, model=asks.model)
            self.path.admission.route(call)
            await self._connect(session)
        if asks.facts is None or asks.model is None:
            return await session.turns.ask(asks, frame)
        model = _own_name(session, self.path, asks.model)
        facts = msgspec.structs.replace(asks.facts, model=model)
        frame = await session.turns.ask(msgspec.structs.replace(asks, facts=facts), frame)
        body = Asked(body=bytes_of(frame))
        sent = call.format.prepare_body(body, asks.facts, model)
        return sent if isinstance(frame, bytes) else sent.decode("utf-8", "surrogatepass")

    async def _carry_down(self, session: Session) -> Parting:
        """Carry the provider's frames to the client, each after what it tells was settled."""
        await session.connected.wait()
        ours, theirs = session.ours, session.theirs
        assert ours is not None
        assert theirs is not None
        while True:
            try:
                frame = await theirs.receive()
            except LineClosed as left:
                return _left_by_provider(left.closing)
            tells = session.conversation.read_server(frame)
            if tells is not None:
                await session.turns.tell(tells)
            if session.is_heard:
                try:
                    await ours.send(frame)
                except LineClosed:
                    session.is_heard = False
            elif session.turns.is_idle:
                return Parting("client_disconnected", Closing(NORMAL, ""))


def _own_name(session: Session, path: CallPath, model: str) -> str:
    """Find the provider's own name of a model that a frame names."""
    call = session.call
    assert call.surface is not None
    assert call.provider is not None
    admission = path.admission
    book = admission.prices.at(path.clock.now())
    found = admission.router.find_destination(call.surface, call.asked.method, model, book)
    if found.provider.id != call.provider.id:
        raise InvalidRequest(
            f"this session goes to {call.provider.id}: open another one for {model!r}"
        )
    return found.model


def _parting_of(up: "asyncio.Task[Parting]", down: "asyncio.Task[Parting]") -> Parting:
    """Tell why a session ends; with neither side done the gateway is stopping."""
    for task in (up, down):
        if not task.done():
            continue
        failed = task.exception()
        if failed is None:
            return task.result()
        if isinstance(failed, LineClosed):
            return Parting("client_disconnected", failed.closing)
        if not isinstance(failed, Refusal):
            raise failed
        error = to_error(failed)
        outcome: Outcome = "cut_by_budget" if isinstance(failed, BudgetRefused) else "aborted"
        return Parting(outcome, Closing(POLICY, error.code), error)
    return Parting("aborted", Closing(GOING_AWAY, "the gateway is stopping"))


def _left_by_provider(closing: Closing) -> Parting:
    """What the client is told when the provider has closed, or is gone."""
    if closing.code != BROKEN_OFF:
        return Parting("upstream_error", closing)
    error = to_failure(UpstreamFailed("the session broke off"))
    return Parting("upstream_error", Closing(TROUBLE, error.code), error)


def _offered(client: SocketClient) -> list[str]:
    """List the subprotocols a client offers."""
    given = client.header("sec-websocket-protocol") or ""
    return [one.strip() for one in given.split(",") if one.strip()]


def _subprotocol_of(offered: list[str]) -> str | None:
    """Choose one where the provider has not: a browser that offers some hangs up on none."""
    return next((one for one in offered if not one.startswith(KEY_PROTOCOL)), None)
