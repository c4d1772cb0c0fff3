//! The most that an expression can cost, from the sizes that its variables' types declare.
//!
//! Unit: one step. Reading a text costs a tenth of its characters, a loop its body as often as its range is long. Used to
//! refuse rules when a definition is created; what really runs is held by [`crate::Budget`].

use crate::Environment;
use crate::ast::{Expr, Macro, MacroKind, Node, Op};
use crate::check;
use crate::functions::signatures::overloads;
use crate::types::Type;
use std::sync::Arc;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Estimate {
    /// Saturated at the largest number.
    pub max: u64,
}

pub(crate) fn estimate(root: &Expr, environment: &Environment) -> Estimate {
    let mut walk = Walk { environment, scopes: Vec::new() };
    Estimate { max: walk.expr(root).0 }
}

struct Walk<'e> {
    environment: &'e Environment,
    scopes: Vec<(String, Type)>,
}

/// A tenth, rounded up.
fn traversal(size: u64) -> u64 {
    size.div_ceil(10)
}

impl Walk<'_> {
    /// (cost, type with the result's size)
    fn expr(&mut self, expr: &Expr) -> (u64, Type) {
        match &expr.node {
            Node::Literal(literal) => (0, check::of_literal(literal)),
            Node::Ident(name) => {
                let scoped = self.scopes.iter().rev().find(|(own, _)| own == name).map(|(_, kind)| kind.clone());
                (1, scoped.or_else(|| self.environment.find(name).cloned()).unwrap_or(Type::Dyn))
            }
            Node::Select { operand, field, .. } => {
                let (cost, kind) = self.expr(operand);
                (cost.saturating_add(1), member(&kind, field))
            }
            Node::Has { operand, .. } => (self.expr(operand).0.saturating_add(1), Type::Bool),
            Node::Index { operand, index, .. } => {
                let (cost, kind) = self.expr(operand);
                let cost = cost.saturating_add(self.expr(index).0).saturating_add(1);
                let found = match kind {
                    Type::List(element, _) => element.as_ref().clone(),
                    Type::Map(_, value, _) => value.as_ref().clone(),
                    _ => Type::Dyn,
                };
                (cost, found)
            }
            Node::Unary { operand, .. } => {
                let (cost, kind) = self.expr(operand);
                (cost.saturating_add(1), kind)
            }
            Node::Binary { op, left, right } => self.binary(*op, left, right),
            Node::Ternary { condition, yes, no } => {
                let (cost, _) = self.expr(condition);
                let (yes, no) = (self.expr(yes), self.expr(no));
                (cost.saturating_add(yes.0.max(no.0)), yes.1.join(&no.1))
            }
            Node::Call { target, name, args } => self.call(target.as_deref(), name, args),
            Node::List(items) => {
                let mut cost = 10u64;
                let mut element: Option<Type> = None;
                for (item, _) in items {
                    let (own, kind) = self.expr(item);
                    cost = cost.saturating_add(own);
                    element = Some(element.map_or(kind.clone(), |all| all.join(&kind)));
                }
                (cost, Type::List(Arc::new(element.unwrap_or(Type::Dyn)), items.len() as u64))
            }
            Node::Map(entries) => {
                let mut cost = 30u64;
                for (key, value, _) in entries {
                    cost = cost.saturating_add(self.expr(key).0).saturating_add(self.expr(value).0);
                }
                (cost, Type::Map(Arc::new(Type::Dyn), Arc::new(Type::Dyn), entries.len() as u64))
            }
            Node::Macro(all) => self.macro_call(all),
        }
    }

    fn binary(&mut self, op: Op, left: &Expr, right: &Expr) -> (u64, Type) {
        let ((a, left), (b, right)) = (self.expr(left), self.expr(right));
        let args = a.saturating_add(b);
        match op {
            Op::Or | Op::And => (args, Type::Bool),
            Op::Equal | Op::NotEqual | Op::Less | Op::LessEqual | Op::Greater | Op::GreaterEqual => {
                let compared = if has_size(&left) || has_size(&right) {
                    traversal(deep_size(&left).min(deep_size(&right))).max(1)
                } else {
                    1
                };
                (args.saturating_add(compared), Type::Bool)
            }
            Op::In => {
                let size = if let Type::List(..) = right { right.size() } else { 1 };
                (args.saturating_add(size.max(1)), Type::Bool)
            }
            Op::Add => match (&left, &right) {
                (Type::String(n), Type::String(m)) => {
                    let size = n.saturating_add(*m);
                    (args.saturating_add(traversal(size)), Type::String(size))
                }
                (Type::List(x, n), Type::List(y, m)) => {
                    (args.saturating_add(1), Type::List(Arc::new(x.join(y)), n.saturating_add(*m)))
                }
                _ => (args.saturating_add(1), left),
            },
            Op::Sub | Op::Mul | Op::Div | Op::Rem => (args.saturating_add(1), left),
        }
    }

    fn call(&mut self, target: Option<&Expr>, name: &str, args: &[Expr]) -> (u64, Type) {
        let receiver = target.map(|target| self.expr(target));
        let mut cost = receiver.as_ref().map_or(0, |(cost, _)| *cost);
        let mut kinds = Vec::new();
        for arg in args {
            let (own, kind) = self.expr(arg);
            cost = cost.saturating_add(own);
            kinds.push(kind);
        }
        let subject = receiver.as_ref().map(|(_, kind)| kind).or(kinds.first());
        let size = subject.map_or(1, Type::size);
        let own = match name {
            "size" | "dyn" | "type" | "charAt" | "int" | "uint" | "double" | "bool" | "string" | "bytes"
            | "duration" | "timestamp" => 1,
            "matches" | "find" | "findAll" => {
                let pattern = kinds.last().map_or(1, Type::size);
                traversal(size.saturating_add(1)).saturating_mul(pattern.div_ceil(4).max(1))
            }
            "sum" | "min" | "max" | "isSorted" | "indexOf" | "lastIndexOf" | "distinct" | "sort" => size.max(1),
            "join" => match subject {
                Some(Type::List(element, n)) => traversal(n.saturating_mul(element.size())).saturating_add(1),
                _ => traversal(size).saturating_add(1),
            },
            name if name.starts_with("sets.") => size.saturating_mul(kinds.get(1).map_or(1, Type::size)).max(1),
            _ if matches!(subject, Some(Type::String(_) | Type::Bytes(_))) => traversal(size).max(1),
            _ => 1,
        };
        let receiver_kind = receiver.as_ref().map(|(_, kind)| kind);
        let found = overloads(name).iter().find(|signature| signature.takes(receiver_kind, &kinds));
        let result = found.map_or(Type::Dyn, |signature| signature.yields(receiver_kind, &kinds));
        // Texts that are made of a text are as long as that one at most.
        let result = match (result, subject) {
            (Type::String(_), Some(Type::String(n))) if name != "replace" && name != "format" => Type::String(*n),
            (Type::List(element, _), Some(Type::String(n))) => Type::List(element, *n),
            (other, _) => other,
        };
        (cost.saturating_add(own), result)
    }

    fn macro_call(&mut self, all: &Macro) -> (u64, Type) {
        let (range_cost, range) = self.expr(&all.range);
        let (first, second) = check::variables(&range, all);
        let depth = self.scopes.len();
        self.scopes.push((all.first.clone(), first.unwrap_or(Type::Dyn)));
        if let Some(name) = &all.second {
            self.scopes.push((name.clone(), second.unwrap_or(Type::Dyn)));
        }
        let filter = all.filter.as_ref().map_or(0, |filter| self.expr(filter).0);
        let (body, kind) = self.expr(&all.body);
        self.scopes.truncate(depth);
        let rounds = match all.kind {
            MacroKind::Bind | MacroKind::OptMap | MacroKind::OptFlatMap => 1,
            _ => range.size(),
        };
        let step = body.saturating_add(filter).saturating_add(if all.kind == MacroKind::All { 2 } else { 3 });
        let cost = range_cost.saturating_add(rounds.saturating_mul(step)).saturating_add(1);
        let result = match all.kind {
            MacroKind::All | MacroKind::Exists | MacroKind::ExistsOne => Type::Bool,
            MacroKind::Filter => range,
            MacroKind::Map | MacroKind::TransformList => Type::List(Arc::new(kind), rounds),
            MacroKind::TransformMap => Type::Map(Arc::new(Type::Dyn), Arc::new(kind), rounds),
            MacroKind::Bind | MacroKind::OptFlatMap => kind,
            MacroKind::OptMap => Type::optional(kind),
        };
        (cost, result)
    }
}

fn member(kind: &Type, field: &str) -> Type {
    match kind {
        Type::Object(object) => object.fields.get(field).map_or(Type::Dyn, |found| found.kind.clone()),
        Type::Map(_, value, _) => value.as_ref().clone(),
        Type::Optional(inner) => Type::optional(member(inner, field)),
        _ => Type::Dyn,
    }
}

fn has_size(kind: &Type) -> bool {
    matches!(kind, Type::String(_) | Type::Bytes(_) | Type::List(..) | Type::Map(..) | Type::Object(_))
}

/// Characters and elements, all the way down.
fn deep_size(kind: &Type) -> u64 {
    match kind {
        Type::List(element, n) => n.saturating_mul(deep_size(element)),
        Type::Map(key, value, n) => n.saturating_mul(deep_size(key).saturating_add(deep_size(value))),
        Type::Object(object) => object.fields.values().fold(1, |all, field| all.saturating_add(deep_size(&field.kind))),
        other => other.size(),
    }
}
