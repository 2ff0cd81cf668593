//! Answers: a tree of values, and how JSON, CBOR and XML write it. Made by the handlers, written by `protocol`.

use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};

use crate::security::date;

#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    Text(String),
    Number(f64),
    /// Milliseconds since 1970; told in seconds.
    Time(i64),
    List(Vec<Node>),
    Structure(Vec<(&'static str, Node)>),
    Map(Vec<(String, Node)>),
}

impl Node {
    pub fn text(text: impl Into<String>) -> Node {
        Node::Text(text.into())
    }

    pub fn is_empty(&self) -> bool {
        matches!(self, Node::Structure(members) if members.is_empty())
    }

    /// As the query protocol has it: members by their names, elements of lists as `member`.
    pub fn xml(&self, out: &mut String) {
        let element = |out: &mut String, name: &str, node: &Node| {
            out.push_str(&format!("<{name}>"));
            node.xml(out);
            out.push_str(&format!("</{name}>"));
        };
        match self {
            Node::Text(text) => out.push_str(&escaped(text)),
            // With a point, as Java writes it.
            Node::Number(number) => out.push_str(&format!("{number:?}")),
            Node::Time(ms) => out.push_str(&date::format_extended(*ms)),
            Node::List(elements) => elements.iter().for_each(|node| element(out, "member", node)),
            Node::Structure(members) => members.iter().for_each(|(name, node)| element(out, name, node)),
            Node::Map(entries) => {
                for (key, node) in entries {
                    out.push_str("<entry>");
                    element(out, "key", &Node::text(key));
                    element(out, "value", node);
                    out.push_str("</entry>");
                }
            }
        }
    }
}

impl Serialize for Node {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Node::Text(text) => serializer.serialize_str(text),
            Node::Number(number) => serializer.serialize_f64(*number),
            Node::Time(ms) => {
                let seconds = *ms as f64 / 1_000.0;
                if serializer.is_human_readable() {
                    serializer.serialize_f64(seconds)
                } else {
                    ciborium::tag::Required::<f64, 1>(seconds).serialize(serializer)
                }
            }
            Node::List(elements) => {
                let mut list = serializer.serialize_seq(Some(elements.len()))?;
                elements.iter().try_for_each(|node| list.serialize_element(node))?;
                list.end()
            }
            Node::Structure(members) => {
                let mut map = serializer.serialize_map(Some(members.len()))?;
                members.iter().try_for_each(|(name, node)| map.serialize_entry(name, node))?;
                map.end()
            }
            Node::Map(entries) => {
                let mut map = serializer.serialize_map(Some(entries.len()))?;
                entries.iter().try_for_each(|(key, node)| map.serialize_entry(key, node))?;
                map.end()
            }
        }
    }
}

/// A text in XML. What XML cannot say is left out.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\r' => out.push_str("&#xD;"),
            '\t' | '\n' => out.push(c),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => {}
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_in_three_ways() {
        let node = Node::Structure(vec![
            ("Label", Node::text("a<b>&\u{1}\u{7f}c")),
            ("Datapoints", Node::List(vec![Node::Number(1.0), Node::Number(1e300)])),
            ("At", Node::Time(1_440_938_160_500)),
            ("Extended", Node::Map(vec![("p99".into(), Node::Number(0.25))])),
        ]);
        let mut xml = String::new();
        node.xml(&mut xml);
        assert_eq!(
            xml,
            "<Label>a&lt;b&gt;&amp;c</Label><Datapoints><member>1.0</member><member>1e300</member></Datapoints>\
             <At>2015-08-30T12:36:00Z</At><Extended><entry><key>p99</key><value>0.25</value></entry></Extended>"
        );
        assert_eq!(
            serde_json::to_value(&node).unwrap(),
            serde_json::json!({"Label": "a<b>&\u{1}\u{7f}c", "Datapoints": [1.0, 1e300], "At": 1_440_938_160.5,
                "Extended": {"p99": 0.25}})
        );
        let mut cbor = Vec::new();
        ciborium::into_writer(&Node::Time(1_000), &mut cbor).unwrap();
        // Tag 1, the float 1.
        assert_eq!(cbor, [0xc1, 0xf9, 0x3c, 0x00]);
    }
}
