//! The Common Expression Language as Kubernetes speaks it: validation rules of custom resources, admission policies, match
//! conditions.
//!
//! [`Program::compile`] parses, checks types against declared variables and estimates the worst cost; [`Program::eval`] runs it
//! over JSON within a [`Budget`]. Invariant: nothing that an expression says makes it run longer than its budget, nest deeper
//! than [`parser::MAX_DEPTH`] or panic. It does no I/O; what needs the cluster (authorisation) is asked through [`Host`].

mod ast;
mod check;
mod cost;
mod eval;
mod functions;
mod lexer;
mod parser;
mod types;
mod value;

pub use cost::Estimate;
pub use eval::{Budget, EvalError, Host};
pub use types::{Field, ObjectType, Type, escape};
pub use value::Value;

use std::collections::BTreeMap;

/// Longest expression that is read.
pub const MAX_EXPRESSION_BYTES: usize = 256 * 1024;

/// Why an expression is refused: Kubernetes' `ERROR: <input>:LINE:COLUMN: WORDS` with the line beneath.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("compilation failed: {0}")]
pub struct CompileError(pub String);

/// The variables that an expression may use.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    variables: BTreeMap<String, Type>,
}

impl Environment {
    #[must_use]
    pub fn with(mut self, name: &str, kind: Type) -> Self {
        self.variables.insert(name.to_owned(), kind);
        self
    }

    pub fn declare(&mut self, name: &str, kind: Type) {
        self.variables.insert(name.to_owned(), kind);
    }

    pub(crate) fn find(&self, name: &str) -> Option<&Type> {
        self.variables.get(name)
    }
}

/// A checked expression.
#[derive(Debug, Clone)]
pub struct Program {
    root: ast::Expr,
    /// What it yields.
    pub result: Type,
    /// The most that it can cost, by the sizes that its variables' types declare.
    pub estimate: Estimate,
}

impl Program {
    pub fn compile(text: &str, environment: &Environment) -> Result<Self, CompileError> {
        let root = parser::parse(text).map_err(|error| CompileError(error.shown(text)))?;
        let result = check::check(&root, environment).map_err(|errors| {
            CompileError(errors.iter().map(|error| error.shown(text)).collect::<Vec<_>>().join("\n"))
        })?;
        let estimate = cost::estimate(&root, environment);
        Ok(Self { root, result, estimate })
    }

    /// Whether the expression names the variable.
    pub fn uses(&self, name: &str) -> bool {
        self.root.uses(name)
    }

    pub fn eval<'v>(
        &'v self,
        variables: &BTreeMap<String, Value<'v>>,
        budget: &mut Budget,
        host: Option<&dyn Host>,
    ) -> Result<Value<'v>, EvalError> {
        eval::run(&self.root, variables, budget, host)
    }
}

#[cfg(test)]
mod tests;
