"""Routes by which callers hear why: a number that is gone, and a desk that is busy.

To use this file, name it in sbc.yaml, relative to that file, with the directory of the WAV files that it plays:

    routes: routes/announcements.py
    media: { prompts: prompts }

and give the peers that it dials, `desk` and `voicemail`, there as well.
"""

from sbc.routing import Failure, Request, Routes

routes = Routes()
GONE = {"4711", "4712"}


@routes.route
async def main(request: Request) -> None:
    call = request.call
    if call.called_number in GONE:
        return await call.announce("no-longer-in-service.wav", then=410)  # 183, the announcement, then 410
    call.media.engage()
    await call.dial("desk", on_failure=sorry)


@routes.failure_route
async def sorry(failure: Failure) -> None:
    if failure.best_status == 486:
        return await failure.call.announce("busy.wav", then=voicemail)
    await failure.call.reject(failure.best_status)


async def voicemail(request: Request) -> None:
    """What comes after an announcement decides as a first route does."""
    await request.call.dial("voicemail")
