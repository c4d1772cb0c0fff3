//! Text → tokens.

use crate::ast::Literal;
use crate::parser::SyntaxError;

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Token {
    Literal(Literal),
    Ident(String),
    /// An operator or bracket.
    Sign(&'static str),
    End,
}

const SIGNS: [&str; 28] = [
    "||", "&&", "==", "!=", "<=", ">=", "[?", ".?", "<", ">", "+", "-", "*", "/", "%", "!", "?", ":", ".", ",", "(",
    ")", "[", "]", "{", "}", "=", "|",
];

pub(crate) fn tokens(text: &str) -> Result<Vec<(usize, Token)>, SyntaxError> {
    let mut lexer = Lexer { text, at: 0 };
    let mut found = Vec::new();
    loop {
        lexer.skip_blank();
        let at = lexer.at;
        let token = lexer.next()?;
        let end = token == Token::End;
        found.push((at, token));
        if end {
            return Ok(found);
        }
    }
}

struct Lexer<'t> {
    text: &'t str,
    at: usize,
}

fn problem(at: usize, words: impl Into<String>) -> SyntaxError {
    SyntaxError { at, words: format!("Syntax error: {}", words.into()) }
}

impl Lexer<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn skip_blank(&mut self) {
        loop {
            let rest = self.rest();
            let trimmed = rest.trim_start();
            self.at += rest.len() - trimmed.len();
            if !self.rest().starts_with("//") {
                return;
            }
            self.at += self.rest().find('\n').unwrap_or(self.rest().len());
        }
    }

    fn next(&mut self) -> Result<Token, SyntaxError> {
        let Some(first) = self.rest().chars().next() else { return Ok(Token::End) };
        if let Some(literal) = self.quoted()? {
            return Ok(Token::Literal(literal));
        }
        let second_is_digit = self.rest().as_bytes().get(1).is_some_and(u8::is_ascii_digit);
        if first.is_ascii_digit() || first == '.' && second_is_digit {
            return self.number();
        }
        if first.is_ascii_alphabetic() || first == '_' {
            let end = self.rest().find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(self.rest().len());
            let word = self.rest()[..end].to_owned();
            self.at += end;
            return Ok(match word.as_str() {
                "true" => Token::Literal(Literal::Bool(true)),
                "false" => Token::Literal(Literal::Bool(false)),
                "null" => Token::Literal(Literal::Null),
                "in" => Token::Sign("in"),
                _ => Token::Ident(word),
            });
        }
        if first == '`' {
            let inner = &self.rest()[1..];
            let end = inner.find('`').ok_or_else(|| problem(self.at, "token recognition error at: '`'"))?;
            let word = inner[..end].to_owned();
            self.at += end + 2;
            return Ok(Token::Ident(word));
        }
        let sign = SIGNS.iter().find(|sign| self.rest().starts_with(**sign));
        let sign = sign.ok_or_else(|| problem(self.at, format!("token recognition error at: '{first}'")))?;
        self.at += sign.len();
        Ok(Token::Sign(sign))
    }

    fn number(&mut self) -> Result<Token, SyntaxError> {
        let start = self.at;
        let rest = self.rest();
        let bad = || problem(start, "invalid number");
        if let Some(hex) = rest.strip_prefix("0x").or_else(|| rest.strip_prefix("0X")) {
            let end = hex.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(hex.len());
            let unsigned = hex[end..].starts_with(['u', 'U']);
            let digits = hex[..end].to_owned();
            self.at += 2 + end + usize::from(unsigned);
            let value = u64::from_str_radix(&digits, 16).map_err(|_| bad())?;
            return self.integer(value, unsigned, start);
        }
        let digits = |text: &str| text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let mut end = digits(rest);
        let mut double = false;
        if rest[end..].starts_with('.') && rest.as_bytes().get(end + 1).is_some_and(u8::is_ascii_digit) {
            double = true;
            end += 1 + digits(&rest[end + 1..]);
        }
        if rest[end..].starts_with(['e', 'E']) {
            let sign = usize::from(rest[end + 1..].starts_with(['+', '-']));
            let count = digits(&rest[end + 1 + sign..]);
            if count > 0 {
                double = true;
                end += 1 + sign + count;
            }
        }
        let number = rest[..end].to_owned();
        self.at += end;
        if double {
            return number.parse().map(|value| Token::Literal(Literal::Double(value))).map_err(|_| bad());
        }
        let unsigned = self.rest().starts_with(['u', 'U']);
        self.at += usize::from(unsigned);
        let value = number.parse::<u64>().map_err(|_| bad())?;
        self.integer(value, unsigned, start)
    }

    /// 2^63 is let through as the smallest integer: only `-` may stand before it, and negating it changes nothing.
    fn integer(&self, value: u64, unsigned: bool, at: usize) -> Result<Token, SyntaxError> {
        if unsigned {
            return Ok(Token::Literal(Literal::Uint(value)));
        }
        let signed = i64::try_from(value).or(if value == 1 << 63 { Ok(i64::MIN) } else { Err(()) });
        signed.map(|value| Token::Literal(Literal::Int(value))).map_err(|()| problem(at, "invalid int literal"))
    }

    /// `"…"`, `'…'`, `"""…"""`, with the prefixes `r` and `b`.
    fn quoted(&mut self) -> Result<Option<Literal>, SyntaxError> {
        let start = self.at;
        let prefix = self.rest().find(|c: char| !matches!(c, 'r' | 'R' | 'b' | 'B')).unwrap_or(0);
        let after = &self.rest()[prefix..];
        if prefix > 2 || !after.starts_with(['"', '\'']) {
            return Ok(None);
        }
        let marks = self.rest()[..prefix].to_lowercase();
        let (raw, bytes) = (marks.contains('r'), marks.contains('b'));
        let quote = ["\"\"\"", "'''", "\"", "'"].into_iter().find(|quote| after.starts_with(quote)).unwrap_or("\"");
        let body = &after[quote.len()..];
        let mut out = Vec::new();
        let mut at = 0;
        loop {
            let left = &body[at..];
            if left.starts_with(quote) {
                self.at += prefix + quote.len() + at + quote.len();
                break;
            }
            let Some(c) = left.chars().next() else {
                return Err(problem(start, format!("token recognition error at: '{quote}'")));
            };
            if c == '\n' && quote.len() == 1 {
                return Err(problem(start, format!("token recognition error at: '{quote}'")));
            }
            if c == '\\' && !raw {
                at += escape(left, bytes, &mut out).ok_or_else(|| problem(start, "invalid escape sequence"))?;
            } else {
                out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                at += c.len_utf8();
            }
        }
        if bytes {
            return Ok(Some(Literal::Bytes(out.into())));
        }
        let text = String::from_utf8(out).map_err(|_| problem(start, "invalid escape sequence"))?;
        Ok(Some(Literal::String(text.into())))
    }
}

/// Decodes one escape; how long it is.
fn escape(text: &str, bytes: bool, out: &mut Vec<u8>) -> Option<usize> {
    let c = text.chars().nth(1)?;
    let plain = match c {
        'a' => 7,
        'b' => 8,
        'f' => 12,
        'n' => b'\n',
        'r' => b'\r',
        't' => b'\t',
        'v' => 11,
        '\\' | '\'' | '"' | '`' | '?' => c as u8,
        _ => 0,
    };
    if plain != 0 {
        out.push(plain);
        return Some(2);
    }
    let (skip, length, radix) = match c {
        'x' | 'X' => (2, 2, 16),
        'u' => (2, 4, 16),
        'U' => (2, 8, 16),
        '0'..='3' => (1, 3, 8),
        _ => return None,
    };
    let digits = text.get(skip..skip + length)?;
    let value = u32::from_str_radix(digits, radix).ok()?;
    if bytes && matches!(c, 'x' | 'X' | '0'..='3') {
        out.push(u8::try_from(value).ok()?);
    } else {
        out.extend_from_slice(char::from_u32(value)?.encode_utf8(&mut [0; 4]).as_bytes());
    }
    Some(skip + length)
}
