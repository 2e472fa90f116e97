//! Labels: small enums with stable names, all with the same traits.

/// Declares an enum whose values have stable names.
///
/// Values after `only_read` occur only in records of other versions. They are not in `ALL`, because
/// this version never writes them.
macro_rules! label_enum {
    (
        $(#[$about:meta])*
        pub enum $name:ident {
            $($(#[$value_about:meta])* $value:ident = $label:literal,)+
        }
        $(only_read { $(#[$read_about:meta])* $read:ident = $read_label:literal })?
    ) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum $name {
            $($(#[$value_about])* $value,)+
            $($(#[$read_about])* $read,)?
        }

        impl $name {
            /// Every value that this version writes, in the order of declaration.
            pub const ALL: &'static [Self] = &[$(Self::$value),+];

            /// Returns the stable label, in snake case.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$value => $label,)+
                    $(Self::$read => $read_label,)?
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }
    };
}

/// Implements reading for an enum of labels. Unknown labels read as `Other`, so a record of a newer
/// version is not lost.
macro_rules! read_back {
    ($name:ident) => {
        impl $name {
            /// Returns the value with this label, or `Other` if the label is unknown.
            #[must_use]
            pub fn from_label(label: &str) -> Self {
                let known = Self::ALL.iter().find(|value| value.as_str() == label);
                known.copied().unwrap_or(Self::Other)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let label = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                Ok(Self::from_label(&label))
            }
        }
    };
}

pub(crate) use {label_enum, read_back};
