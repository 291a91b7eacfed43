"""The OpenAPI document at ``/schema/openapi.json``. No page is served with it: those load scripts from elsewhere."""

from typing import Any

from litestar import Response, Router
from litestar.exceptions import NotFoundException
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme

from app import __version__


def openapi() -> OpenAPIConfig:
    """Title, security and place of the document."""
    return OpenAPIConfig(
        title="Switchyard",
        version=__version__,
        description="Any MLX language model on Hugging Face, named per request by an ordinary OpenAI client.",
        components=Components(security_schemes={"bearer": SecurityScheme(type="http", scheme="bearer")}),
        security=[{"bearer": []}, {}],
        use_handler_docstrings=True,
        render_plugins=[JsonRenderPlugin()],
        openapi_router=Router(
            "/schema", route_handlers=[], include_in_schema=False, after_request=_no_page_of_litestars
        ),
    )


def _no_page_of_litestars(response: Response[Any]) -> Response[Any]:
    """Litestar answers other paths below ``/schema`` with a page; here they are unknown like any other."""
    if response.status_code == 404:
        raise NotFoundException
    return response
