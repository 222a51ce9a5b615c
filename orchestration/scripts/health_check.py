"""Check every service: Airflow's parts, the portals, the lake and the set-up of dbt.

    make health                                                    # Airflow on http://localhost:8080
    .venv/bin/python orchestration/scripts/health_check.py --url http://localhost:8090 --json

The exit code is 0 when all are healthy, else 1.
"""

from __future__ import annotations

import argparse
import json
import sys
import urllib.error
import urllib.request
from dataclasses import asdict, dataclass

from catalunya.address import is_loopback_url, split_login
from catalunya.datasets import loader
from catalunya.errors import CatalunyaError
from catalunya.identity import assume_role
from catalunya.lake.opening import open_lake
from catalunya.operations.doctor import examine
from catalunya.release import current_release
from catalunya.settings import Settings, spare_loopback
from catalunya.sources.http import user_agent

TIMEOUT_S = 10


@dataclass(frozen=True)
class Health:
    """The state of one service, and what to do when it is not healthy."""

    service: str
    healthy: bool
    found: str
    hint: str = ""


def main() -> int:
    """Print one line a service."""
    spare_loopback()
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--url", default="http://localhost:8080", help="address of the Airflow web interface")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    options = parser.parse_args()
    try:
        settings = Settings.load()
    except CatalunyaError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    found = [*airflow(options.url), *portals(settings), *lake(settings), *dbt(settings)]
    if options.json:
        services = [asdict(one) for one in found]
        print(json.dumps({"healthy": all(one.healthy for one in found), "services": services}))
    else:
        width = max(len(one.service) for one in found)
        for one in found:
            print(f"{'healthy  ' if one.healthy else 'UNHEALTHY'}  {one.service:<{width}}  {one.found}")
            if one.hint:
                print(f"{'':{width + 11}}  {one.hint}")
    return 0 if all(one.healthy for one in found) else 1


def airflow(url: str) -> list[Health]:
    """Return the state of the API server, and of the parts that it watches."""
    try:
        with urllib.request.urlopen(f"{url}/api/v2/monitor/health", timeout=TIMEOUT_S) as answer:
            parts = json.load(answer)
    except (OSError, ValueError) as error:
        return [
            Health("airflow api-server", False, f"{url}: {error}", "Start it: `make airflow`; see its log")
        ]
    found = [Health("airflow api-server", True, url)]
    for name, part in parts.items():
        status = part.get("status") or "not running"
        beat = next((value for key, value in part.items() if key.startswith("latest_")), None)
        healthy = status == "healthy"
        hint = "" if healthy else f"See the log of the {name.replace('_', ' ')}, then start it again"
        found.append(Health(f"airflow {name}", healthy, f"{status}, last heartbeat {beat or 'none'}", hint))
    return found


def portals(settings: Settings) -> list[Health]:
    """Return whether each portal answers; in the demo environment each run starts its own."""
    if settings.environment == "demo" and settings.portals_are_default:
        return [Health("portal", True, "each demo run starts its own")]
    return [_portal(variable, url, settings.project_url) for variable, url in settings.base_urls().items()]


def _portal(variable: str, url: str, project_url: str | None) -> Health:
    """Request `url`; user and password of the address are neither sent nor shown."""
    url, _ = split_login(url)
    request = urllib.request.Request(url, headers={"User-Agent": user_agent(project_url)})
    # No proxy for a portal on this machine.
    direct = [urllib.request.ProxyHandler({})] if is_loopback_url(url) else []
    try:
        with urllib.request.build_opener(*direct).open(request, timeout=TIMEOUT_S) as answer:
            return Health(variable, True, f"{url} answers {answer.status}")
    except urllib.error.HTTPError as error:
        return Health(variable, error.code < 500, f"{url} answers {error.code}")
    except OSError as error:
        return Health(variable, False, f"{url}: {error}", "The last snapshots are used until it is back")


def lake(settings: Settings) -> list[Health]:
    """Return whether the lake can be read, and its current release."""
    try:
        with assume_role("monitor", settings):
            release = current_release(open_lake(settings.lake))
    except CatalunyaError as error:
        return [Health("lake", False, str(error), "Check CATALUNYA_LAKE and the rights of this user")]
    return [
        Health("lake", True, f"{settings.lake} shows {release.release_id if release else 'no release yet'}")
    ]


def dbt(settings: Settings) -> list[Health]:
    """Return the findings of `catalunya doctor`."""
    valid = f"{len(loader.load(settings.home / 'datasets'))} definitions are valid"
    findings = [Health(f"dbt {one.what}", one.well, one.found, one.hint) for one in examine(settings)]
    return [Health("dataset definitions", True, valid), *findings]


if __name__ == "__main__":
    sys.exit(main())
