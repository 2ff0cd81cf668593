//! AWS's Security Token Service as far as clients ask for it at their start: GetCallerIdentity, in the query protocol
//! (parameters of a form in, XML out).

use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::security::{AuthError, Principal};

const NAMESPACE: &str = "https://sts.amazonaws.com/doc/2011-06-15/";
const VERSION: &str = "2011-06-15";

/// Whether a query is one of this protocol.
pub fn is_action(query: &[u8]) -> bool {
    parameter(query, "Action").is_some()
}

/// HTTP's code and the document for a form.
pub fn answer(form: &[u8], principal: &Principal, request_id: Uuid) -> (u16, String) {
    match parameter(form, "Action") {
        Some("GetCallerIdentity") => (200, identity(principal, request_id)),
        Some(action) => {
            let version = parameter(form, "Version").unwrap_or(VERSION);
            error(400, "InvalidAction", &format!("Could not find operation {action} for version {version}"), request_id)
        }
        None => error(400, "MissingAction", "Could not find Action parameter", request_id),
    }
}

/// The same for a request whose signature is not right.
pub fn refuse(why: &AuthError, request_id: Uuid) -> (u16, String) {
    match why {
        AuthError::Missing => {
            error(403, "MissingAuthenticationToken", "Request is missing Authentication Token", request_id)
        }
        AuthError::UnknownKey => error(403, "InvalidClientTokenId", &why.to_string(), request_id),
        AuthError::Incomplete(message) => error(400, "IncompleteSignature", message, request_id),
        AuthError::Invalid(message) => error(403, "SignatureDoesNotMatch", message, request_id),
    }
}

fn identity(principal: &Principal, request_id: Uuid) -> String {
    let Principal { account, arn } = principal;
    format!(
        "<GetCallerIdentityResponse xmlns=\"{NAMESPACE}\">\n  <GetCallerIdentityResult>\n    <Arn>{}</Arn>\n    \
         <UserId>{}</UserId>\n    <Account>{account}</Account>\n  </GetCallerIdentityResult>\n  <ResponseMetadata>\n    \
         <RequestId>{request_id}</RequestId>\n  </ResponseMetadata>\n</GetCallerIdentityResponse>\n",
        escaped(arn),
        user_id(principal)
    )
}

fn error(status: u16, code: &str, message: &str, request_id: Uuid) -> (u16, String) {
    let text = format!(
        "<ErrorResponse xmlns=\"{NAMESPACE}\">\n  <Error>\n    <Type>Sender</Type>\n    <Code>{code}</Code>\n    \
         <Message>{}</Message>\n  </Error>\n  <RequestId>{request_id}</RequestId>\n</ErrorResponse>\n",
        escaped(message)
    );
    (status, text)
}

/// The account's own is its number; others have one that looks like AWS's and stays the same.
fn user_id(principal: &Principal) -> String {
    const DIGITS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    if principal.arn.ends_with(":root") {
        return principal.account.clone();
    }
    let letters = Sha256::digest(&principal.arn).into_iter().take(17);
    let letters = letters.filter_map(|byte| DIGITS.get(usize::from(byte % 32))).map(|digit| char::from(*digit));
    format!("AIDA{}", letters.collect::<String>())
}

/// A parameter whose value needs no decoding: names of actions and versions.
fn parameter<'a>(form: &'a [u8], name: &str) -> Option<&'a str> {
    let form = std::str::from_utf8(form).ok()?;
    form.trim_end()
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_learn_who_they_are() {
        let root = Principal::root("123456789012");
        let (status, text) = answer(b"Action=GetCallerIdentity&Version=2011-06-15", &root, Uuid::nil());
        assert_eq!(status, 200);
        for part in [
            "<Arn>arn:aws:iam::123456789012:root</Arn>",
            "<UserId>123456789012</UserId>",
            "<Account>123456789012</Account>",
            "<RequestId>00000000-0000-0000-0000-000000000000</RequestId>",
        ] {
            assert!(text.contains(part), "{text}");
        }
        let ann = Principal { account: "123456789012".into(), arn: "arn:aws:iam::123456789012:user/a&b".into() };
        let (_, text) = answer(b"Version=2011-06-15&Action=GetCallerIdentity", &ann, Uuid::nil());
        assert!(text.contains("user/a&amp;b</Arn>") && text.contains("<UserId>AIDA"), "{text}");
    }

    #[test]
    fn other_actions_are_not_found() {
        let root = Principal::root("123456789012");
        let (status, text) = answer(b"Action=Assume<Role&Version=2011-06-15", &root, Uuid::nil());
        assert_eq!(status, 400);
        assert!(text.contains("<Code>InvalidAction</Code>"), "{text}");
        assert!(text.contains("Could not find operation Assume&lt;Role for version 2011-06-15"), "{text}");
        assert!(answer(b"\xff", &root, Uuid::nil()).1.contains("<Code>MissingAction</Code>"));
        assert!(!is_action(b"X-Amz-Algorithm=a"));
    }
}
