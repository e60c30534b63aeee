"""What `bentoml.SyncHTTPClient(url)` learns about the service: the JSON form of our routes.

The client asks /schema.json for routes and makes a method of each: `client.predict(text="seven", top_k=3)`. It then sends JSON
to our own routes, within all their limits. No endpoint of BentoML's is added: its file fields take a JSON string for a path
on the server, or fetch it as a URL. Here a file is a base64 string, and no string is ever a path or a URL. The columns of a
modality are not listed: the client would leave out a member that is not among them, where the service says which one is meant.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mla_serve.fusion.formula import Fusion
from mla_serve.inputs import Input
from mla_serve.serve.http import openapi
from mla_serve.serve.http.content_type import JSON


def client_routes(inputs: Mapping[str, Input], fusion: Fusion) -> list[dict[str, Any]]:
    """Describe /predict and /embed for BentoML's clients. Args: inputs, the modalities of the model."""
    return [
        _route("predict", "Answer one sample.", openapi.sample_body(inputs, fusion)),
        _route("embed", "Return the features of each modality.", openapi.sample_body(inputs)),
    ]


def _route(name: str, doc: str, body: Mapping[str, Any]) -> dict[str, Any]:
    schema = body["content"][JSON]["schema"]
    properties = {field: _without_members(value) for field, value in schema["properties"].items()}
    return {
        "name": name,
        "route": f"/{name}",
        "doc": doc,
        "input": schema | {"properties": properties},
        "output": {"type": "object"},
    }


def _without_members(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema of an object of any members in the place of one with a list of them."""
    return {key: value for key, value in schema.items() if key not in ("properties", "additionalProperties")}
