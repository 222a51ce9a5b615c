"""Where a dataset is read from: one model per protocol, selected by the field `protocol`.

To add a protocol, add its model to `Source`, a module of its name to `catalunya/sources/` with a `PROTOCOL`, its
base URL to `settings.py`, and its fake of the same name to `catalunya/demo/api/`.
"""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field


class Model(BaseModel):
    """A part of a dataset definition: frozen, and without unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class SocrataSource(Model):
    """A dataset of a Socrata portal, by its four-by-four id."""

    protocol: Literal["socrata"]
    resource: str = Field(pattern=r"^[a-z0-9]{4}-[a-z0-9]{4}$")

    @property
    def address(self) -> str:
        """Its path below the base URL, in Markdown."""
        return f"`/resource/{self.resource}.json`"


class IdescatSource(Model):
    """A table of Idescat's Tables v2: which dimensions make a row and which become columns."""

    protocol: Literal["idescat"]
    table: str = Field(pattern=r"^[\w-]+/\d+/\d+/\w+$")
    rows: tuple[str, ...]
    """Dimensions whose categories, combined, are the rows."""
    measure: str
    """The dimension whose categories become columns `<measure>.<category>`."""
    fixed: dict[str, str]
    """Dimensions held at one category."""
    total: dict[str, str]
    """Per row dimension, the category that is the sum of the others: a control, not a row."""

    @property
    def address(self) -> str:
        """Its path below the base URL, in Markdown."""
        return f"`/taules/v2/{self.table}`"


class DownloadFile(Model):
    """One file of a download and the administrative level its features have."""

    path: str = Field(pattern=r"^/")
    level: str


class DownloadSource(Model):
    """GeoJSON files."""

    protocol: Literal["download"]
    files: tuple[DownloadFile, ...] = Field(min_length=1)

    @property
    def address(self) -> str:
        """The paths of its files below the base URL, in Markdown."""
        return ", ".join(f"`{file.path}`" for file in self.files)


Source = Annotated[SocrataSource | IdescatSource | DownloadSource, Field(discriminator="protocol")]
PROTOCOLS = frozenset(
    name
    for model in get_args(get_args(Source)[0])
    for name in get_args(model.model_fields["protocol"].annotation)
)
"""The names of the protocols, which are those of their modules too."""
