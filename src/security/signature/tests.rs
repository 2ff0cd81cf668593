use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};

use super::*;
use crate::config::AccessKey;

const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
/// 2015-08-30T12:36:00Z, when the published examples were signed.
const SIGNED_MS: i64 = 1_440_938_160_000;
const SCOPE: &str = "AKIDEXAMPLE/20150830/us-east-1/service/aws4_request";

struct Sent {
    method: &'static str,
    path: String,
    query: String,
    headers: HeaderMap,
    body: &'static [u8],
}

impl Sent {
    fn new(line: &'static str, headers: &[(&'static str, &str)], body: &'static str) -> Sent {
        let (method, target) = line.split_once(' ').unwrap();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mut map = HeaderMap::new();
        map.insert("host", HeaderValue::from_static("example.amazonaws.com"));
        for (name, value) in headers {
            map.append(HeaderName::from_static(name), HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        Sent { method, path: path.into(), query: query.into(), headers: map, body: body.as_bytes() }
    }

    fn header(mut self, name: &'static str, value: &str) -> Sent {
        self.headers.insert(HeaderName::from_static(name), HeaderValue::from_bytes(value.as_bytes()).unwrap());
        self
    }

    /// As the examples sign in the header.
    fn authorized(self, signed_headers: &str, signature: &str) -> Sent {
        let authorization =
            format!("AWS4-HMAC-SHA256 Credential={SCOPE}, SignedHeaders={signed_headers}, Signature={signature}");
        self.header("x-amz-date", "20150830T123600Z").header("authorization", &authorization)
    }

    fn verify_at(&self, now_ms: i64) -> Result<Identity, AuthError> {
        let ann = Some("arn:aws:iam::123456789012:user/ann".to_owned());
        let key = AccessKey { id: "AKIDEXAMPLE".into(), secret: SECRET.into(), principal_arn: ann };
        let credentials = Credentials::new(&[key], "000000000000").unwrap();
        let request = Signed {
            method: self.method,
            path: &self.path,
            query: &self.query,
            headers: &self.headers,
            authority: None,
            body: self.body,
        };
        verify(&request, &credentials, "us-east-1", "service", now_ms)
    }

    fn verify(&self) -> Result<Identity, AuthError> {
        self.verify_at(SIGNED_MS)
    }

    fn refused(&self) -> String {
        self.verify().unwrap_err().to_string()
    }
}

/// AWS's published test suite, signed in the header: request line, headers, body, names of signed headers, signature.
#[test]
fn the_published_signatures_are_right() {
    let token = "6e86291e8372ff2a2260956d9b8aae1d763fbf315fa00fa31553b73ebf194267";
    let unreserved = "-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let (path, query): (&'static str, &'static str) =
        (format!("GET /{unreserved}").leak(), format!("GET /?{unreserved}={unreserved}").leak());
    let form = "9095672bbd1f56dfc5b65f3e153adc8731a4a654192329106275f4c7b24d0b6e";
    let vanilla = "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31";
    let post = "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b";
    type Case<'a> = (&'static str, &'a [(&'static str, &'a str)], &'static str, &'a str, &'a str);
    let cases: &[Case] = &[
        ("GET /", &[], "", "host;x-amz-date", vanilla),
        ("GET /example/..", &[], "", "host;x-amz-date", vanilla),
        ("GET /example1/example2/../..", &[], "", "host;x-amz-date", vanilla),
        ("GET /./", &[], "", "host;x-amz-date", vanilla),
        ("GET //", &[], "", "host;x-amz-date", vanilla),
        (
            "GET /./example",
            &[],
            "",
            "host;x-amz-date",
            "ef75d96142cf21edca26f06005da7988e4f8dc83a165a80865db7089db637ec5",
        ),
        (
            "GET //example//",
            &[],
            "",
            "host;x-amz-date",
            "9a624bd73a37c9a373b5312afbebe7a714a789de108f0bdfe846570885f57e84",
        ),
        (
            "GET /example space/",
            &[],
            "",
            "host;x-amz-date",
            "652487583200325589f1fba4c7e578f72c47cb61beeca81406b39ddec1366741",
        ),
        (path, &[], "", "host;x-amz-date", "07ef7494c76fa4850883e2b006601f940f8a34d404d0cfa977f52a65bbf5f24f"),
        (
            "GET /\u{1234}",
            &[],
            "",
            "host;x-amz-date",
            "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85",
        ),
        (
            "GET /?Param1=value1",
            &[],
            "",
            "host;x-amz-date",
            "a67d582fa61cc504c4bae71f336f98b97f1ea3c7a6bfe1b6e45aec72011b9aeb",
        ),
        (
            "GET /?Param-3=Value3&Param=Value2&%E1%88%B4=Value1",
            &[],
            "",
            "host;x-amz-date",
            "371d3713e185cc334048618a97f809c9ffe339c62934c032af5a0e595648fcac",
        ),
        (
            "GET /?Param2=value2&Param1=value1",
            &[],
            "",
            "host;x-amz-date",
            "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
        ),
        (query, &[], "", "host;x-amz-date", "9c3e54bfcdf0b19771a7f523ee5669cdf59bc7cc0884027167c21bb143a40197"),
        (
            "GET /?\u{1234}=bar",
            &[],
            "",
            "host;x-amz-date",
            "2cdec8eed098649ff3a119c94853b13c643bcf08f8b0a1d91e12c9027818dd04",
        ),
        (
            "GET /",
            &[("my-header1", "value2"), ("my-header1", "value2"), ("my-header1", "value1")],
            "",
            "host;my-header1;x-amz-date",
            "c9d5ea9f3f72853aea855b47ea873832890dbdd183b4468f858259531a5138ea",
        ),
        (
            "GET /",
            &[("my-header1", " value1"), ("my-header2", " \"a   b   c\"")],
            "",
            "host;my-header1;my-header2;x-amz-date",
            "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736",
        ),
        (
            "GET /",
            &[("x-amz-security-token", token)],
            "",
            "host;x-amz-date;x-amz-security-token",
            "07ec1639c89043aa0e3e2de82b96708f198cceab042d4a97044c66dd9f74e7f8",
        ),
        ("POST /", &[], "", "host;x-amz-date", post),
        (
            "POST /",
            &[("my-header1", "VALUE1")],
            "",
            "host;my-header1;x-amz-date",
            "cdbc9802e29d2942e5e10b5bccfdd67c5f22c7c4e8ae67b53629efa58b974b7d",
        ),
        (
            "POST /?Param1=value1",
            &[],
            "",
            "host;x-amz-date",
            "28038455d6de14eafc1f9222cf5aa6f1a96197d7deb8263271d420d138af7f11",
        ),
        (
            "POST /",
            &[
                ("content-type", "application/x-www-form-urlencoded; charset=utf-8"),
                ("content-length", "13"),
                ("x-amz-content-sha256", form),
            ],
            "Param1=value1",
            "content-length;content-type;host;x-amz-content-sha256;x-amz-date",
            "328d1b9eaadca9f5818ef05e8392801e091653bafec24fcab71e7344e7f51422",
        ),
    ];
    for (line, headers, body, signed_headers, signature) in cases {
        let sent = Sent::new(line, headers, body).authorized(signed_headers, signature);
        let identity = sent.verify().unwrap_or_else(|error| panic!("{line} {headers:?}: {error}"));
        assert_eq!(identity.principal.arn, "arn:aws:iam::123456789012:user/ann");
        let other = format!("{}{}", &signature[..63], if signature.ends_with('0') { '1' } else { '0' });
        assert_eq!(Sent::new(line, headers, body).authorized(signed_headers, &other).refused(), MISMATCH);
    }
    let mut changed = Sent::new("POST /", &[], "").authorized("host;x-amz-date", post);
    changed.body = b"other";
    assert_eq!(changed.refused(), MISMATCH);
}

/// The same suite, presigned.
fn presigned(line: &str, signed_headers: &str, signature: &str) -> Sent {
    let join = if line.contains('?') { '&' } else { '?' };
    let line = format!(
        "{line}{join}X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIDEXAMPLE%2F20150830%2Fus-east-1%2Fservice%2F\
         aws4_request&X-Amz-Date=20150830T123600Z&X-Amz-SignedHeaders={signed_headers}&X-Amz-Expires=3600&\
         X-Amz-Signature={signature}"
    );
    Sent::new(line.leak(), &[], "")
}

#[test]
fn the_published_presigned_requests_are_right_for_their_time() {
    let vanilla = "e93c787ed7f371d5c6b165c1b38ede9550f4dce4144713e844b25b7192d3865d";
    for (line, headers, signature) in [
        ("GET /", &[][..], vanilla),
        ("GET /example1/example2/../..", &[], vanilla),
        ("GET //example//", &[], "c1834e8fb0307243711f0f907f6ab7311ed300d87f13792d7ee4da89ab93e082"),
        ("GET /?Param2=value2&Param1=value1", &[], "86012e2c9ad4d77369f5d81c11f75158aae4f895a085212cc6d3f923d300bed5"),
        ("GET /?\u{1234}=bar", &[], "0bdd809b1519ac4f0c1dc3540e2cc46bd0c7f778eda408b2ebf3b913d21ff600"),
        ("POST /", &["VALUE1"], "0698bc9e4f7f9139065ba2909c0e99da257e8e2a42492a097bcd46d792391fed"),
    ] {
        let names = if headers.is_empty() { "host" } else { "host%3Bmy-header1" };
        let mut sent = presigned(line, names, signature);
        for value in headers {
            sent = sent.header("my-header1", value);
        }
        sent.verify().unwrap_or_else(|error| panic!("{line}: {error}"));
    }
    let sent = presigned("GET /", "host", vanilla);
    assert!(sent.verify_at(SIGNED_MS + 3_600_000).is_ok());
    assert_eq!(
        sent.verify_at(SIGNED_MS + 3_601_000).unwrap_err().to_string(),
        "Signature expired: 20150830T123600Z is now earlier than 20150830T123601Z (20150830T133601Z - 60 min.)"
    );
    assert_eq!(presigned("GET /", "host", &"0".repeat(64)).refused(), MISMATCH);
    let mut longer = presigned("GET /", "host", vanilla);
    longer.query = longer.query.replace("Expires=3600", "Expires=7200");
    assert_eq!(longer.refused(), MISMATCH);
    longer.query = longer.query.replace("Expires=7200", "Expires=604801");
    assert!(matches!(longer.verify(), Err(AuthError::Incomplete(_))));
}

/// Recorded from AWS.
#[test]
fn what_is_missing_is_told_in_order() {
    let bare = Sent::new("POST /", &[], "");
    assert_eq!(bare.verify().unwrap_err(), AuthError::Missing);
    let query = Sent::new("POST /?X-Amz-Credential=a&X-Amz-Signature=b&X-Amz-SignedHeaders=c&X-Amz-Date=d", &[], "");
    assert_eq!(query.verify().unwrap_err(), AuthError::Missing);
    for (authorization, date, message) in [
        (
            "X",
            None,
            "Authorization header requires 'Credential' parameter. Authorization header requires 'Signature' parameter. \
             Authorization header requires 'SignedHeaders' parameter. Authorization header requires existence of either \
             a 'X-Amz-Date' or a 'Date' header. Authorization=X",
        ),
        (
            "AWS4- Signature=b Credential=a",
            Some("a"),
            "Authorization header requires 'SignedHeaders' parameter. Authorization=AWS4- Signature=b Credential=a",
        ),
        (
            "AWS4- Signature=b,Credential=a",
            Some("a"),
            "Authorization header requires 'SignedHeaders' parameter. Authorization=AWS4- Signature=b,Credential=a",
        ),
    ] {
        let mut sent = Sent::new("POST /", &[], "").header("authorization", authorization);
        if let Some(date) = date {
            sent = sent.header("date", date);
        }
        assert_eq!(sent.verify().unwrap_err(), AuthError::Incomplete(message.to_owned()));
    }
    let query = Sent::new("POST /?X-Amz-Algorithm", &[], "");
    assert_eq!(
        query.verify().unwrap_err(),
        AuthError::Incomplete(
            "AWS query-string parameters must include 'X-Amz-Algorithm'. AWS query-string parameters must include \
             'X-Amz-Credential'. AWS query-string parameters must include 'X-Amz-Signature'. AWS query-string parameters \
             must include 'X-Amz-SignedHeaders'. AWS query-string parameters must include 'X-Amz-Date'. Re-examine the \
             query-string parameters."
                .into()
        )
    );
    let both = Sent::new("POST /?X-Amz-Algorithm", &[], "").header("authorization", "X");
    assert_eq!(both.verify().unwrap_err(), AuthError::Invalid(BOTH.into()));
}

#[test]
fn a_signature_is_good_for_its_key_scope_and_time_only() {
    let vanilla = "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31";
    let sent = |from: &str, to: &str| {
        let sent = Sent::new("GET /", &[], "").authorized("host;x-amz-date", vanilla);
        let authorization = sent.headers["authorization"].to_str().unwrap().replace(from, to);
        sent.header("authorization", &authorization)
    };
    assert_eq!(sent("AKIDEXAMPLE", "AKIDOTHER").verify().unwrap_err(), AuthError::UnknownKey);
    for (from, to, message) in [
        ("us-east-1", "eu-west-1", "Credential should be scoped to a valid region, not 'eu-west-1'. "),
        ("/service/", "/sqs/", "Credential should be scoped to correct service: 'service'. "),
        ("aws4_request", "aws4", "Credential should be scoped with a valid terminator: 'aws4_request', not 'aws4'. "),
        (
            "20150830/",
            "20150829/",
            "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: '20150829' != \
             '20150830', from '20150830T123600Z'. ",
        ),
        ("host;x-amz-date", "x-amz-date", "'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization."),
    ] {
        assert_eq!(sent(from, to).verify().unwrap_err(), AuthError::Invalid(message.into()), "{to}");
    }
    assert_eq!(
        sent("/20150830", "").verify().unwrap_err(),
        AuthError::Incomplete(
            "Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term, got \
             'AKIDEXAMPLE/us-east-1/service/aws4_request'"
                .into()
        )
    );
    let good = sent("", "");
    assert!(good.verify_at(SIGNED_MS + SKEW_MS).is_ok() && good.verify_at(SIGNED_MS - SKEW_MS).is_ok());
    assert_eq!(
        good.verify_at(SIGNED_MS + SKEW_MS + 1_000).unwrap_err().to_string(),
        "Signature expired: 20150830T123600Z is now earlier than 20150830T123601Z (20150830T124101Z - 5 min.)"
    );
    assert_eq!(
        good.verify_at(SIGNED_MS - SKEW_MS - 1_000).unwrap_err().to_string(),
        "Signature not yet current: 20150830T123600Z is still later than 20150830T123559Z (20150830T123059Z + 5 min.)"
    );
    let undated = sent("", "").header("x-amz-date", "yesterday");
    assert!(undated.refused().starts_with("Date must be in ISO-8601 'basic format'. Got 'yesterday'."));
}

#[test]
fn an_unsigned_body_may_be_any_when_the_client_says_so() {
    let sent = |body: &'static str| Sent::new("POST /", &[("x-amz-content-sha256", UNSIGNED)], body);
    let signature = {
        let sent = sent("").header("x-amz-date", "20150830T123600Z");
        let request =
            Signed { method: "POST", path: "/", query: "", headers: &sent.headers, authority: None, body: b"" };
        let canonical = canonical::request(&request, "host;x-amz-content-sha256;x-amz-date", UNSIGNED);
        let key = canonical::signing_key(SECRET, "20150830", "us-east-1", "service");
        let scope = SCOPE.split_once('/').unwrap().1;
        canonical::sign(&key, &canonical::string_to_sign("20150830T123600Z", scope, &canonical))
    };
    for body in ["", "anything"] {
        let sent = sent(body).authorized("host;x-amz-content-sha256;x-amz-date", &signature);
        assert!(sent.verify().unwrap().seal.is_none());
        let told = sent.header("x-amz-content-sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD");
        assert_eq!(told.refused(), MISMATCH);
    }
}
