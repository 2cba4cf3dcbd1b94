"""Makes what a trail writes to: bucket, topic with a queue behind it, log group, event bus.

LocalStack runs this file inside itself once it is ready, both as a plain process and in Docker. It runs it by exec(),
so there is no __file__ here; boto3 comes with LocalStack's own runtime.
"""

import json
import os

import boto3

NAME = "traild"
PORT = os.environ.get("GATEWAY_LISTEN", ":4566").split(",")[0].rsplit(":", 1)[-1]


def client(service):
    return boto3.client(
        service,
        endpoint_url=f"http://127.0.0.1:{PORT}",
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )


s3, sns, sqs, logs, events = map(client, ("s3", "sns", "sqs", "logs", "events"))

s3.create_bucket(Bucket=NAME)

topic_arn = sns.create_topic(Name=NAME)["TopicArn"]
queue_url = sqs.create_queue(QueueName=NAME)["QueueUrl"]
queue_arn = topic_arn.replace(":sns:", ":sqs:")
sqs.set_queue_attributes(
    QueueUrl=queue_url,
    Attributes={
        "Policy": json.dumps(
            {
                "Version": "2012-10-17",
                "Statement": [
                    {
                        "Effect": "Allow",
                        "Principal": {"Service": "sns.amazonaws.com"},
                        "Action": "sqs:SendMessage",
                        "Resource": queue_arn,
                        "Condition": {"ArnEquals": {"aws:SourceArn": topic_arn}},
                    }
                ],
            }
        )
    },
)
sns.subscribe(TopicArn=topic_arn, Protocol="sqs", Endpoint=queue_arn)

logs.create_log_group(logGroupName=NAME)
events.create_event_bus(Name=NAME)
