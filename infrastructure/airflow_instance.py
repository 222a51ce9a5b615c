"""An instance that runs Airflow in containers, inside the account, without an open port.

It is the only one of an Auto Scaling group: the group replaces it when it fails, and at every deployment that changes the
sources or the image of the machine. What must survive is on a volume of its own, which each new instance attaches: the
images and volumes of Docker, and so PostgreSQL and the logs. `airflow_instance.sh` is what an instance does at its first
boot.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from aws_cdk import (
    Acknowledgment,
    Aws,
    CfnOutput,
    Duration,
    RemovalPolicy,
    Size,
    Stack,
    Validations,
)
from aws_cdk import aws_autoscaling as autoscaling
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_s3_assets as assets
from aws_cdk import aws_secretsmanager as secrets
from aws_cdk import aws_sns as sns
from constructs import Construct

from catalunya.runs.record import code_revision
from infrastructure.package import ROOT
from infrastructure.parameters import Parameters

SCRIPT = ROOT / "infrastructure" / "airflow_instance.sh"
MACHINE_IMAGE = "/aws/service/canonical/ubuntu/server/24.04/stable/current/arm64/hvm/ebs-gp3/ami-id"
"""Ubuntu 24.04: of the systems with a public parameter and a preinstalled agent of SSM, the one that packages Compose 2."""
SOURCES = ("pyproject.toml", "uv.lock", "src", "datasets", "dbt", "orchestration")
"""What the image of the containers is built from, and what starts them."""
_NOT_NEEDED = {"orchestration/tests", "dbt/mart/target", "dbt/mart/logs"}
_LONGEST_BOOT = Duration.minutes(40)
_OUT = (ec2.Port.tcp(443), "HTTPS"), (ec2.Port.tcp(80), "packages of Ubuntu, which are signed")
_SESSIONS = (
    "ssm:UpdateInstanceInformation",
    "ssmmessages:CreateControlChannel",
    "ssmmessages:CreateDataChannel",
    "ssmmessages:OpenControlChannel",
    "ssmmessages:OpenDataChannel",
)
"""The least that Session Manager needs, by its guide; these actions know no resources."""


def instance_role(scope: Construct, settings: Parameters) -> iam.Role:
    """Return the role of the instance, Airflow's identity: from it Airflow assumes the role of the orchestrator."""
    return iam.Role(
        scope,
        "AirflowRole",
        role_name=f"{settings.prefix}-airflow",
        description=f"Catalunya, {settings.environment}: the instance that runs Airflow.",
        assumed_by=iam.ServicePrincipal("ec2.amazonaws.com"),
    )


class AirflowInstance(Construct):
    """The instance with its network, its data volume and its secrets."""

    def __init__(
        self,
        scope: Construct,
        name: str,
        settings: Parameters,
        role: iam.Role,
        orchestrator: iam.IRole,
        logs: s3.IBucket,
        topic: sns.ITopic,
        site_url: str | None = None,
    ) -> None:
        super().__init__(scope, name)
        self.settings = settings
        self.site_url = site_url
        self.role = role
        vpc = self._network(logs)
        subnet = vpc.public_subnets[0]
        kept = settings.is_production
        self.volume = ec2.Volume(
            self,
            "Data",
            availability_zone=subnet.availability_zone,
            size=Size.gibibytes(50),
            volume_type=ec2.EbsDeviceVolumeType.GP3,
            encrypted=True,
            removal_policy=RemovalPolicy.SNAPSHOT if kept else RemovalPolicy.DESTROY,
        )
        self.seed = self._secret("Seed", "What the instance derives Airflow's keys and passwords from.")
        self.password = self._secret("Password", "The password of Airflow's user admin.", length=24)
        self.sources = _sources(self)
        group = self._group(vpc, topic)
        self._allow(orchestrator)
        CfnOutput(scope, "Airflow", value=group.auto_scaling_group_name)
        CfnOutput(scope, "AirflowPassword", value=self.password.secret_arn)

    def _network(self, logs: s3.IBucket) -> ec2.Vpc:
        """Return a network with one public subnet; a NAT gateway would cost more than the instance."""
        vpc = ec2.Vpc(
            self,
            "Network",
            ip_addresses=ec2.IpAddresses.cidr("10.0.0.0/24"),
            max_azs=1,
            nat_gateways=0,
            subnet_configuration=[
                ec2.SubnetConfiguration(name="Public", subnet_type=ec2.SubnetType.PUBLIC, cidr_mask=26)
            ],
        )
        vpc.add_flow_log(
            "Flow",
            destination=ec2.FlowLogDestination.to_s3(logs, "network/"),
            traffic_type=ec2.FlowLogTrafficType.ALL,
        )
        return vpc

    def _secret(self, name: str, description: str, length: int = 64) -> secrets.Secret:
        secret = secrets.Secret(
            self,
            name,
            description=f"Catalunya, {self.settings.environment}: {description}",
            generate_secret_string=secrets.SecretStringGenerator(
                exclude_punctuation=True, password_length=length
            ),
            removal_policy=RemovalPolicy.DESTROY,
        )
        Validations.of(secret).acknowledge(
            Acknowledgment(
                id="AwsSolutions-SMG4",
                reason="PostgreSQL and what Airflow encrypted keep the old value: a rotation alone would stop Airflow.",
            )
        )
        return secret

    def _group(self, vpc: ec2.Vpc, topic: sns.ITopic) -> autoscaling.AutoScalingGroup:
        ports = ec2.SecurityGroup(
            self, "Ports", vpc=vpc, description="Airflow: nothing comes in.", allow_all_outbound=False
        )
        for port, what in _OUT:
            ports.add_egress_rule(ec2.Peer.any_ipv4(), port, what)
        user_data = ec2.UserData.for_linux(shebang="#!/usr/bin/env bash")
        template = ec2.LaunchTemplate(
            self,
            "Template",
            machine_image=ec2.MachineImage.from_ssm_parameter(MACHINE_IMAGE, user_data=user_data),
            instance_type=ec2.InstanceType(self.settings.airflow_instance),
            role=self.role,
            security_group=ports,
            associate_public_ip_address=True,
            user_data=user_data,
            http_tokens=ec2.LaunchTemplateHttpTokens.REQUIRED,
            # Containers are one hop further from the metadata of the instance.
            http_put_response_hop_limit=2,
            block_devices=[
                ec2.BlockDevice(
                    device_name="/dev/sda1",
                    volume=ec2.BlockDeviceVolume.ebs(
                        16, encrypted=True, volume_type=ec2.EbsDeviceVolumeType.GP3
                    ),
                )
            ],
        )
        group = autoscaling.AutoScalingGroup(
            self,
            "Group",
            vpc=vpc,
            vpc_subnets=ec2.SubnetSelection(subnets=[vpc.public_subnets[0]]),
            launch_template=template,
            min_capacity=1,
            max_capacity=1,
            # The deployment waits for the instance to say that Airflow is healthy, and goes back when it is not.
            signals=autoscaling.Signals.wait_for_count(1, timeout=_LONGEST_BOOT),
            update_policy=autoscaling.UpdatePolicy.rolling_update(
                max_batch_size=1, min_instances_in_service=0, pause_time=_LONGEST_BOOT
            ),
            notifications=[autoscaling.NotificationConfiguration(topic=topic)],
        )
        # Before the first instance boots, its role must have its permissions, and the network a way out.
        group.node.add_dependency(self.role, vpc.public_subnets[0].internet_connectivity_established)
        for line in (*self._variables(group), SCRIPT.read_text(encoding="utf-8")):
            user_data.add_commands(line)
        return group

    def _variables(self, group: autoscaling.AutoScalingGroup) -> list[str]:
        """Return the assignments that the script begins with."""
        settings = self.settings
        stack = Stack.of(self)
        lines = {
            **settings.airflow_variables(Aws.ACCOUNT_ID, Aws.REGION, self.site_url),
            "CATALUNYA_ENGINE": "athena",
            "CATALUNYA_REVISION": code_revision(ROOT) or "",
            "AIRFLOW_ADMIN_EMAIL": settings.alert_email or "admin@localhost.invalid",
        }
        child = group.node.default_child
        assert child is not None
        return [
            f"STACK={Aws.STACK_NAME}",
            f"RESOURCE={stack.get_logical_id(child)}",  # type: ignore[arg-type]
            f"REGION={Aws.REGION}",
            f"VOLUME={self.volume.volume_id}",
            f"SOURCES={self.sources.s3_object_url}",
            f"SEED={self.seed.secret_arn}",
            f"PASSWORD={self.password.secret_arn}",
            "SETTINGS='" + "\n".join(f"{name}={value}" for name, value in lines.items()) + "'",
        ]

    def _allow(self, orchestrator: iam.IRole) -> None:
        stack = Stack.of(self)

        def instances(name: str) -> str:
            return stack.format_arn(service="ec2", resource="instance", resource_name=name)

        volume = stack.format_arn(service="ec2", resource="volume", resource_name=self.volume.volume_id)
        bucket = self.sources.bucket.bucket_arn
        for actions, resources in (
            (["sts:AssumeRole"], [orchestrator.role_arn]),
            (["s3:GetObject"], [f"{bucket}/{self.sources.s3_object_key}"]),
            (["secretsmanager:GetSecretValue"], [self.seed.secret_arn, self.password.secret_arn]),
            (["ec2:AttachVolume"], [volume, instances("*")]),
            (["cloudformation:SignalResource"], [Aws.STACK_ID]),
            ([*_SESSIONS], ["*"]),
        ):
            self.role.add_to_policy(iam.PolicyStatement(actions=actions, resources=resources))
        every = "arn:<AWS::Partition>:ec2:<AWS::Region>:<AWS::AccountId>:instance/*"
        Validations.of(self.role).acknowledge(
            Acknowledgment(
                id="AwsSolutions-IAM5[Resource::*]",
                reason="The actions of Session Manager have no resources; they are the least that its guide names.",
            ),
            Acknowledgment(
                id=f"AwsSolutions-IAM5[Resource::{every}]",
                reason="The id of an instance is made when the group starts it; the volume is named.",
            ),
        )


def _sources(scope: Construct) -> assets.Asset:
    with tempfile.TemporaryDirectory(prefix="catalunya-sources-") as scratch:
        folder = Path(scratch) / "sources"
        folder.mkdir()
        for name in SOURCES:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, folder / name, ignore=_not_needed)
            else:
                shutil.copy2(source, folder / name)
        return assets.Asset(scope, "Sources", path=str(folder))


def _not_needed(folder: str, names: list[str]) -> list[str]:
    """Return what is not copied: settings with secrets above all."""
    place = Path(folder).relative_to(ROOT).as_posix()
    return [
        name
        for name in names
        if f"{place}/{name}" in _NOT_NEEDED or name == "__pycache__" or name.endswith((".env", ".pyc"))
    ]
