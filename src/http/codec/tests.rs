use std::collections::BTreeMap;

use ciborium::value::Value;
use proptest::prelude::*;

use super::*;

#[derive(Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", default)]
struct Sample {
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    integer: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    long: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    boolean: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    blob: Option<Blob>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<Timestamp>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    list: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    map: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    structure: Option<Box<Sample>>,
}

fn json(body: &str) -> Result<Sample, Failure> {
    decode(Format::Json, body.as_bytes())
}

fn refused(body: &str) -> Option<String> {
    let failure = json(body).unwrap_err();
    assert_eq!((failure.status, failure.code), (400, "SerializationException"));
    failure.message
}

/// Recorded from AWS: what stands where another kind is expected, and its message.
#[test]
fn wrong_types_are_told_as_aws_tells_them() {
    let number = "class com.amazon.coral.value.json.numbers.TruncatingBigNumber can not be converted to";
    let list = "Start of list found where not expected";
    let map = "Start of structure or map found where not expected.";
    for (member, value, message) in [
        ("Boolean", "\"23\"", "'23' can not be converted to an Boolean"),
        ("Boolean", "23", &format!("{number} an Boolean")),
        ("Boolean", "2147483648", &format!("{number} an Boolean")),
        ("Boolean", "[]", list),
        ("Boolean", "{}", map),
        ("Text", "true", "class java.lang.Boolean can not be converted to an String"),
        ("Text", "-2147483648", &format!("{number} an String")),
        ("Text", "34.56", &format!("{number} an String")),
        ("Text", "[]", list),
        ("Text", "{}", map),
        ("Integer", "\"23\"", "class java.lang.String can not be converted to an Integer"),
        ("Integer", "true", "class java.lang.Boolean can not be converted to an Integer"),
        ("Long", "\"23\"", "class java.lang.String can not be converted to an Long"),
        ("Long", "[]", list),
        ("Blob", "true", "class java.lang.Boolean can not be converted to a Blob"),
        ("Blob", "23", &format!("{number} a Blob")),
        ("Blob", "[]", list),
        ("Blob", "{}", map),
        (
            "Blob",
            "\"23456\"",
            "'23456' can not be converted to a Blob: Base64 encoded length is expected a multiple of 4 bytes but found: 5",
        ),
        ("Blob", "\"=+/=\"", "'=+/=' can not be converted to a Blob: Invalid Base64 character: '='"),
        ("Blob", "\"+/+=\"", "'+/+=' can not be converted to a Blob: Invalid last non-pad Base64 character dectected"),
        ("Timestamp", "\"23\"", "class java.lang.String can not be converted to milliseconds since epoch"),
        ("Timestamp", "true", "class java.lang.Boolean can not be converted to milliseconds since epoch"),
        ("Timestamp", "[]", list),
        ("Timestamp", "{}", map),
        ("List", "\"23\"", "Expected list or null"),
        ("List", "34.56", "Expected list or null"),
        ("List", "{}", map),
        ("Map", "true", "Expected map or null"),
        ("Map", "[]", list),
        ("Structure", "2147483648", "Expected null"),
        ("Structure", "[]", list),
    ] {
        for body in [format!("{{\"{member}\":{value}}}"), format!("{{\"Structure\": {{\"{member}\": {value} }} }}")] {
            assert_eq!(refused(&body).as_deref(), Some(message), "{body}");
        }
    }
    assert_eq!(refused(r#"{"List":["a",5]}"#), Some(format!("{number} an String")));
    assert_eq!(refused("[]").as_deref(), Some(list));
}

#[test]
fn bodies_that_do_not_parse_are_refused_without_a_message() {
    let deep = format!("{{\"x\":{}", "[".repeat(1_000_000));
    for body in [
        "",
        " ",
        "hello",
        "{",
        "{\"Text\"",
        "{\"Text\":",
        "{\"Text\":\"a",
        "{\"Text\":\"a\"",
        "{\"Text\":\"a\",}",
        "{,}",
        "{\"Text\" \"a\"}",
        "{} {}",
        "{}x",
        "{\"Text\":\"\\x\"}",
        "{\"Text\":\"\\ud800\"}",
        "{\"Text\":\"\\ud800\\u0041\"}",
        "{\"Text\":\"\\u00\"}",
        "{\"Text\":\"a\nb\"}",
        "{\"Integer\":01}",
        "{\"Integer\":-}",
        "{\"Integer\":1.}",
        "{\"Integer\":1e}",
        "{\"Integer\":+1}",
        "{\"Other\":tru}",
        "{\"Other\":nul}",
        "{\"Other\":[1,]}",
        "{\"List\":[,]}",
        "{'a':1}",
        "null",
        &deep,
    ] {
        assert_eq!(refused(body), None, "{body:.60}");
        assert!(!is_document(Format::Json, body.as_bytes()), "{body:.60}");
    }
    assert!(decode::<Sample>(Format::Json, b"{\"Text\":\"\xff\"}").is_err());
    for body in ["{}", "[]", " {\"a\" : [1, {\"b\": null}], \"c\": -1.5e-3} \n"] {
        assert!(is_document(Format::Json, body.as_bytes()), "{body}");
    }
    assert!(!is_document(Format::Json, b"\"text\""));
}

#[test]
fn what_aws_lets_pass_passes() {
    let nothing =
        json(r#"{"Text":null,"List":null,"Map":null,"Structure":null,"Blob":null,"Timestamp":null}"#).unwrap();
    assert_eq!(nothing, Sample::default());
    let unknown = json(r#"{"X":[{"a":[[]]},"\ud83d\ude00",1e3],"Text":"a","Y":{"Text":5}}"#).unwrap();
    assert_eq!(unknown, Sample { text: Some("a".into()), ..Sample::default() });
    let text = json("{ \"Text\" : \"\\u00e9\\n\\\"\\\\\\/\u{1f600}\\ud83d\\ude00\" }").unwrap().text.unwrap();
    assert_eq!(text, "\u{e9}\n\"\\/\u{1f600}\u{1f600}");
    let numbers = json(r#"{"Integer":34.99,"Long":-0.5}"#).unwrap();
    assert_eq!((numbers.integer, numbers.long), (Some(34), Some(-1)));
    let clamped = json(r#"{"Integer":-3000000000,"Long":100000000000000000000000}"#).unwrap();
    assert_eq!((clamped.integer, clamped.long), (Some(i32::MIN), Some(i64::MAX)));
    for (value, boolean) in [("true", true), ("\"True\"", true), ("\"no\"", false), ("\"1\"", true), ("34.56", true)] {
        assert_eq!(json(&format!("{{\"Boolean\":{value}}}")).unwrap().boolean, Some(boolean), "{value}");
    }
    let escaped = json(r#"{"Blob":"\/\/\/\/"}"#).unwrap().blob.unwrap();
    assert_eq!(escaped.0, &[0xff; 3][..]);
    assert_eq!(json(r#"{"Blob":""}"#).unwrap().blob, Some(Blob::default()));
    // The last of two wins nothing: AWS keeps a member once.
    assert!(json(r#"{"Text":"a","Text":"b"}"#).is_err());
}

#[test]
fn times_are_seconds_in_json_and_milliseconds_in_cbor() {
    let time = |body: &str| json(body).unwrap().timestamp.unwrap().0;
    assert_eq!(time(r#"{"Timestamp":1700000000}"#), 1_700_000_000_000);
    assert_eq!(time(r#"{"Timestamp":1700000000.123}"#), 1_700_000_000_123);
    assert_eq!(time(r#"{"Timestamp":1.700000000123E9}"#), 1_700_000_000_123);
    assert_eq!(time(r#"{"Timestamp":-0.001}"#), -1);
    let sample = Sample { timestamp: Some(Timestamp(1_700_000_000_123)), ..Sample::default() };
    assert_eq!(encode(Format::Json, &sample).unwrap(), r#"{"Timestamp":1700000000.123}"#);
    let cbor = encode(Format::Cbor, &sample).unwrap();
    assert_eq!(&cbor[cbor.len() - 10..], b"\xc1\x1b\x00\x00\x01\x8b\xcf\xe5\x68\x7b");
    assert_eq!(decode::<Sample>(Format::Cbor, &cbor).unwrap(), sample);
    let untagged = b"\xa1\x69Timestamp\x1b\x00\x00\x01\x8b\xcf\xe5\x68\x7b";
    assert_eq!(decode::<Sample>(Format::Cbor, untagged).unwrap(), sample);
}

/// As the Java SDK writes: everything of unknown length.
#[test]
fn cbor_of_unknown_length_is_read() {
    let body = b"\xbf\x64Text\x7f\x61a\x62bc\xff\x64Blob\x5f\x42\x01\x02\x40\x41\x03\xff\x64List\x9f\x61x\x61y\xff\
        \x67Unknown\xbf\x61a\x9f\x01\x20\xf9\x3c\x00\xff\xff\x63Map\xbf\x61k\x61v\xff\x67Boolean\xf5\x67Integer\xf6\xff";
    let sample: Sample = decode(Format::Cbor, body).unwrap();
    assert_eq!(sample.text.as_deref(), Some("abc"));
    assert_eq!(sample.blob, Some(Blob(Bytes::from_static(&[1, 2, 3]))));
    assert_eq!(sample.list, ["x", "y"]);
    assert_eq!(sample.map, BTreeMap::from([("k".to_owned(), "v".to_owned())]));
    assert_eq!((sample.boolean, sample.integer), (Some(true), None));
    for length in 0..body.len() {
        assert!(decode::<Sample>(Format::Cbor, &body[..length]).is_err(), "{length}");
        assert!(!is_document(Format::Cbor, &body[..length]), "{length}");
    }
    assert!(is_document(Format::Cbor, body));
}

#[test]
fn cbor_that_lies_is_refused() {
    for body in [
        &b"\xbb\xff\xff\xff\xff\xff\xff\xff\xff"[..],
        b"\xa1\x64Text\x7b\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\xa1\x64List\x9b\x00\xff\xff\xff\xff\xff\xff\xff",
        b"\xa1\x01\x01",
        b"\xa1\x64Text\x7f\x41a\xff",
        b"\xa1\x64Text\x61\xff",
        b"\xa0\xa0",
        b"\xff",
        b"\xfc",
        b"\x1f",
        b"\xa1\x61x\xff",
    ] {
        assert_eq!(decode::<Sample>(Format::Cbor, body), Err(Failure::serialization(None)), "{body:x?}");
    }
    let deep = [&b"\xa1\x61x"[..], &[0x81; 100_000], &[0x00]].concat();
    assert_eq!(decode::<Sample>(Format::Cbor, &deep), Err(Failure::serialization(None)));
    let tags = [&b"\xa1\x61x"[..], &[0xc2; 100], &[0x00]].concat();
    assert_eq!(decode::<Sample>(Format::Cbor, &tags), Err(Failure::serialization(None)));
    let wrong = decode::<Sample>(Format::Cbor, b"\xa1\x64Blob\x61a").unwrap_err();
    assert_eq!(wrong.message.as_deref(), Some("class java.lang.String can not be converted to a Blob"));
}

#[test]
fn texts_are_borrowed_where_the_type_asks_for_it() {
    #[derive(Deserialize)]
    struct Borrowed<'a> {
        #[serde(borrow)]
        key: std::borrow::Cow<'a, str>,
        text: &'a str,
    }
    let plain: Borrowed = decode(Format::Json, br#"{"key":"a","text":"b"}"#).unwrap();
    assert_eq!((plain.key, plain.text), (std::borrow::Cow::Borrowed("a"), "b"));
    let escaped: Borrowed = decode(Format::Json, br#"{"key":"\n","text":"b"}"#).unwrap();
    assert_eq!(escaped.key, "\n");
    let cbor: Borrowed = decode(Format::Cbor, b"\xa2\x63key\x61a\x64text\x61b").unwrap();
    assert_eq!(cbor.text, "b");
}

fn sample() -> impl Strategy<Value = Sample> {
    let leaf = (
        proptest::option::of(".{0,40}"),
        any::<Option<i32>>(),
        any::<Option<i64>>(),
        any::<Option<bool>>(),
        proptest::option::of(proptest::collection::vec(any::<u8>(), 0..100)),
        proptest::option::of(-2_000_000_000_000i64..9_000_000_000_000),
        proptest::collection::vec(".{0,10}", 0..4),
        proptest::collection::btree_map(".{0,10}", ".{0,10}", 0..4),
    )
        .prop_map(|(text, integer, long, boolean, blob, timestamp, list, map)| Sample {
            text,
            integer,
            long,
            boolean,
            blob: blob.map(|bytes| Blob(bytes.into())),
            timestamp: timestamp.map(Timestamp),
            list,
            map,
            structure: None,
        });
    leaf.prop_recursive(3, 8, 1, |inner| {
        inner.prop_map(|inner| Sample { structure: Some(Box::new(inner)), ..Sample::default() })
    })
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded(sample in sample()) {
        for format in [Format::Json, Format::Cbor] {
            let body = encode(format, &sample).unwrap();
            prop_assert!(is_document(format, &body));
            prop_assert_eq!(&decode::<Sample>(format, &body).unwrap(), &sample);
        }
    }

    /// Another implementation reads the same.
    #[test]
    fn others_read_what_is_encoded(sample in sample()) {
        let body = encode(Format::Json, &sample).unwrap();
        let value: serde_json::Value = serde_json::from_slice(&body).unwrap();
        prop_assert_eq!(value.get("Text").and_then(|text| text.as_str()), sample.text.as_deref());
        let body = encode(Format::Cbor, &sample).unwrap();
        let value: Value = ciborium::from_reader(&body[..]).unwrap();
        let blob = value.as_map().unwrap().iter().find(|(key, _)| key.as_text() == Some("Blob"));
        prop_assert_eq!(blob.and_then(|(_, blob)| blob.as_bytes()).cloned(), sample.blob.map(|b| b.0.to_vec()));
    }

    #[test]
    fn the_same_json_is_valid_for_others(body in r#"[\[\]{}:,"\\a0-9eE.+ \-untrfls]{0,24}"#) {
        let wrapped = format!("[{body}]");
        // Others refuse numbers beyond a float's range and half a pair of surrogates is not in the alphabet.
        let ours = is_document(Format::Json, wrapped.as_bytes());
        let theirs = serde_json::from_str::<serde_json::Value>(&wrapped);
        let too_large = theirs.as_ref().is_err_and(|error| error.to_string().contains("out of range"));
        prop_assert!(too_large || ours == theirs.is_ok(), "{}", wrapped);
    }

    #[test]
    fn junk_is_refused_in_peace(body in proptest::collection::vec(any::<u8>(), 0..60)) {
        let _ = decode::<Sample>(Format::Json, &body);
        let _ = decode::<Sample>(Format::Cbor, &body);
    }
}
