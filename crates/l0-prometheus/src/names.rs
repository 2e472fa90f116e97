//! Names: what Prometheus allows, and what is taken.

use crate::error::LabelError;

/// Names that metrics of this crate, or the format itself, give a meaning to.
const RESERVED: [&str; 7] = [
    "le",
    "quantile",
    "error_type",
    "severity",
    "rule",
    "outcome",
    "reason",
];

/// Whether Prometheus allows this as the name of a metric.
pub(crate) fn is_metric_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b':';
    !name.is_empty() && !name.as_bytes()[0].is_ascii_digit() && name.bytes().all(allowed)
}

/// Gives the name back if a caller may use it.
pub(crate) fn check_label(name: &str) -> Result<&str, LabelError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    if name.is_empty() || name.as_bytes()[0].is_ascii_digit() || !name.bytes().all(allowed) {
        Err(LabelError::Invalid(name.to_owned()))
    } else if name.starts_with("__") || RESERVED.contains(&name) {
        Err(LabelError::Reserved(name.to_owned()))
    } else {
        Ok(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_names_have_letters_digits_and_underscores() {
        for name in ["a", "_", "_9", "modelName", "user_tier"] {
            assert_eq!(check_label(name), Ok(name));
        }
        for name in ["", "9a", "a-b", "a b", "ü", "a:b", "a=", "a\"", "a\n"] {
            assert_eq!(check_label(name), Err(LabelError::Invalid(name.to_owned())));
        }
    }

    #[test]
    fn names_that_mean_something_are_reserved() {
        for name in RESERVED.into_iter().chain(["__name__", "__", "__x"]) {
            assert_eq!(
                check_label(name),
                Err(LabelError::Reserved(name.to_owned()))
            );
        }
    }

    #[test]
    fn metric_names_may_have_colons() {
        for name in ["l0", "a:b", ":", "_9"] {
            assert!(is_metric_name(name), "{name}");
        }
        for name in ["", "9a", "a-b", "ü", "a b"] {
            assert!(!is_metric_name(name), "{name}");
        }
    }
}
