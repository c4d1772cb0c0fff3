//! Tokens → tree, by precedence climbing; macros are recognised here.

use crate::ast::{Expr, Literal, Macro, MacroKind, Node, Op};
use crate::lexer::{Token, tokens};

/// Deeper trees are refused: everything that looks at a tree recurses.
pub const MAX_DEPTH: usize = 120;

/// What is wrong and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SyntaxError {
    pub(crate) at: usize,
    pub(crate) words: String,
}

impl SyntaxError {
    /// `ERROR: <input>:1:5: WORDS` with the line and a pointer.
    pub(crate) fn shown(&self, text: &str) -> String {
        let before = &text[..self.at.min(text.len())];
        let line = before.matches('\n').count();
        let column = before.rsplit('\n').next().map_or(0, |part| part.chars().count());
        let source = text.lines().nth(line).unwrap_or("");
        let dots = ".".repeat(column);
        format!("ERROR: <input>:{}:{}: {}\n | {source}\n | {dots}^", line + 1, column + 1, self.words)
    }
}

pub(crate) fn parse(text: &str) -> Result<Expr, SyntaxError> {
    if text.len() > crate::MAX_EXPRESSION_BYTES {
        return Err(SyntaxError { at: 0, words: "expression code point size exceeds limit".to_owned() });
    }
    let mut parser = Parser { tokens: tokens(text)?, next: 0, depth: 0 };
    let root = parser.expression()?;
    match parser.peek() {
        Token::End => Ok(root),
        other => Err(parser.unexpected(&other.clone(), "<EOF>")),
    }
}

struct Parser {
    tokens: Vec<(usize, Token)>,
    next: usize,
    depth: usize,
}

type Parsed = Result<Expr, SyntaxError>;

impl Parser {
    fn peek(&self) -> &Token {
        &self.tokens[self.next.min(self.tokens.len() - 1)].1
    }

    fn at(&self) -> usize {
        self.tokens[self.next.min(self.tokens.len() - 1)].0
    }

    fn take(&mut self) -> Token {
        let token = self.peek().clone();
        self.next += 1;
        token
    }

    fn eat(&mut self, sign: &str) -> bool {
        let found = matches!(self.peek(), Token::Sign(own) if *own == sign);
        self.next += usize::from(found);
        found
    }

    fn expect(&mut self, sign: &str) -> Result<(), SyntaxError> {
        if self.eat(sign) {
            return Ok(());
        }
        let found = self.peek().clone();
        Err(self.unexpected(&found, &format!("'{sign}'")))
    }

    fn unexpected(&self, token: &Token, expected: &str) -> SyntaxError {
        let shown = match token {
            Token::End => "<EOF>".to_owned(),
            Token::Sign(sign) => (*sign).to_owned(),
            Token::Ident(name) => name.clone(),
            Token::Literal(literal) => match literal {
                Literal::Null => "null".to_owned(),
                Literal::Bool(value) => value.to_string(),
                Literal::Int(value) => value.to_string(),
                Literal::Uint(value) => format!("{value}u"),
                Literal::Double(value) => value.to_string(),
                Literal::String(text) => format!("\"{text}\""),
                Literal::Bytes(_) => "b\"…\"".to_owned(),
            },
        };
        SyntaxError { at: self.at(), words: format!("Syntax error: mismatched input '{shown}' expecting {expected}") }
    }

    fn deeper(&mut self, parse: impl FnOnce(&mut Self) -> Parsed) -> Parsed {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            let words = format!("expression recursion limit exceeded: {MAX_DEPTH}");
            return Err(SyntaxError { at: self.at(), words });
        }
        let parsed = parse(self);
        self.depth -= 1;
        parsed
    }

    fn expression(&mut self) -> Parsed {
        self.deeper(|parser| {
            let condition = parser.binary(1)?;
            let at = parser.at();
            if !parser.eat("?") {
                return Ok(condition);
            }
            let yes = parser.binary(1)?;
            parser.expect(":")?;
            let no = parser.expression()?;
            node(at, Node::Ternary { condition: Box::new(condition), yes: Box::new(yes), no: Box::new(no) })
        })
    }

    /// The operator that comes next, if it binds at least as tightly as `least`.
    fn operator(&mut self, least: usize) -> Option<(usize, Op)> {
        const SIGNS: [(&str, usize, Op); 14] = [
            ("||", 1, Op::Or),
            ("&&", 2, Op::And),
            ("==", 3, Op::Equal),
            ("!=", 3, Op::NotEqual),
            ("<=", 3, Op::LessEqual),
            (">=", 3, Op::GreaterEqual),
            ("<", 3, Op::Less),
            (">", 3, Op::Greater),
            ("in", 3, Op::In),
            ("+", 4, Op::Add),
            ("-", 4, Op::Sub),
            ("*", 5, Op::Mul),
            ("/", 5, Op::Div),
            ("%", 5, Op::Rem),
        ];
        let Token::Sign(next) = self.peek() else { return None };
        let (_, level, op) = SIGNS.into_iter().find(|(sign, _, _)| sign == next).filter(|(_, level, _)| *level >= least)?;
        self.next += 1;
        Some((level, op))
    }

    fn binary(&mut self, least: usize) -> Parsed {
        let mut left = self.unary()?;
        loop {
            let at = self.at();
            let Some((level, op)) = self.operator(least) else { return Ok(left) };
            let right = self.binary(level + 1)?;
            if !matches!(op, Op::Or | Op::And) {
                left = node(at, Node::Binary { op, left: Box::new(left), right: Box::new(right) })?;
                continue;
            }
            let mut terms = vec![(at, left), (at, right)];
            loop {
                let at = self.at();
                match self.operator(level) {
                    Some((_, next)) if next == op => terms.push((at, self.binary(level + 1)?)),
                    Some(_) => {
                        self.next -= 1;
                        break;
                    }
                    None => break,
                }
            }
            left = balanced(op, terms)?;
        }
    }

    fn unary(&mut self) -> Parsed {
        let at = self.at();
        for (sign, negate) in [("!", false), ("-", true)] {
            if self.eat(sign) {
                let operand = self.deeper(Self::unary)?;
                if let (true, Node::Literal(literal)) = (negate, &operand.node) {
                    let negated = match literal {
                        Literal::Int(value) => Some(Literal::Int(value.wrapping_neg())),
                        Literal::Double(value) => Some(Literal::Double(-value)),
                        _ => None,
                    };
                    if let Some(negated) = negated {
                        return node(at, Node::Literal(negated));
                    }
                }
                return node(at, Node::Unary { negate, operand: Box::new(operand) });
            }
        }
        self.member()
    }

    fn member(&mut self) -> Parsed {
        let mut operand = self.primary()?;
        loop {
            let at = self.at();
            if self.eat(".") || matches!(self.peek(), Token::Sign(".?")) {
                let optional = self.eat(".?");
                let Token::Ident(field) = self.peek().clone() else {
                    let found = self.peek().clone();
                    return Err(self.unexpected(&found, "IDENTIFIER"));
                };
                self.next += 1;
                operand = if !optional && self.eat("(") {
                    let args = self.arguments(")")?;
                    method(at, operand, field, args)?
                } else {
                    node(at, Node::Select { operand: Box::new(operand), field, optional })?
                };
            } else if self.eat("[") || matches!(self.peek(), Token::Sign("[?")) {
                let optional = self.eat("[?");
                let index = self.expression()?;
                self.expect("]")?;
                operand = node(at, Node::Index { operand: Box::new(operand), index: Box::new(index), optional })?;
            } else {
                return Ok(operand);
            }
        }
    }

    fn primary(&mut self) -> Parsed {
        let at = self.at();
        match self.take() {
            Token::Literal(literal) => node(at, Node::Literal(literal)),
            Token::Ident(name) => {
                if self.eat("(") {
                    let args = self.arguments(")")?;
                    return function(at, name, args);
                }
                if matches!(name.as_str(), "Object" | "JSONPatch") {
                    return self.message(at);
                }
                node(at, Node::Ident(name))
            }
            Token::Sign("(") => {
                let inner = self.expression()?;
                self.expect(")")?;
                Ok(inner)
            }
            Token::Sign("[") => self.list(at, Vec::new()),
            // `[?a]` begins with the sign of an optional index.
            Token::Sign("[?") => {
                let first = self.expression()?;
                if !matches!(self.peek(), Token::Sign("]")) {
                    self.expect(",")?;
                }
                self.list(at, vec![(first, true)])
            }
            Token::Sign("{") => self.map(at),
            // A leading dot names the global name space.
            Token::Sign(".") if matches!(self.peek(), Token::Ident(_)) => self.primary(),
            other => {
                self.next -= 1;
                let expected = "{'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}";
                Err(self.unexpected(&other, expected))
            }
        }
    }

    /// `Object{…}`, `Object.spec.template{…}`, `JSONPatch{…}`: a map with plain names for keys.
    fn message(&mut self, at: usize) -> Parsed {
        while self.eat(".") {
            let Token::Ident(_) = self.take() else {
                self.next -= 1;
                let found = self.peek().clone();
                return Err(self.unexpected(&found, "IDENTIFIER"));
            };
        }
        self.expect("{")?;
        let mut entries = Vec::new();
        while !self.eat("}") {
            let optional = self.eat("?");
            let at = self.at();
            let Token::Ident(name) = self.take() else {
                self.next -= 1;
                let found = self.peek().clone();
                return Err(self.unexpected(&found, "IDENTIFIER"));
            };
            let key = node(at, Node::Literal(Literal::String(name.into())))?;
            self.expect(":")?;
            entries.push((key, self.expression()?, optional));
            if !matches!(self.peek(), Token::Sign("}")) {
                self.expect(",")?;
            }
        }
        node(at, Node::Map(entries))
    }

    fn arguments(&mut self, close: &str) -> Result<Vec<Expr>, SyntaxError> {
        let mut args = Vec::new();
        while !self.eat(close) {
            if !args.is_empty() {
                self.expect(",")?;
            }
            args.push(self.expression()?);
        }
        Ok(args)
    }

    fn list(&mut self, at: usize, mut items: Vec<(Expr, bool)>) -> Parsed {
        while !self.eat("]") {
            let optional = self.eat("?");
            items.push((self.expression()?, optional));
            if !matches!(self.peek(), Token::Sign("]")) {
                self.expect(",")?;
            }
        }
        node(at, Node::List(items))
    }

    fn map(&mut self, at: usize) -> Parsed {
        let mut entries = Vec::new();
        while !self.eat("}") {
            let optional = self.eat("?");
            let key = self.expression()?;
            self.expect(":")?;
            entries.push((key, self.expression()?, optional));
            if !matches!(self.peek(), Token::Sign("}")) {
                self.expect(",")?;
            }
        }
        node(at, Node::Map(entries))
    }
}

/// One more node on top of its children.
fn node(at: usize, node: Node) -> Parsed {
    let mut made = Expr { at, depth: 0, node };
    let mut below = 0;
    made.children(&mut |child| below = below.max(child.depth));
    made.depth = below + 1;
    if made.depth > MAX_DEPTH {
        return Err(SyntaxError { at, words: format!("expression recursion limit exceeded: {MAX_DEPTH}") });
    }
    Ok(made)
}

/// `a && b && c` as a balanced tree, so that long conditions are not deep ones.
fn balanced(op: Op, mut terms: Vec<(usize, Expr)>) -> Parsed {
    if terms.len() <= 1 {
        let (_, only) = terms.pop().ok_or(SyntaxError { at: 0, words: "Syntax error: empty condition".to_owned() })?;
        return Ok(only);
    }
    let right = terms.split_off(terms.len() / 2);
    let at = right[0].0;
    node(at, Node::Binary { op, left: Box::new(balanced(op, terms)?), right: Box::new(balanced(op, right)?) })
}

fn function(at: usize, name: String, mut args: Vec<Expr>) -> Parsed {
    if name == "has" {
        let only = if args.len() == 1 { args.pop() } else { None };
        return match only.map(|arg| arg.node) {
            Some(Node::Select { operand, field, optional: false }) => node(at, Node::Has { operand, field }),
            _ => Err(SyntaxError { at, words: "invalid argument to has() macro".to_owned() }),
        };
    }
    node(at, Node::Call { target: None, name, args })
}

fn variable(arg: &Expr) -> Result<String, SyntaxError> {
    match &arg.node {
        Node::Ident(name) => Ok(name.clone()),
        _ => Err(SyntaxError { at: arg.at, words: "argument must be a simple name".to_owned() }),
    }
}

fn method(at: usize, target: Expr, name: String, args: Vec<Expr>) -> Parsed {
    if let Some(made) = as_macro(at, &target, &name, &args)? {
        return Ok(made);
    }
    // `cel.bind`, `ip.isCanonical`, `sets.contains`: functions of a name space, not methods of a value.
    let space = target.dotted().filter(|space| matches!(space.as_ref(), "ip" | "sets" | "optional" | "strings" | "format" | "jsonpatch"));
    if let Some(space) = space {
        return node(at, Node::Call { target: None, name: format!("{space}.{name}"), args });
    }
    node(at, Node::Call { target: Some(Box::new(target)), name, args })
}

fn as_macro(at: usize, target: &Expr, name: &str, args: &[Expr]) -> Result<Option<Expr>, SyntaxError> {
    use MacroKind::{All, Bind, Exists, ExistsOne, Filter, Map, OptFlatMap, OptMap, TransformList, TransformMap};
    let make = |kind, range: &Expr, first: &Expr, second: Option<&Expr>, filter: Option<&Expr>, body: &Expr| {
        let inner = Macro {
            kind,
            range: range.clone(),
            first: variable(first)?,
            second: second.map(variable).transpose()?,
            filter: filter.cloned(),
            body: body.clone(),
        };
        node(at, Node::Macro(Box::new(inner))).map(Some)
    };
    if name == "bind" && matches!(&target.node, Node::Ident(space) if space == "cel") {
        return match args {
            [first, range, body] => make(Bind, range, first, None, None, body),
            _ => Ok(None),
        };
    }
    match (name, args) {
        ("all", [v, body]) => make(All, target, v, None, None, body),
        ("all", [v, w, body]) => make(All, target, v, Some(w), None, body),
        ("exists", [v, body]) => make(Exists, target, v, None, None, body),
        ("exists", [v, w, body]) => make(Exists, target, v, Some(w), None, body),
        ("exists_one" | "existsOne", [v, body]) => make(ExistsOne, target, v, None, None, body),
        ("exists_one" | "existsOne", [v, w, body]) => make(ExistsOne, target, v, Some(w), None, body),
        ("map", [v, body]) => make(Map, target, v, None, None, body),
        ("map", [v, filter, body]) => make(Map, target, v, None, Some(filter), body),
        ("filter", [v, body]) => make(Filter, target, v, None, None, body),
        ("transformList", [v, w, body]) => make(TransformList, target, v, Some(w), None, body),
        ("transformList", [v, w, filter, body]) => make(TransformList, target, v, Some(w), Some(filter), body),
        ("transformMap", [v, w, body]) => make(TransformMap, target, v, Some(w), None, body),
        ("transformMap", [v, w, filter, body]) => make(TransformMap, target, v, Some(w), Some(filter), body),
        ("optMap", [v, body]) => make(OptMap, target, v, None, None, body),
        ("optFlatMap", [v, body]) => make(OptFlatMap, target, v, None, None, body),
        _ => Ok(None),
    }
}
