use serde_json::{Value, json};

use super::*;

const OWNER: &str = "111111111111";
const STREAM: &str = "arn:aws:kinesis:us-east-1:111111111111:stream/orders";

fn principal(arn: &str) -> Principal {
    Principal::of(arn)
}

/// 2026-01-01T00:00:00Z
const NOW_MS: i64 = 1_767_225_600_000;

fn ask<'a>(principal: &'a Principal, action: &'a str) -> Ask<'a> {
    Ask { principal, action, resource: STREAM, source_ip: [10, 1, 2, 3].into(), now_ms: NOW_MS }
}

fn statement(effect: &str, principal: Value, action: Value) -> Value {
    json!({"Effect": effect, "Principal": principal, "Action": action, "Resource": STREAM})
}

fn policy(statements: Value) -> String {
    json!({"Version": "2012-10-17", "Statement": statements}).to_string()
}

fn is_allowed(document: Option<&str>, arn: &str, action: &str) -> bool {
    authorize(OWNER, document, &ask(&principal(arn), action)).is_ok()
}

#[test]
fn without_a_policy_only_the_account_itself_may() {
    assert!(is_allowed(None, "arn:aws:iam::111111111111:user/ann", "kinesis:PutRecord"));
    let stranger = principal("arn:aws:iam::222222222222:user/bob");
    let denied = authorize(OWNER, None, &ask(&stranger, "kinesis:PutRecord")).unwrap_err();
    assert_eq!(
        denied.to_string(),
        "User: arn:aws:iam::222222222222:user/bob is not authorized to perform: kinesis:PutRecord on resource: \
         arn:aws:kinesis:us-east-1:111111111111:stream/orders because no resource-based policy allows the \
         kinesis:PutRecord action"
    );
}

#[test]
fn others_are_allowed_what_a_statement_allows() {
    let bob = "arn:aws:iam::222222222222:user/bob";
    let session = "arn:aws:sts::222222222222:assumed-role/reader/s1";
    for (who, action, arn, asked, allowed) in [
        (json!("*"), json!("kinesis:*"), bob, "kinesis:PutRecord", true),
        (json!({"AWS": "*"}), json!("*"), bob, "kinesis:PutRecord", true),
        (json!({"AWS": "222222222222"}), json!("kinesis:Put*"), bob, "kinesis:PutRecords", true),
        (json!({"AWS": "222222222222"}), json!("kinesis:Put*"), bob, "kinesis:GetRecords", false),
        (json!({"AWS": "arn:aws:iam::222222222222:root"}), json!("KINESIS:putrecord"), bob, "kinesis:PutRecord", true),
        (json!({"AWS": ["333333333333", bob]}), json!(["kinesis:GetRecords"]), bob, "kinesis:GetRecords", true),
        (json!({"AWS": "arn:aws:iam::222222222222:user/eve"}), json!("*"), bob, "kinesis:GetRecords", false),
        (json!({"AWS": "333333333333"}), json!("*"), bob, "kinesis:GetRecords", false),
        (json!({"Service": "firehose.amazonaws.com"}), json!("*"), bob, "kinesis:GetRecords", false),
        (json!({"AWS": "arn:aws:iam::222222222222:role/reader"}), json!("*"), session, "kinesis:GetRecords", true),
        (json!({"AWS": "arn:aws:iam::222222222222:role/writer"}), json!("*"), session, "kinesis:GetRecords", false),
        (json!({"AWS": session}), json!("kinesis:???Records"), session, "kinesis:GetRecords", true),
    ] {
        let document = policy(json!([statement("Allow", who.clone(), action.clone())]));
        assert_eq!(is_allowed(Some(&document), arn, asked), allowed, "{who} {action} {arn} {asked}");
    }
    // A statement may stand alone, and is about the resources that it names.
    let mut other = statement("Allow", json!("*"), json!("*"));
    assert!(is_allowed(Some(&policy(other.clone())), bob, "kinesis:PutRecord"));
    other["Resource"] = json!("arn:aws:kinesis:us-east-1:111111111111:stream/other*");
    assert!(!is_allowed(Some(&policy(other)), bob, "kinesis:PutRecord"));
}

#[test]
fn a_denial_wins_also_over_the_own_account() {
    let ann = "arn:aws:iam::111111111111:user/ann";
    let statements = json!([
        statement("Allow", json!("*"), json!("*")),
        statement("Deny", json!({"AWS": ann}), json!("kinesis:PutRecord")),
    ]);
    let document = policy(statements);
    let denied = authorize(OWNER, Some(&document), &ask(&principal(ann), "kinesis:PutRecord")).unwrap_err();
    assert!(denied.to_string().ends_with(" with an explicit deny in a resource-based policy"), "{denied}");
    assert!(is_allowed(Some(&document), ann, "kinesis:GetRecords"));
    assert!(is_allowed(Some(&document), "arn:aws:iam::111111111111:user/amy", "kinesis:PutRecord"));
    let but_amy = json!({"Effect": "Deny", "NotPrincipal": {"AWS": "arn:aws:iam::111111111111:user/amy"},
        "NotAction": "kinesis:Get*", "Resource": "*"});
    let document = policy(but_amy);
    assert!(!is_allowed(Some(&document), ann, "kinesis:PutRecord"));
    assert!(is_allowed(Some(&document), ann, "kinesis:GetRecords"));
    assert!(is_allowed(Some(&document), "arn:aws:iam::111111111111:user/amy", "kinesis:PutRecord"));
}

#[test]
fn conditions_must_all_hold() {
    let bob = principal("arn:aws:iam::222222222222:user/team/bob");
    for (condition, holds) in [
        (json!({"StringEquals": {"aws:PrincipalAccount": ["333333333333", "222222222222"]}}), true),
        (json!({"StringEquals": {"AWS:principalaccount": "333333333333"}}), false),
        (json!({"StringNotEquals": {"aws:PrincipalAccount": "333333333333"}}), true),
        (json!({"StringLike": {"aws:username": "b?b"}}), true),
        (json!({"ArnLike": {"aws:PrincipalArn": "arn:aws:iam::*:user/team/*"}}), true),
        (json!({"ArnEquals": {"aws:PrincipalArn": "arn:aws:*:user/team/bob:a:b"}}), false),
        (json!({"ArnNotLike": {"aws:PrincipalArn": "arn:aws:iam::222222222222:role/*"}}), true),
        (json!({"Bool": {"aws:SecureTransport": "false"}}), true),
        (json!({"Bool": {"aws:SecureTransport": true}}), false),
        (json!({"IpAddress": {"aws:SourceIp": ["10.0.0.0/8", "::1/128"]}}), true),
        (json!({"IpAddress": {"aws:SourceIp": "10.1.2.4"}}), false),
        (json!({"NotIpAddress": {"aws:SourceIp": "10.1.2.0/30"}}), false),
        (json!({"IpAddress": {"aws:SourceIp": "0.0.0.0/0"}}), true),
        (json!({"DateGreaterThan": {"aws:CurrentTime": "2025-12-31T23:59:59Z"}}), true),
        (json!({"DateLessThan": {"aws:CurrentTime": "2026-01-01"}}), false),
        (json!({"NumericLessThanEquals": {"aws:EpochTime": 1_767_225_600}}), true),
        (json!({"Null": {"aws:SourceArn": "true"}}), true),
        (json!({"Null": {"aws:PrincipalArn": true}}), false),
        // What no request has fails an operator that asks for it.
        (json!({"ArnEquals": {"aws:SourceArn": "arn:aws:sns:us-east-1:222222222222:topic"}}), false),
        (json!({"ArnEqualsIfExists": {"aws:SourceArn": "arn:aws:sns:us-east-1:222222222222:topic"}}), true),
        (json!({"StringNotEquals": {"aws:PrincipalOrgID": "o-1"}}), true),
        (
            json!({"StringEquals": {"aws:RequestedRegion": "us-east-1", "aws:ResourceAccount": OWNER},
                "Bool": {"aws:SecureTransport": "true"}}),
            false,
        ),
        (json!({"StringEquals": {"aws:RequestedRegion": "us-east-1", "aws:ResourceAccount": OWNER}}), true),
    ] {
        let mut allow = statement("Allow", json!("*"), json!("kinesis:*"));
        allow["Condition"] = condition.clone();
        let document = policy(json!([allow]));
        Policy::parse(&document).unwrap_or_else(|error| panic!("{condition}: {error}"));
        assert_eq!(authorize(OWNER, Some(&document), &ask(&bob, "kinesis:PutRecord")).is_ok(), holds, "{condition}");
    }
}

#[test]
fn what_is_no_policy_is_refused() {
    let with = |change: &dyn Fn(&mut Value)| {
        let mut allow = statement("Allow", json!("*"), json!("kinesis:*"));
        change(&mut allow);
        policy(json!([allow]))
    };
    for (document, why) in [
        ("hello".to_owned(), "The policy is not valid JSON, or not an object."),
        ("[]".into(), "The policy is not valid JSON, or not an object."),
        ("{}".into(), "The policy has no Statement."),
        (policy(json!([])), "The policy has no Statement."),
        (policy(json!(["a"])), "A Statement is not an object."),
        (json!({"Version": "2020-01-01", "Statement": []}).to_string(), "The policy's Version must be one of"),
        (json!({"Versions": "2012-10-17"}).to_string(), "The policy has the unknown element Versions."),
        (with(&|s| s["Effect"] = json!("allow")), "A Statement's Effect must be Allow or Deny."),
        (with(&|s| s["Effects"] = json!("Allow")), "A Statement has the unknown element Effects."),
        (with(&|s| s["NotAction"] = json!("*")), "A Statement has both Action and NotAction."),
        (with(&|s| drop(s.as_object_mut().unwrap().remove("Principal"))), "A Statement has no Principal."),
        (with(&|s| drop(s.as_object_mut().unwrap().remove("Resource"))), "A Statement has no Resource."),
        (with(&|s| s["Principal"] = json!("222222222222")), "A Principal must be \"*\" or an object."),
        (with(&|s| s["Principal"] = json!({"AWS": "bob"})), "Invalid Principal: bob"),
        (
            with(&|s| s["Principal"] = json!({"AWS": "arn:aws:iam::2:user/bob"})),
            "Invalid Principal: arn:aws:iam::2:user/bob",
        ),
        (with(&|s| s["Principal"] = json!({"AWS": "arn:aws:iam::222222222222:user/*"})), "Invalid Principal: "),
        (with(&|s| s["Principal"] = json!({"AWS": []})), "A Principal must be a string or a list of strings."),
        (with(&|s| s["Principal"] = json!({"CanonicalUser": "a"})), "Invalid kind of Principal: CanonicalUser"),
        (with(&|s| s["Action"] = json!("s3:GetObject")), "Invalid Action: s3:GetObject"),
        (with(&|s| s["Action"] = json!(5)), "Action must be a string or a list of strings."),
        (with(&|s| s["Resource"] = json!("orders")), "Invalid Resource: orders"),
        (with(&|s| s["Resource"] = json!("arn:aws:s3:::bucket")), "Invalid Resource: arn:aws:s3:::bucket"),
        (
            with(&|s| s["Resource"] = json!("arn:aws:kinesis:*:*:stream/${aws:username}")),
            "Policy variables are not supported",
        ),
        (
            with(&|s| s["Condition"] = json!({"ForAnyValue:StringEquals": {"a": "b"}})),
            "The Condition operator ForAnyValue",
        ),
        (
            with(&|s| s["Condition"] = json!({"IpAddress": {"aws:SourceIp": "10.0.0.0/33"}})),
            "The Condition IpAddress has",
        ),
        (
            with(&|s| s["Condition"] = json!({"DateEquals": {"aws:CurrentTime": "today"}})),
            "The Condition DateEquals has",
        ),
        (with(&|s| s["Condition"] = json!({"Bool": "true"})), "The Condition Bool is not an object."),
        (
            policy(json!([
                {"Sid": "a", "Effect": "Allow", "Principal": "*", "Action": "*", "Resource": "*"},
                {"Sid": "a", "Effect": "Allow", "Principal": "*", "Action": "*", "Resource": "*"},
            ])),
            "The Sid a is not unique.",
        ),
        (" ".repeat(DOCUMENT_BYTES_MAX + 1), "The policy is larger than 20480 bytes."),
    ] {
        let error = Policy::parse(&document).unwrap_err().to_string();
        assert!(error.starts_with(why), "{document:.200}: {error}");
    }
    // A document that cannot be read allows nobody anything.
    assert!(!is_allowed(Some("hello"), "arn:aws:iam::111111111111:user/ann", "kinesis:PutRecord"));
}

#[test]
fn patterns_take_bounded_time() {
    for (pattern, text, matches) in [
        ("", "", true),
        ("*", "", true),
        ("a*c", "abc", true),
        ("a*c", "abd", false),
        ("a?c", "ac", false),
        ("*a*b", "aXbab", true),
        ("**", "\u{e9}", true),
        ("?", "\u{e9}", true),
    ] {
        assert_eq!(glob(pattern, text), matches, "{pattern} {text}");
    }
    assert!(!glob(&"*a".repeat(5_000), &"b".repeat(10_000)));
    assert!(!glob(&format!("{}c", "a*".repeat(500)), &"a".repeat(5_000)));
}
