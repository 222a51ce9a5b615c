"""ICGC's downloads: boundaries of comarques and municipalities as GeoJSON files."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from functools import cache

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from catalunya.demo.api.conditional import answer, etag_of

FOLDER = "/datacloud/divisions-administratives/vigent/json_unzip"
_NAME = re.compile(
    r"divisions-administratives-(comarques|municipis)-(5000|50000|100000|250000|500000|1000000)\.json"
)


class DownloadPortal:
    """Answers requests for the files of the current division; each is made once."""

    def __init__(self, make: Callable[[str, str], bytes], modified: datetime) -> None:
        self._file = cache(make)
        self._modified = modified

    async def answer(self, request: Request) -> Response:
        """Answer `…/vigent/json_unzip/divisions-administratives-<level>-<scale>.json`."""
        match = _NAME.fullmatch(str(request.path_params["name"]))
        if match is None:
            return PlainTextResponse("Not Found", status_code=404)
        body = self._file(match[1], match[2])
        etag = etag_of(match[1], match[2], len(body))
        return answer(request, [body], etag=etag, modified=self._modified, media_type="application/json")
