//! Sources: a telemetry in parts, one for each source that was called, each with what is known of it.

use l0_core::{AttemptStats, Metadata, SourcePart, Telemetry, keys};

/// Calls `visit` with the part of each source that was called, and with the metadata that its numbers go
/// under: that of the run, but the model, provider and operation that its attempts name.
pub(crate) fn by_source(telemetry: &Telemetry, visit: &mut dyn FnMut(&SourcePart<'_>, &Metadata)) {
    telemetry.by_source(&mut |part| {
        let mut metadata = telemetry.metadata.clone();
        // Of one source, the run's own words are as good, and a record may have no attempts.
        if let (false, Some(attempt)) = (is_whole(&part, telemetry), part.telemetry.attempts.last())
        {
            for (key, name) in names(attempt) {
                match name {
                    Some(name) => metadata.insert(key.to_owned(), name.as_str().into()),
                    None => metadata.remove(key),
                };
            }
        }
        visit(&part, &metadata);
    });
}

/// Whether a part is all of the telemetry.
fn is_whole(part: &SourcePart<'_>, telemetry: &Telemetry) -> bool {
    std::ptr::eq(part.telemetry, telemetry)
}

fn names(attempt: &AttemptStats) -> [(&'static str, Option<&String>); 3] {
    [
        (keys::MODEL, attempt.model.as_ref()),
        (keys::PROVIDER, attempt.provider.as_ref()),
        (keys::OPERATION, attempt.operation.as_ref()),
    ]
}
