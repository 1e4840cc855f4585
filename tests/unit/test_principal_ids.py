"""Names and unique ids of principals in stored policies."""

from __future__ import annotations

import json

from gateway.model.access_policy import Access, Caller, parse
from gateway.model.principal_ids import translated, translated_document

ARN = "arn:aws:iam::123456789012:user/u"
ID = "AIDAAAAAAAAAAAAAAAAA"
IDS = {ARN: ID}.get
ARNS = {ID: ARN}.get


def test_only_principals_are_translated() -> None:
    statement = {
        "Effect": "Allow",
        "Principal": {"AWS": [ARN, "arn:aws:iam::111122223333:user/u"], "Service": "s3.amazonaws.com"},
        "Condition": {"StringEquals": {"aws:PrincipalArn": ARN}},
        "Resource": ARN,
    }
    kept = translated(statement, IDS)
    assert kept["Principal"]["AWS"] == [ID, "arn:aws:iam::111122223333:user/u"]
    assert kept["Principal"]["Service"] == "s3.amazonaws.com"
    assert (kept["Condition"], kept["Resource"]) == (statement["Condition"], ARN)
    assert translated(kept, ARNS) == statement
    for principal in ("*", {"Service": "s3.amazonaws.com"}, {"AWS": "123456789012"}):
        assert translated({"Principal": principal}, IDS) == {"Principal": principal}
    assert translated({"NotPrincipal": {"AWS": ARN}}, IDS) == {"NotPrincipal": {"AWS": ID}}


def test_a_document_with_nobody_in_it_keeps_its_text() -> None:
    text = '{ "Statement":  {"Effect":"Allow","Principal":{"Service":"lambda.amazonaws.com"},"Action":"sts:AssumeRole"} }'
    assert translated_document(text, IDS) is text
    kept = translated_document(text.replace('"Service":"lambda.amazonaws.com"', f'"AWS":"{ARN}"'), IDS)
    assert json.loads(kept)["Statement"]["Principal"] == {"AWS": ID}


def test_an_id_names_whom_it_belongs_to() -> None:
    text = json.dumps({"Statement": {"Effect": "Allow", "Principal": {"AWS": ID}, "Action": "a:B"}})
    policy = parse(text, "resource")
    first, second = (
        Caller("user", ARN, ARN, ids=(ID,)),
        Caller("user", ARN, ARN, ids=("AIDABBBBBBBBBBBBBBBB",)),
    )
    assert policy.allows(Access(first, "a:B", "*")) == "itself"
    assert policy.allows(Access(second, "a:B", "*")) == ""
