"""Managed policies of AWS that Lambda's own documentation, SAM and Terraform modules attach: known by their ARN, and in force."""

from __future__ import annotations

import json
from typing import Any

_ROOT = "arn:aws:iam::aws:policy/"
_CREATED = "2015-02-06T18:40:41Z"
_LOGS = ["logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents"]
_VPC = [
    "ec2:CreateNetworkInterface", "ec2:DescribeNetworkInterfaces", "ec2:DescribeSubnets", "ec2:DeleteNetworkInterface",
    "ec2:AssignPrivateIpAddresses", "ec2:UnassignPrivateIpAddresses",
]  # fmt: skip
_SQS = ["sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"]
_DYNAMODB = [
    "dynamodb:DescribeStream",
    "dynamodb:GetRecords",
    "dynamodb:GetShardIterator",
    "dynamodb:ListStreams",
]
_KINESIS = [
    "kinesis:DescribeStream", "kinesis:DescribeStreamSummary", "kinesis:GetRecords", "kinesis:GetShardIterator",
    "kinesis:ListShards", "kinesis:ListStreams", "kinesis:SubscribeToShard",
]  # fmt: skip
_XRAY = [
    "xray:PutTraceSegments", "xray:PutTelemetryRecords", "xray:GetSamplingRules", "xray:GetSamplingTargets",
    "xray:GetSamplingStatisticSummaries",
]  # fmt: skip
_READ_LAMBDA = ["lambda:Get*", "lambda:List*", "logs:DescribeLogGroups", "logs:DescribeLogStreams", "logs:FilterLogEvents",
                "logs:GetLogEvents", "iam:ListRoles", "iam:GetRole"]  # fmt: skip

# Path and name -> the actions it allows, on everything.
_ALLOWS: dict[str, list[str]] = {
    "AdministratorAccess": ["*"],
    "PowerUserAccess": ["lambda:*", "logs:*", "sqs:*", "sns:*", "s3:*", "dynamodb:*", "events:*", "kinesis:*", "xray:*"],
    "AWSLambda_FullAccess": ["lambda:*", "logs:DescribeLogStreams", "logs:GetLogEvents", "logs:FilterLogEvents",
                             "logs:DescribeLogGroups", "iam:GetPolicy", "iam:GetPolicyVersion", "iam:GetRole",
                             "iam:GetRolePolicy", "iam:ListAttachedRolePolicies", "iam:ListRolePolicies", "iam:ListRoles"],
    "AWSLambda_ReadOnlyAccess": _READ_LAMBDA,
    "AWSXrayWriteOnlyAccess": _XRAY,
    "AWSXRayDaemonWriteAccess": _XRAY,
    "AmazonDynamoDBFullAccess": ["dynamodb:*"],
    "AmazonDynamoDBReadOnlyAccess": ["dynamodb:BatchGetItem", "dynamodb:Describe*", "dynamodb:Get*", "dynamodb:List*",
                                     "dynamodb:Query", "dynamodb:Scan"],
    "AmazonKinesisFullAccess": ["kinesis:*"],
    "AmazonS3FullAccess": ["s3:*", "s3-object-lambda:*"],
    "AmazonS3ReadOnlyAccess": ["s3:Get*", "s3:List*", "s3:Describe*"],
    "AmazonSNSFullAccess": ["sns:*"],
    "AmazonSQSFullAccess": ["sqs:*"],
    "CloudWatchLogsFullAccess": ["logs:*"],
    "CloudWatchLogsReadOnlyAccess": ["logs:Describe*", "logs:Get*", "logs:List*", "logs:FilterLogEvents"],
    "IAMFullAccess": ["iam:*"],
    "IAMReadOnlyAccess": ["iam:Get*", "iam:List*"],
    "ReadOnlyAccess": [*_READ_LAMBDA, "logs:Get*", "logs:Describe*", "iam:Get*", "iam:List*", "s3:Get*", "s3:List*"],
    "service-role/AWSLambdaBasicExecutionRole": _LOGS,
    "service-role/AWSLambdaDynamoDBExecutionRole": _DYNAMODB + _LOGS,
    "service-role/AWSLambdaENIManagementAccess": _VPC[:2] + _VPC[3:],
    "service-role/AWSLambdaKinesisExecutionRole": _KINESIS + _LOGS,
    "service-role/AWSLambdaRole": ["lambda:InvokeFunction"],
    "service-role/AWSLambdaSQSQueueExecutionRole": _SQS + _LOGS,
    "service-role/AWSLambdaVPCAccessExecutionRole": _LOGS + _VPC,
}  # fmt: skip


def _document(place: str, number: int, actions: list[str]) -> dict[str, Any]:
    path, _, name = place.rpartition("/")
    text = json.dumps(
        {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": actions, "Resource": "*"}]}
    )
    return {
        "Arn": _ROOT + place, "Path": f"/{path}/" if path else "/", "PolicyName": name, "PolicyId": f"ANPA{number:016d}A",
        "CreateDate": _CREATED, "UpdateDate": _CREATED, "DefaultVersionId": "v1", "Tags": [],
        "versions": {"v1": {"Document": text, "CreateDate": _CREATED}},
    }  # fmt: skip


AWS_POLICIES: dict[str, dict[str, Any]] = {
    _ROOT + place: _document(place, number, actions)
    for number, (place, actions) in enumerate(sorted(_ALLOWS.items()))
}
