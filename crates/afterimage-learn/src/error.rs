//! The one error type: a kind, which sets the exit code, and a message that says what was asked, what was found, where, and what to do.
use std::fmt::Display;
use std::io;
use std::path::Path;

/// What kind of failure it is; decides the exit code of the binary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// A flag or argument that makes no sense: exit code 2.
    Usage,
    /// A config file or key that cannot be used: exit code 78 (`EX_CONFIG`).
    Config,
    /// A check, gate or comparison said no: exit code 3.
    CheckFailed,
    /// No room left on the disk; work goes on in memory where it can: exit code 1.
    DiskFull,
    /// A file is there and was read, and is not what was written: cut, changed, of no format. Exit code 1.
    Damaged,
    /// What is there cannot be read (rights, a broken disk, a folder or a pipe in its place): nothing is known of what it
    /// holds, so nothing takes its place. Exit code 1.
    Unreadable,
    /// A live source or decoder gave nothing for too long: exit code 1.
    Stalled,
    /// Everything else that failed at work: exit code 1.
    Runtime,
}

/// An error with its [`ErrorKind`] and, where there is one, the error below it.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    kind: ErrorKind,
    message: String,
    #[source]
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// `Result` with [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error of `kind`. The message says what was asked, what was found, where, and what to do.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }
    /// Bad flags or arguments.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Usage, message)
    }
    /// Bad config.
    pub fn config(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Config, message)
    }
    /// A check or gate that said no.
    pub fn check_failed(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::CheckFailed, message)
    }
    /// A file that is not what was written.
    pub fn damaged(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Damaged, message)
    }
    /// A failure at work.
    pub fn runtime(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Runtime, message)
    }
    /// Nothing came for too long.
    pub fn stalled(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Stalled, message)
    }
    /// Keeps the error below this one, so that the whole chain is printed.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }
    /// An I/O error at `path` while doing `what`; a full disk gets its own kind.
    pub fn io(what: impl Display, path: &Path, error: io::Error) -> Self {
        let full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        let kind = if full { ErrorKind::DiskFull } else { ErrorKind::Runtime };
        Self::new(kind, format!("{what} {}", path.display())).with_source(error)
    }
    /// An I/O error while reading `path`; what is not there is a failure at work, anything else is [`ErrorKind::Unreadable`].
    pub fn unreadable(path: &Path, error: io::Error) -> Self {
        let kind = if error.kind() == io::ErrorKind::NotFound { ErrorKind::Runtime } else { ErrorKind::Unreadable };
        Self::new(kind, format!("cannot read {}", path.display())).with_source(error)
    }
    /// The kind.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
    /// Exit code of the binary: 1 failed at work, 2 usage, 3 a check or a gate said no, 78 config.
    pub fn exit_code(&self) -> u8 {
        match self.kind {
            ErrorKind::Usage => 2,
            ErrorKind::Config => 78,
            ErrorKind::CheckFailed => 3,
            ErrorKind::DiskFull
            | ErrorKind::Damaged
            | ErrorKind::Unreadable
            | ErrorKind::Stalled
            | ErrorKind::Runtime => 1,
        }
    }
    /// The message with every cause, `: ` between them. What a cause says that the one above it has said already, as errors
    /// of many crates do, is not said again.
    pub fn chain(&self) -> String {
        let (mut out, mut above) = (self.message.clone(), self.message.clone());
        let mut next = std::error::Error::source(self);
        while let Some(e) = next {
            let said = e.to_string();
            if !above.contains(&said) {
                out.push_str(": ");
                out.push_str(&said);
                above = said;
            }
            next = e.source();
        }
        out
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn nothing_is_said_twice() {
        let inner = Error::runtime("the disk").with_source(io::Error::other("full"));
        assert_eq!(Error::runtime("cannot write").with_source(inner).chain(), "cannot write: the disk: full");
        // Its text has that of its cause.
        #[derive(Debug, thiserror::Error)]
        #[error("cannot decode: {0}")]
        struct Repeats(#[source] io::Error);
        let (picture, cause) = (Repeats(io::Error::other("an odd byte")), "an odd byte");
        let chain = Error::runtime("damaged").with_source(picture).chain();
        assert_eq!(chain.matches(cause).count(), 1, "{chain}");
        // A different cause below a repeated one is still said.
        let wrapped = io::Error::other(Error::runtime("a").with_source(io::Error::other("b")));
        assert_eq!(Error::runtime("top").with_source(wrapped).chain(), "top: a: b");
    }
}
