//! An expression as a tree. Macros are nodes of their own, so that they are checked, costed and run as what they are.

use std::rc::Rc;
use std::sync::Arc;

#[derive(Debug, Clone)]
pub(crate) struct Expr {
    /// Byte offset of the token that messages point at.
    pub(crate) at: usize,
    /// Of the tree that hangs here; bounded by the parser, since everything else recurses over it.
    pub(crate) depth: usize,
    pub(crate) node: Node,
}

#[derive(Debug, Clone)]
pub(crate) enum Node {
    Literal(Literal),
    Ident(String),
    /// `operand.field`, `operand.?field`
    Select { operand: Box<Expr>, field: String, optional: bool },
    /// `has(operand.field)`
    Has { operand: Box<Expr>, field: String },
    /// `operand[index]`, `operand[?index]`
    Index { operand: Box<Expr>, index: Box<Expr>, optional: bool },
    Unary { negate: bool, operand: Box<Expr> },
    Binary { op: Op, left: Box<Expr>, right: Box<Expr> },
    Ternary { condition: Box<Expr>, yes: Box<Expr>, no: Box<Expr> },
    /// A function of the global name space (dotted names included), or a method.
    Call { target: Option<Box<Expr>>, name: String, args: Vec<Expr> },
    /// Elements, each optional (`?x`) or not.
    List(Vec<(Expr, bool)>),
    Map(Vec<(Expr, Expr, bool)>),
    Macro(Box<Macro>),
}

/// A loop over a list or a map.
#[derive(Debug, Clone)]
pub(crate) struct Macro {
    pub(crate) kind: MacroKind,
    pub(crate) range: Expr,
    pub(crate) first: String,
    /// The second variable of the two-variable forms.
    pub(crate) second: Option<String>,
    pub(crate) filter: Option<Expr>,
    pub(crate) body: Expr,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MacroKind {
    All,
    Exists,
    ExistsOne,
    Map,
    Filter,
    TransformList,
    TransformMap,
    /// `cel.bind(name, range, body)`
    Bind,
    OptMap,
    OptFlatMap,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Literal {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(Arc<str>),
    Bytes(Arc<[u8]>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    Or,
    And,
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    In,
    Add,
    Sub,
    Mul,
    Div,
    Rem,
}

impl Op {
    /// As messages name it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Op::Or => "_||_",
            Op::And => "_&&_",
            Op::Equal => "_==_",
            Op::NotEqual => "_!=_",
            Op::Less => "_<_",
            Op::LessEqual => "_<=_",
            Op::Greater => "_>_",
            Op::GreaterEqual => "_>=_",
            Op::In => "@in",
            Op::Add => "_+_",
            Op::Sub => "_-_",
            Op::Mul => "_*_",
            Op::Div => "_/_",
            Op::Rem => "_%_",
        }
    }
}

impl Expr {
    /// Calls `visit` for each direct child.
    pub(crate) fn children<'e>(&'e self, visit: &mut dyn FnMut(&'e Expr)) {
        match &self.node {
            Node::Literal(_) | Node::Ident(_) => {}
            Node::Select { operand, .. } | Node::Has { operand, .. } | Node::Unary { operand, .. } => visit(operand),
            Node::Index { operand, index, .. } => [operand, index].into_iter().for_each(|e| visit(e)),
            Node::Binary { left, right, .. } => [left, right].into_iter().for_each(|e| visit(e)),
            Node::Ternary { condition, yes, no } => [condition, yes, no].into_iter().for_each(|e| visit(e)),
            Node::Call { target, args, .. } => target.iter().map(AsRef::as_ref).chain(args).for_each(visit),
            Node::List(items) => items.iter().for_each(|(item, _)| visit(item)),
            Node::Map(entries) => entries.iter().for_each(|(key, value, _)| {
                visit(key);
                visit(value);
            }),
            Node::Macro(all) => {
                visit(&all.range);
                all.filter.iter().for_each(&mut *visit);
                visit(&all.body);
            }
        }
    }

    pub(crate) fn uses(&self, name: &str) -> bool {
        if matches!(&self.node, Node::Ident(own) if own == name) {
            return true;
        }
        let mut found = false;
        self.children(&mut |child| found |= child.uses(name));
        found
    }

    /// `a.b.c` of identifiers alone: a dotted function or type name.
    pub(crate) fn dotted(&self) -> Option<Rc<str>> {
        match &self.node {
            Node::Ident(name) => Some(name.as_str().into()),
            Node::Select { operand, field, optional: false } => Some(format!("{}.{field}", operand.dotted()?).into()),
            _ => None,
        }
    }
}
