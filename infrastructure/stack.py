"""The stack of one environment of the pipeline on AWS.

CDK makes logical ids of the names of constructs: a construct that is renamed is created again on AWS.
"""

from __future__ import annotations

from typing import Any

from aws_cdk import CfnOutput, Stack, Tags
from constructs import Construct

from catalunya.datasets import loader
from catalunya.settings import PORTAL_VARIABLES, PORTALS
from infrastructure.airflow_instance import AirflowInstance, instance_role
from infrastructure.athena import Athena
from infrastructure.functions import Functions
from infrastructure.glue import GlueCatalog
from infrastructure.monitoring import Monitoring
from infrastructure.package import ROOT
from infrastructure.parameters import TAG, Parameters
from infrastructure.roles import Roles
from infrastructure.site import Site
from infrastructure.storage import Buckets


class CatalunyaStack(Stack):
    """Everything that one environment needs in an account."""

    def __init__(self, scope: Construct, name: str, settings: Parameters, **kwargs: Any) -> None:
        kept = settings.is_production
        super().__init__(scope, name, termination_protection=kept, **kwargs)
        Tags.of(self).add(TAG, settings.prefix)
        storage = Buckets(self, "Storage", settings)
        airflow = instance_role(self, settings) if settings.airflow else None
        roles = Roles(self, "Roles", settings, storage, airflow)
        monitoring = Monitoring(self, "Watch", settings, roles.by_name)
        lake = storage.lake.bucket_name
        definitions = loader.load(ROOT / "datasets")
        GlueCatalog(self, "Catalogue", settings, definitions, lake)
        Athena(self, "Athena", settings, storage, roles)
        Functions(self, "Functions", settings, _environment(settings, lake), roles.by_name, monitoring.topic)
        site = (
            Site(self, "PublicSite", settings, storage.site, roles.by_name["publish"])
            if storage.site
            else None
        )
        if airflow:
            AirflowInstance(
                self,
                "AirflowInstance",
                settings,
                airflow,
                roles.orchestrator,
                storage.logs,
                monitoring.topic,
                site.url if site else None,
            )
        for title, value in {
            "Lake": f"s3://{lake}",
            "Alerts": monitoring.topic.topic_arn,
            "Orchestrator": roles.orchestrator.role_arn,
            "Reader": roles.by_name["reader"].role_arn,
            **({"Site": site.url} if site else {}),
            **({"Deployment": roles.deployment.role_arn} if roles.deployment else {}),
        }.items():
            CfnOutput(self, title, value=value)


def _environment(settings: Parameters, lake: str) -> dict[str, str]:
    """Return the variables of the functions; there are no secrets, since the portals are public."""
    portals = dict(zip(PORTAL_VARIABLES, (getattr(settings, name) for name in PORTALS), strict=True))
    addresses = {**portals, "CATALUNYA_PROJECT_URL": settings.project_address}
    own = {"ENVIRONMENT": settings.environment, "CATALUNYA_LAKE": f"s3://{lake}"}
    return {**own, **{name: url for name, url in addresses.items() if url}}
