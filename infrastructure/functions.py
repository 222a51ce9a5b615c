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
IDLE_HOURS = 12
"""Hours without an invocation after which an alarm of production fires: two runs of Airflow did not take place."""


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
        self._alarms(stage, function)
        return function

    def _failed(self, stage: str) -> str:
        return f"{self.settings.prefix}-{stage}-failed"

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
            queue_name=self._failed(stage),
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

    def _alarms(self, stage: str, function: lambda_.Function) -> None:
        """Watch each five minutes by themselves: an alarm ends when nothing more happens, and the next event fires it again.

        An alarm on the number of messages in the queue would stay on until somebody empties the queue.
        """
        five = Duration.minutes(5)
        self._alarm(
            stage,
            "failed",
            function.metric("AsyncEventsDropped", period=five, statistic="Sum"),
            f"An invocation of {stage} failed or was never started, and lies in the queue {self._failed(stage)}.",
        )
        self._alarm(
            stage,
            "errors",
            function.metric_errors(period=five),
            f"The function {stage} raised an error, ran out of time or out of memory.",
        )
        self._alarm(
            stage,
            "slow",
            function.metric_duration(period=five, statistic="Maximum"),
            f"The function {stage} took more than four fifths of the time it has.",
            threshold=self.settings.timeout_s * 800,
        )
        if stage == "ingest" and self.settings.is_production:
            self._alarm_when_idle(stage, function)

    def _alarm_when_idle(self, stage: str, function: lambda_.Function) -> None:
        """Watch for hours without any invocation: Airflow, which invokes every six hours, is down.

        Hours without an invocation have no data. Filled with zeros, they are counted from the last invocation on; CloudWatch
        would otherwise look further back for older data, and fire some hours later.
        """
        hourly = function.metric_invocations(period=Duration.hours(1))
        invoked = cloudwatch.MathExpression(
            expression="FILL(invoked, 0)", using_metrics={"invoked": hourly}, period=Duration.hours(1)
        )
        alarm = self._alarm(
            stage,
            "idle",
            invoked,
            f"Nobody invoked {stage} for {IDLE_HOURS} hours: is Airflow running?",
            threshold=1,
            comparison_operator=cloudwatch.ComparisonOperator.LESS_THAN_THRESHOLD,
            evaluation_periods=IDLE_HOURS,
            treat_missing_data=cloudwatch.TreatMissingData.BREACHING,
        )
        alarm.add_ok_action(actions.SnsAction(self.topic))

    def _alarm(
        self,
        stage: str,
        name: str,
        metric: cloudwatch.IMetric,
        description: str,
        *,
        threshold: int = 0,
        comparison_operator: cloudwatch.ComparisonOperator = cloudwatch.ComparisonOperator.GREATER_THAN_THRESHOLD,
        evaluation_periods: int = 1,
        treat_missing_data: cloudwatch.TreatMissingData = cloudwatch.TreatMissingData.NOT_BREACHING,
    ) -> cloudwatch.Alarm:
        prefix = self.settings.prefix
        alarm = cloudwatch.Alarm(
            self,
            f"{stage.title()}{name.title()}Alarm",
            alarm_name=f"{prefix}-{stage}-{name}",
            alarm_description=f"{description} Look at the log group /catalunya/{prefix}-{stage}; docs/aws.md, Alerts.",
            metric=metric,
            threshold=threshold,
            evaluation_periods=evaluation_periods,
            comparison_operator=comparison_operator,
            treat_missing_data=treat_missing_data,
        )
        alarm.add_alarm_action(actions.SnsAction(self.topic))
        return alarm
