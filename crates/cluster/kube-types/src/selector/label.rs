//! Label selectors: `a=b,c!=d,e in (f,g),h notin (i),j,!k,l>1`.

use super::SelectorError;
use crate::names;
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// A parsed label selector; all requirements must hold. The default one is empty and matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
    /// An absent selector selects nothing, which an empty list of requirements could not say.
    nothing: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    pub key: String,
    pub operator: Operator,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operator {
    In(BTreeSet<String>),
    NotIn(BTreeSet<String>),
    Exists,
    DoesNotExist,
    GreaterThan(i64),
    LessThan(i64),
}

impl Requirement {
    fn holds(&self, actual: Option<&str>) -> bool {
        let number = || actual.and_then(|v| v.parse::<i64>().ok());
        match &self.operator {
            Operator::In(values) => actual.is_some_and(|v| values.contains(v)),
            Operator::NotIn(values) => actual.is_none_or(|v| !values.contains(v)),
            Operator::Exists => actual.is_some(),
            Operator::DoesNotExist => actual.is_none(),
            Operator::GreaterThan(bound) => number().is_some_and(|n| n > *bound),
            Operator::LessThan(bound) => number().is_some_and(|n| n < *bound),
        }
    }

    fn checked(key: String, operator: Operator) -> Result<Self, SelectorError> {
        let bad = |value: &str, problem: &str| {
            SelectorError(format!("unable to parse requirement: Invalid value: {value:?}: {problem}"))
        };
        if let Some(problem) = names::qualified_name(&key).first() {
            return Err(bad(&key, problem));
        }
        if let Operator::In(values) | Operator::NotIn(values) = &operator {
            for value in values {
                if let Some(problem) = names::label_value(value).first() {
                    return Err(bad(value, problem));
                }
            }
        }
        Ok(Self { key, operator })
    }
}

impl LabelSelector {
    /// A selector that matches no object at all.
    pub fn nothing() -> Self {
        Self { requirements: Vec::new(), nothing: true }
    }

    /// Query syntax.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut parser = Parser { rest: text };
        Ok(Self { requirements: parser.requirements()?, nothing: false })
    }

    /// From `metav1.LabelSelector`. An empty one matches everything; for an absent one use [`LabelSelector::nothing`].
    pub fn from_typed(selector: &meta::LabelSelector) -> Result<Self, SelectorError> {
        let mut requirements = Vec::new();
        for (key, value) in selector.match_labels.iter().flatten() {
            requirements.push(Requirement::checked(key.clone(), Operator::In(BTreeSet::from([value.clone()])))?);
        }
        for expression in selector.match_expressions.iter().flatten() {
            let values = expression.values.iter().flatten().cloned().collect();
            let operator = operator(&expression.operator, values)?;
            requirements.push(Requirement::checked(expression.key.clone(), operator)?);
        }
        Ok(Self { requirements, nothing: false })
    }

    /// From the JSON form of `metav1.LabelSelector`; null is an absent selector, which matches nothing.
    pub fn from_value(selector: &Value) -> Result<Self, SelectorError> {
        if selector.is_null() {
            return Ok(Self::nothing());
        }
        let typed: meta::LabelSelector =
            serde::Deserialize::deserialize(selector).map_err(|e| SelectorError(e.to_string()))?;
        Self::from_typed(&typed)
    }

    /// From a plain map (Service and ReplicationController selectors). Values are not checked: they were when stored.
    pub fn from_map<'a>(map: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let requirement = |(key, value): (&str, &str)| Requirement {
            key: key.to_owned(),
            operator: Operator::In(BTreeSet::from([value.to_owned()])),
        };
        Self { requirements: map.into_iter().map(requirement).collect(), nothing: false }
    }

    /// Matches everything.
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty() && !self.nothing
    }

    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// `get` looks a label up.
    pub fn matches<'a>(&self, get: impl Fn(&str) -> Option<&'a str>) -> bool {
        !self.nothing && self.requirements.iter().all(|r| r.holds(get(&r.key)))
    }

    pub fn matches_map(&self, labels: &BTreeMap<String, String>) -> bool {
        self.matches(|key| labels.get(key).map(String::as_str))
    }

    /// On an object's `metadata.labels`.
    pub fn matches_object(&self, object: &Value) -> bool {
        let labels = object.get("metadata").and_then(|m| m.get("labels"));
        self.matches(|key| labels?.get(key)?.as_str())
    }
}

fn operator(name: &str, values: BTreeSet<String>) -> Result<Operator, SelectorError> {
    let needs_values = |made: fn(BTreeSet<String>) -> Operator, values: BTreeSet<String>| match values.is_empty() {
        true => Err(SelectorError(
            "values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty".to_owned(),
        )),
        false => Ok(made(values)),
    };
    match name {
        "In" => needs_values(Operator::In, values),
        "NotIn" => needs_values(Operator::NotIn, values),
        "Exists" | "DoesNotExist" if !values.is_empty() => Err(SelectorError(
            "values: Invalid value: values set must be empty for exists and does not exist".to_owned(),
        )),
        "Exists" => Ok(Operator::Exists),
        "DoesNotExist" => Ok(Operator::DoesNotExist),
        other => Err(SelectorError(format!("{other:?} is not a valid label selector operator"))),
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, requirement) in self.requirements.iter().enumerate() {
            if at > 0 {
                f.write_str(",")?;
            }
            write!(f, "{requirement}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = &self.key;
        let set = |values: &BTreeSet<String>| values.iter().map(String::as_str).collect::<Vec<_>>().join(",");
        match &self.operator {
            Operator::In(values) if values.len() == 1 => write!(f, "{key}={}", set(values)),
            Operator::In(values) => write!(f, "{key} in ({})", set(values)),
            Operator::NotIn(values) if values.len() == 1 => write!(f, "{key}!={}", set(values)),
            Operator::NotIn(values) => write!(f, "{key} notin ({})", set(values)),
            Operator::Exists => f.write_str(key),
            Operator::DoesNotExist => write!(f, "!{key}"),
            Operator::GreaterThan(bound) => write!(f, "{key}>{bound}"),
            Operator::LessThan(bound) => write!(f, "{key}<{bound}"),
        }
    }
}

struct Parser<'t> {
    rest: &'t str,
}

impl<'t> Parser<'t> {
    fn requirements(&mut self) -> Result<Vec<Requirement>, SelectorError> {
        let mut found = Vec::new();
        self.space();
        if self.rest.is_empty() {
            return Ok(found);
        }
        loop {
            found.push(self.requirement()?);
            self.space();
            if self.rest.is_empty() {
                return Ok(found);
            }
            if !self.take(",") {
                return Err(self.unexpected("',' or 'end of string'"));
            }
            self.space();
            if self.rest.is_empty() {
                return Err(SelectorError("found '', expected: identifier after ','".to_owned()));
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, SelectorError> {
        if self.take("!") {
            let key = self.key()?;
            return Requirement::checked(key, Operator::DoesNotExist);
        }
        let key = self.key()?;
        self.space();
        let one = |value: String| BTreeSet::from([value]);
        let operator = if self.take("!=") {
            Operator::NotIn(one(self.value()))
        } else if self.take("==") || self.take("=") {
            Operator::In(one(self.value()))
        } else if self.take(">") {
            Operator::GreaterThan(self.number()?)
        } else if self.take("<") {
            Operator::LessThan(self.number()?)
        } else if self.keyword("notin") {
            Operator::NotIn(self.values()?)
        } else if self.keyword("in") {
            Operator::In(self.values()?)
        } else if self.rest.is_empty() || self.rest.starts_with(',') {
            Operator::Exists
        } else {
            return Err(self.unexpected("in, notin, =, ==, !=, gt, lt"));
        };
        Requirement::checked(key, operator)
    }

    fn values(&mut self) -> Result<BTreeSet<String>, SelectorError> {
        self.space();
        if !self.take("(") {
            return Err(self.unexpected("'('"));
        }
        let mut values = BTreeSet::new();
        loop {
            values.insert(self.value());
            if self.take(")") {
                return Ok(values);
            }
            if !self.take(",") {
                return Err(self.unexpected("',' or ')'"));
            }
        }
    }

    fn number(&mut self) -> Result<i64, SelectorError> {
        let text = self.value();
        text.parse().map_err(|_| {
            SelectorError(format!(
                "values[0]: Invalid value: {text:?}: for 'Gt', 'Lt' operators, the value must be an integer"
            ))
        })
    }

    fn key(&mut self) -> Result<String, SelectorError> {
        self.space();
        match self.word() {
            "" => Err(self.unexpected("!, identifier, or 'end of string'")),
            key => Ok(key.to_owned()),
        }
    }

    /// May be empty: `a=` asks for the empty value.
    fn value(&mut self) -> String {
        self.space();
        let value = self.word().to_owned();
        self.space();
        value
    }

    fn word(&mut self) -> &'t str {
        let end = self.rest.find(|c: char| c.is_whitespace() || "=!(),<>".contains(c)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word
    }

    fn space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn take(&mut self, token: &str) -> bool {
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// A word that is not the start of a longer one.
    fn keyword(&mut self, word: &str) -> bool {
        let ends = |rest: &str| rest.starts_with(|c: char| c.is_whitespace() || c == '(');
        self.rest.strip_prefix(word).is_some_and(ends) && self.take(word)
    }

    fn unexpected(&self, expected: &str) -> SelectorError {
        let found: String = self.rest.chars().take(40).collect();
        SelectorError(format!("unable to parse requirement: found '{found}', expected: {expected}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn matches(selector: &str, labels: &[(&str, &str)]) -> bool {
        let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        LabelSelector::parse(selector).unwrap_or_else(|e| panic!("{selector}: {e}")).matches_map(&labels)
    }

    #[test]
    fn every_operator_matches_as_kubernetes_does() {
        let labels = [("app", "web"), ("n", "5"), ("empty", "")];
        for (selector, expected) in [
            ("", true),
            ("app=web", true),
            ("app==web", true),
            ("app = web , n=5", true),
            ("app!=web", false),
            ("other!=x", true),
            ("app in (web, db)", true),
            ("app notin (web)", false),
            ("other notin (a)", true),
            ("app", true),
            ("!app", false),
            ("!other", true),
            ("n>4", true),
            ("n>5", false),
            ("n<6", true),
            ("app>1", false),
            ("empty=", true),
            ("app=", false),
            ("in", false),
        ] {
            assert_eq!(matches(selector, &labels), expected, "{selector}");
        }
    }

    #[test]
    fn what_is_no_selector_is_refused() {
        for text in
            ["a b", "a in", "a in (", "a in b", "=b", "a=b,", ",", "a=b c", "a=b/c", "-a=b", "a>b", "!", "a=b=c", "(a)"]
        {
            assert!(LabelSelector::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn typed_selectors_match_and_an_absent_one_matches_nothing() {
        let selector = LabelSelector::from_value(&json!({
            "matchLabels": {"app": "web"},
            "matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["x"]}, {"key": "gone", "operator": "DoesNotExist"}],
        }))
        .unwrap();
        assert!(selector.matches_object(&json!({"metadata": {"labels": {"app": "web"}}})));
        assert!(!selector.matches_object(&json!({"metadata": {"labels": {"app": "web", "tier": "x"}}})));
        assert_eq!(selector.to_string(), "app=web,tier!=x,!gone");
        assert!(!LabelSelector::from_value(&Value::Null).unwrap().matches_object(&json!({})));
        assert!(LabelSelector::from_value(&json!({})).unwrap().matches_object(&json!({})));
        for bad in [
            json!({"matchExpressions": [{"key": "a", "operator": "In"}]}),
            json!({"matchExpressions": [{"key": "a", "operator": "Like"}]}),
        ] {
            assert!(LabelSelector::from_value(&bad).is_err(), "{bad}");
        }
    }

    fn any_operator() -> impl Strategy<Value = Operator> {
        let values = || proptest::collection::btree_set("[a-z]{1,3}", 1..3);
        prop_oneof![
            values().prop_map(Operator::In),
            values().prop_map(Operator::NotIn),
            Just(Operator::Exists),
            Just(Operator::DoesNotExist),
            any::<i32>().prop_map(|n| Operator::GreaterThan(n.into())),
            any::<i32>().prop_map(|n| Operator::LessThan(n.into())),
        ]
    }

    proptest! {
        #[test]
        fn printing_and_parsing_again_changes_nothing(all in proptest::collection::vec(("[a-z]{1,4}", any_operator()), 0..4)) {
            let requirements = all.into_iter().map(|(key, operator)| Requirement { key, operator }).collect();
            let selector = LabelSelector { requirements, nothing: false };
            prop_assert_eq!(LabelSelector::parse(&selector.to_string()).unwrap(), selector);
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,40}") {
            let _ = LabelSelector::parse(&text);
        }
    }
}
