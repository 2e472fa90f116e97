//! Splits a telemetry by the sources that were called.

use l0_core::{AttemptStats, Metadata, SourcePart, Telemetry, keys};

/// Calls `visit` with the part of each called source and the metadata for its numbers. The metadata is that of
/// the run, with the model, provider and operation of the source's attempts.
///
/// [`Telemetry::by_source`] describes the content of a part.
pub fn by_source(telemetry: &Telemetry, visit: &mut dyn FnMut(&SourcePart<'_>, &Metadata)) {
    telemetry.by_source(&mut |part| {
        let mut metadata = telemetry.metadata.clone();
        // With a single source, the run's own metadata applies, and an older record may have no attempts.
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

/// Returns `true` if the part is the whole telemetry.
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
