"""What a deployment may set of routing."""

from collections.abc import Mapping
from typing import Any

from pydantic import Field, SecretStr

from shared.bus.connection import BusSettings
from shared.settings import Settings


class RoutingSettings(Settings):
    """Times in seconds."""

    closure_poll: float = Field(
        20.0, gt=0, le=30, description="How often open transfers are looked for whose agency has closed."
    )
    link_bus_username: str | None = Field(
        None,
        description="As whom this site logs in to the bus of the site above it, where that asks for a login (SASL).",
    )
    link_bus_password: SecretStr | None = None
    link_bus_ca_file: str | None = Field(
        None, description="Whom to believe that it is the bus of the site above; unset: the machine's authorities."
    )

    def upper_bus(self, where: Mapping[str, Any]) -> BusSettings:
        """The bus of the site above: where and how as its invitation says, with the login that it gave this site."""
        return BusSettings(
            where["bootstrap"],
            where["prefix"],
            groups=False,
            security_protocol=where["security"],
            username=self.link_bus_username,
            password=self.link_bus_password.get_secret_value() if self.link_bus_password else None,
            ca_file=self.link_bus_ca_file,
        )
