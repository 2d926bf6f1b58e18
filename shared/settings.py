"""What a deployment may set, by environment (`LIENTHONG_…`), for every service; secrets by files as well."""

import os
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SecretsSettingsSource, SettingsConfigDict

from shared.bus.connection import BusSecurity, BusSettings

SECRETS_DIR = "LIENTHONG_SECRETS_DIR"


class Settings(BaseSettings):
    """Common to the four services. Times in seconds, sizes in MB.

    A file of the folder LIENTHONG_SECRETS_DIR that bears a setting's name (`lienthong_bus_password`) holds its value; the
    environment goes before it.
    """

    model_config = SettingsConfigDict(env_prefix="LIENTHONG_", extra="ignore")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        folder = os.environ.get(SECRETS_DIR)
        files = (SecretsSettingsSource(settings_cls, secrets_dir=folder),) if folder else ()
        return init_settings, env_settings, *files

    site: str = Field("", description="The site's code, as in its bundle.")
    database_url: str = Field("", description="PostgreSQL of the site; each service has a schema of its own there.")
    database_pool: int = Field(8, ge=2, description="Connections of one service process at most.")
    keys_dir: Path = Field(Path("keys"), description="The site's keys, readable by the services alone.")

    bus_bootstrap: str = Field("127.0.0.1:9092", description="host:port of the Kafka brokers.")
    bus_prefix: str = Field("", description="Stands before every topic and group of the site.")
    bus_partitions: int = Field(3, ge=1, description="Of topics that are made: commune 3, province 12, nation 48.")
    bus_replication: int = Field(1, ge=1)
    bus_idempotent: bool = Field(False, description="Idempotent producers; Apache Kafka has them.")
    bus_groups: bool = Field(True, description="Processes of a service share its partitions; false: embedded broker.")
    bus_security: BusSecurity = "PLAINTEXT"
    bus_username: str | None = None
    bus_password: SecretStr | None = None
    bus_ca_file: str | None = None
    bus_window_days: float = Field(7, gt=0, description="What an emptied bus is filled with again.")
    bus_window_mb: int = Field(
        0, ge=0, description="The same as a size; 0: no limit (embedded: 20 for the whole site)."
    )
    bus_restart_above_mb: int = Field(60, ge=16, description="The embedded broker is restarted empty above this size.")

    intake_url: str = "http://127.0.0.1:8001"
    routing_url: str = "http://127.0.0.1:8002"
    notify_url: str = "http://127.0.0.1:8003"
    stats_url: str = "http://127.0.0.1:8004"

    gap_wait: float = Field(10.0, gt=0, description="How long a consumer waits for a missing event before it asks.")
    session_seconds: float = Field(
        8.0, ge=6, description="A consumer that is silent for longer loses its partitions to the others of its group."
    )
    breaker_limit: int = Field(100, ge=1, description="Parked events a minute that stop a consumer.")
    idempotency_days: float = Field(7, gt=0, description="How long answers to an Idempotency-Key are kept.")
    housekeeping_seconds: float = Field(600.0, gt=0, description="How often what is too old goes.")
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    reconcile_seconds: float = Field(60.0, gt=0, description="Between two looks at the books with the owners.")
    traces_url: str = Field("", description="OTLP over HTTP, where traces go (…/v1/traces); empty: none are made.")
    login_failures: int = Field(
        20, ge=1, description="Failed logins at the pages from one address before it must wait."
    )
    login_minutes: float = Field(10, gt=0, description="How long failed logins are remembered.")
    metrics_token: SecretStr | None = Field(None, description="If set, /metrics asks for it as a bearer token.")

    oidc_issuer: str = Field("", description="A province's own OpenID provider, as its tokens name it; empty: none.")
    oidc_audience: str = Field("", description="Whom the provider's tokens must be meant for.")
    oidc_jwks: str = Field("", description="Address or file of its keys; empty: as its discovery document says.")
    oidc_name_claim: str = Field("sub", description="The claim that names the person; dots lead into nested ones.")
    oidc_role_claim: str = Field("role", description="The claim with the role or roles.")
    oidc_agency_claim: str = Field("agency", description="The claim with the agency's code, in either form.")
    oidc_subtree_claim: str = Field("subtree", description="The claim that is true for the agencies below as well.")
    oidc_roles: dict[str, str] = Field({}, description="The provider's roles to ours, the strongest first (JSON).")
    oidc_client_id: str = Field("", description="The desk pages' own client; empty: no login through the provider.")
    oidc_client_secret: SecretStr | None = None

    def bus(self) -> BusSettings:
        return BusSettings(
            bootstrap=self.bus_bootstrap,
            prefix=self.bus_prefix,
            partitions=self.bus_partitions,
            replication=self.bus_replication,
            idempotent=self.bus_idempotent,
            groups=self.bus_groups,
            security_protocol=self.bus_security,
            username=self.bus_username,
            password=self.bus_password.get_secret_value() if self.bus_password else None,
            ca_file=self.bus_ca_file,
        )

    def url_of(self, service: str) -> str:
        return str(getattr(self, f"{service}_url")).rstrip("/")
