//! `filters=` of list, prune and events requests: a map of lists, or the older map of maps.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::error::{ApiError, Result};

/// Parsed filters; several values of one key are alternatives (labels: all must hold).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Filters(BTreeMap<String, BTreeSet<String>>);

impl Filters {
    /// Parses and refuses keys that are not known.
    pub(crate) fn parse(text: Option<&str>, known: &[&str]) -> Result<Self> {
        let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(Self::default()) };
        let invalid = || ApiError::bad_request("invalid filter");
        let parsed: BTreeMap<String, Value> = serde_json::from_str(text).map_err(|_| invalid())?;
        let mut filters = BTreeMap::new();
        for (key, values) in parsed {
            if !known.contains(&key.as_str()) {
                return Err(ApiError::bad_request(format!("invalid filter '{key}'")));
            }
            let values = match values {
                Value::Array(list) => list.into_iter().map(|v| v.as_str().map(str::to_owned)).collect::<Option<_>>(),
                Value::Object(map) => {
                    Some(map.into_iter().filter(|(_, on)| *on == Value::Bool(true)).map(|(k, _)| k).collect())
                }
                _ => None,
            };
            filters.insert(key, values.ok_or_else(invalid)?);
        }
        Ok(Self(filters))
    }

    pub(crate) fn has(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    pub(crate) fn values(&self, key: &str) -> impl Iterator<Item = &str> {
        self.0.get(key).into_iter().flatten().map(String::as_str)
    }

    /// No such filter, or one of its values fits.
    pub(crate) fn any(&self, key: &str, fits: impl Fn(&str) -> bool) -> bool {
        self.0.get(key).is_none_or(|values| values.iter().any(|value| fits(value)))
    }

    /// A yes-or-no filter.
    pub(crate) fn flag(&self, key: &str) -> Result<Option<bool>> {
        let mut answer = None;
        for value in self.values(key) {
            answer = Some(match value {
                "1" | "true" | "True" | "TRUE" | "t" => true,
                "0" | "false" | "False" | "FALSE" | "f" => false,
                other => return Err(ApiError::bad_request(format!("invalid filter '{key}={other}'"))),
            });
        }
        Ok(answer)
    }

    /// All `label=` hold and no `label!=` does.
    pub(crate) fn labels(&self, labels: &BTreeMap<String, String>) -> bool {
        let holds = |wanted: &str| match wanted.split_once('=') {
            Some((key, value)) => labels.get(key).is_some_and(|have| have == value),
            None => labels.contains_key(wanted),
        };
        self.values("label").all(holds) && !self.values("label!").any(holds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[&str] = &["label", "label!", "name", "dangling"];

    #[test]
    fn both_notations_are_read() {
        let list = Filters::parse(Some(r#"{"label":["a=1","b"]}"#), KNOWN).unwrap();
        let map = Filters::parse(Some(r#"{"label":{"a=1":true,"b":true,"c":false}}"#), KNOWN).unwrap();
        assert_eq!(list, map);
        let labels = [("a".to_owned(), "1".to_owned()), ("b".to_owned(), String::new())].into();
        assert!(list.labels(&labels));
        assert!(!list.labels(&BTreeMap::new()));
        assert!(!Filters::parse(Some(r#"{"label!":["b"]}"#), KNOWN).unwrap().labels(&labels));
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in ["x", "[]", r#"{"label":1}"#, r#"{"label":[1]}"#] {
            assert_eq!(Filters::parse(Some(bad), KNOWN).unwrap_err().message, "invalid filter", "{bad}");
        }
        assert_eq!(
            Filters::parse(Some(r#"{"colour":["red"]}"#), KNOWN).unwrap_err().message,
            "invalid filter 'colour'"
        );
        assert!(Filters::parse(Some(r#"{"dangling":["maybe"]}"#), KNOWN).unwrap().flag("dangling").is_err());
        assert_eq!(Filters::parse(Some(r#"{"dangling":["1"]}"#), KNOWN).unwrap().flag("dangling").unwrap(), Some(true));
    }
}
