//! NextToken: where a list goes on. Opaque to clients: the place and the time it was given, as JSON in base64url. It is
//! good for [`TOKEN_MS`]. It is not sealed, because whoever writes one on his own learns nothing that the list would not
//! tell him: the request that brings it is authorised like any other.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::error::Error;

/// AWS's tokens expire after this.
const TOKEN_MS: i64 = 300_000;

#[derive(Serialize, Deserialize)]
struct Token<T> {
    given_ms: i64,
    place: T,
}

pub fn give<T: Serialize>(place: T, now_ms: i64) -> String {
    // Places are plain structures, which always encode.
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(&Token { given_ms: now_ms, place }).unwrap_or_default())
}

pub fn take<T: DeserializeOwned>(token: &str, now_ms: i64) -> Result<T, Error> {
    let token: Token<T> = parse(token).ok_or_else(|| Error::InvalidArgument("NextToken is invalid.".to_owned()))?;
    if now_ms.saturating_sub(token.given_ms) >= TOKEN_MS {
        return Err(Error::ExpiredNextToken("NextToken has expired.".to_owned()));
    }
    Ok(token.place)
}

/// What a token is about, however old it is.
pub fn peek<T: DeserializeOwned>(token: &str) -> Option<T> {
    parse(token).map(|token: Token<T>| token.place)
}

fn parse<T: DeserializeOwned>(token: &str) -> Option<Token<T>> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_for_five_minutes() {
        let token = give("place", 1_000);
        assert_eq!(take::<String>(&token, 300_999), Ok("place".to_owned()));
        assert!(matches!(take::<String>(&token, 301_000), Err(Error::ExpiredNextToken(_))));
        for wrong in ["", "x", "!!", &token[1..], &give(7, 1_000)] {
            assert!(matches!(take::<String>(wrong, 1_000), Err(Error::InvalidArgument(_))), "{wrong}");
        }
    }
}
