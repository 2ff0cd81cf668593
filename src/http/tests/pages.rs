//! What is asked and answered: the server's own pages, requests that name no operation, and who a caller is.

use super::*;

#[tokio::test]
async fn health_follows_the_state() {
    let server = Fixture::start().await;
    assert_eq!(
        server.get("/health").await,
        (200, r#"{"status":"ok","version":"1.2.3","uptime_seconds":5}"#.to_owned())
    );
    for (status, name) in [(Status::Starting, "starting"), (Status::Draining, "draining"), (Status::Broken, "broken")] {
        *server.status.lock() = status;
        let (code, body) = server.get("/health").await;
        assert_eq!((code, body.contains(&format!(r#""status":"{name}""#))), (503, true), "{body}");
    }
}

#[tokio::test]
async fn metrics_are_text_in_the_form_that_is_asked_for() {
    let server = Fixture::start().await;
    let answer = server.send("GET", "/metrics", "", b"").await;
    assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    assert_eq!(answer.text(), "Prometheus 1\n");
    let answer = server.send("GET", "/metrics", "Accept: application/openmetrics-text;version=1.0.0\r\n", b"").await;
    let told = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert_eq!((answer.header("content-type"), &*answer.text()), (Some(told), "OpenMetrics 1\n"));
    let answer = server.send("HEAD", "/metrics", "", b"").await;
    assert_eq!((answer.code, answer.body.len()), (200, 0));
    let answer = server.send("POST", "/health", "", b"").await;
    assert_eq!((answer.code, answer.header("allow")), (405, Some("GET, HEAD")));
    // Nobody asked for the suites' reset: it is a request like any other.
    assert_eq!(server.send("POST", "/moto-api/reset", "", b"").await.code, 400);
}

#[tokio::test]
async fn a_body_for_the_servers_own_pages_is_not_read() {
    let server = Fixture::start().await;
    // The client never sends its exabyte; the answer and the end of the connection come all the same.
    let request = b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000000000000\r\n\r\n";
    assert_eq!(server.ask(request).await.code, 405);
}

/// Recorded from AWS: what is asked, and the answer's code, content type and body.
#[tokio::test]
async fn requests_that_name_no_operation_are_answered_as_recorded() {
    let server = Fixture::start().await;
    let denied = "<AccessDeniedException>\n  <Message>Unable to determine service/operation name to be authorized\
        </Message>\n</AccessDeniedException>\n";
    let (json, cbor) = (Some("application/x-amz-json-1.1"), Some("application/x-amz-cbor-1.1"));
    let unknown = r#"{"__type":"UnknownOperationException"}"#;
    let serialization = r#"{"__type":"SerializationException"}"#;
    let old = Some("application/json");
    let old_unknown = r#"{"Output":{"__type":"com.amazon.coral.service#UnknownOperationException"},"Version":"1.0"}"#;
    let old_serialization =
        r#"{"Output":{"__type":"com.amazon.coral.service#SerializationException"},"Version":"1.0"}"#;
    let cbor_unknown = "\u{a1}\u{66}__type\u{78}\u{19}UnknownOperationException";
    let cbor_serialization = "\u{a1}\u{66}__type\u{76}SerializationException";
    let whatever = "X-Amz-Target: Kinesis_20131202.Whatever\r\n";
    let old_type = "Content-Type:      application/json     ;\r\n";
    type Case<'a> = (&'a str, &'a str, String, &'a str, u16, Option<&'a str>, &'a str);
    let cases: Vec<Case> = vec![
        ("GET", "/", String::new(), "", 403, None, denied),
        ("PUT", "/anywhere", String::new(), "", 403, None, denied),
        ("DELETE", "/", format!("{JSON}{LIST}"), "", 403, None, denied),
        ("OPTIONS", "/", String::new(), "", 403, None, denied),
        ("POST", "/", String::new(), "{}", 403, None, denied),
        ("POST", "/", LIST.into(), "{}", 404, None, "<UnknownOperationException/>\n"),
        ("POST", "/", String::new(), "", 400, cbor, cbor_unknown),
        ("POST", "/", "Content-Type: application/x-amz-json-1.0\r\n".into(), "", 400, cbor, cbor_unknown),
        ("POST", "/", "X-Amz-Target: Whatever\r\n".into(), "", 400, cbor, cbor_unknown),
        ("POST", "/", "X-Amz-Target: Kinesis_20131202.\r\n".into(), "", 400, cbor, cbor_unknown),
        ("POST", "/", "X-Amz-Target: Whatever.ListStreams\r\n".into(), "", 400, cbor, cbor_unknown),
        (
            "POST",
            "/",
            format!("Content-Type: application/x-www-form-urlencoded\r\n{LIST}"),
            "{}",
            404,
            None,
            "<UnknownOperationException/>\n",
        ),
        ("POST", "/", LIST.into(), "", 400, cbor, cbor_serialization),
        ("POST", "/", JSON.into(), "", 400, json, unknown),
        ("POST", "/", format!("{JSON}{LIST}"), "", 400, json, serialization),
        ("POST", "/", format!("{JSON}{LIST}"), "hello", 400, json, serialization),
        ("POST", "/", format!("{JSON}{whatever}"), "hello", 400, json, serialization),
        ("POST", "/", format!("{JSON}{whatever}"), "{}", 400, json, unknown),
        ("POST", "/", format!("{CBOR}{whatever}"), "\u{a0}", 400, cbor, cbor_unknown),
        ("POST", "/", old_type.into(), "", 400, cbor, cbor_unknown),
        ("POST", "/", format!("{old_type}{LIST}"), "", 400, cbor, cbor_serialization),
        ("POST", "/", format!("{old_type}{LIST}"), "{}", 404, old, old_unknown),
        ("POST", "/", format!("{old_type}{LIST}"), "hello", 400, old, old_serialization),
        (
            "POST",
            "/",
            format!("Content-Type:   application/x-amz-json-1.1   ;whatever\r\n{LIST}"),
            "{}",
            200,
            json,
            "{}",
        ),
        ("POST", "/any/path?a=b", format!("{CBOR}{LIST}"), "\u{a0}", 200, cbor, "\u{a0}"),
    ];
    // Bytes are written as the characters of their numbers.
    let latin = |text: &str| text.chars().map(|c| c as u32 as u8).collect::<Vec<u8>>();
    for (method, path, headers, body, code, content_type, wanted) in cases {
        let answer = server.send(method, path, &headers, &latin(body)).await;
        assert_eq!((answer.code, answer.header("content-type")), (code, content_type), "{method} {headers} {body}");
        assert_eq!(answer.body, latin(wanted), "{method} {headers} {body}");
        assert_eq!(answer.header("content-length"), Some(answer.body.len().to_string().as_str()));
        let id = answer.header("x-amzn-requestid").unwrap();
        assert!(uuid::Uuid::parse_str(id).is_ok(), "{id}");
        assert_eq!(answer.header("x-amz-id-2").unwrap().len(), 88);
        let named = content_type.is_some() && code == 400 && content_type != old;
        assert_eq!(answer.header("x-amzn-errortype").is_some(), named, "{method} {headers} {body}");
    }
}

#[tokio::test]
async fn pages_of_other_origins_may_ask() {
    let server = Fixture::start().await;
    let asks = "Origin: whatever\r\nAccess-Control-Request-Headers: a, b, c\r\nAccess-Control-Request-Method: d\r\n";
    let answer = server.send("OPTIONS", "/", asks, b"").await;
    assert_eq!((answer.code, answer.body.len()), (200, 0));
    for (name, value) in [
        ("access-control-allow-origin", Some("*")),
        ("access-control-allow-headers", Some("a, b, c")),
        ("access-control-allow-methods", Some("d")),
        ("access-control-max-age", Some("172800")),
        ("content-length", Some("0")),
        ("x-amz-id-2", None),
        ("content-type", None),
    ] {
        assert_eq!(answer.header(name), value, "{name}");
    }
    let answer = server.post("Origin: whatever\r\n", b"").await;
    assert_eq!((answer.code, answer.header("access-control-allow-origin")), (400, Some("*")));
    assert!(answer.header("access-control-expose-headers").unwrap().contains("x-amzn-RequestId"));
}

#[tokio::test]
async fn callers_learn_who_they_are() {
    let server = Fixture::start().await;
    let form = "Content-Type: application/x-www-form-urlencoded; charset=utf-8\r\n";
    let answer = server.send("POST", "/sts", form, b"Action=GetCallerIdentity&Version=2011-06-15").await;
    assert_eq!((answer.code, answer.header("content-type")), (200, Some("text/xml")));
    assert!(answer.text().contains("<Account>123456789012</Account>"), "{answer:?}");
    let (code, text) = server.get("/?Action=GetCallerIdentity&Version=2011-06-15").await;
    assert!(code == 200 && text.contains("<Arn>arn:aws:iam::123456789012:root</Arn>"), "{text}");
    assert_eq!(server.post(form, b"Action=AssumeRole").await.code, 400);
}
