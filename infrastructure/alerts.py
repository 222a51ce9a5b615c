"""What people do with the alerts of a stack: receive the first one, read failed invocations, count costs by the tag."""

from __future__ import annotations

import json

from botocore.exceptions import BotoCoreError, ClientError

from infrastructure import permissions
from infrastructure.account import Account, AccountError
from infrastructure.parameters import TAG, Parameters

_MOST = 10


def send_test(account: Account, settings: Parameters) -> list[str]:
    """Send a test message to the topic and return who receives it; raises `AccountError` when nobody does."""
    topic = account.outputs(settings.prefix)["Alerts"]
    sns = account.client("sns")
    found = sns.list_subscriptions_by_topic(TopicArn=topic)["Subscriptions"]
    waiting = [one["Endpoint"] for one in found if not one["SubscriptionArn"].startswith("arn:")]
    confirmed = [one["Endpoint"] for one in found if one["Endpoint"] not in waiting]
    if waiting:
        raise AccountError(
            f"{', '.join(waiting)} did not confirm: follow the link in the mail from AWS first"
        )
    if not confirmed:
        raise AccountError("nobody receives the alerts: set `alert_email` in the settings file and deploy")
    sns.publish(TopicArn=topic, Subject=f"{settings.prefix}: a test", Message="Alerts arrive.")
    return confirmed


def failed_invocations(account: Account, settings: Parameters, *, empty: bool) -> list[str]:
    """Return the failed invocations in the queues, a line each, and `empty` the queues afterwards."""
    sqs = account.client("sqs")
    lines = []
    for stage in (permissions.INGEST.name, permissions.STAGE.name):
        url = sqs.get_queue_url(QueueName=f"{settings.prefix}-{stage}-failed")["QueueUrl"]
        answer = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=_MOST, VisibilityTimeout=0)
        for message in answer.get("Messages", []):
            body = json.loads(message["Body"])
            lines.append(
                json.dumps(
                    {"stage": stage, **{k: body.get(k) for k in ("requestPayload", "responsePayload")}}
                )
            )
        if empty:
            sqs.purge_queue(QueueUrl=url)
    return lines


def count_costs_by_tag(account: Account) -> bool:
    """Activate the tag of the budget as a cost allocation tag; False when AWS does not know it yet, or refuses.

    AWS knows a tag about a day after its first use; in an organisation only the management account may activate it.
    """
    status = [{"TagKey": TAG, "Status": "Active"}]
    try:
        # Costs have one endpoint for all regions.
        client = account.session.client("ce", region_name="us-east-1")
        return not client.update_cost_allocation_tags_status(CostAllocationTagsStatus=status).get("Errors")
    except (ClientError, BotoCoreError):
        return False
