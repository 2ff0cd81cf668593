//! Access keys of those who may ask: a file of lines `ACCESS_KEY_ID SECRET_KEY [PRINCIPAL_ARN]`, where `#` begins a
//! comment. Errors name the line, never what stands in it: logs are read by more people than the file.

use std::fmt;

/// What a principal signs requests with: `security`.
#[derive(Clone, PartialEq, Eq)]
pub struct AccessKey {
    pub id: String,
    pub secret: String,
    /// `arn:aws:iam::<account>:...`; without one the key is the account's own.
    pub principal_arn: Option<String>,
}

/// Settings are printed now and then, secrets never.
impl fmt::Debug for AccessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Reads the file that `text` names; none when it is empty.
pub fn credentials(text: &str) -> Result<Vec<AccessKey>, String> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let content = std::fs::read_to_string(text).map_err(|error| format!("{text}: {error}"))?;
    rows(&content).map_err(|reason| format!("{text}: {reason}"))
}

fn rows(content: &str) -> Result<Vec<AccessKey>, String> {
    let mut keys: Vec<AccessKey> = Vec::new();
    for (index, line) in content.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default();
        if line.trim().is_empty() {
            continue;
        }
        let key = row(line).map_err(|reason| format!("line {}: {reason}", index + 1))?;
        if keys.iter().any(|other| other.id == key.id) {
            return Err(format!("line {}: the key stands there twice", index + 1));
        }
        keys.push(key);
    }
    if keys.is_empty() { Err("there is no key in it".to_owned()) } else { Ok(keys) }
}

fn row(line: &str) -> Result<AccessKey, &'static str> {
    let mut words = line.split_whitespace();
    let (Some(id), Some(secret)) = (words.next(), words.next()) else {
        return Err("a row is ACCESS_KEY_ID SECRET_KEY [PRINCIPAL_ARN]");
    };
    let principal_arn = words.next().map(str::to_owned);
    if words.next().is_some() {
        return Err("there is more than a key, its secret and a principal");
    }
    if principal_arn.as_deref().is_some_and(|arn| !is_principal(arn)) {
        return Err("the principal is not arn:aws:iam::<12 digits>:...");
    }
    Ok(AccessKey { id: id.to_owned(), secret: secret.to_owned(), principal_arn })
}

fn is_principal(arn: &str) -> bool {
    let parts: Vec<&str> = arn.splitn(6, ':').collect();
    match parts.as_slice() {
        ["arn", _partition, "iam" | "sts", "", account, name] => {
            account.len() == 12 && account.bytes().all(|digit| digit.is_ascii_digit()) && !name.is_empty()
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_key_its_secret_and_its_principal() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("credentials");
        std::fs::write(
            &path,
            "# ours\nAKIDONE s3cr3t\n\n  AKIDTWO other/+ arn:aws:iam::123456789012:user/ann # hers\n",
        )
        .unwrap();
        let keys = credentials(path.to_str().unwrap()).unwrap();
        let ann = Some("arn:aws:iam::123456789012:user/ann".to_owned());
        assert_eq!(
            keys,
            [
                AccessKey { id: "AKIDONE".into(), secret: "s3cr3t".into(), principal_arn: None },
                AccessKey { id: "AKIDTWO".into(), secret: "other/+".into(), principal_arn: ann },
            ]
        );
        assert!(!format!("{keys:?}").contains("s3cr3t"));
        assert_eq!(credentials(""), Ok(Vec::new()));
        assert!(credentials("/nowhere/at/all").unwrap_err().starts_with("/nowhere/at/all: "));
    }

    #[test]
    fn what_is_wrong_is_told_without_secrets() {
        for (text, error) in [
            ("", "there is no key in it"),
            ("# nothing\n", "there is no key in it"),
            ("hidden", "line 1: a row is ACCESS_KEY_ID SECRET_KEY [PRINCIPAL_ARN]"),
            ("A s\nA hidden", "line 2: the key stands there twice"),
            ("A hidden ann", "line 1: the principal is not arn:aws:iam::<12 digits>:..."),
            ("A hidden arn:aws:iam::12:user/ann", "line 1: the principal is not arn:aws:iam::<12 digits>:..."),
            (
                "A hidden arn:aws:iam::123456789012:user/ann x",
                "line 1: there is more than a key, its secret and a principal",
            ),
        ] {
            assert_eq!(rows(text).unwrap_err(), error, "{text}");
        }
    }
}
