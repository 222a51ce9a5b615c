"""Monitoring: one topic for all alarms and alerts, and a budget."""

from __future__ import annotations

from aws_cdk import Aws
from aws_cdk import aws_budgets as budgets
from aws_cdk import aws_iam as iam
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sns_subscriptions as subscriptions
from constructs import Construct

from catalunya.lake import layout
from infrastructure import permissions
from infrastructure.parameters import TAG, Parameters

SENDERS = tuple(role.name for role in permissions.ROLES if f"{layout.ALERTS}/*" in role.writes)
"""The roles whose tasks send alerts: those that may store what was sent."""


class Monitoring(Construct):
    """The topic `<prefix>-alerts` and the budget `<prefix>`.

    Alarms, the budget and the pipeline's own alerts go to the topic.
    """

    def __init__(self, scope: Construct, name: str, settings: Parameters, roles: dict[str, iam.Role]) -> None:
        super().__init__(scope, name)
        self.topic = sns.Topic(self, "Alerts", topic_name=f"{settings.prefix}-alerts", enforce_ssl=True)
        if settings.alert_email:
            self.topic.add_subscription(subscriptions.EmailSubscription(settings.alert_email))
        self._allow_services()
        for sender in SENDERS:
            roles[sender].add_to_policy(
                iam.PolicyStatement(actions=["sns:Publish"], resources=[self.topic.topic_arn])
            )
        if settings.has_budget:
            self._budget(settings)

    def _allow_services(self) -> None:
        """Allow CloudWatch and the budget to publish to the topic, for this account only."""
        for service in ("cloudwatch", "budgets"):
            self.topic.add_to_resource_policy(
                iam.PolicyStatement(
                    principals=[iam.ServicePrincipal(f"{service}.amazonaws.com")],
                    actions=["sns:Publish"],
                    resources=[self.topic.topic_arn],
                    conditions={"StringEquals": {"aws:SourceAccount": Aws.ACCOUNT_ID}},
                )
            )

    def _budget(self, settings: Parameters) -> None:
        def notification(kind: str, percent: int) -> budgets.CfnBudget.NotificationWithSubscribersProperty:
            return budgets.CfnBudget.NotificationWithSubscribersProperty(
                notification=budgets.CfnBudget.NotificationProperty(
                    comparison_operator="GREATER_THAN",
                    notification_type=kind,
                    threshold=percent,
                    threshold_type="PERCENTAGE",
                ),
                subscribers=[
                    budgets.CfnBudget.SubscriberProperty(
                        address=self.topic.topic_arn, subscription_type="SNS"
                    )
                ],
            )

        budgets.CfnBudget(
            self,
            "Budget",
            budget=budgets.CfnBudget.BudgetDataProperty(
                budget_name=settings.prefix,
                budget_type="COST",
                time_unit="MONTHLY",
                budget_limit=budgets.CfnBudget.SpendProperty(amount=settings.budget_usd, unit="USD"),
                cost_filters={"TagKeyValue": [f"user:{TAG}${settings.prefix}"]},
            ),
            notifications_with_subscribers=[
                notification("ACTUAL", 80),
                notification("FORECASTED", 100),
            ],
        )
