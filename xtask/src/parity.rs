//! The parity pages: every row says `yes`, `partial` or `no`, and every test that it names exists.
//!
//! A page is `docs/parity/*.md`; a row is `| feature | yes | test_name, other_test |`. A `yes` without a test, and a
//! test that stands nowhere in the sources, fail the check.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail};

use crate::run::{output, root};

pub(crate) fn run() -> Result<()> {
    let tests = known_tests()?;
    let mut complaints = Vec::new();
    let mut counts = [0usize; 3];
    let pages = root().join("docs/parity");
    for entry in std::fs::read_dir(&pages).with_context(|| format!("cannot read {}", pages.display()))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        for (number, line) in std::fs::read_to_string(&path)?.lines().enumerate() {
            if let Some(row) = Row::parse(line) {
                let at = format!("docs/parity/{name}:{}", number + 1);
                match row.claim {
                    "yes" => counts[0] += 1,
                    "partial" => counts[1] += 1,
                    "no" => counts[2] += 1,
                    other => complaints.push(format!("{at}: {other:?} is neither yes, partial nor no")),
                }
                row.check(&at, &tests, &mut complaints);
            }
        }
    }
    for complaint in &complaints {
        eprintln!("parity: {complaint}");
    }
    if !complaints.is_empty() {
        bail!("{} complaints", complaints.len());
    }
    println!("parity: {} yes, {} partial, {} no", counts[0], counts[1], counts[2]);
    Ok(())
}

struct Row<'a> {
    feature: &'a str,
    claim: &'a str,
    tests: Vec<&'a str>,
}

impl<'a> Row<'a> {
    /// A table's row of at least three cells that is neither its head nor its rule.
    fn parse(line: &'a str) -> Option<Self> {
        let cells: Vec<&str> = line.trim().strip_prefix('|')?.strip_suffix('|')?.split('|').map(str::trim).collect();
        let [feature, claim, tests, ..] = cells.as_slice() else { return None };
        if feature.starts_with("---") || claim.starts_with("---") || *feature == "feature" {
            return None;
        }
        let tests = tests
            .split([',', ' '])
            .map(|test| test.trim_matches('`'))
            .filter(|test| test.contains('_') || test.contains("::"))
            .collect();
        Some(Self { feature, claim, tests })
    }

    fn check(&self, at: &str, known: &BTreeSet<String>, complaints: &mut Vec<String>) {
        if self.claim == "yes" && self.tests.is_empty() {
            complaints.push(format!("{at}: {:?} claims yes and names no test", self.feature));
        }
        for test in &self.tests {
            let name = test.rsplit("::").next().unwrap_or(test);
            if !known.contains(name) {
                complaints.push(format!("{at}: there is no test {test}"));
            }
        }
    }
}

/// The names of all functions under a test attribute, read from the sources (no build needed).
fn known_tests() -> Result<BTreeSet<String>> {
    let mut tests = BTreeSet::new();
    let listed = output("git", &["ls-files", "--cached", "--others", "--exclude-standard", "*.rs"])?;
    for file in listed.lines() {
        let Ok(text) = std::fs::read_to_string(root().join(file)) else { continue };
        let mut attributed = false;
        for line in text.lines().map(str::trim) {
            if line.starts_with("#[test")
                || line.contains("::test]")
                || line.contains("::test(")
                || line.starts_with("proptest!")
            {
                attributed = true;
            } else if let Some(rest) =
                line.strip_prefix("fn ").or_else(|| line.strip_prefix("async fn ")).filter(|_| attributed)
            {
                tests.insert(rest.split(['(', '<']).next().unwrap_or_default().to_owned());
                attributed = false;
            } else if !line.starts_with("#[") && !line.starts_with("//") && !line.is_empty() {
                attributed = false;
            }
        }
    }
    Ok(tests)
}
