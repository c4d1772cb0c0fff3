//! Running an expression within a budget.
//!
//! Logic is commutative over errors as CEL wants it (`false && error` is false). Every step costs; who runs out gets
//! [`EvalError::Budget`], which no `||` can hide.

use crate::ast::{Expr, Literal, Macro, MacroKind, Node, Op};
use crate::functions;
use crate::types::Type;
use crate::value::Value;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Steps that may still be taken.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    pub left: u64,
}

impl Budget {
    #[must_use]
    pub fn new(steps: u64) -> Self {
        Self { left: steps }
    }

    pub(crate) fn spend(&mut self, steps: u64) -> Result<(), EvalError> {
        match self.left.checked_sub(steps) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => {
                self.left = 0;
                Err(EvalError::Budget)
            }
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EvalError {
    #[error("operation cancelled: actual cost limit exceeded")]
    Budget,
    #[error("{0}")]
    Failed(String),
}

pub(crate) fn failed<T>(words: impl Into<String>) -> Result<T, EvalError> {
    Err(EvalError::Failed(words.into()))
}

/// What an expression may ask beyond its variables.
pub trait Host {
    /// Whether the request that the pairs describe (`path`, `group`, `resource`, `verb`, …) is allowed, and why.
    fn authorized(&self, question: &[(&'static str, String)]) -> (bool, String);
}

/// A value that many expressions share and that is made when first wanted is the caller's to put among the variables.
pub(crate) fn run<'v>(
    root: &'v Expr,
    variables: &BTreeMap<String, Value<'v>>,
    budget: &mut Budget,
    host: Option<&dyn Host>,
) -> Result<Value<'v>, EvalError> {
    Run { variables, scopes: Vec::new(), budget, host }.expr(root)
}

pub(crate) struct Run<'r, 'v> {
    variables: &'r BTreeMap<String, Value<'v>>,
    scopes: Vec<(&'v str, Value<'v>)>,
    pub(crate) budget: &'r mut Budget,
    pub(crate) host: Option<&'r dyn Host>,
}

type Found<'v> = Result<Value<'v>, EvalError>;

impl<'v> Run<'_, 'v> {
    fn expr(&mut self, expr: &'v Expr) -> Found<'v> {
        match &expr.node {
            Node::Literal(literal) => Ok(of_literal(literal)),
            Node::Ident(name) => self.ident(name),
            Node::Select { operand, field, optional } => self.select(expr, operand, field, *optional),
            Node::Has { operand, field } => {
                self.budget.spend(1)?;
                let value = self.expr(operand)?;
                Ok(Value::Bool(has(&value, field)))
            }
            Node::Index { operand, index, optional } => {
                let (value, key) = (self.expr(operand)?, self.expr(index)?);
                self.budget.spend(1 + value.search_cost())?;
                lookup(&value, &key, *optional)
            }
            Node::Unary { negate, operand } => {
                self.budget.spend(1)?;
                unary(*negate, self.expr(operand)?)
            }
            Node::Binary { op, left, right } => self.binary(*op, left, right),
            Node::Ternary { condition, yes, no } => match self.expr(condition)? {
                Value::Bool(true) => self.expr(yes),
                Value::Bool(false) => self.expr(no),
                _ => failed("no such overload"),
            },
            Node::Call { target, name, args } => {
                let receiver = target.as_ref().map(|target| self.expr(target)).transpose()?;
                let args = args.iter().map(|arg| self.expr(arg)).collect::<Result<Vec<_>, _>>()?;
                functions::call(self, name, receiver, args)
            }
            Node::List(items) => {
                self.budget.spend(10)?;
                let mut all = Vec::with_capacity(items.len());
                for (item, optional) in items {
                    push_optional(&mut all, self.expr(item)?, *optional);
                }
                Ok(Value::list(all))
            }
            Node::Map(entries) => self.map(entries),
            Node::Macro(all) => self.macro_call(all),
        }
    }

    fn ident(&mut self, name: &'v str) -> Found<'v> {
        self.budget.spend(1)?;
        let scoped = self.scopes.iter().rev().find(|(own, _)| *own == name).map(|(_, value)| value.clone());
        if let Some(found) = scoped.or_else(|| self.variables.get(name).cloned()) {
            return Ok(found);
        }
        if crate::check::is_type_name(name) {
            return Ok(Value::Type(name.into()));
        }
        failed(format!("no such attribute(s): {name}"))
    }

    fn select(&mut self, expr: &'v Expr, operand: &'v Expr, field: &str, optional: bool) -> Found<'v> {
        self.budget.spend(1)?;
        // Dotted variables and names of types begin with a name that is no variable, or with `authorizer`.
        if let Node::Ident(first) = &operand.node
            && (first == "authorizer" || !self.variables.contains_key(first))
            && let Some(dotted) = expr.dotted()
            && let Some(found) = self.variables.get(dotted.as_ref())
        {
            return Ok(found.clone());
        }
        if field.starts_with(|c: char| c.is_ascii_uppercase())
            && let Some(dotted) = expr.dotted().filter(|dotted| crate::check::is_type_name(dotted))
        {
            return Ok(Value::Type(dotted.as_ref().into()));
        }
        let value = self.expr(operand)?;
        self.budget.spend(value.search_cost())?;
        if let Value::Optional(inner) = &value {
            let found = inner.as_ref().and_then(|inner| inner.get(field));
            return Ok(Value::Optional(found.map(Arc::new)));
        }
        let found = value.get(field);
        if optional {
            return Ok(Value::Optional(found.map(Arc::new)));
        }
        match found {
            Some(found) => Ok(found),
            None if matches!(value, Value::Map(_) | Value::Json(serde_json::Value::Object(_), _)) => failed(format!("no such key: {field}")),
            None => failed(format!("no such overload: {}.{field}", value.type_name())),
        }
    }

    fn map(&mut self, entries: &'v [(Expr, Expr, bool)]) -> Found<'v> {
        self.budget.spend(30)?;
        let mut all: Vec<(Value<'v>, Value<'v>)> = Vec::with_capacity(entries.len());
        for (key, value, optional) in entries {
            let (key, value) = (self.expr(key)?, self.expr(value)?);
            let value = match (optional, value) {
                (true, Value::Optional(Some(inner))) => inner.as_ref().clone(),
                (true, Value::Optional(None)) => continue,
                (_, value) => value,
            };
            if all.iter().any(|(own, _)| own.equals(&key)) {
                return failed("Failed with repeated key");
            }
            self.budget.spend(1 + all.len() as u64)?;
            all.push((key, value));
        }
        Ok(Value::Map(Arc::new(all)))
    }

    fn binary(&mut self, op: Op, left: &'v Expr, right: &'v Expr) -> Found<'v> {
        if matches!(op, Op::And | Op::Or) {
            return self.logic(op == Op::Or, left, right);
        }
        let (a, b) = (self.expr(left)?, self.expr(right)?);
        match op {
            Op::Equal | Op::NotEqual => {
                self.budget.spend(1 + a.weight().min(b.weight()) / 10)?;
                Ok(Value::Bool(a.equals(&b) == (op == Op::Equal)))
            }
            Op::Less | Op::LessEqual | Op::Greater | Op::GreaterEqual => {
                self.budget.spend(1 + a.weight().min(b.weight()) / 10)?;
                compare(op, &a, &b)
            }
            Op::In => self.contains(&a, &b),
            _ => {
                self.budget.spend(1)?;
                if let (Op::Add, Value::String(_) | Value::Bytes(_) | Value::List(_) | Value::Json(..)) = (op, &a) {
                    self.budget.spend((a.weight() + b.weight()) / 10)?;
                }
                functions::arithmetic(op, a, b)
            }
        }
    }

    fn logic(&mut self, decisive: bool, left: &'v Expr, right: &'v Expr) -> Found<'v> {
        let first = self.expr(left);
        match &first {
            Ok(Value::Bool(value)) if *value == decisive => return first,
            Err(EvalError::Budget) => return first,
            _ => {}
        }
        let second = self.expr(right);
        match (&first, &second) {
            (_, Ok(Value::Bool(value))) if *value == decisive => second,
            (Ok(Value::Bool(_)), Ok(Value::Bool(_))) => second,
            (_, Err(EvalError::Budget)) => second,
            (Err(_), _) => first,
            (_, Err(_)) => second,
            _ => failed("no such overload"),
        }
    }

    fn contains(&mut self, item: &Value<'v>, all: &Value<'v>) -> Found<'v> {
        if let (Value::Json(serde_json::Value::Object(_), _), Value::String(key)) = (all, item) {
            self.budget.spend(1)?;
            return Ok(Value::Bool(all.get(key).is_some()));
        }
        if all.is_list() {
            let weight = 1 + item.weight() / 10;
            for at in 0..all.size().unwrap_or(0) {
                self.budget.spend(weight)?;
                if all.at(at).is_some_and(|own| own.equals(item)) {
                    return Ok(Value::Bool(true));
                }
            }
            return Ok(Value::Bool(false));
        }
        match all {
            Value::Map(entries) => {
                self.budget.spend(1 + entries.len() as u64)?;
                Ok(Value::Bool(all.under(item).is_some()))
            }
            Value::Json(..) => Ok(Value::Bool(false)),
            _ => failed("no such overload"),
        }
    }

    fn macro_call(&mut self, all: &'v Macro) -> Found<'v> {
        let range = self.expr(&all.range)?;
        self.budget.spend(1)?;
        match all.kind {
            MacroKind::Bind => return self.scoped(all, range, None, |run| run.expr(&all.body)),
            MacroKind::OptMap | MacroKind::OptFlatMap => {
                let Value::Optional(inner) = range else { return failed("no such overload") };
                let Some(inner) = inner else { return Ok(Value::Optional(None)) };
                let body = self.scoped(all, inner.as_ref().clone(), None, |run| run.expr(&all.body))?;
                return Ok(if all.kind == MacroKind::OptMap { Value::some(body) } else { body });
            }
            _ => {}
        }
        self.budget.spend(range.size().unwrap_or(0) as u64)?;
        let pairs: Vec<(Value<'v>, Value<'v>)> = match (range.items(), range.entries()) {
            (Some(items), _) => items.into_iter().enumerate().map(|(at, item)| (Value::Int(at as i64), item)).collect(),
            (None, Some(entries)) => entries,
            (None, None) => return failed("no such overload"),
        };
        // A single variable is a list's element and a map's key.
        let is_list = range.is_list();
        self.fold(all, pairs, is_list)
    }

    fn fold(&mut self, all: &'v Macro, pairs: Vec<(Value<'v>, Value<'v>)>, is_list: bool) -> Found<'v> {
        let mut made = Vec::new();
        let mut keys = Vec::new();
        let mut count = 0;
        let mut problem = None;
        for (key, value) in pairs {
            let first = if is_list && all.second.is_none() { value.clone() } else { key.clone() };
            let picked = first.clone();
            if let Some(filter) = &all.filter {
                match self.scoped(all, first.clone(), Some(value.clone()), |run| run.expr(filter))? {
                    Value::Bool(true) => {}
                    Value::Bool(false) => continue,
                    _ => return failed("no such overload"),
                }
            }
            let body = self.scoped(all, first, Some(value), |run| run.expr(&all.body));
            match (all.kind, body) {
                (_, Err(EvalError::Budget)) => return Err(EvalError::Budget),
                (MacroKind::All, Ok(Value::Bool(false))) => return Ok(Value::Bool(false)),
                (MacroKind::Exists, Ok(Value::Bool(true))) => return Ok(Value::Bool(true)),
                (MacroKind::All | MacroKind::Exists, Ok(Value::Bool(_))) => {}
                (MacroKind::All | MacroKind::Exists, Err(error)) => problem = Some(error),
                (_, Err(error)) => return Err(error),
                (MacroKind::ExistsOne, Ok(Value::Bool(is))) => count += usize::from(is),
                (MacroKind::Filter, Ok(Value::Bool(true))) => made.push(picked),
                (MacroKind::Filter, Ok(Value::Bool(false))) => {}
                (MacroKind::Map | MacroKind::TransformList, Ok(value)) => made.push(value),
                (MacroKind::TransformMap, Ok(value)) => {
                    keys.push(key);
                    made.push(value);
                }
                _ => return failed("no such overload"),
            }
        }
        if let Some(problem) = problem {
            return Err(problem);
        }
        Ok(match all.kind {
            MacroKind::All => Value::Bool(true),
            MacroKind::Exists => Value::Bool(false),
            MacroKind::ExistsOne => Value::Bool(count == 1),
            MacroKind::TransformMap => Value::Map(Arc::new(keys.into_iter().zip(made).collect())),
            _ => Value::list(made),
        })
    }

    fn scoped(
        &mut self,
        all: &'v Macro,
        first: Value<'v>,
        second: Option<Value<'v>>,
        body: impl FnOnce(&mut Self) -> Found<'v>,
    ) -> Found<'v> {
        let depth = self.scopes.len();
        self.scopes.push((&all.first, first));
        if let (Some(name), Some(value)) = (&all.second, second) {
            self.scopes.push((name, value));
        }
        let found = body(self);
        self.scopes.truncate(depth);
        found
    }
}

fn push_optional<'v>(all: &mut Vec<Value<'v>>, value: Value<'v>, optional: bool) {
    match (optional, value) {
        (true, Value::Optional(Some(inner))) => all.push(inner.as_ref().clone()),
        (true, Value::Optional(None)) => {}
        (_, value) => all.push(value),
    }
}

fn of_literal<'v>(literal: &Literal) -> Value<'v> {
    match literal {
        Literal::Null => Value::Null,
        Literal::Bool(value) => Value::Bool(*value),
        Literal::Int(value) => Value::Int(*value),
        Literal::Uint(value) => Value::Uint(*value),
        Literal::Double(value) => Value::Double(*value),
        Literal::String(text) => Value::String(Arc::clone(text)),
        Literal::Bytes(bytes) => Value::Bytes(Arc::clone(bytes)),
    }
}

fn has(value: &Value<'_>, field: &str) -> bool {
    match value {
        Value::Optional(inner) => inner.as_ref().is_some_and(|inner| has(inner, field)),
        // A field of a struct that is null counts as absent, an entry of a map does not.
        Value::Json(_, Type::Object(_)) => value.get(field).is_some_and(|found| !matches!(found, Value::Null)),
        _ => value.get(field).is_some(),
    }
}

fn lookup<'v>(value: &Value<'v>, key: &Value<'v>, optional: bool) -> Found<'v> {
    if let Value::Optional(inner) = value {
        return match inner {
            Some(inner) => lookup(inner, key, true),
            None => Ok(Value::Optional(None)),
        };
    }
    let found = match (value, key) {
        (list, Value::Int(_) | Value::Uint(_) | Value::Double(_)) if list.is_list() => {
            let at = match key {
                Value::Int(at) => usize::try_from(*at).ok(),
                Value::Uint(at) => usize::try_from(*at).ok(),
                Value::Double(at) if at.fract() == 0.0 && *at >= 0.0 => Some(*at as usize),
                _ => None,
            };
            let found = at.and_then(|at| list.at(at));
            if found.is_none() && !optional {
                let shown = key.to_json().unwrap_or_default();
                return failed(format!("index out of bounds: {shown}"));
            }
            found
        }
        (list, _) if list.is_list() => return failed("unsupported index type"),
        (map @ (Value::Map(_) | Value::Json(..)), key) => map.under(key),
        _ => return failed("no such overload"),
    };
    match (found, optional) {
        (found, true) => Ok(Value::Optional(found.map(Arc::new))),
        (Some(found), false) => Ok(found),
        (None, false) => {
            let shown = key.to_json().map_or_else(String::new, |k| k.as_str().map_or_else(|| k.to_string(), str::to_owned));
            failed(format!("no such key: {shown}"))
        }
    }
}

fn unary(negate: bool, value: Value<'_>) -> Found<'_> {
    match (negate, value) {
        (false, Value::Bool(value)) => Ok(Value::Bool(!value)),
        (true, Value::Int(value)) => match value.checked_neg() {
            Some(value) => Ok(Value::Int(value)),
            None => failed("integer overflow"),
        },
        (true, Value::Double(value)) => Ok(Value::Double(-value)),
        (true, Value::Duration(value)) => Ok(Value::Duration(value.wrapping_neg())),
        _ => failed("no such overload"),
    }
}

fn compare<'v>(op: Op, a: &Value<'v>, b: &Value<'v>) -> Found<'v> {
    let nan = matches!(a, Value::Double(x) if x.is_nan()) || matches!(b, Value::Double(x) if x.is_nan());
    let Some(order) = a.compare(b) else {
        return if nan { Ok(Value::Bool(false)) } else { failed("no such overload") };
    };
    Ok(Value::Bool(match op {
        Op::Less => order == Ordering::Less,
        Op::LessEqual => order != Ordering::Greater,
        Op::Greater => order == Ordering::Greater,
        _ => order != Ordering::Less,
    }))
}
