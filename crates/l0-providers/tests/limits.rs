//! A stalled response ends within its limits, at every position, and with anything sent instead of tokens.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(clippy::print_stdout, reason = "a test prints what it skipped")]

mod common;

use std::collections::BTreeMap;
use std::future::ready;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use common::*;
use futures_util::{Stream, StreamExt, stream};
use l0_core::{Error, L0, Outcome, Retry, TimeoutKind, Timeouts, Token, TokenKind};
use l0_providers::{Decoder, ProviderError, ProviderToken};
use serde_json::Value;
use tokio::time::{Instant, sleep};

const MS: Duration = Duration::from_millis(1);

/// Interval of the filler after the response has stopped sending tokens.
const EVERY: Duration = Duration::from_millis(100);

/// The fillers; an empty one stands for silence.
fn fillers(dialect: Dialect) -> [(&'static str, String); 5] {
    let data = |payload: &str| format!("data: {payload}\n\n");
    let (ping, empty, usage) = match dialect.name {
        "openai-chat" => (
            data(r#"{"id":"c","object":"chat.completion.chunk","choices":[]}"#),
            data(r#"{"choices":[{"index":0,"delta":{"content":""},"finish_reason":null}]}"#),
            data(
                r#"{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":1,"total_tokens":10}}"#,
            ),
        ),
        "openai-responses" => (
            data(r#"{"type":"keepalive","sequence_number":7}"#),
            data(r#"{"type":"response.output_text.delta","output_index":0,"delta":""}"#),
            data(
                r#"{"type":"response.in_progress","response":{"usage":{"input_tokens":9,"output_tokens":1}}}"#,
            ),
        ),
        "anthropic" => (
            "event: ping\ndata: {\"type\":\"ping\"}\n\n".to_owned(),
            data(
                r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":""}}"#,
            ),
            data(
                r#"{"type":"message_delta","delta":{"stop_reason":null},"usage":{"output_tokens":1}}"#,
            ),
        ),
        _ => (
            data(r#"{"candidates":[]}"#),
            data(r#"{"candidates":[{"content":{"parts":[{"text":""}]}}]}"#),
            data(r#"{"usageMetadata":{"promptTokenCount":9,"totalTokenCount":9}}"#),
        ),
    };
    [
        ("silence", String::new()),
        ("comments", ": still here\n\n".to_owned()),
        ("pings", ping),
        ("empty deltas", empty),
        ("usage", usage),
    ]
}

/// Limits of the four kinds. An absent limit never ends anything.
#[derive(Debug, Clone, Copy, Default)]
struct Limits {
    first: Option<Duration>,
    inter: Option<Duration>,
    idle: Option<Duration>,
    total: Option<Duration>,
}

impl Limits {
    /// All combinations: each limit may be absent, and any may be the shortest. None is a multiple of [`EVERY`], so
    /// nothing arrives exactly at a deadline.
    fn mixes() -> Vec<Self> {
        let values = [
            [430, 610, 250, 1_050],
            [1_050, 950, 330, 270],
            [950, 430, 70, 730],
        ];
        let mut mixes = Vec::new();
        for values in values {
            for set in 1..16_u32 {
                let limit =
                    |bit: usize| (set >> bit & 1 == 1).then(|| Duration::from_millis(values[bit]));
                mixes.push(Self {
                    first: limit(0),
                    inter: limit(1),
                    idle: limit(2),
                    total: limit(3),
                });
            }
        }
        mixes
    }

    fn timeouts(self) -> Timeouts {
        let mut timeouts = Timeouts::new();
        if let Some(limit) = self.first {
            timeouts = timeouts.first_token(limit);
        }
        if let Some(limit) = self.inter {
            timeouts = timeouts.inter_token(limit);
        }
        if let Some(limit) = self.idle {
            timeouts = timeouts.idle(limit);
        }
        if let Some(limit) = self.total {
            timeouts = timeouts.total(limit);
        }
        timeouts
    }
}

/// Items of a decoder, with their times.
#[derive(Debug, Default)]
struct Seen {
    items: Vec<Duration>,
    /// Times of the items that are tokens.
    tokens: Vec<Duration>,
    /// `true` after an item with a finish reason.
    finish: bool,
    /// Time at which the decoder ended or failed.
    end: Option<Duration>,
}

impl Seen {
    /// Returns the time at which a run must end, and the limit that ends it; no limit if the run ends by itself. Absent
    /// if nothing ends it.
    fn must_end(&self, limits: Limits) -> Option<(Duration, Option<TimeoutKind>)> {
        // Nothing follows the last item.
        let until = self.tokens.first().copied().unwrap_or(Duration::MAX);
        let first = limits.first.filter(|limit| until > *limit);
        let limits = [
            (limits.total, TimeoutKind::Total),
            (first, TimeoutKind::FirstToken),
            (late(&self.tokens, limits.inter), TimeoutKind::InterToken),
            (
                late(&[&[Duration::ZERO], &self.items[..]].concat(), limits.idle),
                TimeoutKind::Idle,
            ),
        ];
        let limits = limits.into_iter();
        let limits = limits.filter_map(|(limit, kind)| Some((limit?, Some(kind))));
        let itself = self.end.map(|at| (at, None));
        limits.chain(itself).min_by_key(|(at, _)| *at)
    }
}

/// Returns the first time at which nothing had arrived for longer than a limit.
fn late(times: &[Duration], limit: Option<Duration>) -> Option<Duration> {
    let limit = limit?;
    let next = times.iter().skip(1).chain([&Duration::MAX]);
    let mut waits = times.iter().zip(next);
    let (start, _) = waits.find(|(start, end)| **end - **start > limit)?;
    Some(*start + limit)
}

/// Passes on a decoder's items and records their times.
struct Noted {
    decoder: Decoder<Body>,
    start: Instant,
    seen: Arc<Mutex<Seen>>,
}

impl Stream for Noted {
    type Item = Result<ProviderToken, ProviderError<std::convert::Infallible>>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let polled = self.decoder.poll_next_unpin(cx);
        let at = self.start.elapsed();
        let mut seen = self.seen.lock().unwrap();
        match &polled {
            Poll::Ready(Some(Ok(item))) => {
                let view = item.view();
                let text = !view.text.is_empty() && view.kind != TokenKind::Other;
                let token = text || view.kind == TokenKind::Media;
                seen.tokens.extend(token.then_some(at));
                seen.finish |= view.finish.is_some();
                seen.items.push(at);
            }
            Poll::Ready(_) => seen.end = seen.end.or(Some(at)),
            Poll::Pending => {}
        }
        drop(seen);
        polled
    }
}

/// Sends this prefix of a response, then the filler indefinitely.
fn body(prefix: &str, filler: &str) -> Body {
    let prefix = prefix.to_owned().into_bytes();
    let begin = stream::iter([Ok(prefix)]);
    if filler.is_empty() {
        return begin.chain(stream::pending()).boxed();
    }
    let filler = filler.to_owned().into_bytes();
    let fillers = stream::unfold(filler, async |filler| {
        sleep(EVERY).await;
        Some((Ok(filler.clone()), filler))
    });
    begin.chain(fillers).boxed()
}

/// Reads a response that stalls after this prefix. Returns `true` if a limit ended it.
async fn check(what: &str, dialect: Dialect, prefix: &str, filler: &str, limits: Limits) -> bool {
    let what = || format!("{what}, {limits:?}");
    let start = Instant::now();
    let seen = Arc::<Mutex<Seen>>::default();
    let mut source = Some(Noted {
        decoder: (dialect.decoder)(body(prefix, filler)),
        start,
        seen: Arc::clone(&seen),
    });
    let l0 = L0::builder()
        .timeouts(limits.timeouts())
        .retry(Retry::none())
        .build();
    let mut run = l0
        .stream(move |_| ready(Ok(source.take().expect("one call"))))
        .start();
    let ended = tokio::time::timeout(60 * EVERY, run.text()).await;
    let elapsed = start.elapsed();
    let seen = seen.lock().unwrap();
    // Ends that are due later were not observed.
    let must_end = seen.must_end(limits).filter(|(at, _)| *at < 60 * EVERY);
    let Some((at, kind)) = must_end else {
        assert!(ended.is_err(), "{}: {ended:?}", what());
        return false;
    };
    let ended = ended.unwrap_or_else(|_| panic!("{}: not ended", what()));
    assert!(
        at <= elapsed && elapsed <= at + MS,
        "{}: must end after {at:?}, ended after {elapsed:?}",
        what()
    );
    let outcome = run.outcome().expect("ended");
    match kind {
        // The answer is complete.
        Some(_) if seen.finish => assert_eq!(outcome, Outcome::Completed, "{}", what()),
        Some(kind) => match ended {
            Err(Error::Timeout(actual)) => assert_eq!(actual, kind, "{}", what()),
            other => panic!("{}: {other:?}", what()),
        },
        None => assert_ne!(outcome, Outcome::TimedOut, "{}", what()),
    }
    kind.is_some()
}

fn paused() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap()
}

/// Short responses with events before, between and after tokens.
fn responses() -> Vec<(Dialect, Vec<&'static str>)> {
    vec![
        (
            CHAT,
            vec![
                ": connected\n\n",
                "data: {\"id\":\"c\",\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n",
                "data: {\"choices\":[{\"index\":0,\"delta\":{\"reasoning_content\":\"Hm\"}}]}\n\n",
                "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hi\"}}]}\n\n",
                "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n",
                "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":2,\"total_tokens\":11}}\n\n",
                "data: [DONE]\n\n",
            ],
        ),
        (
            CHAT,
            vec![
                "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":null}}]}\n\n",
                "data: {\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0,\"id\":\"i\",\"function\":{\"name\":\"f\",\"arguments\":\"\"}}]}}]}\n\n",
                "data: {\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\"{}\"}}]}}]}\n\n",
                "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"tool_calls\"}]}\n\n",
            ],
        ),
        (
            RESPONSES,
            vec![
                "data: {\"type\":\"response.created\",\"response\":{\"id\":\"r\",\"model\":\"m\",\"error\":null,\"usage\":null}}\n\n",
                "data: {\"type\":\"response.in_progress\",\"response\":{\"id\":\"r\"}}\n\n",
                "data: {\"type\":\"response.output_item.added\",\"output_index\":0,\"item\":{\"type\":\"message\",\"content\":[]}}\n\n",
                "data: {\"type\":\"response.content_part.added\",\"output_index\":0,\"part\":{\"type\":\"output_text\",\"text\":\"\"}}\n\n",
                "data: {\"type\":\"response.output_text.delta\",\"output_index\":0,\"delta\":\"Hi\"}\n\n",
                "data: {\"type\":\"response.output_text.done\",\"output_index\":0,\"text\":\"Hi\"}\n\n",
                "data: {\"type\":\"response.completed\",\"response\":{\"status\":\"completed\",\"usage\":{\"input_tokens\":9,\"output_tokens\":2}}}\n\n",
            ],
        ),
        (
            ANTHROPIC,
            vec![
                "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"i\",\"model\":\"m\",\"usage\":{\"input_tokens\":9,\"output_tokens\":1}}}\n\n",
                "event: ping\ndata: {\"type\":\"ping\"}\n\n",
                "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n",
                "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"Hi\"}}\n\n",
                "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}\n\n",
                "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":2}}\n\n",
                "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
            ],
        ),
        (
            GEMINI,
            vec![
                "data: {\"usageMetadata\":{\"promptTokenCount\":9},\"modelVersion\":\"m\",\"responseId\":\"r\"}\n\n",
                "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"Hm\",\"thought\":true}]}}]}\n\n",
                "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"Hi\"}]}}]}\n\n",
                "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"\"}]},\"finishReason\":\"STOP\"}],\"usageMetadata\":{\"candidatesTokenCount\":2,\"totalTokenCount\":11}}\n\n",
            ],
        ),
    ]
}

#[test]
fn every_prefix_of_a_response_ends_within_every_combination_of_limits() {
    let runtime = paused();
    let mut by_limit = BTreeMap::<&str, u32>::new();
    for (dialect, events) in responses() {
        for count in 0..=events.len() {
            let prefix = events[..count].concat();
            for (name, filler) in fillers(dialect) {
                for limits in Limits::mixes() {
                    let what = format!("{} after {count} events, {name}", dialect.name);
                    let checked = check(&what, dialect, &prefix, &filler, limits);
                    *by_limit.entry(name).or_default() += u32::from(runtime.block_on(checked));
                }
            }
        }
    }
    assert!(by_limit.values().all(|runs| *runs > 500), "{by_limit:?}");
}

/// Checks every prefix of the recordings of one dialect. Each prefix is tested with some of all fillers and
/// combinations in turn: with more of them if the recording is shorter, since each run decodes its prefix again.
fn recorded(dialect: Dialect) {
    let Some(folder) = std::env::var_os("L0_RECORDED_STREAMS") else {
        println!("skipped: L0_RECORDED_STREAMS names no folder of recorded streams");
        return;
    };
    let folder = Path::new(&folder);
    let expected = std::fs::read_to_string(folder.join("expected.json")).unwrap();
    let expected: BTreeMap<String, Value> = serde_json::from_str(&expected).unwrap();
    let of_dialect = |(_, expected): &(&String, &Value)| expected["format"] == dialect.name;
    let (mixes, fillers) = (Limits::mixes(), fillers(dialect));
    let all = fillers
        .iter()
        .flat_map(|filler| mixes.iter().map(move |mix| (filler, mix)));
    let all: Vec<_> = all.collect();
    let runtime = paused();
    let (mut runs, mut turn) = (0, 0);
    for (name, _) in expected.iter().filter(of_dialect) {
        let recording = std::fs::read_to_string(folder.join(name)).unwrap();
        let events = events(name, dialect, &recording);
        let some = match std::env::var_os("L0_EVERY_LIMIT") {
            Some(_) => all.len(),
            None => (600 / events.len()).clamp(1, all.len()),
        };
        for count in 0..=events.len() {
            let prefix = events[..count].concat();
            for _ in 0..some {
                // A prime, so neighbors differ in both, and each combination has its turn.
                turn = (turn + 101) % all.len();
                let ((filler_name, filler), mix) = all[turn];
                let what = format!("{name} after {count} events, {filler_name}");
                runtime.block_on(check(&what, dialect, &prefix, filler, *mix));
                runs += 1;
            }
        }
    }
    println!("{runs} runs");
    assert!(runs > 0);
}

/// The events of a recording, each with the blank line that ends it.
fn events(name: &str, dialect: Dialect, recording: &str) -> Vec<String> {
    let recording = recording.replace("\r\n", "\n");
    if name.ends_with(".sse") {
        let events = recording.split_inclusive("\n\n");
        return events.map(str::to_owned).collect();
    }
    let payloads = recording.lines().filter(|line| !line.trim().is_empty());
    let done = (dialect.name == CHAT.name).then_some("[DONE]");
    let event = |payload: &str| format!("data: {payload}\n\n");
    payloads.chain(done).map(event).collect()
}

#[test]
fn every_prefix_of_recorded_chats_ends_within_its_limits() {
    recorded(CHAT);
}

#[test]
fn every_prefix_of_recorded_responses_ends_within_its_limits() {
    recorded(RESPONSES);
}

#[test]
fn every_prefix_of_recorded_messages_ends_within_its_limits() {
    recorded(ANTHROPIC);
}

#[test]
fn every_prefix_of_recorded_contents_ends_within_its_limits() {
    recorded(GEMINI);
}
