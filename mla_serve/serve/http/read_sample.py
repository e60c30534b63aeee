"""Read the sample and the options of one request, from a form or from JSON.

The event loop receives the body. A thread parses it, because base64 and large JSON take long.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from starlette.requests import Request

from mla_serve.inputs import Input, Payload
from mla_serve.serve.http import forms, json_body, openapi
from mla_serve.serve.http.content_type import URLENCODED, ContentType, body_content_type
from mla_serve.serve.http.fields import FieldNames
from mla_serve.serve.http.options import Options, merge_options
from mla_serve.serve.settings import Settings

SampleAndOptions = tuple[dict[str, Payload], Options]


async def receive_sample(
    request: Request, inputs: Mapping[str, Input], query: Mapping[str, Any], known: Sequence[str], settings: Settings
) -> Callable[[], SampleAndOptions]:
    """Receive the body of a request.

    Args: query, the options in the URL; known, the names of the options that this path takes.
    Returns: a function that parses the body and merges its options with those of the URL, for a thread to call.
    Raises: InputError for a body that is refused while it arrives.
    """
    kind = body_content_type(request)
    names, limit = FieldNames(inputs, tuple(known)), settings.max_part_bytes
    if kind.is_json:
        body = await request.body()
        return lambda: _parse_json(body, kind, inputs, query, known, settings)
    if kind.media_type == URLENCODED:
        body = await request.body()
        return lambda: _parse_parts(forms.read_urlencoded(body, kind.codec(), names, limit), inputs, query, limit)
    example = functools.partial(openapi.curl, inputs, request.scope["path"])
    parts = await forms.read_form(request, names, example, limit)
    return lambda: _parse_parts(parts, inputs, query, limit)


def _parse_parts(
    parts: list[forms.Part], inputs: Mapping[str, Input], query: Mapping[str, Any], max_part_bytes: int
) -> SampleAndOptions:
    sample = forms.sample_from_form(parts, inputs, max_part_bytes)
    return sample, merge_options(query, forms.options_from_form(parts))


def _parse_json(
    body: bytes,
    kind: ContentType,
    inputs: Mapping[str, Input],
    query: Mapping[str, Any],
    known: Sequence[str],
    settings: Settings,
) -> SampleAndOptions:
    example = f'{{"{next(iter(inputs))}": ...}}'
    content = json_body.parse_object(body, kind, settings.max_json_values, example)
    members, options = json_body.split_options(content, tuple(inputs), tuple(known))
    sample = json_body.sample_from_json(members, inputs, settings.max_part_bytes)
    return sample, merge_options(query, options)
