"""What a deployment may set of routing."""

from pydantic import Field

from shared.settings import Settings


class RoutingSettings(Settings):
    """Times in seconds."""

    closure_poll: float = Field(
        20.0, gt=0, le=30, description="How often open transfers are looked for whose agency has closed."
    )
