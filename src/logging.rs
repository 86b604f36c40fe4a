//! Log lines on standard error, with the control characters of foreign text escaped.
use std::io::IsTerminal;

use tracing_subscriber::field::RecordFields;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::{DefaultFields, Writer};
use tracing_subscriber::fmt::time::uptime;
use tracing_subscriber::prelude::*;

/// Lines with this target answer a request, and are shown whatever the verbosity.
pub const ALWAYS: &str = "asked";

/// Writes log lines to standard error, one per event: seconds since the start, level, text. They are coloured only on a
/// terminal and unless `NO_COLOR` is set. `verbosity` is the number of `-v` minus the number of `-q`: 0 shows info, 1 debug,
/// 2 trace; -1 shows warnings, -2 errors, less than that nothing. ONNX Runtime logs one level lower. A second call does
/// nothing.
pub fn init_logging(verbosity: i8) {
    let level = |verbosity: i8| match verbosity {
        ..=-3 => LevelFilter::OFF,
        -2 => LevelFilter::ERROR,
        -1 => LevelFilter::WARN,
        0 => LevelFilter::INFO,
        1 => LevelFilter::DEBUG,
        2.. => LevelFilter::TRACE,
    };
    let shown = Targets::new()
        .with_default(level(verbosity))
        .with_target("ort", level(verbosity.saturating_sub(1)))
        .with_target(ALWAYS, LevelFilter::INFO);
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let lines = tracing_subscriber::fmt::layer().compact().with_target(false).with_timer(uptime());
    let lines = lines.with_ansi(colour).map_fmt_fields(|_| Escaped).with_writer(std::io::stderr).with_filter(shown);
    // The only possible error is that logging is already set up.
    drop(tracing_subscriber::registry().with(lines).try_init());
}

/// Escapes the control characters in the text of an event: file names and output of other programs are untrusted, and must
/// not start a log line that looks like ours or move the cursor.
struct Escaped;

impl<'writer> FormatFields<'writer> for Escaped {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'writer>, fields: R) -> std::fmt::Result {
        let mut text = String::new();
        DefaultFields::new().format_fields(Writer::new(&mut text), fields)?;
        escaped(&text, &mut writer)
    }
}

fn escaped(text: &str, out: &mut dyn std::fmt::Write) -> std::fmt::Result {
    // `char::is_control` leaves out the marks of writing direction, which can make one name look like another.
    let is_direction_mark =
        |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    for c in text.chars() {
        if c.is_control() || is_direction_mark(c) { write!(out, "{}", c.escape_default())? } else { out.write_char(c)? }
    }
    Ok(())
}

/// Escapes the control characters of an error message, except line breaks followed by the indentation of a list.
pub fn printable(text: &str) -> String {
    let mut out = String::new();
    for (at, part) in text.split("\n  ").enumerate() {
        out += if at == 0 { "" } else { "\n  " };
        // Writing to a string cannot fail.
        escaped(part, &mut out).ok();
    }
    out
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn names_of_files_cannot_write_log_lines_of_their_own() {
        let mut out = String::new();
        escaped("a\nb\r\u{1b}[2Jc\t\u{9b}31m\u{202e}gpj \u{e9}\u{7f}", &mut out).unwrap();
        assert_eq!(out, r"a\nb\r\u{1b}[2Jc\t\u{9b}31m\u{202e}gpj é\u{7f}");
    }

    #[test]
    fn a_list_of_mistakes_keeps_its_lines_and_nothing_else() {
        assert_eq!(printable("two mistakes:\n  a\nb: c\n  d\u{1b}[K"), "two mistakes:\n  a\\nb: c\n  d\\u{1b}[K");
    }

    #[test]
    fn logging_can_be_set_up_twice() {
        init_logging(-3);
        init_logging(i8::MIN);
        tracing::error!("not shown");
    }
}
