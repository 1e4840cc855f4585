"""Event patterns: what EventBridge's documentation says of them, case by case."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from gateway.model.event_pattern import (
    LEAST_STEPS,
    MAX_BRANCHES,
    MAX_STEPS,
    MAX_STEPS_OF_ALL,
    BadPattern,
    Effort,
    Pattern,
    PatternIndex,
    TooMuchWork,
)

EVENT = {
    "version": "0",
    "id": "6a7e8feb-b491-4cf7-a9f1-bf3703467718",
    "detail-type": "EC2 Instance State-change Notification",
    "source": "aws.ec2",
    "account": "111122223333",
    "time": "2017-12-22T18:43:48Z",
    "region": "us-west-1",
    "resources": ["arn:aws:ec2:us-west-1:123456789012:instance/i-1234567890abcdef0"],
    "detail": {
        "instance-id": "i-1234567890abcdef0",
        "state": "terminated",
        "c-count": 5,
        "d-count": 3,
        "x-limit": 301.8,
        "source-ip": "10.0.0.33",
        "ip6": "2001:db8::1",
        "eventVersion": "",
        "responseElements": None,
        "yes": True,
        "no": False,
        "big": 123456789012,
        "negative": -2.5,
        "FileName": "report.PNG",
        "path": "dir/a*b\\c.txt",
        "tags": ["red", "green", 7],
        "none": [],
        "nested": [["deep"], [1, ["deeper"]]],
        "employees": [
            {
                "firstName": "John",
                "lastName": "Doe",
                "phones": [{"kind": "home", "n": 1}, {"kind": "work", "n": 2}],
            },
            {"firstName": "Anna", "lastName": "Smith"},
        ],
    },
}


def detail(**fields: Any) -> dict[str, Any]:
    return {"detail": {name.replace("_", "-"): value for name, value in fields.items()}}


YES = [
    # values
    {"source": ["aws.ec2"]},
    {"source": ["aws.s3", "aws.ec2"], "region": ["us-west-1"]},
    {"resources": ["arn:aws:ec2:us-west-1:123456789012:instance/i-1234567890abcdef0", "other"]},
    detail(state=["terminated"]),
    detail(c_count=[5]),
    detail(c_count=[5.0]),
    detail(c_count=[1, 5, "five"]),
    detail(x_limit=[3.018e2]),
    detail(big=[123456789012]),
    detail(yes=[True]),
    detail(no=[False]),
    # null and empty
    detail(eventVersion=[""]),
    detail(responseElements=[None]),
    detail(eventVersion=["", None]),
    # arrays
    detail(tags=["green"]),
    detail(tags=[7]),
    detail(tags=["blue", "red"]),
    detail(nested=["deeper"]),
    detail(nested=["deep"]),
    detail(nested=[1]),
    detail(employees={"firstName": ["Anna"]}),
    detail(employees={"firstName": ["Anna"], "lastName": ["Smith"]}),
    detail(employees={"firstName": ["John"], "phones": {"kind": ["work"], "n": [2]}}),
    # prefix and suffix
    {"time": [{"prefix": "2017-12-22"}]},
    {"region": [{"prefix": "eu-"}, {"prefix": "us-"}]},
    detail(state=[{"prefix": ""}]),
    detail(state=[{"prefix": {"equals-ignore-case": "TERM"}}]),
    detail(FileName=[{"suffix": ".PNG"}]),
    detail(FileName=[{"suffix": {"equals-ignore-case": ".png"}}]),
    detail(tags=[{"prefix": "gr"}]),
    # equals-ignore-case
    {"detail-type": [{"equals-ignore-case": "ec2 instance state-change notification"}]},
    detail(FileName=[{"equals-ignore-case": "REPORT.png"}]),
    # wildcard
    detail(FileName=[{"wildcard": "*.PNG"}]),
    detail(FileName=[{"wildcard": "rep*t.P*G"}]),
    detail(FileName=[{"wildcard": "report.PNG"}]),
    detail(FileName=[{"wildcard": "*"}]),
    detail(eventVersion=[{"wildcard": "*"}]),
    detail(path=[{"wildcard": "dir/a\\*b\\\\c.*"}]),
    detail(path=[{"wildcard": "*a\\*b*txt"}]),
    {"resources": [{"wildcard": "arn:aws:ec2:*:*:instance/*"}]},
    # anything-but
    detail(state=[{"anything-but": "initializing"}]),
    detail(state=[{"anything-but": ["stopped", "overloaded"]}]),
    detail(x_limit=[{"anything-but": 123}]),
    detail(x_limit=[{"anything-but": [100, 200, 300]}]),
    detail(c_count=[{"anything-but": "5"}]),
    detail(state=[{"anything-but": 5}]),
    detail(yes=[{"anything-but": "true"}]),
    detail(responseElements=[{"anything-but": "x"}]),
    detail(tags=[{"anything-but": "red"}]),
    detail(state=[{"anything-but": {"prefix": "init"}}]),
    detail(state=[{"anything-but": {"prefix": ["init", "start"]}}]),
    detail(FileName=[{"anything-but": {"suffix": ".txt"}}]),
    detail(FileName=[{"anything-but": {"suffix": [".txt", ".rtf"]}}]),
    detail(state=[{"anything-but": {"equals-ignore-case": "Initializing"}}]),
    detail(state=[{"anything-but": {"equals-ignore-case": ["initializing", "stopped"]}}]),
    detail(FileName=[{"anything-but": {"wildcard": "*.txt"}}]),
    detail(FileName=[{"anything-but": {"wildcard": ["*/lib/*", "*/bin/*"]}}]),
    detail(c_count=[{"anything-but": {"prefix": "5"}}]),
    # numeric
    detail(c_count=[{"numeric": [">", 0, "<=", 5]}]),
    detail(d_count=[{"numeric": ["<", 10]}]),
    detail(x_limit=[{"numeric": ["=", 3.018e2]}]),
    detail(c_count=[{"numeric": [">=", 5]}]),
    detail(negative=[{"numeric": ["<", -2.4, ]}]),
    detail(negative=[{"numeric": [">=", -2.5, "<", 0]}]),
    detail(tags=[{"numeric": [">", 6]}]),
    # exists
    detail(state=[{"exists": True}]),
    detail(responseElements=[{"exists": True}]),
    detail(absent=[{"exists": False}]),
    {"absent": {"deeper": [{"exists": False}]}},
    detail(none=[{"exists": False}]),
    detail(employees=[{"exists": False}]),
    detail(state=[{"exists": False}, "terminated"]),
    detail(employees={"middleName": [{"exists": False}]}),
    # cidr
    detail(source_ip=[{"cidr": "10.0.0.0/24"}]),
    detail(source_ip=[{"cidr": "0.0.0.0/0"}]),
    detail(ip6=[{"cidr": "2001:db8::/32"}]),
    detail(ip6=["2001:0db8:0:0::1"]),
    # together
    {
        "time": [{"prefix": "2017-12-22"}],
        **detail(
            state=[{"anything-but": "initializing"}], c_count=[{"numeric": [">", 0, "<=", 5]}],
            x_limit=[{"anything-but": [100, 200, 300]}], source_ip=[{"cidr": "10.0.0.0/8"}],
        ),
    },
    # $or
    {"$or": [{"source": ["aws.s3"]}, {"region": ["us-west-1"]}]},
    {"source": ["aws.ec2"], "$or": [{"region": ["x"]}, {"account": ["111122223333"]}]},
    {"detail": {"$or": [{"c-count": [{"numeric": [">", 9]}]}, {"d-count": [{"numeric": ["<", 10]}]}]}},
    {"$or": [{"source": ["x"]}, {"detail": {"state": ["terminated"], "$or": [{"yes": [False]}, {"no": [False]}]}}]},
    {"$or": [{"a": [1]}, {"source": ["aws.ec2"]}], "detail": {"$or": [{"b": [1]}, {"state": ["terminated"]}]}},
    {"$or": [{"detail": {"employees": {"firstName": ["Anna"]}}}, {"x": [1]}], "detail": {"employees": {"lastName": ["Smith"]}}},
]  # fmt: skip

NO = [
    {"source": ["aws.s3"]},
    {"source": ["aws.ec2"], "region": ["eu-west-1"]},
    {"source": ["AWS.EC2"]},
    {"source": ["aws.ec"]},
    {"absent": ["x"]},
    detail(c_count=["5"]),
    detail(c_count=[True]),
    detail(yes=["true"]),
    detail(yes=[1]),
    detail(no=[0]),
    detail(no=[None]),
    detail(responseElements=[""]),
    detail(responseElements=["null"]),
    detail(eventVersion=[None]),
    detail(absent=[None]),
    detail(absent=[""]),
    detail(none=[""]),
    detail(none=[{"anything-but": "x"}]),
    detail(state={"deeper": ["terminated"]}),
    detail(employees=["Anna"]),
    detail(employees={"firstName": ["Anna"], "lastName": ["Doe"]}),
    detail(employees={"firstName": ["Anna"], "phones": {"kind": ["work"]}}),
    detail(employees={"phones": {"kind": ["home"], "n": [2]}}),
    detail(big=[123456789013]),
    {"time": [{"prefix": "2018"}]},
    detail(c_count=[{"prefix": "5"}]),
    detail(state=[{"prefix": {"equals-ignore-case": "INIT"}}]),
    detail(FileName=[{"suffix": ".png"}]),
    detail(FileName=[{"suffix": {"equals-ignore-case": ".jpg"}}]),
    detail(FileName=[{"equals-ignore-case": "report"}]),
    detail(FileName=[{"wildcard": "*.png"}]),
    detail(FileName=[{"wildcard": "*.P"}]),
    detail(FileName=[{"wildcard": "report*report.PNG"}]),
    detail(FileName=[{"wildcard": "report"}]),
    detail(c_count=[{"wildcard": "*"}]),
    detail(path=[{"wildcard": "dir/a\\*c*"}]),
    detail(state=[{"anything-but": "terminated"}]),
    detail(state=[{"anything-but": ["stopped", "terminated"]}]),
    detail(x_limit=[{"anything-but": 301.8}]),
    detail(c_count=[{"anything-but": [5, 6]}]),
    detail(absent=[{"anything-but": "x"}]),
    detail(state=[{"anything-but": {"prefix": "term"}}]),
    detail(state=[{"anything-but": {"prefix": ["init", "term"]}}]),
    detail(FileName=[{"anything-but": {"suffix": ".PNG"}}]),
    detail(state=[{"anything-but": {"equals-ignore-case": "TERMINATED"}}]),
    detail(FileName=[{"anything-but": {"wildcard": "*.PNG"}}]),
    detail(FileName=[{"anything-but": {"wildcard": ["*.txt", "rep*"]}}]),
    detail(c_count=[{"numeric": [">", 5]}]),
    detail(c_count=[{"numeric": ["<", 5]}]),
    detail(x_limit=[{"numeric": ["=", 301]}]),
    detail(state=[{"numeric": [">", 0]}]),
    detail(yes=[{"numeric": ["=", 1]}]),
    detail(state=[{"exists": False}]),
    detail(absent=[{"exists": True}]),
    detail(employees=[{"exists": True}]),
    detail(none=[{"exists": True}]),
    detail(employees={"phones": {"kind": [{"exists": False}]}}),
    detail(source_ip=[{"cidr": "10.0.1.0/24"}]),
    detail(state=[{"cidr": "10.0.0.0/8"}]),
    detail(ip6=[{"cidr": "10.0.0.0/8"}]),
    detail(source_ip=[{"cidr": "::/0"}]),
    {"$or": [{"source": ["aws.s3"]}, {"region": ["eu-west-1"]}]},
    {"source": ["aws.s3"], "$or": [{"region": ["us-west-1"]}, {"account": ["111122223333"]}]},
    {"$or": [{"a": [1]}, {"source": ["aws.ec2"]}], "detail": {"$or": [{"b": [1]}, {"state": ["x"]}]}},
    {"$or": [{"detail": {"employees": {"firstName": ["Anna"]}}}, {"x": [1]}], "detail": {"employees": {"lastName": ["Doe"]}}},
]  # fmt: skip

BAD = [
    ("", "Invalid JSON"),
    ("{", "Invalid JSON"),
    ('"x"', "Filter is not an object"),
    ("[]", "Filter is not an object"),
    ("{}", "Empty objects are not allowed"),
    ('{"a": {}}', "Empty objects are not allowed"),
    ('{"a": []}', "Empty arrays are not allowed"),
    ('{"a": "x"}', '"a" must be an object or an array'),
    ('{"detail": {"state": "on"}}', '"state" must be an object or an array'),
    ('{"a": null}', '"a" must be an object or an array'),
    ('{"a": [["x"]]}', "Match value must be String, number, true, false, or null"),
    ('{"a": [{}]}', "Match expression name not found"),
    ('{"a": [{"like": "x"}]}', "Unrecognized match type like"),
    ('{"a": [{"prefix": 1}]}', "prefix match pattern must be a string"),
    ('{"a": [{"prefix": "x", "suffix": "y"}]}', "Only one key allowed in match expression"),
    ('{"a": [{"prefix": {"wildcard": "x"}}]}', "Unsupported prefix pattern: wildcard"),
    ('{"a": [{"suffix": null}]}', "suffix match pattern must be a string"),
    ('{"a": [{"equals-ignore-case": ["x"]}]}', "equals-ignore-case match pattern must be a string"),
    ('{"a": [{"wildcard": 5}]}', "wildcard match pattern must be a string"),
    ('{"a": [{"wildcard": "a**b"}]}', "Consecutive wildcard characters at pos 2"),
    ('{"a": [{"wildcard": "a\\\\b"}]}', "Invalid escape character at pos 2"),
    ('{"a": [{"exists": "yes"}]}', "exists match pattern must be either true or false."),
    (
        '{"a": [{"anything-but": true}]}',
        "Value of anything-but must be an array or single string/number value.",
    ),
    ('{"a": [{"anything-but": [null]}]}', "Inside anything but list, start|null|boolean is not supported."),
    (
        '{"a": [{"anything-but": ["x", 1]}]}',
        "Inside anything but list, either all values are number or string, mixed type is not supported",
    ),
    (
        '{"a": [{"anything-but": []}]}',
        "Inside anything but list, either all values are number or string, mixed type is not supported",
    ),
    ('{"a": [{"anything-but": {}}]}', "Anything-But expression name not found"),
    ('{"a": [{"anything-but": {"numeric": [">", 1]}}]}', "Unsupported anything-but pattern: numeric"),
    ('{"a": [{"anything-but": {"prefix": 1}}]}', "prefix/suffix match pattern must be a string"),
    ('{"a": [{"anything-but": {"prefix": ""}}]}', "Null prefix/suffix not allowed"),
    (
        '{"a": [{"anything-but": {"equals-ignore-case": [1]}}]}',
        "Inside anything-but/equals-ignore-case list, number|start|null|boolean is not supported.",
    ),
    ('{"a": [{"numeric": 5}]}', "Value of numeric must be an array."),
    ('{"a": [{"numeric": [5]}]}', "Invalid member in numeric match: 5"),
    ('{"a": [{"numeric": ["!=", 5]}]}', "Unrecognized numeric range operator: !="),
    ('{"a": [{"numeric": ["="]}]}', "Value of equals must be numeric"),
    ('{"a": [{"numeric": [">", "5"]}]}', "Value of > must be numeric"),
    ('{"a": [{"numeric": ["<", 5, ">", 1]}]}', "Too many elements in numeric expression"),
    ('{"a": [{"numeric": [">", 1, ">", 5]}]}', "Bad numeric range operator: >"),
    ('{"a": [{"numeric": [">", 1, 5]}]}', "Bad value in numeric range: 5"),
    ('{"a": [{"numeric": [">", 5, "<", 1]}]}', "Bottom must be less than top"),
    ('{"a": [{"numeric": [">", 1, "<", 5, "<", 6]}]}', "Too many terms in numeric range expression"),
    ('{"a": [{"numeric": ["=", 5000000001]}]}', "Value must be between -5.0E9 and 5.0E9, inclusive"),
    ('{"a": [{"cidr": "10.0.0.0"}]}', "Malformed CIDR, one '/' required"),
    ('{"a": [{"cidr": "10.0.0.0/x"}]}', "Malformed CIDR, mask bits must be an integer"),
    ('{"a": [{"cidr": "10.0.0.0/-1"}]}', "Malformed CIDR, mask bits must not be negative"),
    ('{"a": [{"cidr": "10.0.0.0/32"}]}', "IPv4 mask bits must be < 32"),
    ('{"a": [{"cidr": "::1/128"}]}', "IPv6 mask bits must be < 128"),
    ('{"a": [{"cidr": "host/8"}]}', "Nonstandard IP address: host"),
    ('{"$or": {}}', "It must be an Array followed with $or."),
    ('{"$or": [{"a": [1]}]}', "There must have at least 2 Objects in $or relationship."),
    ('{"$or": [{"a": [1]}, 5]}', "Only JSON object is allowed in array of $or relationship."),
    (
        '{"$or": [{"prefix": ["x"]}, {"a": [1]}]}',
        "prefix is Ruler reserved fieldName which cannot be used inside $or.",
    ),
]


@pytest.mark.parametrize("pattern", YES, ids=json.dumps)
def test_matches(pattern: dict[str, Any]) -> None:
    assert Pattern(json.dumps(pattern)).matches(EVENT)


@pytest.mark.parametrize("pattern", NO, ids=json.dumps)
def test_does_not_match(pattern: dict[str, Any]) -> None:
    assert not Pattern(json.dumps(pattern)).matches(EVENT)


@pytest.mark.parametrize(("text", "why"), BAD)
def test_what_is_no_pattern(text: str, why: str) -> None:
    with pytest.raises(BadPattern, match=re.escape(why) + "$"):
        Pattern(text)


def test_there_are_enough_cases() -> None:
    assert len(YES) + len(NO) + len(BAD) >= 150


def test_or_has_at_most_a_thousand_combinations() -> None:
    alternatives = [{"x": [number]} for number in range(10)]
    several = {name: {"$or": alternatives} for name in "abc"}
    assert len(Pattern(several).branches) == MAX_BRANCHES
    with pytest.raises(BadPattern, match="More than 1000 combinations"):
        Pattern({**several, "$or": [{"y": [1]}, {"z": [1]}]})


def test_an_event_that_is_nested_deeply_is_no_danger() -> None:
    deep: Any = "x"
    for _ in range(5000):
        deep = [deep]
    assert Pattern({"a": ["x"]}).matches({"a": deep})
    index: PatternIndex[str] = PatternIndex()
    index.put("p", Pattern({"source": ["x"]}))
    assert index.matching({"source": deep}) == (["p"], [])


def test_an_index_finds_what_every_pattern_by_itself_does() -> None:
    index: PatternIndex[int] = PatternIndex()
    patterns = {number: Pattern(found) for number, found in enumerate(YES + NO)}
    for number, pattern in patterns.items():
        index.put(number, pattern)
    found, skipped = index.matching(EVENT)
    assert sorted(found) == [number for number, one in patterns.items() if one.matches(EVENT)]
    assert skipped == []
    for number in range(len(YES)):
        index.remove(number)
    assert index.matching(EVENT) == ([], [])


def test_an_index_looks_at_no_pattern_of_another_source() -> None:
    index: PatternIndex[int] = PatternIndex()
    looked: list[int] = []

    def spied(number: int) -> Pattern:
        pattern = Pattern({"source": [f"source-{number}"], "detail": {"a": [1]}})
        (branch,) = pattern.branches
        matches = branch.matches

        def spy(event: dict[str, Any], effort: Effort) -> bool:
            looked.append(number)
            return matches(event, effort)

        branch.matches = spy  # type: ignore[method-assign]
        return pattern

    for number in range(500):
        index.put(number, spied(number))
    assert index.matching({"source": "source-7", "detail": {"a": 1}}) == ([7], [])
    assert looked == [7]


def test_or_does_not_multiply_many_fields() -> None:
    """4 KiB of it would be 300,000 fields: seconds of whoever compiles it, and 150 MiB."""
    several: dict[str, Any] = {name: {"$or": [{"x": [number]} for number in range(10)]} for name in "abc"}
    assert len(Pattern({**several, **{f"f{number}": [1] for number in range(17)}}).branches) == MAX_BRANCHES
    with pytest.raises(BadPattern, match="More than 20000 fields"):
        Pattern({**several, **{f"f{number}": [1] for number in range(300)}})


COSTLY: list[tuple[dict[str, Any], Any]] = [
    ({f"x{number}": [{"exists": False}] for number in range(120)}, [{}] * 50_000),
    ({"$or": [{f"x{number}": [{"exists": False}]} for number in range(100)], "z": [1]}, [{}] * 50_000),
    ({"$or": [{f"x{number}": [1]} for number in range(100)], "z": [1]}, [[]] * 50_000),
    ({"x": [{"prefix": f"{number}-"} for number in range(200)]}, [{"x": "y"}] * 50_000),
    ({"x": [{"equals-ignore-case": f"{number}-"} for number in range(200)]}, {"x": "y" * 900_000}),
    ({"x": [{"wildcard": f"*{'a' * number}b*"} for number in range(60)]}, {"x": "a" * 900_000}),
]


@pytest.mark.parametrize(("wanted", "found"), COSTLY)
def test_what_would_hold_up_all_others_is_skipped(wanted: dict[str, Any], found: Any) -> None:
    costly, event = Pattern({"a": wanted}), {"a": found, "b": 1}
    with pytest.raises(TooMuchWork):
        costly.matches(event)
    index: PatternIndex[str] = PatternIndex()
    for number in range(20):
        index.put(f"costly {number}", costly)
    index.put("cheap", Pattern({"b": [1]}))
    matching, skipped = index.matching(event)
    assert (matching, len(skipped)) == (["cheap"], 20)


def test_costly_patterns_have_bounds_together_and_leave_something_for_each() -> None:
    index: PatternIndex[int] = PatternIndex()
    spent: list[int] = []

    def counted(number: int) -> Pattern:
        pattern = Pattern({"a": [number]})
        (branch,) = pattern.branches

        def spend(event: dict[str, Any], effort: Effort) -> bool:
            spent.append(effort.left)
            effort.spend(effort.left + 1)
            return True

        branch.matches = spend  # type: ignore[method-assign]
        return pattern

    for number in range(15):
        index.put(number, counted(number))
    assert index.matching({"a": 1}) == ([], list(range(15)))
    assert spent[0] == MAX_STEPS
    assert spent[-1] == LEAST_STEPS
    assert sum(spent) < MAX_STEPS_OF_ALL + 15 * LEAST_STEPS
