"""The OpenAPI document: what the routes say, and what is true of all of them."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from caudal.service.problems import MEDIA_TYPE, ProblemBody, WrongField, documented

_REF = "#/components/schemas/{model}"
_TEXT = {"schema": {"type": "string"}}
_HEADERS: dict[str, dict[str, Any]] = {
    "401": {"WWW-Authenticate": _TEXT},
    "429": {"Retry-After": _TEXT},
    "503": {"Retry-After": _TEXT},
    "416": {"Content-Range": _TEXT},
}
_NOT_OURS = ("HTTPValidationError", "ValidationError")


def document(app: FastAPI) -> dict[str, Any]:
    """The document of an app, made once."""
    if app.openapi_schema is None:
        made = get_openapi(
            title=app.title,
            version=app.version,
            openapi_version="3.1.0",
            summary=app.summary,
            description=app.description,
            routes=app.routes,
            license_info=app.license_info,
        )
        schemas = made.setdefault("components", {}).setdefault("schemas", {})
        for name in _NOT_OURS:
            schemas.pop(name, None)
        for model in (WrongField, ProblemBody):
            schema = model.model_json_schema(ref_template=_REF, mode="serialization")
            schema.pop("$defs", None)
            schemas[model.__name__] = schema
        for path in made["paths"].values():
            for operation in path.values():
                _complete(operation)
        app.openapi_schema = made
    return app.openapi_schema


def _complete(operation: dict[str, Any]) -> None:
    if "application/json" in operation.get("requestBody", {}).get("content", {}):
        operation["responses"].setdefault("400", documented(400)[400])  # a body that is no JSON
    for status, answer in operation["responses"].items():
        content = answer.get("content", {})
        if status == "422" or MEDIA_TYPE in content:
            answer["content"] = {MEDIA_TYPE: {"schema": {"$ref": _REF.format(model="ProblemBody")}}}
        if status in ("204", "304"):
            answer.pop("content", None)
        headers = _HEADERS.get(status, {})
        if status in ("200", "304") and "application/json" in content:
            headers = {"ETag": _TEXT}
        if headers:
            answer.setdefault("headers", {}).update(headers)
