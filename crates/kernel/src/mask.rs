//! Update masks (AIP-134): which fields an update sets or clears.

use crate::check::Violations;

/// The fields that one update touches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpdateMask {
    named: Option<Vec<String>>,
}

impl UpdateMask {
    /// Reads the mask of a request.
    ///
    /// `mutable` are the fields that may change; `ignored` are output-only and naming fields, which a
    /// client may echo without effect. `*` names every mutable field. Anything else is a violation.
    pub fn new(
        paths: Option<Vec<String>>,
        mutable: &[&str],
        ignored: &[&str],
        violations: &mut Violations,
    ) -> Self {
        let Some(paths) = paths else { return Self { named: None } };
        let mut named = Vec::with_capacity(paths.len());
        for path in paths {
            // A map or message field is replaced as a whole, so a path into one names the field.
            let field = path.split('.').next().unwrap_or_default();
            if path == "*" {
                named.extend(mutable.iter().map(|&field| field.to_owned()));
            } else if mutable.contains(&field) {
                named.push(field.to_owned());
            } else if !ignored.contains(&field) {
                violations.add("update_mask", format!("{path:?} is not a field that can be updated"));
            }
        }
        Self { named: Some(named) }
    }

    /// The new value of a field, or none to leave it as it is. Without a mask, a present value is set;
    /// with one, exactly the named fields are set, or cleared where no value is present.
    pub fn pick<T: Default>(&self, field: &str, value: Option<T>) -> Option<T> {
        match &self.named {
            None => value,
            Some(named) if named.iter().any(|name| name == field) => Some(value.unwrap_or_default()),
            Some(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(paths: Option<&[&str]>) -> (UpdateMask, Violations) {
        let mut violations = Violations::new();
        let paths = paths.map(|paths| paths.iter().map(|&path| path.to_owned()).collect());
        let mask = UpdateMask::new(paths, &["display_name", "labels"], &["id"], &mut violations);
        (mask, violations)
    }

    #[test]
    fn without_a_mask_present_values_are_set() {
        let (mask, _) = mask(None);
        assert_eq!(mask.pick("display_name", Some("x".to_owned())), Some("x".to_owned()));
        assert_eq!(mask.pick::<String>("display_name", None), None);
    }

    #[test]
    fn a_mask_sets_and_clears() {
        let (mask, violations) = mask(Some(&["display_name", "id", "labels.team"]));
        assert!(violations.is_empty());
        assert_eq!(mask.pick::<String>("display_name", None), Some(String::new()));
        assert_eq!(mask.pick("labels", Some(1)), Some(1));
        assert_eq!(mask.pick("description", Some(1)), None);
    }

    #[test]
    fn unknown_paths_are_violations() {
        assert!(!mask(Some(&["nope"])).1.is_empty());
        assert!(mask(Some(&["*"])).1.is_empty());
    }
}
