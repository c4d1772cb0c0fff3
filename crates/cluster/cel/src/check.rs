//! The type check: every name is declared, every field exists, every function takes what it is given.
//!
//! `dyn` passes everywhere and is checked when it runs. Messages are those of cel-go, which people search for.

use crate::Environment;
use crate::ast::{Expr, Literal, Macro, MacroKind, Node, Op};
use crate::functions::signatures::overloads;
use crate::parser::SyntaxError;
use crate::types::Type;
use std::sync::Arc;

const MAX_ERRORS: usize = 10;

pub(crate) fn check(root: &Expr, environment: &Environment) -> Result<Type, Vec<SyntaxError>> {
    let mut checker = Checker { environment, scopes: Vec::new(), errors: Vec::new() };
    let result = checker.expr(root);
    if checker.errors.is_empty() { Ok(result) } else { Err(checker.errors) }
}

pub(crate) struct Checker<'e> {
    environment: &'e Environment,
    scopes: Vec<(String, Type)>,
    errors: Vec<SyntaxError>,
}

/// Types as values.
const TYPE_NAMES: [&str; 14] = [
    "bool", "int", "uint", "double", "string", "bytes", "list", "map", "null_type", "type", "google.protobuf.Timestamp",
    "google.protobuf.Duration", "net.IP", "net.CIDR",
];

pub(crate) fn is_type_name(name: &str) -> bool {
    TYPE_NAMES.contains(&name)
}

impl Checker<'_> {
    fn error(&mut self, at: usize, words: String) -> Type {
        if self.errors.len() < MAX_ERRORS {
            self.errors.push(SyntaxError { at, words });
        }
        Type::Dyn
    }

    fn find(&self, name: &str) -> Option<Type> {
        let scoped = self.scopes.iter().rev().find(|(own, _)| own == name).map(|(_, kind)| kind.clone());
        scoped.or_else(|| self.environment.find(name).cloned())
    }

    fn expr(&mut self, expr: &Expr) -> Type {
        match &expr.node {
            Node::Literal(literal) => of_literal(literal),
            Node::Ident(name) => match self.find(name) {
                Some(kind) => kind,
                None if is_type_name(name) => Type::Type,
                None => self.error(expr.at, format!("undeclared reference to '{name}' (in container '')")),
            },
            Node::Select { operand, field, optional } => self.select(expr, operand, field, *optional),
            Node::Has { operand, field } => {
                let kind = self.expr(operand);
                self.field(expr.at, &kind, field);
                Type::Bool
            }
            Node::Index { operand, index, optional } => {
                let (kind, key) = (self.expr(operand), self.expr(index));
                let found = self.index(expr.at, &kind, &key);
                if *optional || matches!(kind, Type::Optional(_)) { Type::optional(found) } else { found }
            }
            Node::Unary { negate, operand } => self.unary(expr.at, *negate, operand),
            Node::Binary { op, left, right } => self.binary(expr.at, *op, left, right),
            Node::Ternary { condition, yes, no } => {
                let kind = self.expr(condition);
                let (yes, no) = (self.expr(yes), self.expr(no));
                if !kind.fits(&Type::Bool) || !yes.fits(&no) {
                    return self.no_overload(expr.at, "_?_:_", &[kind, yes, no]);
                }
                yes.join(&no)
            }
            Node::Call { target, name, args } => self.call(expr, target.as_deref(), name, args),
            Node::List(items) => {
                let kinds: Vec<Type> = items
                    .iter()
                    .map(|(item, optional)| match (self.expr(item), optional) {
                        (Type::Optional(inner), true) => inner.as_ref().clone(),
                        (kind, _) => kind,
                    })
                    .collect();
                let element = kinds.into_iter().reduce(|a, b| a.join(&b)).unwrap_or(Type::Dyn);
                Type::List(Arc::new(element), items.len() as u64)
            }
            Node::Map(entries) => {
                let kinds: Vec<(Type, Type)> = entries
                    .iter()
                    .map(|(key, value, optional)| match (self.expr(key), self.expr(value), optional) {
                        (key, Type::Optional(inner), true) => (key, inner.as_ref().clone()),
                        (key, value, _) => (key, value),
                    })
                    .collect();
                let count = kinds.len() as u64;
                let (key, value) = kinds
                    .into_iter()
                    .reduce(|(ak, av), (bk, bv)| (ak.join(&bk), av.join(&bv)))
                    .unwrap_or((Type::Dyn, Type::Dyn));
                Type::Map(Arc::new(key), Arc::new(value), count)
            }
            Node::Macro(all) => self.macro_call(expr.at, all),
        }
    }

    fn select(&mut self, expr: &Expr, operand: &Expr, field: &str, optional: bool) -> Type {
        if let Some(dotted) = expr.dotted() {
            if let Some(kind) = self.environment.find(&dotted) {
                return kind.clone();
            }
            if is_type_name(&dotted) {
                return Type::Type;
            }
        }
        let kind = self.expr(operand);
        let found = self.field(expr.at, &kind, field);
        if optional || matches!(kind, Type::Optional(_)) { Type::optional(found) } else { found }
    }

    fn field(&mut self, at: usize, kind: &Type, field: &str) -> Type {
        match kind {
            Type::Dyn => Type::Dyn,
            Type::Map(_, value, _) => value.as_ref().clone(),
            Type::Optional(inner) => self.field(at, &inner.clone(), field),
            Type::Object(object) => match object.fields.get(field) {
                Some(found) => found.kind.clone(),
                None if object.open => Type::Dyn,
                None => self.error(at, format!("undefined field '{field}'")),
            },
            other => self.error(at, format!("type '{other}' does not support field selection")),
        }
    }

    fn index(&mut self, at: usize, kind: &Type, key: &Type) -> Type {
        match kind {
            Type::Dyn => Type::Dyn,
            Type::List(element, _) if key.fits(&Type::Int) || key.fits(&Type::Uint) || key.fits(&Type::Double) => {
                element.as_ref().clone()
            }
            Type::Map(wanted, value, _) if key.fits(wanted) => value.as_ref().clone(),
            Type::Optional(inner) => self.index(at, &inner.clone(), key),
            _ => self.no_overload(at, "_[_]", &[kind.clone(), key.clone()]),
        }
    }

    fn unary(&mut self, at: usize, negate: bool, operand: &Expr) -> Type {
        let kind = self.expr(operand);
        match (negate, &kind) {
            (_, Type::Dyn) => if negate { Type::Dyn } else { Type::Bool },
            (false, Type::Bool) => Type::Bool,
            (true, Type::Int | Type::Double | Type::Duration) => kind,
            (negate, _) => self.no_overload(at, if negate { "-_" } else { "!_" }, &[kind]),
        }
    }

    fn binary(&mut self, at: usize, op: Op, left: &Expr, right: &Expr) -> Type {
        let (a, b) = (self.expr(left), self.expr(right));
        let result = match op {
            Op::Or | Op::And => (a.fits(&Type::Bool) && b.fits(&Type::Bool)).then_some(Type::Bool),
            Op::Equal | Op::NotEqual => a.fits(&b).then_some(Type::Bool),
            Op::In => {
                let fits = match &b {
                    Type::Dyn => true,
                    Type::List(element, _) => a.fits(element),
                    Type::Map(key, ..) => a.fits(key),
                    _ => false,
                };
                fits.then_some(Type::Bool)
            }
            Op::Less | Op::LessEqual | Op::Greater | Op::GreaterEqual => ordered(&a, &b).then_some(Type::Bool),
            Op::Add | Op::Sub | Op::Mul | Op::Div | Op::Rem => arithmetic(op, &a, &b),
        };
        result.unwrap_or_else(|| self.no_overload(at, op.name(), &[a, b]))
    }

    fn no_overload(&mut self, at: usize, name: &str, args: &[Type]) -> Type {
        let shown: Vec<String> = args.iter().map(ToString::to_string).collect();
        self.error(at, format!("found no matching overload for '{name}' applied to '({})'", shown.join(", ")))
    }

    fn call(&mut self, expr: &Expr, target: Option<&Expr>, name: &str, args: &[Expr]) -> Type {
        let receiver = target.map(|target| self.expr(target));
        let kinds: Vec<Type> = args.iter().map(|arg| self.expr(arg)).collect();
        let known = overloads(name);
        if known.is_empty() {
            return self.error(expr.at, format!("undeclared reference to '{name}' (in container '')"));
        }
        let fitting: Vec<Type> = known
            .iter()
            .filter(|signature| signature.takes(receiver.as_ref(), &kinds))
            .map(|signature| signature.yields(receiver.as_ref(), &kinds))
            .collect();
        if let Some(first) = fitting.first() {
            // With several candidates (a dyn argument) only what they agree on is known.
            return fitting.iter().skip(1).fold(first.clone(), |all, kind| all.join(kind));
        }
        let inner: Vec<String> = kinds.iter().map(ToString::to_string).collect();
        let shown = match receiver {
            Some(receiver) => format!("{receiver}.({})", inner.join(", ")),
            None => format!("({})", inner.join(", ")),
        };
        self.error(expr.at, format!("found no matching overload for '{name}' applied to '{shown}'"))
    }

    fn macro_call(&mut self, at: usize, all: &Macro) -> Type {
        let range = self.expr(&all.range);
        let (first, second) = variables(&range, all);
        let (Some(first), Some(second)) = (first, second) else {
            return self.error(
                all.range.at,
                format!("expression of type '{range}' cannot be range of a comprehension (must be list, map, or dynamic)"),
            );
        };
        let depth = self.scopes.len();
        self.scopes.push((all.first.clone(), first));
        if let Some(name) = &all.second {
            self.scopes.push((name.clone(), second));
        }
        if let Some(filter) = &all.filter {
            let kind = self.expr(filter);
            if !kind.fits(&Type::Bool) {
                self.no_overload(filter.at, "_?_:_", &[kind]);
            }
        }
        let body = self.expr(&all.body);
        self.scopes.truncate(depth);
        let size = range.size();
        let wants_bool = matches!(all.kind, MacroKind::All | MacroKind::Exists | MacroKind::ExistsOne | MacroKind::Filter);
        if wants_bool && !body.fits(&Type::Bool) {
            let name = if all.kind == MacroKind::All { "_&&_" } else { "_||_" };
            return self.no_overload(at, name, &[Type::Bool, body]);
        }
        match all.kind {
            MacroKind::All | MacroKind::Exists | MacroKind::ExistsOne => Type::Bool,
            MacroKind::Filter => match range {
                Type::Map(key, _, size) => Type::List(key, size),
                other => other,
            },
            MacroKind::Map | MacroKind::TransformList => Type::List(Arc::new(body), size),
            MacroKind::TransformMap => match range {
                Type::Map(key, _, size) => Type::Map(key, Arc::new(body), size),
                Type::Dyn => Type::Map(Arc::new(Type::Dyn), Arc::new(body), size),
                _ => Type::Map(Arc::new(Type::Int), Arc::new(body), size),
            },
            MacroKind::Bind => body,
            MacroKind::OptMap => Type::optional(body),
            MacroKind::OptFlatMap => body,
        }
    }
}

/// The types of a loop's variables; `None` when the range is nothing to loop over.
pub(crate) fn variables(range: &Type, all: &Macro) -> (Option<Type>, Option<Type>) {
    if all.kind == MacroKind::Bind {
        return (Some(range.clone()), Some(Type::Dyn));
    }
    if matches!(all.kind, MacroKind::OptMap | MacroKind::OptFlatMap) {
        return match range {
            Type::Optional(inner) => (Some(inner.as_ref().clone()), Some(Type::Dyn)),
            Type::Dyn => (Some(Type::Dyn), Some(Type::Dyn)),
            _ => (None, None),
        };
    }
    match (range, all.second.is_some()) {
        (Type::Dyn, _) => (Some(Type::Dyn), Some(Type::Dyn)),
        (Type::List(element, _), false) => (Some(element.as_ref().clone()), Some(Type::Dyn)),
        (Type::List(element, _), true) => (Some(Type::Int), Some(element.as_ref().clone())),
        (Type::Map(key, value, _), _) => (Some(key.as_ref().clone()), Some(value.as_ref().clone())),
        _ => (None, None),
    }
}

pub(crate) fn of_literal(literal: &Literal) -> Type {
    match literal {
        Literal::Null => Type::Null,
        Literal::Bool(_) => Type::Bool,
        Literal::Int(_) => Type::Int,
        Literal::Uint(_) => Type::Uint,
        Literal::Double(_) => Type::Double,
        Literal::String(text) => Type::String(text.chars().count() as u64),
        Literal::Bytes(bytes) => Type::Bytes(bytes.len() as u64),
    }
}

fn is_number(kind: &Type) -> bool {
    matches!(kind, Type::Int | Type::Uint | Type::Double | Type::Dyn)
}

fn ordered(a: &Type, b: &Type) -> bool {
    is_number(a) && is_number(b)
        || a.fits(b)
            && matches!(
                (a, b),
                (Type::Bool | Type::String(_) | Type::Bytes(_) | Type::Timestamp | Type::Duration | Type::Dyn, _)
                    | (_, Type::Dyn)
            )
}

fn arithmetic(op: Op, a: &Type, b: &Type) -> Option<Type> {
    if a.is_dyn() || b.is_dyn() {
        return Some(Type::Dyn);
    }
    match (op, a, b) {
        (_, Type::Int, Type::Int) => Some(Type::Int),
        (_, Type::Uint, Type::Uint) => Some(Type::Uint),
        (Op::Add | Op::Sub | Op::Mul | Op::Div, Type::Double, Type::Double) => Some(Type::Double),
        (Op::Add, Type::String(n), Type::String(m)) => Some(Type::String(n.saturating_add(*m))),
        (Op::Add, Type::Bytes(n), Type::Bytes(m)) => Some(Type::Bytes(n.saturating_add(*m))),
        (Op::Add, Type::List(x, n), Type::List(y, m)) if x.fits(y) => {
            Some(Type::List(Arc::new(x.join(y)), n.saturating_add(*m)))
        }
        (Op::Add | Op::Sub, Type::Timestamp, Type::Duration) | (Op::Add, Type::Duration, Type::Timestamp) => {
            Some(Type::Timestamp)
        }
        (Op::Add | Op::Sub, Type::Duration, Type::Duration) | (Op::Sub, Type::Timestamp, Type::Timestamp) => {
            Some(Type::Duration)
        }
        _ => None,
    }
}
