"""Who answers for the publication, and where it is: what catalogues ask for."""

from __future__ import annotations

from dataclasses import dataclass

from catalunya.settings import Settings

_NO_CODE = "X00000000"
"""Stands for the code of a body: national catalogues want one, and no body has this."""


@dataclass(frozen=True)
class Publisher:
    """Whoever publishes the site."""

    name: str = "Catalunya Data Pipeline"
    code: str = _NO_CODE
    """In Spain's common directory of public bodies (DIR3)."""
    email: str | None = None
    phone: str | None = None

    @property
    def uri(self) -> str:
        """Its identifier in Spain's national catalogue."""
        return f"http://datos.gob.es/recurso/sector-publico/org/Organismo/{self.code}"

    @classmethod
    def of(cls, settings: Settings) -> Publisher:
        """Return who publishes by the settings."""
        return cls(
            settings.publisher or cls.name,
            settings.publisher_code or cls.code,
            settings.publisher_email,
            settings.publisher_phone,
        )


PROJECT = Publisher()
"""Whoever publishes without a setting."""
