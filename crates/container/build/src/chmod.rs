//! `--chmod`: octal, or symbolic as chmod(1) has it (pure).
//!
//! COPY and ADD parse it once and apply it to each file's own mode. Invariant: only the twelve permission bits change.

/// A parsed `--chmod`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub(crate) enum Chmod {
    Octal(u32),
    Symbolic(Vec<Clause>),
}

/// `ug+rX`: whom it concerns, how, and which permissions.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Clause {
    /// Mask of the classes: 0o4700 user, 0o2070 group, 0o1007 others.
    who: u32,
    operator: char,
    permissions: String,
}

impl Chmod {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let refused = || {
            format!("invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777, or symbolic")
        };
        if text.starts_with(|c: char| c.is_ascii_digit()) {
            let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777).ok_or_else(refused)?;
            return Ok(Self::Octal(mode));
        }
        let mut clauses = Vec::new();
        for part in text.split(',') {
            let operator_at = part.find(['+', '-', '=']).ok_or_else(refused)?;
            let who = part[..operator_at].chars().try_fold(0, |mask, class| class_mask(class).map(|m| mask | m));
            let who = who.ok_or_else(refused)?;
            let mut rest = &part[operator_at..];
            // One list of classes may have several operators: `u=rw+x`.
            while let Some(operator) = rest.chars().next() {
                let end = rest[1..].find(['+', '-', '=']).map_or(rest.len(), |found| found + 1);
                let permissions = rest[1..end].to_owned();
                if !permissions.chars().all(|c| "rwxXstugo".contains(c)) {
                    return Err(refused());
                }
                clauses.push(Clause { who: if who == 0 { 0o7777 } else { who }, operator, permissions });
                rest = &rest[end..];
            }
        }
        Ok(Self::Symbolic(clauses))
    }

    /// The mode that a file of this mode gets.
    pub(crate) fn apply(&self, mode: u32, is_dir: bool) -> u32 {
        match self {
            Self::Octal(octal) => *octal,
            Self::Symbolic(clauses) => {
                clauses.iter().fold(mode & 0o7777, |mode, clause| clause.apply(mode, is_dir)) & 0o7777
            }
        }
    }
}

impl Clause {
    fn apply(&self, mode: u32, is_dir: bool) -> u32 {
        let bits = self.permissions.chars().fold(0, |bits, c| bits | bits_of(c, mode, is_dir)) & self.who;
        match self.operator {
            '+' => mode | bits,
            '-' => mode & !bits,
            // A folder keeps its set-id bits unless they are named, as chmod(1) does it.
            _ => (mode & !(self.who & if is_dir { 0o1777 } else { 0o7777 })) | bits,
        }
    }
}

fn class_mask(class: char) -> Option<u32> {
    match class {
        'u' => Some(0o4700),
        'g' => Some(0o2070),
        'o' => Some(0o1007),
        'a' => Some(0o7777),
        _ => None,
    }
}

/// A permission's bits in all classes; the clause's classes are masked out of them afterwards.
fn bits_of(permission: char, mode: u32, is_dir: bool) -> u32 {
    let spread = |three: u32| three | (three << 3) | (three << 6);
    match permission {
        'r' => 0o444,
        'w' => 0o222,
        'x' => 0o111,
        'X' if is_dir || mode & 0o111 != 0 => 0o111,
        's' => 0o6000,
        't' => 0o1000,
        'u' => spread((mode >> 6) & 7),
        'g' => spread((mode >> 3) & 7),
        'o' => spread(mode & 7),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chmod_is_octal_or_symbolic() {
        for (text, mode, is_dir, want) in [
            ("755", 0o644, false, 0o755),
            ("0", 0o644, false, 0),
            ("u+x", 0o644, false, 0o744),
            ("go-r", 0o644, false, 0o600),
            ("u=rwx,go=rx", 0o600, false, 0o755),
            ("a+X", 0o644, false, 0o644),
            ("a+X", 0o644, true, 0o755),
            ("+x", 0o644, false, 0o755),
            ("u=rw+x", 0o444, false, 0o744),
            ("g=u", 0o640, false, 0o660),
            ("u+s,o+t", 0o755, false, 0o5755),
            ("o=", 0o777, false, 0o770),
        ] {
            assert_eq!(Chmod::parse(text).unwrap().apply(mode, is_dir), want, "{text} on {mode:o}");
        }
    }

    #[test]
    fn what_is_no_mode_is_refused() {
        for text in ["", "10000", "8", "x", "u?x", "z+x", "u+q", "-1"] {
            assert!(Chmod::parse(text).is_err(), "{text}");
        }
    }
}
