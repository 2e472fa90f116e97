//! How durations and rates are written as JSON numbers.

/// Durations as milliseconds, to the nanosecond; whole milliseconds as integers. What is longer than
/// 584 years is cut to that.
pub(crate) mod millis {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

    /// The longest duration, in milliseconds: that of which a `u64` holds the nanoseconds.
    const MAX: u64 = u64::MAX / 1_000_000;

    pub(crate) fn serialize<S: Serializer>(
        duration: &Duration,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let duration = *duration.min(&Duration::from_millis(MAX));
        if let (0, Ok(millis)) = (
            duration.subsec_nanos() % 1_000_000,
            u64::try_from(duration.as_millis()),
        ) {
            serializer.serialize_u64(millis)
        } else {
            serializer.serialize_f64(duration.as_nanos() as f64 / 1e6)
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Duration, D::Error> {
        let millis = f64::deserialize(deserializer)?;
        let duration = duration(millis).filter(|_| millis <= MAX as f64);
        duration.ok_or_else(|| {
            de::Error::custom(format_args!("{millis} is no duration in milliseconds"))
        })
    }

    /// The duration of that many milliseconds, which is cut as one that is written; absent if it is
    /// less than none.
    fn duration(millis: f64) -> Option<Duration> {
        (millis >= 0.0).then(|| {
            let millis = millis.min(MAX as f64);
            // Apart, since the product of all of it would be rounded once more.
            let (whole, part) = (millis.trunc(), millis.fract());
            let part = Duration::from_nanos((part * 1e6).round() as u64);
            Duration::from_millis(whole as u64) + part
        })
    }

    /// A duration in the JSON form of something that has no other: a number that is none is refused.
    #[derive(Serialize, Deserialize)]
    #[serde(transparent)]
    pub(crate) struct Millis(#[serde(with = "self")] pub(crate) Duration);

    /// Durations that may be absent. One less than none reads as absent, and one too long is cut: neither
    /// loses the rest of its record.
    pub(crate) mod option {
        use super::{Deserialize, Deserializer, Duration, Serializer};

        #[allow(
            clippy::ref_option,
            reason = "the signature that serde's `with` asks for"
        )]
        pub(crate) fn serialize<S: Serializer>(
            duration: &Option<Duration>,
            serializer: S,
        ) -> Result<S::Ok, S::Error> {
            match duration {
                Some(duration) => super::serialize(duration, serializer),
                None => serializer.serialize_none(),
            }
        }

        pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
            deserializer: D,
        ) -> Result<Option<Duration>, D::Error> {
            Ok(Option::deserialize(deserializer)?.and_then(super::duration))
        }
    }
}

/// Rates to three decimals.
pub(crate) mod rate {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn round(rate: f64) -> f64 {
        (rate * 1e3).round() / 1e3
    }

    /// Events per second; absent over zero time, and where the quotient has no value.
    pub(crate) fn per_second(count: u64, nanos: u64) -> Option<f64> {
        (nanos > 0).then(|| round(count as f64 * 1e9 / nanos as f64))
    }

    #[allow(
        clippy::ref_option,
        reason = "the signature that serde's `with` asks for"
    )]
    pub(crate) fn serialize<S: Serializer>(
        rate: &Option<f64>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match rate {
            Some(rate) => serializer.serialize_f64(round(*rate)),
            None => serializer.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<f64>, D::Error> {
        Ok(Option::<f64>::deserialize(deserializer)?.map(round))
    }
}
