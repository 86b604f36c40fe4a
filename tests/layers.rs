//! Holds the order of the modules: each uses only modules of an earlier row, or earlier ones of its own row.
//!
//! `src/lib.rs` is the order: comments `// Row N: ...`, each followed by the modules of that row. Read here is every path
//! of `src/**/*.rs` that starts at the root of the crate: `crate::x`, `use crate::{a, b::c}`, and as many `super::` as
//! lead there. Test code counts: a module whose tests need a later one stands in the wrong place. Comments and strings
//! do not count, nor does `src/main.rs`, which stands above all rows.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::fs;
use std::path::{Path, PathBuf};

/// A module of `lib.rs`: its row, and its place among all of them.
struct Place {
    name: String,
    row: usize,
}

/// A path from one module to another: what the rule is about.
#[derive(Debug, PartialEq, Eq)]
struct Arrow {
    line: usize,
    to: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    /// An identifier or a number.
    Word(String),
    /// `::`
    Colons,
    /// Any other character that is not white space.
    Mark(char),
}

/// The tokens of Rust text with the lines they stand on, without comments, strings and characters.
fn tokens(text: &str) -> Vec<(usize, Token)> {
    let c: Vec<char> = text.chars().collect();
    let at = |i: usize| c.get(i).copied().unwrap_or('\0');
    let word = |x: char| x.is_alphanumeric() || x == '_';
    let (mut i, mut line, mut out) = (0, 1, Vec::new());
    while i < c.len() {
        let start = i;
        if at(i) == '/' && at(i + 1) == '/' {
            while i < c.len() && c[i] != '\n' {
                i += 1;
            }
        } else if at(i) == '/' && at(i + 1) == '*' {
            i = after_block_comment(&c, i);
        } else if let Some(end) = after_raw_string(&c, i) {
            i = end;
        } else if at(i) == '"' {
            i = after_quoted(&c, i, '"');
        } else if at(i) == '\'' && (at(i + 1) == '\\' || at(i + 2) == '\'') {
            i = after_quoted(&c, i, '\'');
        } else if word(at(i)) {
            while word(at(i)) {
                i += 1;
            }
            // `b"..."` and `c"..."`: the letter belongs to the string.
            if !matches!(at(i), '"') || i - start > 1 {
                out.push((line, Token::Word(c[start..i].iter().collect())));
            }
        } else if at(i) == ':' && at(i + 1) == ':' {
            out.push((line, Token::Colons));
            i += 2;
        } else {
            if !c[i].is_whitespace() {
                out.push((line, Token::Mark(c[i])));
            }
            i += 1;
        }
        line += c[start..i].iter().filter(|x| **x == '\n').count();
    }
    out
}

/// Where the block comment that starts at `i` ends; they nest.
fn after_block_comment(c: &[char], mut i: usize) -> usize {
    let mut depth = 0;
    while i < c.len() {
        match (c[i], c.get(i + 1)) {
            ('/', Some('*')) => (depth, i) = (depth + 1, i + 2),
            ('*', Some('/')) => (depth, i) = (depth - 1, i + 2),
            _ => i += 1,
        }
        if depth == 0 {
            break;
        }
    }
    i.min(c.len())
}

/// Where the string or character that starts at `i` with `quote` ends.
fn after_quoted(c: &[char], mut i: usize, quote: char) -> usize {
    i += 1;
    while i < c.len() && c[i] != quote {
        i += if c[i] == '\\' { 2 } else { 1 };
    }
    (i + 1).min(c.len())
}

/// Where the raw string that starts at `i` (`r"`, `r#"`, `br##"`) ends; `None` when none starts there.
fn after_raw_string(c: &[char], i: usize) -> Option<usize> {
    let continues_a_word = i > 0 && (c[i - 1].is_alphanumeric() || c[i - 1] == '_');
    let r = i + usize::from(matches!(c.get(i), Some('b' | 'c')));
    if continues_a_word || c.get(r) != Some(&'r') {
        return None;
    }
    let hashes = c[r + 1..].iter().take_while(|x| **x == '#').count();
    let open = r + 1 + hashes;
    if c.get(open) != Some(&'"') {
        return None;
    }
    let mut close = vec!['"'];
    close.resize(1 + hashes, '#');
    let found = c[open + 1..].windows(close.len()).position(|x| *x == close[..]);
    Some(found.map_or(c.len(), |n| open + 1 + n + close.len()))
}

/// The modules of `lib.rs` in their order, or what is wrong with its rows.
fn places(lib: &str) -> Result<Vec<Place>, String> {
    let mut row = None;
    let mut out = Vec::new();
    for (number, line) in lib.lines().enumerate() {
        let line = line.trim();
        if let Some(rest) = line.strip_prefix("// Row ") {
            let next = rest.split(':').next().unwrap_or_default().parse::<usize>();
            let next = next.map_err(|_| format!("line {}: no number of a row in `{line}`", number + 1))?;
            if next != row.map_or(0, |r: usize| r + 1) {
                return Err(format!("line {}: row {next} follows {row:?}", number + 1));
            }
            row = Some(next);
        }
        let module = line.strip_suffix(';').and_then(|x| x.strip_prefix("pub mod ").or(x.strip_prefix("mod ")));
        if let Some(name) = module {
            let row = row.ok_or_else(|| format!("line {}: `{name}` stands above the first row", number + 1))?;
            out.push(Place { name: name.into(), row });
        }
    }
    Ok(out)
}

/// Every path of `text` that starts at the root of the crate. `depth`: how far the file's module lies below the root.
fn arrows(text: &str, depth: usize) -> Vec<Arrow> {
    let tokens = tokens(text);
    let mut found = Vec::new();
    // Braces that are open, each true where it is the body of `mod x {`, which is one deeper.
    let mut braces: Vec<bool> = Vec::new();
    for (i, (_, token)) in tokens.iter().enumerate() {
        match token {
            Token::Mark('{') => braces.push(is_word(&tokens, i.wrapping_sub(2), "mod")),
            Token::Mark('}') => drop(braces.pop()),
            Token::Word(_) if i == 0 || tokens[i - 1].1 != Token::Colons => {
                let here = depth + braces.iter().filter(|x| **x).count();
                path(&tokens, i, Start::Open, here, &mut found);
            }
            _ => {}
        }
    }
    found
}

fn is_word(tokens: &[(usize, Token)], i: usize, word: &str) -> bool {
    matches!(tokens.get(i), Some((_, Token::Word(w))) if w == word)
}

/// Where a path, or a part of one in a `use` tree, starts.
#[derive(Clone, Copy)]
enum Start {
    /// Anywhere: only `crate`, `self` and `super` are followed.
    Open,
    /// In this many modules below the root.
    At(usize),
}

/// Follows the path that starts at token `i` and notes where it leaves the root. `here`: depth of the module it is in.
fn path(tokens: &[(usize, Token)], mut i: usize, start: Start, here: usize, found: &mut Vec<Arrow>) {
    let mut at = match start {
        Start::At(depth) => Some(depth),
        Start::Open => None,
    };
    loop {
        match tokens.get(i) {
            Some((_, Token::Word(word))) => match (word.as_str(), at) {
                ("crate", None) => at = Some(0),
                ("self", None) => at = Some(here),
                ("super", None) => at = Some(here.saturating_sub(1)),
                ("self", Some(_)) => {}
                ("super", Some(depth)) => at = Some(depth.saturating_sub(1)),
                _ => return leaves_root(tokens, i, at, found),
            },
            Some((_, Token::Mark('*'))) => return leaves_root(tokens, i, at, found),
            Some((_, Token::Mark('{'))) => {
                if let Some(depth) = at {
                    tree(tokens, i, depth, here, found);
                }
                return;
            }
            _ => return,
        }
        // `crate` alone (as in `pub(crate)`) is no path.
        if tokens.get(i + 1).map(|x| &x.1) != Some(&Token::Colons) {
            return;
        }
        i += 2;
    }
}

/// Notes the arrow, when the name (or `*`) at token `i` stands at the root.
fn leaves_root(tokens: &[(usize, Token)], i: usize, at: Option<usize>, found: &mut Vec<Arrow>) {
    if at == Some(0) {
        let to = match &tokens[i].1 {
            Token::Word(word) => word.clone(),
            _ => "*".into(),
        };
        found.push(Arrow { line: tokens[i].0, to });
    }
}

/// Follows every entry of the `{a, b::c, d::{e}}` that opens at token `open`.
fn tree(tokens: &[(usize, Token)], open: usize, depth: usize, here: usize, found: &mut Vec<Arrow>) {
    let mut level = 0;
    for i in open..tokens.len() {
        match tokens[i].1 {
            Token::Mark('{') => level += 1,
            Token::Mark('}') => level -= 1,
            _ => {}
        }
        if level == 0 {
            return;
        }
        // Deeper braces belong to an entry, and `path` has followed them.
        let entry = level == 1 && (i == open || tokens[i].1 == Token::Mark(','));
        if entry {
            path(tokens, i + 1, Start::At(depth), here, found);
        }
    }
}

/// What is wrong with the arrows of one file; `module` is the module of `lib.rs` that it belongs to.
fn wrong(places: &[Place], file: &str, module: &str, depth: usize, text: &str) -> Vec<String> {
    let find = |name: &str| places.iter().position(|x| x.name == name);
    let Some(from) = find(module) else {
        return vec![format!("{file}: `{module}` is not a module of src/lib.rs")];
    };
    let mut out = Vec::new();
    for Arrow { line, to } in arrows(text, depth) {
        match find(&to) {
            Some(target) if target <= from => {}
            Some(target) => out.push(format!(
                "{file}:{line}: {module} -> {to}: row {} may not use {} row {}",
                places[from].row,
                if places[target].row == places[from].row { "what is later in" } else { "the later" },
                places[target].row
            )),
            None => out.push(format!("{file}:{line}: {module} -> {to}: not a module of src/lib.rs")),
        }
    }
    out
}

/// All Rust files below `folder`, in the order of their names.
fn rust_files(folder: &Path, out: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|x| x.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            rust_files(&path, out);
        } else if path.extension().is_some_and(|x| x == "rs") {
            out.push(path);
        }
    }
}

#[test]
fn modules_use_only_what_stands_before_them() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let places = places(&fs::read_to_string(src.join("lib.rs")).unwrap()).unwrap();
    let (mut files, mut mistakes, mut seen) = (Vec::new(), Vec::new(), 0);
    rust_files(&src, &mut files);
    for path in files {
        let below = path.strip_prefix(&src).unwrap();
        if below == Path::new("lib.rs") || below == Path::new("main.rs") {
            continue;
        }
        let mut names: Vec<String> = below.with_extension("").iter().map(|x| x.to_str().unwrap().to_string()).collect();
        if names.last().is_some_and(|x| x == "mod") {
            names.pop();
        }
        let text = fs::read_to_string(&path).unwrap();
        seen += arrows(&text, names.len()).len();
        mistakes.extend(wrong(&places, &format!("src/{}", below.display()), &names[0], names.len(), &text));
    }
    assert!(mistakes.is_empty(), "arrows that the rows of src/lib.rs forbid:\n{}", mistakes.join("\n"));
    assert!(seen > places.len(), "only {seen} arrows were found in all of src; is the reader broken?");
}

const ROWS: &str =
    "// Row 0: a\npub mod error;\n// Row 1: b\npub mod frame;\npub mod config;\n// Row 2: c\nmod source;\n";

/// Arrows found in `text` as part of `frame` (or a file below it), as `line:to`.
fn found(text: &str, depth: usize) -> Vec<String> {
    arrows(text, depth).into_iter().map(|x| format!("{}:{}", x.line, x.to)).collect()
}

#[test]
fn forbidden_arrows_are_named_with_file_and_line() {
    let places = places(ROWS).unwrap();
    let text = "use crate::error::Error;\nuse crate::{error, source::{self, uri}};\n\nuse crate::config::Learn;\n";
    assert_eq!(
        wrong(&places, "src/frame.rs", "frame", 1, text),
        [
            "src/frame.rs:2: frame -> source: row 1 may not use the later row 2",
            "src/frame.rs:4: frame -> config: row 1 may not use what is later in row 1",
        ]
    );
    assert!(wrong(&places, "src/source.rs", "source", 1, text).is_empty());
    assert_eq!(
        wrong(&places, "src/x.rs", "config", 1, "crate::nowhere::f();"),
        ["src/x.rs:1: config -> nowhere: not a module of src/lib.rs"]
    );
    assert_eq!(wrong(&places, "src/new.rs", "new", 1, ""), ["src/new.rs: `new` is not a module of src/lib.rs"]);
}

#[test]
fn every_way_to_write_a_path_is_followed() {
    assert_eq!(found("use crate::{\n    a,\n    b::{c, d},\n    e::*,\n};", 1), ["2:a", "3:b", "4:e"]);
    assert_eq!(found("fn f(x: &crate::a::B) -> crate::c::D { crate::e::f::<crate::g::H>(x) }", 1).len(), 4);
    assert_eq!(found("use crate::*;", 1), ["1:*"]);
    assert_eq!(found("let x = vec![crate::a::B];\n$crate::c!()", 1), ["1:a", "2:c"]);
    // `super` from a file at the top, from a folder, and from a module in the file.
    assert_eq!(found("use super::a;", 1), ["1:a"]);
    assert_eq!(found("use super::a;\nuse super::super::b;\nuse super::{c, super::d};", 2), ["2:b", "3:d"]);
    assert_eq!(found("mod tests {\n use super::*;\n use super::super::a;\n}\nuse super::b;", 1), ["3:a", "5:b"]);
    assert_eq!(found("use self::super::a;", 1), ["1:a"]);
}

#[test]
fn what_is_no_path_is_left_alone() {
    let quiet = [
        "// crate::a\n/* crate::b /* crate::c */ crate::d */ /// [`crate::e`]",
        "let x = \"crate::a \\\" crate::b\"; let y = r#\"crate::c \" crate::d\"#; let z = b\"crate::e\";",
        "let q = '\"'; let r = '\\''; fn f<'a>(x: &'a str) {}",
        "pub(crate) fn f() {} use std::fs; use other::crate_like::x; use self::below::x;",
    ];
    for text in quiet {
        assert_eq!(found(text, 1), Vec::<String>::new(), "{text}");
    }
    // ... and the reader finds its way out of each.
    for text in quiet {
        assert_eq!(found(&format!("{text}\nuse crate::z;"), 1).len(), 1, "{text}");
    }
}

#[test]
fn rows_must_rise_one_by_one() {
    assert_eq!(places(ROWS).unwrap().iter().map(|x| x.row).collect::<Vec<_>>(), [0, 1, 1, 2]);
    for text in ["pub mod a;", "// Row 1: a\npub mod a;", "// Row 0: a\n// Row 2: b\npub mod c;", "// Row x: a"] {
        assert!(places(text).is_err(), "{text}");
    }
}
