//! JSON representation of durations and rates.

/// Durations as milliseconds with nanosecond precision; whole milliseconds as integers. Durations above
/// 584 years are clamped.
pub(crate) mod millis {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

    /// The longest duration in milliseconds: the one whose nanoseconds fit a `u64`.
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
            de::Error::custom(format_args!("{millis} is not a duration in milliseconds"))
        })
    }

    /// Returns the duration of this many milliseconds, clamped as on writing, or `None` if negative.
    fn duration(millis: f64) -> Option<Duration> {
        (millis >= 0.0).then(|| {
            let millis = millis.min(MAX as f64);
            // Convert the parts separately, since the whole product would be rounded twice.
            let (whole, part) = (millis.trunc(), millis.fract());
            let part = Duration::from_nanos((part * 1e6).round() as u64);
            Duration::from_millis(whole as u64) + part
        })
    }

    /// A newtype that gives a bare duration its JSON form. A number that is not a valid duration is an
    /// error.
    #[derive(Serialize, Deserialize)]
    #[serde(transparent)]
    pub(crate) struct Millis(#[serde(with = "self")] pub(crate) Duration);

    /// Durations that can be absent. A negative one reads as absent, and one that is too long is
    /// clamped. Neither loses the rest of its record.
    pub(crate) mod option {
        use super::{Deserialize, Deserializer, Duration, Serializer};

        #[allow(clippy::ref_option, reason = "signature required by serde's `with`")]
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

    /// Returns events per second, or `None` for zero time or if the quotient is not finite.
    pub(crate) fn per_second(count: u64, nanos: u64) -> Option<f64> {
        (nanos > 0).then(|| round(count as f64 * 1e9 / nanos as f64))
    }

    #[allow(clippy::ref_option, reason = "signature required by serde's `with`")]
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
