//! The text format of Prometheus (exposition format 0.0.4): families of samples, each with its help and type.
use std::fmt::Write as _;

/// Text that grows family by family.
#[derive(Debug, Default)]
pub struct Page {
    text: String,
    family: String,
}

impl Page {
    /// Begins a family; its samples follow. `kind`: `counter`, `gauge` or `histogram`.
    pub fn family(&mut self, name: &str, kind: &str, help: &str) -> &mut Self {
        // Writing to a string cannot fail.
        let _ = writeln!(self.text, "# HELP {name} {}\n# TYPE {name} {kind}", escaped(help, false));
        name.clone_into(&mut self.family);
        self
    }

    /// A sample of the family.
    pub fn sample(&mut self, labels: &[(&str, &str)], value: impl Into<Number>) -> &mut Self {
        self.part("", labels, value)
    }

    /// A sample whose name goes on with `end` (`_bucket`, `_sum`, `_count`).
    pub fn part(&mut self, end: &str, labels: &[(&str, &str)], value: impl Into<Number>) -> &mut Self {
        let _ = write!(self.text, "{}{end}", self.family);
        for (i, (name, value)) in labels.iter().enumerate() {
            let _ = write!(self.text, "{}{name}=\"{}\"", if i == 0 { '{' } else { ',' }, escaped(value, true));
        }
        let _ = match value.into() {
            Number::Whole(n) => writeln!(self.text, "{} {n}", if labels.is_empty() { "" } else { "}" }),
            Number::Real(x) => writeln!(self.text, "{} {x}", if labels.is_empty() { "" } else { "}" }),
        };
        self
    }

    /// The whole text.
    pub fn finish(self) -> String {
        self.text
    }
}

/// The value of a sample. Whole numbers stay exact.
#[derive(Debug, Clone, Copy)]
pub enum Number {
    /// A count.
    Whole(u64),
    /// A measure.
    Real(f64),
}

impl From<u64> for Number {
    fn from(n: u64) -> Self {
        Self::Whole(n)
    }
}

impl From<usize> for Number {
    fn from(n: usize) -> Self {
        Self::Whole(n as u64)
    }
}

impl From<bool> for Number {
    fn from(on: bool) -> Self {
        Self::Whole(on.into())
    }
}

impl From<f64> for Number {
    fn from(x: f64) -> Self {
        Self::Real(x)
    }
}

/// A backslash, a line feed and, in labels, a quote are escaped.
fn escaped(text: &str, label: bool) -> String {
    let text = text.replace('\\', "\\\\").replace('\n', "\\n");
    if label { text.replace('"', "\\\"") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_label_holds_is_escaped() {
        let mut page = Page::default();
        page.family("a_total", "counter", "Two\nlines, a \\ and \"quotes\".");
        page.sample(&[("x", "a\"b\\c\nd"), ("y", "")], 3u64).sample(&[], 0.5);
        assert_eq!(
            page.finish(),
            "# HELP a_total Two\\nlines, a \\\\ and \"quotes\".\n# TYPE a_total counter\n\
             a_total{x=\"a\\\"b\\\\c\\nd\",y=\"\"} 3\na_total 0.5\n"
        );
    }
}
