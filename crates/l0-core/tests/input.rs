//! The input of a run reaches only the interceptors that need it.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use l0_core::source::ByToken;
use l0_core::testing::{Script, ScriptedError, ScriptedStream};
use l0_core::{Attempt, Interceptor, L0, Observers, RunInfo, Source};
use serde_json::{Value, json};

/// A source that knows its input, and counts the requests for it.
struct Asks {
    script: Script,
    times: Arc<AtomicU32>,
}

impl Source for Asks {
    type Answer = ScriptedStream;
    type Error = ScriptedError;
    type Connecting = std::future::Ready<Result<ScriptedStream, ScriptedError>>;
    type View = ByToken;

    fn connect(&mut self, _: Attempt) -> Self::Connecting {
        std::future::ready(Ok(self.script.stream()))
    }

    fn view(&self) -> ByToken {
        ByToken
    }

    fn input(&self) -> Option<Value> {
        self.times.fetch_add(1, Ordering::Relaxed);
        Some(json!([{"role": "user", "content": "canary"}]))
    }
}

/// Keeps the input that it receives.
#[derive(Clone, Default)]
struct Keeps {
    needs_input: bool,
    kept: Arc<Mutex<Vec<RunInfo>>>,
}

impl Interceptor for Keeps {
    fn observe(&self, run: &RunInfo, _: &mut Observers) {
        self.kept.lock().expect("no panic").push(run.clone());
    }

    fn needs_input(&self) -> bool {
        self.needs_input
    }
}

#[test]
fn the_input_of_each_source_is_requested_only_if_needed_and_is_never_printed() {
    for needs_input in [false, true] {
        let keeps = Keeps {
            needs_input,
            ..Keeps::default()
        };
        let l0 = L0::builder()
            .interceptor(Some(Arc::new(keeps.clone())))
            .build();
        let times = Arc::new(AtomicU32::new(0));
        let asks = || Asks {
            script: Script::new(),
            times: Arc::clone(&times),
        };
        drop(l0.stream_from(asks()).fallback(asks()).start());
        drop(l0.stream(Script::new().source()).input("canary").start());
        drop(l0.stream_from(asks()).input("another").start());

        let expected = if needs_input { 3 } else { 0 };
        assert_eq!(times.load(Ordering::Relaxed), expected);
        let messages = json!([{"role": "user", "content": "canary"}]);
        let runs = keeps.kept.lock().expect("no panic");
        let inputs: Vec<Vec<_>> = runs
            .iter()
            .map(|run| {
                run.sources()
                    .map(|source| source.input.as_deref().cloned())
                    .collect()
            })
            .collect();
        let known = |input: Value| Some(input).filter(|_| needs_input);
        assert_eq!(
            inputs,
            [
                vec![known(messages.clone()), known(messages)],
                vec![known("canary".into())],
                vec![known("another".into())],
            ]
        );
        let shown = format!("{runs:?} {:?}", runs[0].source(1));
        assert!(!shown.contains("canary"), "{shown}");
    }
}
