//! The findings of `doctor` and `check`: one line each, with a remedy if something is wrong.
use serde_json::{Value, json};

use super::{CommandResult, Output};
use crate::error::Error;

/// How serious a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    /// Everything is fine.
    Ok,
    /// Works, but the user should know.
    Warn,
    /// Does not work; the value is the exit code for it.
    Fail(u8),
}

/// One line of the report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Diagnostic {
    pub(super) status: Status,
    pub(super) what: String,
    pub(super) found: String,
    /// The remedy; empty if none is needed.
    pub(super) todo: String,
}

/// Findings in the order in which they were made.
#[derive(Debug, Default)]
pub(super) struct Diagnostics {
    list: Vec<Diagnostic>,
}

impl Diagnostics {
    fn add(&mut self, status: Status, what: impl Into<String>, found: impl Into<String>, todo: impl Into<String>) {
        self.list.push(Diagnostic { status, what: what.into(), found: found.into(), todo: todo.into() });
    }

    pub(super) fn ok(&mut self, what: impl Into<String>, found: impl Into<String>) {
        self.add(Status::Ok, what, found, "");
    }

    pub(super) fn warn(&mut self, what: impl Into<String>, found: impl Into<String>, todo: impl Into<String>) {
        self.add(Status::Warn, what, found, todo);
    }

    /// Adds a failed check, with exit code 3.
    pub(super) fn fail(&mut self, what: impl Into<String>, found: impl Into<String>, todo: impl Into<String>) {
        self.add(Status::Fail(3), what, found, todo);
    }

    /// Adds an error, whose message includes the remedy, with the exit code of its kind.
    pub(super) fn error(&mut self, what: impl Into<String>, error: &Error) {
        self.add(Status::Fail(error.exit_code()), what, error.chain(), "");
    }

    /// The report. Its exit code is that of the first failure, or 0 without one; `code` overrides the code of a
    /// failure.
    pub(super) fn done(self, as_json: bool, code: Option<u8>) -> CommandResult {
        let failed = self.list.iter().find_map(|finding| match finding.status {
            Status::Fail(own) => Some(code.unwrap_or(own)),
            _ => None,
        });
        let text = self.list.iter().map(Diagnostic::line).collect::<Vec<_>>().join("\n");
        let json = self.list.iter().map(Diagnostic::json).collect();
        CommandResult { output: Output { text, json: Value::Array(json), as_json }, exit_code: failed.unwrap_or(0) }
    }
}

impl Diagnostic {
    fn word(&self) -> &'static str {
        match self.status {
            Status::Ok => "ok",
            Status::Warn => "warn",
            Status::Fail(_) => "fail",
        }
    }

    fn line(&self) -> String {
        let Self { what, found, todo, .. } = self;
        let todo = if todo.is_empty() { String::new() } else { format!("; {todo}") };
        // Indent the further lines of a message below its first.
        format!("{:4}  {what}: {found}{todo}", self.word()).replace('\n', "\n      ")
    }

    fn json(&self) -> Value {
        json!({ "status": self.word(), "what": self.what, "found": self.found, "todo": self.todo })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_failure_decides_and_everything_is_listed() {
        let mut all = Diagnostics::default();
        all.ok("a", "fine");
        all.warn("b", "odd", "look");
        assert_eq!(Diagnostics::default().done(true, None).exit_code, 0);
        all.error("c", &Error::config("two\n  mistakes"));
        all.fail("d", "broken", "mend");
        let done = all.done(false, None);
        assert_eq!(done.exit_code, 78);
        let text = "ok    a: fine\nwarn  b: odd; look\nfail  c: two\n        mistakes\nfail  d: broken; mend";
        assert_eq!(done.output.text, text);
        let last = json!({ "status": "fail", "what": "d", "found": "broken", "todo": "mend" });
        assert_eq!(done.output.json[3], last);
    }

    #[test]
    fn warnings_do_not_fail_and_the_code_can_be_given() {
        let mut all = Diagnostics::default();
        all.warn("b", "odd", "look");
        assert_eq!(all.done(false, Some(3)).exit_code, 0);
        let mut all = Diagnostics::default();
        all.error("c", &Error::runtime("gone"));
        assert_eq!(all.done(false, Some(3)).exit_code, 3);
    }
}
