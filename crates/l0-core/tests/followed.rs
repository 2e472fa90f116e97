//! Observers of tokens do not change the measurements of a run. With such an observer each token is
//! recorded in full; without one, most tokens are only counted and timed.

use std::time::Duration;

use futures_util::StreamExt;
use l0_core::testing::{Script, ScriptedToken};
use l0_core::{
    Backoff, Event, FinishReason, Interceptor, Interest, L0, Monitoring, Observer, Observers,
    Progress, Retry, RunInfo, Telemetry, Timeouts, Timestamp, TokenKind, Usage,
};
use proptest::prelude::*;

/// Receives every token, and ignores it.
struct Follows;

impl Interceptor for Follows {
    fn observe(&self, _: &RunInfo, observers: &mut Observers) {
        observers.push(Follower);
    }
}

struct Follower;

impl Observer for Follower {
    fn on_event(&mut self, _: &Event<'_>) {}

    fn interest(&self) -> Interest {
        Interest::TOKENS
    }
}

struct ReadsProgress;

impl Interceptor for ReadsProgress {
    fn needs_progress(&self) -> bool {
        true
    }
}

/// The next step of a source.
#[derive(Debug, Clone)]
enum Step {
    Item(Box<ScriptedToken>),
    Wait(u64),
    Break,
}

fn step() -> impl Strategy<Value = Step> {
    let kinds = [
        TokenKind::Text,
        TokenKind::Reasoning,
        TokenKind::ToolCall,
        TokenKind::Media,
        TokenKind::Other,
    ];
    let item = (
        prop::sample::select(kinds.to_vec()),
        prop::sample::select(&["", "a", "word "][..]),
        0..20_u8,
    );
    let item = item.prop_map(|(kind, text, says)| {
        let mut item = ScriptedToken::new(kind, text);
        match says {
            0 => item.usage = Some(Usage::new().input(3).output(7).total(10)),
            1 => item.finish = Some(FinishReason::Stop),
            2 => item.model = Some("m-1".to_owned()),
            3 => item.response_id = Some("r-1".to_owned()),
            _ => {}
        }
        Step::Item(Box::new(item))
    });
    let word = ScriptedToken::new(TokenKind::Text, "word ");
    let plain = Just(Step::Item(Box::new(word)));
    prop_oneof![6 => plain, 6 => item, 3 => (0..90_u64).prop_map(Step::Wait), 1 => Just(Step::Break)]
}

/// The measurement of a run.
#[derive(Debug, Clone, Copy)]
struct How {
    timings: bool,
    looked_on: bool,
    timeouts: bool,
}

/// Returns the progress after each item, and the final telemetry.
fn run(attempts: &[Vec<Step>], how: How, followed: bool) -> (Vec<Option<Progress>>, Telemetry) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    let mut script = Script::new();
    for steps in attempts {
        script = script.attempt(|mut source| {
            for step in steps {
                source = match step.clone() {
                    Step::Item(item) => source.item(*item),
                    Step::Wait(millis) => source.wait(Duration::from_millis(millis)),
                    Step::Break => return source.fail(std::io::ErrorKind::ConnectionReset),
                };
            }
            source
        });
    }
    let retry = Retry::new()
        .max_retries(attempts.len() as u32 - 1)
        .backoff(Backoff::none());
    let mut builder = L0::builder()
        .monitoring(Monitoring::new().include_timings(how.timings))
        .retry(retry);
    if how.timeouts {
        let short = Duration::from_millis(60);
        builder = builder.timeouts(Timeouts::new().first_token(short).inter_token(short));
    }
    if how.looked_on {
        builder = builder.interceptor(ReadsProgress);
    }
    if followed {
        builder = builder.interceptor(Follows);
    }
    let l0 = builder.build();
    runtime.block_on(async {
        let mut run = l0.stream(|_| script.connect()).start();
        let handle = run.handle();
        let mut seen = Vec::new();
        while run.next().await.is_some() {
            seen.push(handle.progress());
        }
        let mut telemetry = run.telemetry().expect("it is measured");
        // Different in each run.
        telemetry.session_id.clear();
        telemetry.start_time = Timestamp::default();
        for error in telemetry.network.errors.iter_mut().flatten() {
            error.timestamp = Timestamp::default();
        }
        (seen, telemetry)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2_000) })]

    #[test]
    fn observers_of_tokens_do_not_change_the_measurements(
        attempts in prop::collection::vec(prop::collection::vec(step(), 0..24), 1..4),
        timings in any::<bool>(),
        looked_on in any::<bool>(),
        timeouts in any::<bool>(),
    ) {
        let how = How { timings, looked_on, timeouts };
        let (alone, followed) = (run(&attempts, how, false), run(&attempts, how, true));
        prop_assert_eq!(alone, followed);
    }
}
