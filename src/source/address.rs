//! The name of a source, with its secrets kept apart. See [`Address`].
use std::fmt::{self, Write};
use std::ops::Range;
use std::path::Path;

/// The text that replaces a secret.
const HIDDEN: &str = "***";
/// Schemes followed by a path, a number or a synthetic source: they hold no secrets.
const LOCAL: &[&str] = &["v4l2", "csi", "dir", "file", "pattern"];
/// Parts of parameter names whose values are secret: only letters and digits, lower case.
const KEYS: &[&str] = &["pass", "psw", "pwd", "token", "secret", "auth", "key", "credential", "signature", "session"];
/// Complete parameter names whose values are secret.
const WHOLE_KEYS: &[&str] = &["pw", "pas", "userpw", "sig", "sid", "jwt"];
/// A secret with fewer bytes is only removed from other texts together with its neighbours.
const LEAST_ALONE: usize = 3;

/// The name of a source as the user gave it. [`Display`](fmt::Display) and [`Debug`] hide its secrets (user
/// information, and the values of `password=`, `token=` and the like), so they appear in no message, log or file. Only
/// [`Address::reveal`] returns the full text.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    text: String,
    /// Byte ranges of the secrets in `text`: sorted, separate, never empty.
    hidden: Vec<Range<usize>>,
}

impl Address {
    /// Finds the secrets in `text`. If the text can be read in two ways, both candidates are hidden: a password may
    /// hold any character, and the user may have mistyped the address.
    pub fn new(text: &str) -> Self {
        let mut hidden = Vec::new();
        match kind(text) {
            AddressKind::Local => {}
            AddressKind::Pipeline(from) => {
                for word in words(text, from) {
                    in_word(text, word, &mut hidden);
                }
            }
            AddressKind::Network(from) => in_address(text, from..text.len(), &mut hidden),
        }
        Self { text: text.to_owned(), hidden: merged(hidden) }
    }

    /// The full text including secrets, for the code that opens the source.
    pub fn reveal(&self) -> &str {
        &self.text
    }

    /// True if [`Address::reveal`] returns something that is not shown.
    pub fn has_secrets(&self) -> bool {
        !self.hidden.is_empty()
    }

    /// The address without its secrets.
    pub fn shown(&self) -> String {
        let mut out = String::with_capacity(self.text.len());
        let mut at = 0;
        for Range { start, end } in self.hidden.iter().cloned() {
            out.push_str(self.text.get(at..start).unwrap_or_default());
            out.push_str(HIDDEN);
            at = end;
        }
        out.push_str(self.text.get(at..).unwrap_or_default());
        out
    }

    /// Removes the secrets from `words`, the output of a program that knows the full address, such as a decoder. Finds
    /// secrets as they are, in the pieces that special characters of an address split them into, and with or without
    /// `%` escapes.
    pub fn scrub(&self, words: &str) -> String {
        let mut out = words.to_owned();
        for needle in self.needles() {
            out = out.replace(&needle, HIDDEN);
        }
        out
    }

    /// The texts that must not appear elsewhere, longest first.
    fn needles(&self) -> Vec<String> {
        let mut all = Vec::new();
        for range in &self.hidden {
            let whole = self.text.get(range.clone()).unwrap_or_default();
            let bare = whole.trim_matches(['"', '\'']);
            let decoded = unescaped(bare);
            // Without the shell escapes of a pipeline.
            let plain = bare.replace('\\', "");
            for form in [whole, bare, &decoded, &plain] {
                all.extend([form.to_owned(), escaped(form)]);
                all.extend(form.split(|c: char| !c.is_alphanumeric()).map(str::to_owned));
            }
            // Short secrets together with their neighbours, such as `:a@`.
            let around = |at: usize, step: isize| {
                let near = at.checked_add_signed(step).filter(|near| self.text.is_char_boundary(*near));
                near.map(|near| near.min(at)..near.max(at)).and_then(|range| self.text.get(range)).unwrap_or_default()
            };
            let short = whole.len() < LEAST_ALONE;
            all.extend(short.then(|| format!("{}{whole}{}", around(range.start, -1), around(range.end, 1))));
        }
        all.retain(|needle| needle.len() >= LEAST_ALONE);
        all.sort_unstable_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        all.dedup();
        all
    }
}

impl From<&str> for Address {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl From<&String> for Address {
    fn from(text: &String) -> Self {
        Self::new(text)
    }
}

impl From<String> for Address {
    fn from(text: String) -> Self {
        Self::new(&text)
    }
}

impl From<&Address> for Address {
    fn from(address: &Address) -> Self {
        address.clone()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.shown().chars() {
            // A line break in a name must not start a new line of output.
            if c.is_control() { write!(f, "{}", c.escape_default())? } else { f.write_char(c)? }
        }
        Ok(())
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.shown())
    }
}

/// Where a text may hold secrets, with the position after its scheme.
enum AddressKind {
    Local,
    Pipeline(usize),
    Network(usize),
}

fn kind(text: &str) -> AddressKind {
    let start = text.len() - text.trim_start().len();
    let word = text.get(start..).unwrap_or_default();
    let scheme = word.split(':').next().filter(|before| before.len() < word.len()).unwrap_or_default();
    let lower = scheme.to_ascii_lowercase();
    let after = start + scheme.len() + 1;
    if LOCAL.contains(&lower.as_str()) {
        return AddressKind::Local;
    }
    if lower == "gst" {
        return AddressKind::Pipeline(after);
    }
    let is_word = !scheme.is_empty() && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
    if is_word && (lower.starts_with("rtsp") || word.get(scheme.len()..).is_some_and(|rest| rest.starts_with(":/"))) {
        return AddressKind::Network(after);
    }
    // A mistyped address (`rtsp//me:secret@host`, `me:secret@host`, in quotes)? A file may have such a name, too.
    let address = word.contains("://") || word.find(':').is_some_and(|colon| word[colon..].contains('@'));
    if address && !Path::new(text).exists() {
        return AddressKind::Network(start);
    }
    AddressKind::Local
}

/// Finds the secrets of an address; `range` begins after its scheme.
fn in_address(text: &str, range: Range<usize>, hidden: &mut Vec<Range<usize>>) {
    let rest = text.get(range.clone()).unwrap_or_default();
    let slashes = rest.len() - rest.trim_start_matches('/').len();
    let rest = rest.get(slashes..).unwrap_or_default();
    let from = range.start + slashes;
    // By the standard the host ends before `/`, `?` or `#`, but an unescaped password may contain these.
    let host_end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let own = rest.get(..host_end).unwrap_or_default().rfind('@');
    let last = rest.rfind('@');
    if let Some(end) = last {
        let user = rest.get(..end).unwrap_or_default();
        match user.find(':') {
            Some(colon) => hidden.push(from + colon + 1..from + end),
            // A user name alone may be a token.
            None => hidden.push(from..from + end),
        }
    }
    // Any `name=value` in the query or the path.
    let after = own.map_or(0, |at| at + 1);
    let tail = rest.get(after..).unwrap_or_default();
    let mut open = false;
    let mut at = from + after;
    for part in tail.split_inclusive('&') {
        let value = part.trim_end_matches('&');
        match secret_value(value) {
            Some(begin) => {
                hidden.push(at + begin..at + value.len());
                open = true;
            }
            // The `&` may be part of the secret before it.
            None if open && !value.contains('=') => hidden.push(at..at + value.len()),
            None => open = false,
        }
        at += part.len();
    }
}

/// Finds the secrets in a word of a pipeline: `property=value`, where the value may be an address.
fn in_word(text: &str, range: Range<usize>, hidden: &mut Vec<Range<usize>>) {
    let word = text.get(range.clone()).unwrap_or_default();
    let Some(equals) = word.find('=') else { return };
    if is_secret(word.get(..equals).unwrap_or_default()) {
        hidden.push(range.start + equals + 1..range.end);
        return;
    }
    let value = word.get(equals + 1..).unwrap_or_default();
    if let Some(colon) = value.find(":/") {
        let end = range.end - (value.len() - value.trim_end_matches(['"', '\'']).len());
        in_address(text, range.start + equals + 1 + colon + 1..end, hidden);
    } else if let Some(begin) = secret_value(value) {
        // As in a structure: extra="x,password=...".
        hidden.push(range.start + equals + 1 + begin..range.end);
    }
}

/// Where the value of the first `key=` in `text` with a secret name begins.
fn secret_value(text: &str) -> Option<usize> {
    let equals = text.match_indices('=').map(|(at, _)| at);
    let named = |at: &usize| {
        let before = text.get(..*at).unwrap_or_default();
        let key = before.rfind(|c: char| "/?#;,=".contains(c)).map_or(0, |sign| sign + 1);
        is_secret(before.get(key..).unwrap_or_default())
    };
    equals.into_iter().find(named).map(|at| at + 1)
}

fn is_secret(key: &str) -> bool {
    let plain: String = unescaped(key).to_lowercase().chars().filter(|c| c.is_alphanumeric()).collect();
    KEYS.iter().any(|part| plain.contains(part)) || WHOLE_KEYS.contains(&plain.as_str())
}

/// The words of a pipeline from byte `from` on, split as a shell does.
fn words(text: &str, from: usize) -> Vec<Range<usize>> {
    let (mut all, mut start, mut quote, mut escaped) = (Vec::new(), None::<usize>, None::<char>, false);
    for (at, c) in text.char_indices().filter(|(at, _)| *at >= from) {
        if c.is_whitespace() && quote.is_none() && !escaped {
            all.extend(start.take().map(|start| start..at));
            continue;
        }
        start.get_or_insert(at);
        match quote {
            _ if escaped => escaped = false,
            Some('"') | None if c == '\\' => escaped = true,
            Some(open) if c == open => quote = None,
            None if "\"'".contains(c) => quote = Some(c),
            _ => {}
        }
    }
    all.extend(start.map(|start| start..text.len()));
    all
}

/// Sorts the ranges, and merges those that touch or overlap.
fn merged(mut ranges: Vec<Range<usize>>) -> Vec<Range<usize>> {
    ranges.retain(|range| !range.is_empty());
    ranges.sort_unstable_by_key(|range| range.start);
    let mut out: Vec<Range<usize>> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match out.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => out.push(range),
        }
    }
    out
}

/// Decodes `%xx` to bytes.
fn unescaped(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let Some((first, after)) = rest.split_first() {
        let pair = after.get(..2).filter(|_| *first == b'%').and_then(|two| std::str::from_utf8(two).ok());
        match pair.and_then(|two| u8::from_str_radix(two, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Encodes every byte with a special meaning in an address as `%xx`.
fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().fold(String::new(), |mut out, byte| {
        if plain(byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a `String` cannot fail.
            write!(out, "%{byte:02X}").ok();
        }
        out
    })
}

#[cfg(test)]
#[path = "address_tests.rs"]
mod tests;
