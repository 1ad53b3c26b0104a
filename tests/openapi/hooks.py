"""What the generator cannot know of the API: who is online, what has no end, and what ends all."""

import itertools
import json
import os
import urllib.parse
import zlib

import schemathesis

ONLINE = itertools.cycle(json.loads(os.environ["HEARTWHEEL_CLIENTS"]))
# Longer than any run.
DRAIN_MS = 3_600_000


def is_stream(case):
    """Whether its answer is a feed that goes on until somebody goes."""
    answers = case.operation.definition.raw.get("responses", {}).values()
    return any("text/event-stream" in answer.get("content", {}) for answer in answers)


def is_whole(value):
    return isinstance(value, int) and not isinstance(value, bool)


@schemathesis.hook
def before_call(context, case, kwargs):
    parameters = case.path_parameters
    # Names that are made up are nobody's: half of them become those of clients that are online.
    if isinstance(parameters, dict) and isinstance(parameters.get("id"), str):
        number = zlib.crc32(parameters["id"].encode("utf-8", "replace"))
        # "0" is what the generator takes where something else is to be wrong.
        if parameters["id"] == "0" or number % 2 == 0:
            # Each in turn: whoever was kicked takes a moment to come back.
            parameters["id"] = urllib.parse.quote(next(ONLINE), safe="")
    if is_stream(case):
        case.query = {**(case.query or {}), "follow": "false"}
    if isinstance(parameters, dict) and parameters.get("group") == "0":
        parameters["group"] = "floor-1"
    if case.operation.path == "/v1/drain" and isinstance(case.body, dict):
        within = case.body.get("within_ms")
        if is_whole(within) and 0 <= within < DRAIN_MS:
            case.body = {**case.body, "within_ms": DRAIN_MS}
        # A rate alone ends it as soon as everybody was asked: not before the notice is over.
        notice = case.body.get("notice_ms", 0)
        if is_whole(case.body.get("per_second")) and within is None and is_whole(notice):
            if 0 <= notice < DRAIN_MS:
                case.body = {**case.body, "notice_ms": DRAIN_MS}
