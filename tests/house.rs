//! Holds the house together: reads the sources and refuses what the map in `src/lib.rs` does not allow.
//!
//! A module imports only from layers below its own, some crates and calls belong to one module each, and nothing that
//! input can reach panics. An exception is a comment `// allowed: why`, on the line or in the lines above it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The table of `src/lib.rs`: modules by layer, lowest first.
const LAYERS: &[&[&str]] = &[
    &["model"],
    &["config", "clock", "metrics"],
    &["store"],
    &["log"],
    &["broker"],
    &["security", "traces"],
    &["group", "reaper", "audit", "http", "fanout", "scaler"],
    &["txn", "share"],
    &["kafka", "kinesis", "cloudwatch"],
    &["server", "inspect", "top"],
];

/// Words that only some modules may say: the word, who may, and what it stands for.
const OWNED: &[(&str, &[&str], &str)] = &[
    ("rocksdb", &["store"], "RocksDB"),
    (
        "std::fs",
        &["store", "config", "audit"],
        "files: config reads the settings and key files, audit appends to its log",
    ),
    ("tokio::fs", &[], "files"),
    ("File::", &["store"], "files"),
    ("OpenOptions", &["store", "audit"], "files"),
    ("kafka_protocol", &["kafka"], "Kafka's messages"),
    ("Instant::now()", &["clock"], "time"),
    ("SystemTime::now()", &["clock"], "time"),
    ("tokio::time", &["clock"], "time"),
    ("thread::sleep", &[], "time"),
    ("new_v4", &["clock"], "randomness"),
];

/// What panics.
const PANICS: &[&str] =
    &[".unwrap()", ".expect(", ".unwrap_err()", "panic!(", "todo!(", "unimplemented!(", "unreachable!(", "dbg!("];

#[test]
fn the_sources_keep_the_rules() {
    let src = Path::new("src");
    let files: BTreeMap<String, Vec<Line>> = rust_files(src)
        .into_iter()
        .map(|file| {
            let name = file.strip_prefix(src).unwrap().to_str().unwrap().to_owned();
            (name, parse(&fs::read_to_string(&file).unwrap()))
        })
        .collect();
    let problems = check(&files);
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}

#[test]
fn the_table_is_that_of_the_library() {
    let lib = fs::read_to_string("src/lib.rs").unwrap();
    let declared: BTreeSet<&str> =
        lib.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    let table: BTreeSet<&str> = LAYERS.iter().copied().flatten().copied().collect();
    assert_eq!(declared, table);
    for (layer, modules) in LAYERS.iter().enumerate() {
        for module in *modules {
            let told = lib
                .lines()
                .any(|line| line.starts_with(&format!("//! | {layer} |")) && line.contains(&format!("[`{module}`]")));
            assert!(told, "the map in src/lib.rs does not have {module} in layer {layer}");
        }
    }
}

/// What is wrong with the files, by their paths below `src`.
fn check(files: &BTreeMap<String, Vec<Line>>) -> Vec<String> {
    let only_for_tests = test_modules(files);
    let mut problems = Vec::new();
    for (file, lines) in files {
        let module = file.split(['/', '.']).next().unwrap();
        let is_test = only_for_tests.iter().any(|test| is_within(file, test));
        for (index, line) in lines.iter().enumerate() {
            let mut refuse = |what: String| problems.push(format!("src/{file}:{}: {what}", index + 1));
            let imported = imports(line, |name| is_room(files, file, name));
            imported.iter().filter_map(|name| wrong_import(module, name)).for_each(&mut refuse);
            if !is_test && !line.is_test && !is_allowed(lines, index) {
                forbidden(module, line).into_iter().for_each(&mut refuse);
            }
        }
    }
    problems
}

/// Words of the line that are not for this module or not for any.
fn forbidden(module: &str, line: &Line) -> Vec<String> {
    let owned = OWNED
        .iter()
        .filter(|(word, owners, _)| line.code.contains(word) && !owners.contains(&module))
        .map(|(word, _, what)| format!("{word} is not for {module} ({what})"));
    let panics = PANICS
        .iter()
        .filter(|panic| line.code.contains(*panic))
        .map(|panic| format!("{panic} where input may reach it; say why it cannot in a comment `// allowed: ...`"));
    owned.chain(panics).collect()
}

/// Modules, as paths without their ending, that are declared for tests only: `#[cfg(test)] mod x;`.
fn test_modules(files: &BTreeMap<String, Vec<Line>>) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (file, lines) in files {
        for line in lines.iter().filter(|line| line.is_test) {
            let declared = line.code.trim().rsplit_once("mod ").and_then(|(_, name)| name.strip_suffix(';'));
            found.extend(declared.map(|name| format!("{}{name}", folder_of(file))));
        }
    }
    found
}

/// Whether a file is the module at `path` or lies below it.
fn is_within(file: &str, path: &str) -> bool {
    file.strip_prefix(path).is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
}

/// Where the submodules of a file lie: `log/` for `log/mod.rs`, `log/tail/` for `log/tail.rs`, nothing for `lib.rs`.
fn folder_of(file: &str) -> String {
    match file.strip_suffix("mod.rs").or(file.strip_suffix("lib.rs")) {
        Some(folder) => folder.to_owned(),
        None => format!("{}/", file.trim_end_matches(".rs")),
    }
}

/// Whether `super::name` in this file may be a module inside its own top-level module.
fn is_room(files: &BTreeMap<String, Vec<Line>>, file: &str, name: &str) -> bool {
    let folder = folder_of(file);
    let ends = folder.match_indices('/').map(|(at, _)| &folder[..=at]);
    ends.into_iter().any(|parent| files.keys().any(|other| is_within(other, &format!("{parent}{name}"))))
}

/// A comment `allowed:` on the line itself or right above it, with nothing but comments and the beginning of the same
/// statement between.
fn is_allowed(lines: &[Line], index: usize) -> bool {
    let is_why = |line: &Line| line.comment.contains("allowed: ");
    if is_why(&lines[index]) {
        return true;
    }
    for line in lines[..index].iter().rev() {
        let ends_before = line.code.trim_end().ends_with([';', '{', '}']) || line.code.trim().is_empty();
        if is_why(line) {
            return true;
        }
        if ends_before && line.comment.is_empty() {
            return false;
        }
    }
    false
}

/// Top-level modules that a line names: by `crate::x`, `crate::{x, y}`, or `super::` up to another module.
fn imports(line: &Line, is_room: impl Fn(&str) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in line.code.match_indices("crate::") {
        let boundary = line.code[..at].chars().next_back().is_none_or(|c| !is_word(c));
        // `$crate::` of a macro is this crate as well.
        if !boundary {
            continue;
        }
        let rest = &line.code[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            Some(group) => found.extend(heads(group)),
            None if rest.starts_with('*') => found.push("*".to_owned()),
            None => found.push(rest.chars().take_while(|c| is_word(*c)).collect()),
        }
    }
    for (at, _) in line.code.match_indices("super::") {
        let name: String = line.code[at + "super::".len()..].chars().take_while(|c| is_word(*c)).collect();
        if layer(&name).is_some() && !is_room(&name) {
            found.push(name);
        }
    }
    found
}

/// The first names of a group `a::b, c::{d, e}}`, as far as it goes on this line. Lines are joined up to the end of a
/// `use` before this is asked.
fn heads(group: &str) -> Vec<String> {
    let mut heads = Vec::new();
    let mut depth = 0;
    let mut at_start = true;
    for (index, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => at_start = true,
            c if depth == 0 && at_start && (is_word(c) || c == '*') => {
                heads.push(group[index..].chars().take_while(|c| is_word(*c) || *c == '*').collect());
                at_start = false;
            }
            _ => {}
        }
    }
    heads
}

fn wrong_import(module: &str, imported: &str) -> Option<String> {
    if module == imported {
        return None;
    }
    // `main` is above everything, `lib` below: it only names the modules.
    let own = match module {
        "main" => LAYERS.len(),
        "lib" => 0,
        _ => match layer(module) {
            Some(own) => own,
            None => return Some(format!("module {module} has no layer in tests/house.rs")),
        },
    };
    match layer(imported) {
        Some(other) if other < own => None,
        Some(other) => Some(format!("{module} (layer {own}) imports {imported} (layer {other})")),
        None => Some(format!("{module} imports crate::{imported}, which is no module of the table")),
    }
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|modules| modules.contains(&module))
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// One line of a file. A `use` that goes over several lines stands whole in its first.
#[derive(Default, Clone)]
struct Line {
    /// Without comments; the contents of strings are blanked out.
    code: String,
    comment: String,
    /// Inside an item marked `#[cfg(test)]`.
    is_test: bool,
}

fn parse(text: &str) -> Vec<Line> {
    let mut lines = split(text);
    mark_tests(&mut lines);
    join_uses(&mut lines);
    lines
}

/// Tells code, comments and strings apart.
fn split(text: &str) -> Vec<Line> {
    enum In {
        Code,
        LineComment,
        BlockComment(usize),
        Str,
        RawStr(usize),
    }
    let chars: Vec<char> = text.chars().collect();
    let mut lines = vec![Line::default()];
    let mut state = In::Code;
    let mut at = 0;
    while let Some(&c) = chars.get(at) {
        let rest = &chars[at..];
        let starts = |word: &str| rest.iter().copied().take(word.len()).eq(word.chars());
        if c == '\n' {
            lines.push(Line::default());
            if matches!(state, In::LineComment) {
                state = In::Code;
            }
            at += 1;
            continue;
        }
        let line = lines.last_mut().unwrap();
        let mut taken = 1;
        match state {
            In::Code if starts("//") => state = In::LineComment,
            In::Code if starts("/*") => state = In::BlockComment(1),
            In::Code if c == '"' => {
                line.code.push('"');
                state = In::Str;
            }
            In::Code if c == 'r' && !line.code.chars().next_back().is_some_and(|c| is_word(c) && c != 'b') => {
                let hashes = rest[1..].iter().take_while(|c| **c == '#').count();
                line.code.push(c);
                if rest.get(1 + hashes) == Some(&'"') {
                    state = In::RawStr(hashes);
                    taken = 2 + hashes;
                }
            }
            // A character literal, not a lifetime: 'x' or '\x'.
            In::Code if c == '\'' && (rest.get(1) == Some(&'\\') || rest.get(2) == Some(&'\'')) => {
                let escaped = usize::from(rest.get(1) == Some(&'\\'));
                let end = rest.iter().skip(2 + escaped).position(|c| *c == '\'').map_or(1, |end| end + 3 + escaped);
                line.code.push_str("' '");
                taken = end;
            }
            In::Code => line.code.push(c),
            In::LineComment => line.comment.push(c),
            In::BlockComment(depth) if starts("*/") => {
                state = if depth == 1 { In::Code } else { In::BlockComment(depth - 1) };
                taken = 2;
            }
            In::BlockComment(depth) if starts("/*") => {
                state = In::BlockComment(depth + 1);
                taken = 2;
            }
            In::BlockComment(_) => line.comment.push(c),
            // An escaped end of line is taken with the next turn, so that lines are counted.
            In::Str if c == '\\' && rest.get(1) != Some(&'\n') => taken = 2,
            In::Str if c == '"' => {
                line.code.push('"');
                state = In::Code;
            }
            In::Str => {}
            In::RawStr(hashes)
                if c == '"' && rest[1..].iter().take(hashes).filter(|c| **c == '#').count() == hashes =>
            {
                line.code.push('"');
                state = In::Code;
                taken = 1 + hashes;
            }
            In::RawStr(_) => {}
        }
        at += taken;
    }
    lines
}

/// Marks the item that follows each `#[cfg(test)]`, up to the brace that closes it or the semicolon that ends it.
fn mark_tests(lines: &mut [Line]) {
    let mut depth: i64 = 0;
    let mut waiting = false;
    let mut inside: Option<i64> = None;
    for line in lines {
        let marked = line.code.find("#[cfg(test)]").or_else(|| line.code.find("#[cfg(all(test"));
        waiting |= marked.is_some();
        line.is_test = waiting || inside.is_some();
        for c in line.code.chars() {
            match c {
                '{' => {
                    if waiting && inside.is_none() {
                        inside = Some(depth);
                        waiting = false;
                    }
                    depth += 1;
                }
                '}' => {
                    depth -= 1;
                    if inside == Some(depth) {
                        inside = None;
                    }
                }
                ';' if waiting && inside.is_none() => waiting = false,
                _ => {}
            }
        }
    }
}

/// Moves the rest of every `use` to its first line, so that a group is seen whole.
fn join_uses(lines: &mut [Line]) {
    let mut first: Option<usize> = None;
    for index in 0..lines.len() {
        let code = lines[index].code.clone();
        match first {
            None => {
                let statement = code.trim_start().trim_start_matches("pub ").trim_start_matches("pub(crate) ");
                first = (statement.starts_with("use ") && !code.contains(';')).then_some(index);
            }
            Some(start) => {
                lines[start].code.push_str(code.trim());
                lines[index].code.clear();
                if code.contains(';') {
                    first = None;
                }
            }
        }
    }
}

/// What is wrong with one file among a few others.
fn problems(file: &str, text: &str) -> Vec<String> {
    let others =
        [("kafka/group.rs", ""), ("model/settings/broker.rs", ""), ("store/mod.rs", "#[cfg(test)]\nmod contract;")];
    check(&others.into_iter().chain([(file, text)]).map(|(file, text)| (file.to_owned(), parse(text))).collect())
}

/// The rules must see what they forbid, or they hold nothing.
#[test]
fn violations_are_seen() {
    for (file, text) in [
        ("model/batch.rs", "use crate::store::Store;"),
        ("model/batch.rs", "use crate::clock::Clock;"),
        ("log/mod.rs", "use crate::{\n    model::{ids, batch},\n    broker::Broker,\n};"),
        ("log/mod.rs", "fn f() { crate::kafka::serve(); }"),
        ("log/tail.rs", "use super::super::broker;"),
        ("http/mod.rs", "use crate::*;"),
        ("model/batch/mod.rs", "use super::super::broker::BrokerValues;"),
        ("store/contracts.rs", "x.unwrap();"),
        ("unknown.rs", "use crate::model::ids;"),
        ("kafka/conn.rs", "use rocksdb::DB;"),
        ("broker/mod.rs", "use kafka_protocol::messages;"),
        ("broker/mod.rs", "let now = Instant::now();"),
        ("broker/mod.rs", "tokio::time::sleep(d).await;"),
        ("broker/mod.rs", "std::fs::remove_file(path);"),
        ("store/rocks.rs", "x.unwrap();"),
        ("store/rocks.rs", "x\n    .expect(\"y\");"),
        ("store/rocks.rs", "todo!()"),
        ("store/rocks.rs", "let s = \"// allowed: no\"; x.unwrap();"),
        ("store/rocks.rs", "// allowed: this one\nx.unwrap();\ny.unwrap();"),
        ("store/rocks.rs", "#[cfg(test)]\nmod tests {\n    fn f() { x.unwrap(); }\n}\nfn g() { x.unwrap(); }"),
        ("store/rocks.rs", "let c = '\"'; x.unwrap(); let d = '\"';"),
        ("store/rocks.rs", "let s = r#\"a \" b\"#; x.unwrap();"),
        ("store/rocks.rs", "fn f<'a>(x: &'a str) { x.unwrap(); }"),
    ] {
        assert_eq!(problems(file, text).len(), 1, "{file}: {text}");
    }
}

#[test]
fn what_is_allowed_passes() {
    for (file, text) in [
        ("log/mod.rs", "use crate::{\n    model::{ids, batch},\n    store::Store,\n};"),
        ("log/tail.rs", "use crate::log::producers; use super::super::log;"),
        ("kafka/mod.rs", "use super::group::Fetch; pub(crate) use crate::broker::Broker;"),
        ("kafka/fetch.rs", "use kafka_protocol::messages;"),
        ("main.rs", "use anabranch::server::Server;"),
        ("store/rocks.rs", "// x.unwrap()\n/* y.unwrap() /* z.unwrap() */ */\nlet s = \"x.unwrap()\";"),
        ("store/rocks.rs", "x.unwrap(); // allowed: a constant"),
        ("store/rocks.rs", "// allowed: a constant that\n// a test reads.\nlet x = y\n    .unwrap();"),
        ("store/rocks.rs", "#[cfg(test)]\nmod tests {\n    fn f() { Instant::now(); x.unwrap(); }\n}"),
        ("store/contract.rs", "x.unwrap();"),
        ("store/contract/reads.rs", "x.unwrap();"),
        ("model/settings/topic.rs", "use super::broker::BrokerValues;"),
        ("store/rocks.rs", "x.unwrap_or_else(|| 1);"),
        ("store/rocks.rs", "let s = \"a\\\n    x.unwrap()\";"),
    ] {
        assert_eq!(problems(file, text), Vec::<String>::new(), "{file}: {text}");
    }
}
