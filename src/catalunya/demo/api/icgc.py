"""ICGC's downloads: borders of comarques and municipalities as GeoJSON files."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from catalunya.demo.api.conditional import answer, etag_of

FOLDER = "/datacloud/divisions-administratives/vigent/json_unzip"
MADE_ON = datetime(2024, 1, 15, 8, 0, tzinfo=UTC)
_NAME = re.compile(
    r"divisions-administratives-(comarques|municipis)-(5000|50000|100000|250000|500000|1000000)\.json"
)


class DownloadPortal:
    """Answers requests for the files of the current division; each is made once."""

    def __init__(self, make: Callable[[str, str], bytes], modified: datetime = MADE_ON) -> None:
        self._make = make
        self._modified = modified
        self._files: dict[tuple[str, str], bytes] = {}

    async def answer(self, request: Request) -> Response:
        """Answer `…/vigent/json_unzip/divisions-administratives-<level>-<scale>.json`."""
        match = _NAME.fullmatch(str(request.path_params["name"]))
        if match is None:
            return PlainTextResponse("Not Found", status_code=404)
        key = (match[1], match[2])
        if key not in self._files:
            self._files[key] = self._make(*key)
        body = self._files[key]
        return answer(
            request,
            [body],
            etag=etag_of(*key, len(body)),
            modified=self._modified,
            media_type="application/json",
        )
