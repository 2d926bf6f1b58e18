"""`/docs` and `/asyncapi.json`: what a service does over HTTP and on the bus, readable where there is no network.

The page is Swagger UI from the wheel fastapi-offline, of which only the files are used; everything that it loads comes
from the same service, without a token, and its content security policy allows nothing else.
"""

from html import escape
from importlib import resources
from typing import Any, Final

from fastapi import APIRouter
from starlette.responses import Response

from shared.service import Service, owned_topics
from shared.web.app import router
from shared.web.asyncapi import asyncapi_document
from shared.web.problem import not_found

_ASSETS: Final = resources.files("fastapi_offline").joinpath("static")
_KINDS: Final = {
    "swagger-ui-bundle.js": "text/javascript; charset=utf-8",
    "swagger-ui.css": "text/css; charset=utf-8",
    "favicon.png": "image/png",
}

_START: Final = """window.addEventListener("load", () => {
  SwaggerUIBundle({
    url: "openapi.json",
    dom_id: "#swagger-ui",
    deepLinking: true,
    validatorUrl: null,
    presets: [SwaggerUIBundle.presets.apis],
  });
});
"""

_PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" type="image/png" href="docs/favicon.png">
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<p><a href="openapi.json">openapi.json</a> · <a href="asyncapi.json">asyncapi.json</a> (what it says on the bus)</p>
<div id="swagger-ui"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""

# Swagger UI sets styles by script and draws its icons from data URIs.
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)


def docs_routes(service: Service) -> APIRouter:
    routes = router()

    @routes.get("/docs", include_in_schema=False)
    async def page() -> Response:
        html = _PAGE.format(title=escape(service.app.title))
        return Response(html, media_type="text/html", headers={"Content-Security-Policy": _POLICY})

    @routes.get("/docs/{name}", include_in_schema=False)
    async def asset(name: str) -> Response:
        if name == "start.js":
            return Response(_START, media_type="text/javascript")
        if name not in _KINDS:
            raise not_found("This file")
        content = _ASSETS.joinpath(name).read_bytes()
        return Response(content, media_type=_KINDS[name], headers={"Cache-Control": "public, max-age=86400"})

    @routes.get("/asyncapi.json", tags=["contract"])
    async def asyncapi() -> dict[str, Any]:
        """AsyncAPI 3.0: the topics that this service writes and those that it applies."""
        return asyncapi_document(service.name, service.settings.bus(), owned_topics(service.name), service.consumes)

    return routes
