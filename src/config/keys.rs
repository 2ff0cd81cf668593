//! Master keys for encryption at rest: a file of them, or the keys themselves (as an environment variable carries them).
//!
//! A row is `KEY_ID BASE64`, the latter of 32 bytes, and perhaps the word `disabled`: such a key is there, but seals and
//! opens nothing. The first row is the current key. Rows are lines of the file, where `#` begins a comment; after
//! `keys:`, which no path need begin with, they are separated by commas.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

/// What a value begins with that holds the keys themselves.
const INLINE: &str = "keys:";

/// Longest key id; AWS's bound for what StartStreamEncryption takes is 2,048, ARN and all.
const ID_LEN_MAX: usize = 256;

/// A key that wraps data keys: `store::crypt`.
#[derive(Clone, PartialEq, Eq)]
pub struct MasterKey {
    /// Unique among the keys; letters, digits and `/_.-`.
    pub id: String,
    pub secret: [u8; 32],
    pub disabled: bool,
}

/// Settings are printed now and then, secrets never.
impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MasterKey").field("id", &self.id).field("disabled", &self.disabled).finish_non_exhaustive()
    }
}

/// Reads the file that `text` names, or the keys that it holds; none when it is empty.
pub fn master_keys(text: &str) -> Result<Vec<MasterKey>, String> {
    if let Some(inline) = text.strip_prefix(INLINE) {
        return rows(inline.split(','), "key");
    }
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let content = std::fs::read_to_string(text).map_err(|error| format!("{text}: {error}"))?;
    let lines = content.lines().map(|line| line.split('#').next().unwrap_or_default());
    rows(lines, "line").map_err(|reason| format!("{text}: {reason}"))
}

/// Refusals name the place only: a row that is not understood may be a secret.
fn rows<'a>(rows: impl Iterator<Item = &'a str>, what: &str) -> Result<Vec<MasterKey>, String> {
    let mut keys: Vec<MasterKey> = Vec::new();
    for (index, text) in rows.enumerate() {
        if text.trim().is_empty() {
            continue;
        }
        let key = row(text).map_err(|reason| format!("{what} {}: {reason}", index + 1))?;
        if keys.iter().any(|other| other.id == key.id) {
            return Err(format!("{what} {}: there is a key {} already", index + 1, key.id));
        }
        keys.push(key);
    }
    match keys.is_empty() {
        true => Err("there is no key in it".to_owned()),
        false => Ok(keys),
    }
}

fn row(text: &str) -> Result<MasterKey, String> {
    let mut words = text.split_whitespace();
    let (Some(id), Some(secret)) = (words.next(), words.next()) else {
        return Err("a row is KEY_ID BASE64 [disabled]".to_owned());
    };
    let disabled = match (words.next(), words.next()) {
        (None, _) => false,
        (Some("disabled"), None) => true,
        _ => return Err("after KEY_ID BASE64 there is nothing but the word disabled".to_owned()),
    };
    let fits = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'/' | b'_' | b'.' | b'-');
    if id.len() > ID_LEN_MAX || !id.bytes().all(fits) {
        return Err(format!("a key's id is at most {ID_LEN_MAX} letters, digits and /_.-"));
    }
    if id.starts_with("alias/") || id.starts_with("key/") {
        return Err(format!("{id}: the alias of a key called NAME is alias/NAME without a row of its own"));
    }
    let secret = BASE64.decode(secret).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
    let secret = secret.ok_or_else(|| format!("{id}: what follows is not 32 bytes in base64"))?;
    Ok(MasterKey { id: id.to_owned(), secret, disabled })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONES: &str = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";
    const TWOS: &str = "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=";

    fn file(content: &str) -> Result<Vec<MasterKey>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        std::fs::write(&path, content).unwrap();
        master_keys(path.to_str().unwrap())
    }

    #[test]
    fn a_file_and_the_keys_themselves_say_the_same() {
        let wanted = [
            MasterKey { id: "2026/main".into(), secret: [1; 32], disabled: false },
            MasterKey { id: "old".into(), secret: [2; 32], disabled: true },
        ];
        let content = format!("# made in spring\n\n2026/main {ONES}   # the current one\nold\t{TWOS} disabled\n");
        assert_eq!(file(&content).unwrap(), wanted);
        assert_eq!(master_keys(&format!("keys:2026/main {ONES},old {TWOS} disabled")).unwrap(), wanted);
        assert_eq!(master_keys("").unwrap(), []);
    }

    #[test]
    fn what_is_no_key_is_refused_without_being_shown() {
        for (content, reason) in [
            ("", "there is no key in it"),
            ("# nothing\n", "there is no key in it"),
            (ONES, "line 1: a row is KEY_ID"),
            ("a AQEB", "line 1: a: what follows is not 32 bytes"),
            ("a !!!", "line 1: a: what follows is not 32 bytes"),
            (&format!("a {ONES}\n\na {TWOS}"), "line 3: there is a key a already"),
            (&format!("a {ONES} enabled"), "line 1: after KEY_ID BASE64"),
            (&format!("{ONES} a"), "line 1: a key's id is"),
            (&format!("alias/a {ONES}"), "line 1: alias/a: the alias"),
        ] {
            let refused = file(content).unwrap_err();
            assert!(refused.contains(reason), "{content}: {refused}");
            assert!(!refused.contains("AQEBAQEB"), "{refused}");
        }
        assert!(master_keys("/nowhere/at/all").unwrap_err().starts_with("/nowhere/at/all: "));
        let shown = format!("{:?}", master_keys(&format!("keys:a {ONES}")).unwrap());
        assert!(shown.contains('a') && !shown.contains("AQEB") && !shown.contains("1, 1"), "{shown}");
    }
}
