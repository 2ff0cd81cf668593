//! What holds for any bytes that claim to be the body of a call, in JSON or in CBOR: they are a value or an error, and a
//! value that is written in either format and read again is the same. Panics where that does not hold.

use std::collections::BTreeMap;

use anabranch::http::codec::{decode, encode, is_document};
use anabranch::http::{Blob, Format, Timestamp};
use serde::{Deserialize, Serialize};

/// Times within this are the same in JSON, which has them in seconds with a fraction.
const EXACT_MS: u64 = 1 << 50;

/// Members of every type that operations have.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Document {
    dry_run: Option<bool>,
    limit: Option<i32>,
    long: Option<i64>,
    stream_name: Option<String>,
    data: Option<Blob>,
    timestamp: Option<Timestamp>,
    tags: Option<BTreeMap<String, String>>,
    tag_keys: Option<Vec<String>>,
    records: Option<Vec<Document>>,
    starting_position: Option<Box<Document>>,
}

impl Document {
    fn is_exact(&self) -> bool {
        let inner = self.records.iter().flatten().chain(self.starting_position.as_deref());
        self.timestamp.is_none_or(|at| at.0.unsigned_abs() < EXACT_MS) && inner.into_iter().all(Document::is_exact)
    }
}

pub fn holds(data: &[u8]) {
    for format in [Format::Json, Format::Cbor] {
        let Ok(document) = decode::<Document>(format, data) else {
            // Errors have a body of their own.
            let failure = decode::<Document>(format, data).expect_err("the same bytes");
            assert_eq!((failure.status, failure.code), (400, "SerializationException"));
            continue;
        };
        assert!(is_document(format, data), "what is a value is a document");
        for other in [Format::Json, Format::Cbor] {
            if other == Format::Cbor || document.is_exact() {
                let written = encode(other, &document).expect("it can be written");
                assert_eq!(decode(other, &written).as_ref(), Ok(&document));
            }
        }
    }
}
