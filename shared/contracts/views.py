"""What of an event each tier may see, by construction: a view is built from the allowed fields alone.

There is no list of fields to leave out that somebody could forget to extend: a new field is in a view only
when it is declared with a tier that the view reaches (promise 10).
"""

from __future__ import annotations

from functools import cache
from types import UnionType
from typing import Any, Union, cast, get_args, get_origin

from pydantic import BaseModel, Field, create_model
from pydantic.fields import FieldInfo

from shared.contracts.events import EVENTS, TIERS, EventData, Shape, Tier


def tier_of(field: FieldInfo) -> Tier:
    """The declared tier of a field. Raises LookupError for a field without one."""
    extra = field.json_schema_extra
    if not isinstance(extra, dict) or extra.get("x-sensitivity") not in TIERS:
        raise LookupError("a field of an event has no sensitivity tier")
    return cast(Tier, extra["x-sensitivity"])


def _within(tier: Tier, limit: Tier) -> bool:
    return TIERS.index(tier) <= TIERS.index(limit)


def _reduced(annotation: Any, limit: Tier) -> Any:
    """The annotation with every model inside it reduced to the fields within the limit."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return _reduced_model(annotation, limit, Shape)
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is tuple:
        return cast(Any, tuple)[_reduced(arguments[0], limit), ...]
    if origin in (Union, UnionType):
        return Union[tuple(_reduced(argument, limit) for argument in arguments)]  # noqa: UP007
    return annotation


@cache
def _reduced_model(model: type[BaseModel], limit: Tier, base: type[Shape]) -> type[Shape]:
    fields: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        tier = tier_of(field)
        if _within(tier, limit):
            default = ... if field.is_required() else field.default
            kept = Field(default, alias=field.alias, json_schema_extra={"x-sensitivity": tier})
            kept.metadata = [*kept.metadata, *field.metadata]
            fields[name] = (_reduced(field.annotation, limit), kept)
    return create_model(model.__name__, __base__=base, __doc__=model.__doc__, **fields)


@cache
def view_model(short: str, tier: Tier) -> type[EventData]:
    """The model of event type `short` as the tier sees it; `internal` and `restricted` see all.

    Raises KeyError for an unknown type.
    """
    model = EVENTS[short]
    if not _within(tier, "agency"):
        return model
    view = cast(type[EventData], _reduced_model(model, tier, EventData))
    view.short = short
    return view


def public_model(short: str) -> type[EventData]:
    """The event reduced to its public fields, as it stands on `lienthong.public.dossier.v1`."""
    return view_model(short, "public")


def reduce(event: EventData, tier: Tier) -> EventData:
    """The event as the tier sees it. Whether a confidential dossier is shown at all is the caller's decision."""
    return view_model(event.short, tier).model_validate_json(event.to_json())
