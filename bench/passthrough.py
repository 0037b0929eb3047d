"""The floor: what an aiohttp application costs that reads a block and writes it, without looking at it.

python -m bench.passthrough PORT UPSTREAM
"""

import sys
from collections.abc import AsyncIterator

import aiohttp
from aiohttp import web

UPSTREAM = web.AppKey("UPSTREAM", str)
SESSION = web.AppKey("SESSION", aiohttp.ClientSession)


async def session(app: web.Application) -> AsyncIterator[None]:
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as app[
        SESSION
    ]:
        yield


async def forward(request: web.Request) -> web.StreamResponse:
    body = await request.read()
    headers = {"Content-Type": request.headers["Content-Type"]}
    async with request.app[SESSION].post(request.app[UPSTREAM], data=body, headers=headers) as answer:
        response = web.StreamResponse(status=answer.status, headers={"Content-Type": answer.headers["Content-Type"]})
        await response.prepare(request)
        while block := await answer.content.readany():
            await response.write(block)
        await response.write_eof()
        return response


def main() -> None:
    app = web.Application()
    app[UPSTREAM] = sys.argv[2] + "/chat/completions"
    app.cleanup_ctx.append(session)
    app.router.add_post("/v1/chat/completions", forward)
    web.run_app(
        app,
        host="127.0.0.1",
        port=int(sys.argv[1]),
        access_log=None,
        handler_cancellation=True,
        print=None,
        backlog=4096,
    )


if __name__ == "__main__":
    main()
