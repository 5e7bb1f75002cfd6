//! The layout of the source: the imports between the rooms of `shared`, circles of files, and the sizes of files.
//!
//! The imports are read from the text of the files: `use` items, and paths that begin with `crate`, `super` or `self`. Code for
//! tests is left out.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};

/// The rooms of `shared`, each with the rooms that it may import.
const ROOMS: [(&str, &[&str]); 7] = [
    ("domain", &[]),
    ("runtime", &["domain"]),
    ("messenger", &["domain", "runtime"]),
    ("store", &["domain", "runtime"]),
    ("app", &["domain", "runtime", "messenger", "store"]),
    ("worker", &["domain", "runtime", "messenger", "store", "app"]),
    (
        "reconcile",
        &["domain", "runtime", "messenger", "store", "app", "worker"],
    ),
];

/// The files of `shared/src/store` with the statements of one kind of item each.
const ITEM_FILES: [&str; 9] = [
    "contacts",
    "broadcasts",
    "jobs",
    "segments",
    "deliveries",
    "doubts",
    "events",
    "page_leases",
    "requests",
];

/// The only file of the store that may import several item files.
const TRANSACTIONS: &str = "transactions";

/// The limit of a product file, without its code for tests. The rule is about 400 lines; the margin spares a file that is
/// slightly longer a split in the middle of its subject.
const MAX_LINES: usize = 450;

/// A module of a crate: the path from its root.
type Module = Vec<String>;

/// A token of Rust code; a literal is empty.
#[derive(Clone, Debug, PartialEq)]
struct Token {
    text: String,
    line: usize,
}

/// A path to an item of the same crate, in a `use` item or inline.
#[derive(Clone, Debug, PartialEq)]
struct Mention {
    /// The path from the root of the crate.
    path: Vec<String>,
    line: usize,
    /// The name under which a `pub use` makes the item available.
    reexported_as: Option<String>,
}

/// A source file without its code for tests.
struct Source {
    /// The path that failure messages name.
    name: String,
    lines: usize,
    mentions: Vec<Mention>,
}

/// The files of a crate.
type Sources = BTreeMap<Module, Source>;

/// An import of one file from another.
#[derive(Debug)]
struct Arrow<'a> {
    from: &'a Module,
    line: usize,
    /// The module that the path names.
    named: &'a Module,
    /// The module that defines the item: another one if the named one re-exports it.
    to: &'a Module,
}

/// Splits code into tokens, without comments and lifetimes.
fn tokens(code: &str) -> Vec<Token> {
    let (mut tokens, mut rest, mut line) = (Vec::new(), code, 1);
    while let Some(first) = rest.chars().next() {
        let (text, length) = next_token(rest, first);
        if let Some(text) = text {
            tokens.push(Token { text, line });
        }
        line += rest[..length].matches('\n').count();
        rest = &rest[length..];
    }
    tokens
}

/// Returns the token at the beginning of `code`, `None` for space, a comment or a lifetime, and its length.
fn next_token(code: &str, first: char) -> (Option<String>, usize) {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    let literal = |length| (Some(String::new()), length);
    if code.starts_with("//") {
        return (None, code.find('\n').unwrap_or(code.len()));
    }
    if code.starts_with("/*") {
        return (None, block_comment(code));
    }
    if first == '"' {
        return literal(string(code));
    }
    if first == '\'' {
        return match char_literal(code) {
            Some(length) => literal(length),
            None => (None, 1 + code[1..].find(|c| !is_part(c)).unwrap_or(code.len() - 1)),
        };
    }
    if is_part(first) {
        let length = code.find(|c| !is_part(c)).unwrap_or(code.len());
        let (word, after) = code.split_at(length);
        if matches!(word, "r" | "br" | "cr")
            && let Some(raw) = raw_string(after)
        {
            return literal(length + raw);
        }
        return (Some(word.to_owned()), length);
    }
    if code.starts_with("::") {
        return (Some("::".to_owned()), 2);
    }
    let token = (!first.is_whitespace()).then(|| first.to_string());
    (token, first.len_utf8())
}

/// Returns the length of a block comment, which may contain others.
fn block_comment(code: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < code.len() {
        if code[at..].starts_with("/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if code[at..].starts_with("*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += code[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    code.len()
}

/// Returns the length of a string literal, quotes included.
fn string(code: &str) -> usize {
    let mut is_escaped = false;
    for (at, c) in code.char_indices().skip(1) {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    code.len()
}

/// Returns the length of a raw string literal after its prefix; `None` for a raw identifier.
fn raw_string(code: &str) -> Option<usize> {
    let text = code.trim_start_matches('#');
    let hashes = code.len() - text.len();
    let end = format!("\"{}", "#".repeat(hashes));
    let length = text.strip_prefix('"')?.find(&end)?;
    Some(hashes + 1 + length + end.len())
}

/// Returns the length of a character literal; `None` for a lifetime.
fn char_literal(code: &str) -> Option<usize> {
    let mut chars = code.char_indices().skip(1);
    if chars.next()?.1 == '\\' {
        chars.next()?;
        return Some(chars.find(|(_, c)| *c == '\'')?.0 + 1);
    }
    let (at, c) = chars.next()?;
    (c == '\'').then_some(at + 1)
}

/// Removes the items with the attribute `#[cfg(test)]`; returns the rest, and the number of lines removed.
fn without_tests(tokens: &[Token]) -> (Vec<Token>, usize) {
    const ATTRIBUTE: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let (mut kept, mut removed, mut at) = (Vec::new(), 0, 0);
    while at < tokens.len() {
        let here = &tokens[at..];
        let is_test =
            here.len() >= ATTRIBUTE.len() && here.iter().zip(ATTRIBUTE).all(|(token, text)| token.text == text);
        if !is_test {
            kept.push(tokens[at].clone());
            at += 1;
            continue;
        }
        let end = at + item_length(here);
        removed += tokens[end - 1].line - tokens[at].line + 1;
        at = end;
    }
    (kept, removed)
}

/// Returns the number of tokens of the item at the beginning: to its semicolon or the end of its block.
fn item_length(tokens: &[Token]) -> usize {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate() {
        match token.text.as_str() {
            "{" | "(" | "[" => depth += 1,
            "}" | ")" | "]" => depth -= 1,
            _ => {}
        }
        let ends = matches!(token.text.as_str(), ";" | "}");
        if depth == 0 && ends {
            return at + 1;
        }
    }
    tokens.len()
}

/// Returns the paths to items of the same crate that the code of a module mentions.
fn mentions(module: &Module, tokens: &[Token]) -> Vec<Mention> {
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text.as_str());
    let (mut found, mut at) = (Vec::new(), 0);
    while at < tokens.len() {
        let line = tokens[at].line;
        if text(at) == "use" && text(at + 1) != "<" {
            let is_public = at > 0 && (text(at - 1) == "pub" || text(at - 1) == ")");
            let mut leaves = Vec::new();
            at = use_tree(tokens, at + 1, Vec::new(), &mut leaves);
            for (path, name) in leaves {
                if let Some(path) = absolute(module, &path) {
                    let reexported_as = is_public.then_some(name);
                    found.push(Mention {
                        path,
                        line,
                        reexported_as,
                    });
                }
            }
            continue;
        }
        let begins = matches!(text(at), "crate" | "super" | "self") && text(at + 1) == "::";
        if begins && (at == 0 || text(at - 1) != "::") {
            let mut path = vec![text(at).to_owned()];
            while text(at + 1) == "::" && is_name(text(at + 2)) {
                path.push(text(at + 2).to_owned());
                at += 2;
            }
            let reexported_as = None;
            found.extend(absolute(module, &path).map(|path| Mention {
                path,
                line,
                reexported_as,
            }));
        }
        at += 1;
    }
    found
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Adds the paths of a `use` tree to `leaves`, each with the name that it gets; returns the position after the tree.
fn use_tree(
    tokens: &[Token],
    mut at: usize,
    mut prefix: Vec<String>,
    leaves: &mut Vec<(Vec<String>, String)>,
) -> usize {
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text.as_str());
    loop {
        match text(at) {
            "{" => {
                at += 1;
                while text(at) != "}" && at < tokens.len() {
                    at = use_tree(tokens, at, prefix.clone(), leaves);
                    if text(at) == "," {
                        at += 1;
                    }
                }
                return at + 1;
            }
            "::" => at += 1,
            "*" => {
                leaves.push((prefix, "*".to_owned()));
                return at + 1;
            }
            // `module::{self, Item}` names the module.
            "self" if !prefix.is_empty() => at += 1,
            "as" => {
                leaves.push((prefix, text(at + 1).to_owned()));
                return at + 2;
            }
            name if is_name(name) => {
                prefix.push(name.to_owned());
                at += 1;
            }
            _ => {
                let name = prefix.last().cloned().unwrap_or_default();
                leaves.push((prefix, name));
                return at;
            }
        }
    }
}

/// Returns a path from the root of the crate; `None` for a path that begins with a name.
fn absolute(module: &Module, path: &[String]) -> Option<Vec<String>> {
    let mut absolute = match path.first()?.as_str() {
        "crate" => Vec::new(),
        "self" | "super" => module.clone(),
        _ => return None,
    };
    for segment in path {
        match segment.as_str() {
            "crate" | "self" => {}
            "super" => drop(absolute.pop()),
            name => absolute.push(name.to_owned()),
        }
    }
    Some(absolute)
}

/// Reads a file of this module.
fn source(name: &str, module: &Module, code: &str) -> Source {
    let (tokens, removed) = without_tests(&tokens(code));
    Source {
        name: name.to_owned(),
        lines: code.lines().count() - removed,
        mentions: mentions(module, &tokens),
    }
}

/// Returns the module of a path, the longest prefix that is one.
fn module_of<'a>(sources: &'a Sources, path: &[String]) -> Option<&'a Module> {
    let prefixes = (0..=path.len()).rev().map(|length| &path[..length]);
    let mut modules = prefixes.filter_map(|prefix| sources.get_key_value(prefix));
    modules.next().map(|(module, _)| module)
}

/// Returns the module that defines the item of a path, through re-exports.
fn definition<'a>(sources: &'a Sources, path: &[String]) -> Option<&'a Module> {
    let mut path = path.to_vec();
    // A chain of re-exports is not longer than the number of files.
    for _ in sources {
        let module = module_of(sources, &path)?;
        let Some(name) = path.get(module.len()) else {
            return Some(module);
        };
        let mut reexports = sources[module].mentions.iter();
        match reexports.find(|mention| mention.reexported_as.as_ref() == Some(name)) {
            Some(reexport) => path = reexport.path.clone(),
            None => return Some(module),
        }
    }
    None
}

/// Returns the imports between the files of a crate. A module that re-exports an item of its own child does not import it.
fn arrows(sources: &Sources) -> Vec<Arrow<'_>> {
    let mut arrows = Vec::new();
    for (from, source) in sources {
        for mention in &source.mentions {
            let (Some(named), Some(to)) = (module_of(sources, &mention.path), definition(sources, &mention.path))
            else {
                continue;
            };
            let of_child = mention.reexported_as.is_some() && to.starts_with(from);
            if to != from && !of_child {
                arrows.push(Arrow {
                    from,
                    line: mention.line,
                    named,
                    to,
                });
            }
        }
    }
    arrows
}

/// Returns the imports between rooms that the table does not allow, and the files outside its rooms.
fn forbidden_imports(sources: &Sources) -> Vec<String> {
    let mut problems = Vec::new();
    let room = |module: &Module| module.first().cloned().unwrap_or_default();
    let allowed = BTreeMap::from(ROOMS);
    for (module, source) in sources {
        if !module.is_empty() && !allowed.contains_key(&*room(module)) {
            problems.push(format!("{}: is in no room of the table", source.name));
        }
    }
    for arrow in arrows(sources) {
        let (from, to) = (room(arrow.from), room(arrow.named));
        let may = allowed.get(&*from).copied().unwrap_or_default();
        if !from.is_empty() && from != to && !may.contains(&&*to) {
            let to = if to.is_empty() { "the root" } else { &to };
            let place = &sources[arrow.from].name;
            problems.push(format!("{place}:{}: {from} must not import {to}", arrow.line));
        }
    }
    problems
}

/// Returns the files of the store that import several item files and are not [`TRANSACTIONS`].
fn wide_store_files(sources: &Sources) -> Vec<String> {
    let is_item_file = |module: &Module| module.len() == 2 && ITEM_FILES.contains(&&*module[1]);
    let mut imports = BTreeMap::<_, BTreeMap<_, _>>::new();
    for arrow in arrows(sources) {
        let in_store = arrow.from.len() == 2 && arrow.from[0] == "store" && arrow.named[0] == "store";
        if in_store && arrow.from[1] != TRANSACTIONS && is_item_file(arrow.named) {
            let lines = imports.entry(arrow.from).or_default();
            lines.entry(&arrow.named[1]).or_insert(arrow.line);
        }
    }
    imports.retain(|_, imported| imported.len() > 1);
    let describe = |(from, imported): (_, BTreeMap<_, _>)| {
        let imported: Vec<_> = imported
            .iter()
            .map(|(file, line)| format!("{file} (line {line})"))
            .collect();
        format!(
            "{} imports several item files: {}",
            sources[from].name,
            imported.join(", ")
        )
    };
    imports.into_iter().map(describe).collect()
}

/// Returns a shortest circle of imports through each file that is in one, without repetitions.
fn circles(sources: &Sources) -> Vec<String> {
    let mut graph = BTreeMap::<_, BTreeMap<_, _>>::new();
    for arrow in arrows(sources) {
        graph
            .entry(arrow.from)
            .or_default()
            .entry(arrow.to)
            .or_insert(arrow.line);
    }
    let (mut circles, mut seen) = (Vec::new(), BTreeSet::new());
    for start in sources.keys() {
        let Some(circle) = shortest_circle(&graph, start) else {
            continue;
        };
        if seen.insert(circle.iter().copied().collect::<BTreeSet<_>>()) {
            let next = circle.iter().skip(1).chain([&start]);
            let hops = circle.iter().zip(next);
            let hops: Vec<_> = hops
                .map(|(from, to)| format!("{}:{}", sources[*from].name, graph[from][to]))
                .collect();
            circles.push(format!("{} → {}", hops.join(" → "), sources[start].name));
        }
    }
    circles
}

type Graph<'a> = BTreeMap<&'a Module, BTreeMap<&'a Module, usize>>;

fn shortest_circle<'a>(graph: &Graph<'a>, start: &'a Module) -> Option<Vec<&'a Module>> {
    let mut paths = VecDeque::from([vec![start]]);
    let mut visited = BTreeSet::new();
    while let Some(path) = paths.pop_front() {
        for next in graph.get(path.last()?).into_iter().flat_map(BTreeMap::keys) {
            if *next == start {
                return Some(path);
            }
            if visited.insert(*next) {
                paths.push_back([&path[..], &[*next]].concat());
            }
        }
    }
    None
}

/// Returns the files over the limit of lines.
fn large_files(sources: &Sources) -> Vec<String> {
    let large = sources.values().filter(|source| source.lines > MAX_LINES);
    large
        .map(|source| {
            format!(
                "{}: {} lines; split it by subject below about 400",
                source.name, source.lines
            )
        })
        .collect()
}

// The files of the workspace.

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// Returns the crates of the product, by their directory.
fn crates() -> Vec<PathBuf> {
    let inside = |directory: &str| {
        let entries = fs::read_dir(root().join(directory)).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        let mut crates: Vec<_> = paths.filter(|path| path.join("Cargo.toml").is_file()).collect();
        crates.sort();
        crates
    };
    [vec![root().join("shared")], inside("functions"), inside("infra")].concat()
}

/// Reads the files of a crate, without files of tests.
fn read_crate(directory: &Path) -> Sources {
    let mut sources = Sources::new();
    read_directory(&directory.join("src"), &Module::new(), &mut sources);
    sources
}

fn read_directory(directory: &Path, module: &Module, sources: &mut Sources) {
    for path in fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
        let stem = path.file_stem().unwrap().to_str().unwrap();
        // The executable of a crate with a library is another crate, of one file.
        let is_executable = stem == "main" && directory.join("lib.rs").is_file();
        if stem == "tests" || is_executable {
            continue;
        }
        let mut child = module.clone();
        if !["lib", "main", "mod"].contains(&stem) {
            child.push(stem.to_owned());
        }
        if path.is_dir() {
            read_directory(&path, &child, sources);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(root()).unwrap().display().to_string();
            let source = source(&name, &child, &fs::read_to_string(&path).unwrap());
            sources.insert(child, source);
        }
    }
}

fn shared() -> Sources {
    read_crate(&root().join("shared"))
}

fn assert_none(problems: &[String]) {
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn rooms_import_only_downwards() {
    assert_none(&forbidden_imports(&shared()));
}

#[test]
fn only_transactions_import_several_item_files() {
    let sources = shared();
    for file in ITEM_FILES.iter().chain([&TRANSACTIONS]) {
        let module = ["store", file].map(str::to_owned).to_vec();
        assert!(sources.contains_key(&module), "there is no store/{file}.rs");
    }
    assert_none(&wide_store_files(&sources));
}

#[test]
fn files_import_each_other_in_no_circle() {
    let crates = crates();
    assert!(crates.len() >= 5, "{crates:?}");
    let circles: Vec<_> = crates.iter().flat_map(|path| circles(&read_crate(path))).collect();
    assert_none(&circles);
}

#[test]
fn product_files_stay_below_the_size_limit() {
    let large: Vec<_> = crates()
        .iter()
        .flat_map(|path| large_files(&read_crate(path)))
        .collect();
    assert_none(&large);
}

// The checks themselves, on planted code.

/// Returns a crate of these files, each named by its module path.
fn planted(files: &[(&str, &str)]) -> Sources {
    let read = |(name, code): &(&str, &str)| {
        let segments = name.split('/').filter(|segment| !["mod", "lib"].contains(segment));
        let module: Module = segments.map(str::to_owned).collect();
        let source = source(&format!("{name}.rs"), &module, code);
        (module, source)
    };
    files.iter().map(read).collect()
}

#[test]
fn upward_import_is_reported() {
    for code in [
        "use crate::store::jobs::Job;",
        "use std::fmt;\nuse crate::{domain::ids, store::{self, jobs::Job}};",
        "fn f() {\n    crate::store::jobs::claim();\n}",
        "use super::super::store::jobs::Job as Stored;",
        "pub use crate::store::jobs::Job;",
    ] {
        let sources = planted(&[
            ("domain/job", code),
            ("domain/ids", ""),
            ("store/jobs", ""),
            ("store/mod", ""),
        ]);

        let problems = forbidden_imports(&sources);

        assert!(!problems.is_empty(), "{code}");
        for problem in problems {
            let line = code.lines().count().min(2);
            let expected = format!("domain/job.rs:{line}: domain must not import store");
            assert_eq!(problem, expected, "{code}");
        }
    }
}

#[test]
fn downward_import_is_allowed() {
    let code =
        "use super::super::domain::ids::Id;\nuse crate::runtime::{clock::Clock, config};\nuse crate::store::keys;";
    let sources = planted(&[
        ("store/jobs", code),
        ("store/keys", ""),
        ("domain/ids", ""),
        ("runtime/clock", ""),
        ("runtime/config", ""),
        ("lib", "pub mod store;"),
    ]);

    assert_none(&forbidden_imports(&sources));
}

#[test]
fn file_outside_the_rooms_and_import_of_the_root_are_reported() {
    let sources = planted(&[
        ("utils", ""),
        ("domain/ids", "use crate::helper;"),
        ("lib", "fn helper() {}"),
    ]);

    let problems = forbidden_imports(&sources);

    let expected = [
        "utils.rs: is in no room of the table",
        "domain/ids.rs:1: domain must not import the root",
    ];
    assert_eq!(problems, expected);
}

#[test]
fn several_item_files_in_one_import_are_reported() {
    let code = "use super::{contacts, keys};\n\nuse super::jobs::Claim;";
    let files = |importer| {
        planted(&[
            (importer, code),
            ("store/contacts", ""),
            ("store/jobs", "use super::keys;"),
            ("store/keys", ""),
        ])
    };

    let expected = ["store/doubts.rs imports several item files: contacts (line 1), jobs (line 3)"];
    assert_eq!(wide_store_files(&files("store/doubts")), expected);
    assert_none(&wide_store_files(&files("store/transactions")));
}

#[test]
fn circle_is_reported_with_its_lines() {
    let sources = planted(&[
        ("a", "use crate::b::B;"),
        ("b", "struct B;\nfn f() { super::c::g() }"),
        ("c", "\n\nuse super::a::A;"),
        ("d", "use crate::a::A;"),
    ]);

    assert_eq!(circles(&sources), ["a.rs:1 → b.rs:2 → c.rs:3 → a.rs"]);
}

#[test]
fn reexport_by_the_parent_is_no_circle() {
    let sources = planted(&[
        (
            "a/mod",
            "mod b;\nmod c;\npub use self::b::B;\npub(crate) use self::c::{C, D as E};",
        ),
        ("a/b", "use super::C;\npub struct B;"),
        ("a/c", "pub struct C;"),
        ("d", "use crate::a::B;"),
    ]);

    assert_none(&circles(&sources));
    let to = |arrow: &Arrow<'_>| (arrow.from.join("/"), arrow.to.join("/"));
    let arrows: Vec<_> = arrows(&sources).iter().map(to).collect();
    assert_eq!(
        arrows,
        [("a/b", "a/c"), ("d", "a/b")].map(|(from, to)| (from.to_owned(), to.to_owned()))
    );
}

#[test]
fn circle_through_a_reexport_is_reported() {
    let sources = planted(&[
        ("a/mod", "pub use self::b::B;"),
        ("a/b", "use crate::c::C;"),
        ("c", "use crate::a::B;"),
    ]);

    assert_eq!(circles(&sources), ["a/b.rs:1 → c.rs:1 → a/b.rs"]);
}

#[test]
fn parent_and_child_that_import_each_other_are_a_circle() {
    let sources = planted(&[
        ("a/mod", "use self::b::B;\npub struct A(B);"),
        ("a/b", "use super::A;\npub struct B;"),
    ]);

    assert_eq!(circles(&sources), ["a/mod.rs:1 → a/b.rs:1 → a/mod.rs"]);
}

#[test]
fn comments_literals_and_tests_are_no_imports() {
    let code = r##"
        //! See crate::a::A.
        /* use crate::a::A; /* nested */ */
        const TEXT: &str = "use crate::a::A; \" crate::a::A";
        const RAW: &str = r#"crate::a::A " crate::a::A"#;
        fn f<'a>(c: char) -> &'a str { if c == '"' || c == '\'' { "crate::a" } else { "b" } }
        #[cfg(test)]
        use crate::a::A;
        #[cfg(test)]
        #[allow(dead_code)]
        mod tests {
            use crate::a::A;
        }
        impl B { fn g(self) -> impl Sized + use<> { Self::h(self) } }
    "##;
    let sources = planted(&[("b", code), ("a", "")]);

    let source = &sources[&vec!["b".to_owned()]];

    assert_eq!(source.mentions, []);
    assert_eq!(source.lines, code.lines().count() - 7);
}

#[test]
fn large_file_is_reported_without_its_tests() {
    let lines = |n: usize| "fn f() {}\n".repeat(n);
    let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", lines(100));
    let large = lines(451) + &tests;
    let sources = planted(&[("large", &large), ("small", &(lines(450) + &tests))]);

    let expected = ["large.rs: 451 lines; split it by subject below about 400"];
    assert_eq!(large_files(&sources), expected);
}
