"""How long a request may take: one whose answer is not complete in time is cancelled and answered with 504."""

from __future__ import annotations

import asyncio

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mla_serve.serve.problems import DeadlineExceeded, problem_response

GIVE_UP = "mla_serve.give_up"  # ASGI extension of a scope; its `call` closes the connection at once and logs nothing


class Deadline:
    """Answer 504 when a request takes longer than `seconds`, and 500 when the application fails.

    This is the one clock of a request. When it runs out, the application is cancelled where it waits: for the body, for a
    place in the queue, or for the thread that computes the answer, whose stopwatch the cancellation stops (workers/). If an
    answer has begun, there can be no other: the client takes it too slowly, and its connection is closed.
    """

    def __init__(self, app: ASGIApp, seconds: float) -> None:
        """Wrap an application whose work ends when it is cancelled."""
        self.app = app
        self.seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on under a time limit."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = False

        async def watched_send(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        failure: Exception
        try:
            async with asyncio.timeout(self.seconds) as clock:
                await self.app(scope, receive, watched_send)
            return
        except ClientDisconnect:
            return
        except TimeoutError as error:
            give_up = scope.get("extensions", {}).get(GIVE_UP, {}).get("call")
            if started and clock.expired() and give_up is not None:
                give_up()
                return
            late = DeadlineExceeded(f"no answer within {self.seconds:g} s; send less at once, or try again later")
            failure = late if clock.expired() else error
        except Exception as error:
            failure = error
        if started:
            raise failure
        await problem_response(failure)(scope, receive, send)
