"""The two functions, the queues of their failed invocations, and their alarms."""

from __future__ import annotations

from aws_cdk import Acknowledgment, Duration, RemovalPolicy, Size, Validations
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_cloudwatch_actions as actions
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_lambda_destinations as destinations
from aws_cdk import aws_logs as logs
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from infrastructure.parameters import Parameters

LONGEST_WAIT = Duration.minutes(15)
"""Age at which AWS drops an invocation that it could not start, because of throttling for example."""


class Functions(Construct):
    """`<prefix>-ingest` and `<prefix>-stage`, invoked asynchronously by the orchestrator."""

    def __init__(
        self,
        scope: Construct,
        name: str,
        settings: Parameters,
        environment: dict[str, str],
        roles: dict[str, iam.Role],
        topic: sns.ITopic,
    ) -> None:
        super().__init__(scope, name)
        self.settings = settings
        self.topic = topic
        self.code = lambda_.Code.from_asset(str(settings.package))
        self.functions = [self._function(stage, environment, roles[stage]) for stage in ("ingest", "stage")]

    def _function(self, stage: str, environment: dict[str, str], role: iam.Role) -> lambda_.Function:
        name = f"{self.settings.prefix}-{stage}"
        group = logs.LogGroup(
            self,
            f"{stage.title()}Logs",
            log_group_name=f"/catalunya/{name}",
            retention=logs.RetentionDays.THREE_MONTHS,
            removal_policy=RemovalPolicy.DESTROY,
        )
        failed = self._queue(stage)
        self._allow_platform(role, group, failed)
        function = lambda_.Function(
            self,
            stage.title(),
            function_name=name,
            description=f"Does the {stage} of one dataset of one run, once for each.",
            runtime=lambda_.Runtime.PYTHON_3_13,
            architecture=lambda_.Architecture.ARM_64,
            handler=f"catalunya.runs.aws_lambda.{stage}",
            code=self.code,
            # Immutable: the permissions are those of `permissions.py` and of this file; CDK adds none.
            role=iam.Role.from_role_arn(self, f"{stage.title()}Role", role.role_arn, mutable=False),
            environment=environment,
            memory_size=self.settings.memory_mb,
            ephemeral_storage_size=Size.mebibytes(self.settings.scratch_mb),
            timeout=Duration.seconds(self.settings.timeout_s),
            log_group=group,
            # The orchestrator retries, in a task that people see; AWS must not start the same work a second time.
            retry_attempts=0,
            max_event_age=LONGEST_WAIT,
            on_failure=destinations.SqsDestination(failed),
        )
        # Lambda checks the rights to log and to the queue when function and event configuration are made: after the policy.
        function.node.add_dependency(role.node.find_child("DefaultPolicy"))
        Validations.of(function).acknowledge(
            Acknowledgment(
                id="AwsSolutions-L1",
                reason="Python 3.13 is what the lock was tested with and is supported by AWS until 2029.",
            )
        )
        self._alarms(stage, function, failed)
        return function

    def _allow_platform(self, role: iam.Role, group: logs.LogGroup, failed: sqs.Queue) -> None:
        """Allow what Lambda itself does in the name of the function: write its log, and queue what failed."""
        for allowed, resource in (
            (["logs:CreateLogStream", "logs:PutLogEvents"], group.log_group_arn),
            (["sqs:SendMessage"], failed.queue_arn),
        ):
            role.add_to_policy(iam.PolicyStatement(actions=allowed, resources=[resource]))

    def _queue(self, stage: str) -> sqs.Queue:
        queue = sqs.Queue(
            self,
            f"{stage.title()}Failed",
            queue_name=f"{self.settings.prefix}-{stage}-failed",
            encryption=sqs.QueueEncryption.SQS_MANAGED,
            enforce_ssl=True,
            retention_period=Duration.days(14),
        )
        Validations.of(queue).acknowledge(
            Acknowledgment(
                id="AwsSolutions-SQS3",
                reason="This queue is the dead-letter queue: failed invocations are kept in it for people to read.",
            )
        )
        return queue

    def _alarms(self, stage: str, function: lambda_.Function, failed: sqs.Queue) -> None:
        slow_ms = self.settings.timeout_s * 800
        five = Duration.minutes(5)
        for name, metric, threshold, description in (
            (
                "failed",
                failed.metric_approximate_number_of_messages_visible(period=five, statistic="Maximum"),
                0,
                f"An invocation of {stage} failed and lies in the queue.",
            ),
            (
                "errors",
                function.metric_errors(period=five),
                0,
                f"The function {stage} raised an error, ran out of time or out of memory.",
            ),
            (
                "slow",
                function.metric_duration(period=five, statistic="Maximum"),
                slow_ms,
                f"The function {stage} took more than four fifths of the time it has.",
            ),
        ):
            alarm = cloudwatch.Alarm(
                self,
                f"{stage.title()}{name.title()}Alarm",
                alarm_name=f"{self.settings.prefix}-{stage}-{name}",
                alarm_description=f"{description} Look at the log group /catalunya/{self.settings.prefix}-{stage}.",
                metric=metric,
                threshold=threshold,
                evaluation_periods=1,
                comparison_operator=cloudwatch.ComparisonOperator.GREATER_THAN_THRESHOLD,
                treat_missing_data=cloudwatch.TreatMissingData.NOT_BREACHING,
            )
            alarm.add_alarm_action(actions.SnsAction(self.topic))
