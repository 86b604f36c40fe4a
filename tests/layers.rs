//! Checks the module order of the root package: each module uses only modules listed before it in `src/lib.rs`. (Cargo
//! enforces the order of the crates.)
//!
//! The test reads every path in `src/**/*.rs` that starts at the crate root: `crate::x`, `use crate::{a, b::c}`, and
//! `super::x` in files directly below the root. Test code counts: a module whose tests need a later one is in the wrong
//! place. `src/main.rs` comes last, above all modules.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// A path to a module of the root: line and name.
type Arrow = (usize, String);

/// The modules that `lib.rs` declares, in order, and the names that it takes from other crates.
fn modules(lib: &str) -> (Vec<String>, Vec<String>) {
    let file = syn::parse_file(lib).unwrap();
    let (mut own, mut foreign) = (Vec::new(), Vec::new());
    for item in file.items {
        match item {
            syn::Item::Mod(module) => own.push(module.ident.to_string()),
            syn::Item::Use(item) => names(&item.tree, &mut foreign),
            _ => {}
        }
    }
    (own, foreign)
}

/// The names that a `use` brings.
fn names(tree: &syn::UseTree, out: &mut Vec<String>) {
    match tree {
        syn::UseTree::Path(path) => names(&path.tree, out),
        syn::UseTree::Name(name) => out.push(name.ident.to_string()),
        syn::UseTree::Rename(rename) => out.push(rename.rename.to_string()),
        syn::UseTree::Group(group) => group.items.iter().for_each(|item| names(item, out)),
        syn::UseTree::Glob(_) => {}
    }
}

/// Every path of `text` that starts at the root. `depth`: how far the file's module lies below the root.
fn arrows(text: &str, depth: usize) -> Vec<Arrow> {
    let mut found = Vec::new();
    scan(&text.parse::<TokenStream>().unwrap().into_iter().collect::<Vec<_>>(), depth, &mut found);
    found
}

fn scan(tokens: &[TokenTree], depth: usize, found: &mut Vec<Arrow>) {
    for (i, token) in tokens.iter().enumerate() {
        let within_path = i > 1 && is_mark(&tokens[i - 1], ':') && is_mark(&tokens[i - 2], ':');
        match token {
            TokenTree::Group(group) => {
                // The body of `mod x { ... }` is one deeper.
                let body = group.delimiter() == Delimiter::Brace && i > 1 && is_word(&tokens[i - 2], "mod");
                let inner: Vec<_> = group.stream().into_iter().collect();
                scan(&inner, depth + usize::from(body), found);
            }
            TokenTree::Ident(_) if !within_path => follow(&tokens[i..], depth, found),
            _ => {}
        }
    }
}

/// Follows `crate::` or `super::super::` at the beginning of `tokens`, and notes what stands at the root.
fn follow(tokens: &[TokenTree], depth: usize, found: &mut Vec<Arrow>) {
    let (mut rest, mut at) = (tokens, None);
    while let [word, first, second, ..] = rest {
        at = match at {
            None if is_word(word, "crate") => Some(0),
            None if is_word(word, "self") => Some(depth),
            None if is_word(word, "super") => Some(depth.saturating_sub(1)),
            Some(deep) if is_word(word, "super") => Some(deep - usize::from(deep > 0)),
            _ => break,
        };
        if !(is_mark(first, ':') && is_mark(second, ':')) {
            return;
        }
        rest = &rest[3..];
    }
    match (at, rest.first()) {
        (Some(0), Some(TokenTree::Group(group))) => {
            let inner: Vec<_> = group.stream().into_iter().collect();
            for entry in inner.split(|token| is_mark(token, ',')) {
                found.extend(entry.first().map(arrow));
            }
        }
        (Some(0), Some(token)) => found.push(arrow(token)),
        _ => {}
    }
}

fn arrow(token: &TokenTree) -> Arrow {
    (token.span().start().line, token.to_string())
}

fn is_word(token: &TokenTree, word: &str) -> bool {
    matches!(token, TokenTree::Ident(ident) if ident == word)
}

fn is_mark(token: &TokenTree, mark: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == mark)
}

/// All Rust files below `folder`.
fn rust_files(folder: &Path, out: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
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
    let (own, foreign) = modules(&fs::read_to_string(src.join("lib.rs")).unwrap());
    let (mut files, mut mistakes, mut seen) = (Vec::new(), Vec::new(), 0);
    rust_files(&src, &mut files);
    for path in files {
        let below = path.strip_prefix(&src).unwrap();
        if below == Path::new("lib.rs") || below == Path::new("main.rs") {
            continue;
        }
        let module = below.with_extension("");
        let names: Vec<&str> = module.iter().map(|x| x.to_str().unwrap()).filter(|x| *x != "mod").collect();
        let from = own.iter().position(|name| name == names[0]).expect("a file of no module");
        for (line, to) in arrows(&fs::read_to_string(&path).unwrap(), names.len()) {
            seen += 1;
            let target = own.iter().position(|name| *name == to);
            if !foreign.contains(&to) && target.is_none_or(|target| target > from) {
                mistakes.push(format!("src/{}:{line}: {} may not use {to}", below.display(), names[0]));
            }
        }
    }
    assert!(mistakes.is_empty(), "against the order of src/lib.rs:\n{}", mistakes.join("\n"));
    assert!(seen > own.len(), "only {seen} paths were found in all of src; is the reader broken?");
}

#[test]
fn every_way_to_write_a_path_is_followed() {
    let found = |text: &str, depth| arrows(text, depth).into_iter().map(|(_, to)| to).collect::<Vec<_>>();
    assert_eq!(found("use crate::{\n a,\n b::{c, d},\n e::*,\n};", 1), ["a", "b", "e"]);
    assert_eq!(
        found("fn f(x: &crate::a::B) -> crate::c::D { crate::e::f::<crate::g::H>(x) }", 1),
        ["a", "c", "e", "g"]
    );
    assert_eq!(found("let x = vec![crate::a::B];", 1), ["a"]);
    assert_eq!(found("use super::a;", 1), ["a"]);
    assert_eq!(found("use super::a;\nuse super::super::b;", 2), ["b"]);
    assert_eq!(found("mod tests {\n use super::*;\n use super::super::a;\n}\nuse super::b;", 1), ["a", "b"]);
    let quiet = "// crate::a\npub(crate) fn f() { let x = \"crate::b\"; } use std::fs; use other::crate_like::x;";
    assert!(found(quiet, 1).is_empty());
    assert_eq!(
        modules("pub use x::{a, b as c};\nmod d;\npub mod e;"),
        (vec!["d".into(), "e".into()], vec!["a".into(), "c".into()])
    );
}
