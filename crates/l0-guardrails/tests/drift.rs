//! Drift: the kinds found, in any division into pieces, and their effect on a run.

mod support;

use std::convert::Infallible;

use allocation_counter::measure;
use futures_util::{FutureExt, StreamExt, stream};
use l0_core::testing::{Captured, OwnedEvent, Script};
use l0_core::{
    Backoff, DriftReport, L0, L0Builder, Monitoring, Outcome, Retry, RetryKind, RetryReason,
};
use l0_guardrails::{Drift, Guardrails, Json, Markdown, ZeroOutput};
use proptest::prelude::*;

const KINDS: [&str; 7] = [
    "meta_commentary",
    "tone_shift",
    "repetition",
    "entropy_spike",
    "format_collapse",
    "markdown_collapse",
    "hedging",
];

/// Switches one kind on or off.
fn switch(drift: Drift, kind: &str, on: bool) -> Drift {
    match kind {
        "meta_commentary" => drift.meta_commentary(on),
        "tone_shift" => drift.tone_shift(on),
        "repetition" => drift.repetition(on),
        "entropy_spike" => drift.entropy_spike(on),
        "format_collapse" => drift.format_collapse(on),
        "markdown_collapse" => drift.markdown_collapse(on),
        "hedging" => drift.hedging(on),
        other => panic!("no kind: {other}"),
    }
}

/// Detects only this kind.
fn only(kind: &str) -> Drift {
    let off = KINDS
        .iter()
        .fold(Drift::new(), |drift, one| switch(drift, one, false));
    switch(off, kind, true)
}

/// Retries once if an answer ends with drift, which makes the drift visible.
fn retrying(drift: Drift) -> L0 {
    L0::builder()
        .monitoring(Monitoring::new())
        .retry(Retry::new().model_retries(1).backoff(Backoff::none()))
        .detect_zero_output(false)
        .drift(drift.retry(true))
        .build()
}

fn l0(drift: Drift, captured: &Captured) -> L0 {
    retrying(drift)
        .to_builder()
        .interceptor(captured.clone())
        .build()
}

/// Waits for a future whose retries yield to other tasks.
trait ToTheEnd: Future + Sized {
    fn to_the_end(self) -> Self::Output {
        tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("a runtime")
            .block_on(self)
    }
}

impl<F: Future> ToTheEnd for F {}

/// The effect of an answer on a run.
#[derive(Debug, PartialEq)]
struct Seen {
    /// The kinds found, mid-stream or at the end.
    kinds: Vec<String>,
    /// `true` if the answer ends with drift, and is retried.
    ends: bool,
}

fn seen<P: Into<String>>(l0: &L0, pieces: impl IntoIterator<Item = P>) -> Seen {
    let script = Script::new().attempt(|a| a.tokens(pieces));
    let mut run = l0.stream(script.source()).start();
    run.text().to_the_end().expect("drift is not an error");
    let drift = run
        .telemetry()
        .expect("measured")
        .drift
        .expect("drift was checked");
    let mut kinds: Vec<_> = drift.types.iter().map(ToString::to_string).collect();
    kinds.sort_unstable();
    Seen {
        kinds,
        ends: script.calls() > 1,
    }
}

/// Returns the findings for a text as one piece, one character per piece, and in random pieces. They
/// must be equal.
fn seen_in_any_pieces(drift: &Drift, text: &str) -> Seen {
    let l0 = retrying(drift.clone());
    let whole = seen(&l0, [text]);
    assert_eq!(
        seen(&l0, text.split("")),
        whole,
        "one character per piece: {text:?}"
    );
    let mut rng = fastrand::Rng::with_seed(7);
    for _ in 0..50 {
        let pieces = support::split(text, &mut rng);
        assert_eq!(seen(&l0, pieces.iter().copied()), whole, "{pieces:?}");
    }
    whole
}

/// Checks a kind against tables of texts: those that end with it, those that contain it and end without
/// it, and those that never contain it.
fn check(kind: &str, ends: &[String], passes: &[String], never: &[String]) {
    assert!(ends.len() >= 20, "{kind}: {} positive cases", ends.len());
    assert!(never.len() >= 20, "{kind}: {} negative cases", never.len());
    let drift = only(kind);
    for (texts, found, at_end) in [
        (ends, true, true),
        (passes, true, false),
        (never, false, false),
    ] {
        for text in texts {
            let expected = Seen {
                kinds: found.then(|| kind.to_owned()).into_iter().collect(),
                ends: at_end,
            };
            assert_eq!(seen_in_any_pieces(&drift, text), expected, "{text:?}");
        }
    }
}

fn strings<const N: usize>(texts: [&str; N]) -> Vec<String> {
    texts.map(str::to_owned).into()
}

/// Returns this many characters of text without findings, ending with a space.
fn pad(characters: usize) -> String {
    let words = ["river ", "stone ", "cloud ", "été ", "日本 ", "grass "];
    let mut text: String = words
        .iter()
        .copied()
        .cycle()
        .flat_map(str::chars)
        .take(characters)
        .collect();
    text.pop();
    text + if characters > 0 { " " } else { "" }
}

#[test]
fn meta_commentary_is_found() {
    let mut ends = strings([
        "As an AI, I have no opinion on that.",
        "As an AI developed to be helpful, no.",
        "as an ai language model I cannot have feelings",
        "I'm an AI developed to be helpful.",
        "I’m an AI developed to be helpful.",
        "Well, I am an AI.",
        "I am an AI",
        "I cannot actually see the image.",
        "I don't have personal opinions.",
        "I don’t have personal experience with it.",
        "I apologize, but I can't help with that.",
        "I'm sorry, but I can't assist with that request.",
        "I’m sorry, but I can’t assist with that request.",
        "I'M SORRY, BUT I CAN'T",
        "The answer is 42. Let me explain.",
        "Let me explain: first, the list is sorted.",
        "To clarify, the function returns nothing.",
        "In other words, it is a monad.",
        "It is, in\nother  words, a monad.",
        "\"As an AI\"",
        "**As an AI**, I",
        "(to clarify)",
        "日本語。As an AI、",
    ]);
    // The phrase's last character is the first of the last 200.
    ends.push(format!("{}to clarify, {}", pad(500), pad(197)));
    ends.push(format!("To clarify.{}", "é".repeat(198)));
    ends.push(format!("{} in other words", pad(1_000)));
    let passes = [
        format!("As an AI, I have no opinion. {}", pad(200)),
        format!("To clarify.{}", "é".repeat(199)),
        format!("{}to clarify, {}", pad(500), pad(198)),
        format!("{}I'm sorry, but I {}", pad(30), pad(700)),
    ];
    let mut never = strings([
        "As an aid to memory, write it down.",
        "As an airline, we fly.",
        "He was an AI researcher.",
        "It has an AI chip.",
        "Whereas an AI can do it, a human cannot.",
        "I am an aide.",
        "I'm an airline pilot.",
        "I'm the AI team's lead.",
        "I can actually see it.",
        "I cannot, actually.",
        "I don't have personally identifiable data.",
        "I don't have a personal car.",
        "I apologize. But I tried.",
        "I'm sorry, but it is late.",
        "We're sorry, but I am not.",
        "I'm sorry but I forgot the comma.",
        "Let me explains.",
        "Let me show you.",
        "Clarify it to me.",
        "To clarifying agents, add salt.",
        "In another words",
        "In other wordsmiths' work",
        "as-an-ai",
        "a",
        "…",
    ]);
    never.push(pad(2_000));
    check("meta_commentary", &ends, &passes, &never);
}

#[test]
fn tone_shift_is_found() {
    let mut ends = Vec::new();
    // Three words of a kind in the last 200 characters, and none before.
    for words in [
        "therefore thus hence",
        "Moreover, furthermore, consequently,",
        "THUS, thus, (thus)",
        "hence hence hence hence hence",
        "gonna wanna yeah",
        "yep nope ok",
        "okay okay okay",
        "Ok, yeah, gonna",
        "“Yeah”, “nope”, “OK”",
        "yeah—nope—okay",
        "_ok_ *ok* `ok`",
        "ok'd yeah! nope?",
        "therefore gonna thus wanna hence",
    ] {
        ends.push(format!("{}{words} {}", pad(300), pad(50)));
        ends.push(format!("{}{words}", pad(300)));
    }
    // Three before, and none at the end.
    ends.push(format!("{}thus hence moreover {}", pad(200), pad(200)));
    ends.push(format!("thus hence moreover {}", pad(280)));
    // One more of a kind than before would be enough.
    ends.push(format!("{}ok {}ok ok ok ok", pad(200), pad(190)));
    let passes = [
        format!("{}therefore thus hence {}", pad(300), pad(500)),
        format!(
            "{}gonna wanna yeah {}gonna wanna yeah {}",
            pad(300),
            pad(190),
            pad(400)
        ),
        format!("yeah yep nope {}", pad(900)),
    ];
    let mut never = vec![
        // The text is too short.
        "gonna wanna yeah yep nope ok okay".to_owned(),
        format!("{}therefore thus hence", pad(278)),
        format!("therefore thus hence {}", pad(278)),
        pad(299),
        pad(2_000),
        String::from(" "),
        // Two are not enough.
        format!("{}therefore thus {}", pad(300), pad(300)),
        format!("{}gonna wanna {}", pad(300), pad(300)),
        format!("{}gonna thus wanna hence {}", pad(300), pad(300)),
        format!("{}yeah {}yep {}nope", pad(300), pad(201), pad(201)),
    ];
    for no_words in [
        "thereforee thusly hences",
        "moreovers furthermores consequentlys",
        "xthus 2hence thus3",
        "éthus thusé ôhence",
        "okays yeahs nopes",
        "book token okapi",
        "oak oky okey",
        "yes no maybe",
        "so then but",
        "ok_ish".split('_').next().unwrap_or("ok"),
        "日本ok",
        "go nna wa nna ye ah",
    ] {
        never.push(format!("{}{no_words} {}", pad(300), pad(300)));
    }
    // The same number on both sides, at any length.
    never.push(format!("thus {}", pad(95)).repeat(20));
    never.push(format!("ok yeah {}", pad(192)).repeat(10));
    check("tone_shift", &ends, &passes, &never);
}

#[test]
fn repetition_is_found() {
    let again = |text: &str| text.repeat(3);
    let mut ends = vec![
        again("This is a repeated sentence. "),
        again("This is a repeated sentence! "),
        again("Is this a repeated sentence? "),
        again("This is a repeated sentence..."),
        again("This is a repeated sentence.\n"),
        again("this  is a\nrepeated\tsentence. "),
        "This is a repeated sentence. THIS IS A REPEATED SENTENCE. this is a repeated sentence".into(),
        "It’s a repeated sentence, sir. It's a repeated sentence, sir. It’s a repeated sentence, sir.".into(),
        again("Dies ist ein Satz über Äpfel! "),
        "ÜBER ÄPFEL UND ÖL SPRECHEN WIR. über äpfel und öl sprechen wir. Über Äpfel und Öl sprechen wir.".into(),
        again("この文章は二十文字より長いので、繰り返しとして見つかります。"),
        again("这句话超过二十个字符所以如果它重复三次就会被发现的！"),
        again("यह वाक्य बीस अक्षरों से अधिक लंबा है। "),
        again("هل هذه جملة طويلة بما فيه الكفاية؟ "),
        again("Supercalifragilisticexpialidocious."),
        again("onewordoftwentyone123."),
        format!("First comes this sentence, once. {}", again("Then that one comes thrice. ")),
        format!("{}And this ends the whole answer.", again("That one comes here thrice. ")),
        // Not consecutive.
        "I like to eat big apples. Pears are not so good at all. I like to eat big apples. Plums \
         would do as well, maybe. I like to eat big apples."
            .into(),
        // Phrases of five words.
        "We say that at the end of the day it rains. They say that at the end of the day it snows. \
         You say that at the end of the day it pours."
            .into(),
        "One two three four five is a count here. One two three four five is another. Then comes \
         one two three four five again."
            .into(),
        again("over and over and over it goes round and round, and then it stops. "),
        again("The model is stuck. It says so. It is stuck in a loop that does not end. "),
    ];
    // All within the last 500 characters of a longer text.
    ends.push(format!(
        "{}. {}",
        pad(3_000),
        again("This is a repeated sentence. ")
    ));
    ends.push(format!(
        "{} This is a repeated sentence. {}. This is a repeated sentence. {}. This is a repeated sentence.",
        pad(100),
        "lorem ipsum dolor".repeat(9),
        "sit amet elit".repeat(9),
    ));
    let numbers = |range: std::ops::Range<u32>| -> String {
        range
            .map(|number| {
                format!(
                    "The number {number} comes after {}. ",
                    number.wrapping_sub(1)
                )
            })
            .collect()
    };
    let passes = [
        format!(
            "{}{}",
            again("This is a repeated sentence. "),
            numbers(0..20)
        ),
        format!(
            "{}{}{}",
            numbers(0..20),
            again("One sentence that repeats. "),
            numbers(20..40)
        ),
    ];
    let mut never = vec![
        String::from(" "),
        "...!!!???".repeat(100),
        // Only twice.
        "This is a repeated sentence. ".repeat(2),
        "This is a repeated sentence. And this is another sentence. ".repeat(2),
        "at the end of the day. It rains at the end of the day. Then came a day that had no end at all."
            .into(),
        // At most twenty characters, and four words.
        again("Exactly twenty chars. "),
        "Yes. No. ".repeat(50),
        "Short one. ".repeat(3),
        again("twentycharactersword."),
        "- ok\n".repeat(3),
        "二十文字に満たない文章は数えません。".repeat(3),
        // Two sentences or none.
        "one two three four five one two three four five one two three four five".into(),
        "one two three four five, one two three four five; and one two three four five. The end is near now."
            .into(),
        "a b c d e\n".repeat(20),
        // Not equal.
        "This is sentence number one. This is sentence number two. This is sentence number three."
            .into(),
        "I like apples very much, sir. I like pears very much, sir. I like plums very much, sir.".into(),
        "He said that it would rain. She said it would not rain. We said nothing about the rain.".into(),
        numbers(0..100),
        // Too far apart.
        format!("This is a repeated sentence. {}", numbers(0..8)).repeat(1)
            + &format!("This is a repeated sentence. {}", numbers(8..16))
            + &format!("This is a repeated sentence. {}", numbers(16..24)),
        format!("{} Then one more. ", (0..60).map(|i| format!("word{i} ")).collect::<String>()),
    ];
    never.push((0..400).map(|i| format!("w{i} v{i}. ")).collect());
    never.push("A sentence of more than two hundred characters does not fit into the window three times, \
        and so it is not found, which the documentation says in so many words, as it should; it ends \
        here, at last."
        .to_owned());
    check("repetition", &ends, &passes, &never);
}

#[test]
fn format_collapse_is_found() {
    let mut ends = strings([
        "Here is the code:",
        "Here is the corrected version of your function:\n```rust\n```",
        "here is the x: y",
        "Here's the code:\n",
        "Here’s the summary you asked for: it is short.",
        "HERE IS THE LIST: 1, 2",
        "Sure! Here is the answer: 42.",
        "\n\nHere is the answer: 42.",
        "Here is the list, as you asked: a, b",
        "Let me write that for you.",
        "Let me quickly look it up for you",
        "let me x for you",
        "I'll write that for you!",
        "I’ll translate this text for you:",
        "Of course. I'll do that for you.",
        "Here you go!",
        "here you go",
        "Sure, here you go: 42",
        "Here  is\tthe result: 1",
        "**Here is the answer:** 42",
        "日本語 Here is the 答え: 42",
    ]);
    ends.push(format!("Here is the answer: 42. {}", pad(2_000)));
    ends.push(format!("{}: Here you go", "é".repeat(87)));
    ends.push(format!("Here is the {}:", "é".repeat(87)));
    let never = [
        strings([
            "Here is the code",
            "Here is the code\n:",
            "Here is the:",
            "Here is a list: 1",
            "Here are the results: 1",
            "There is the code:",
            "Where is the code: here?",
            "Here is theory: none",
            "Here isn't the code: there is",
            "The code is here: x",
            "Let me for you",
            "Let me see: it is 4.",
            "Let me write that\nfor you.",
            "Let me write that for your team.",
            "Let me write that before you",
            "Outlet me write for you",
            "I'll be back.",
            "I'll write that for yourself",
            "I will do it for you.",
            "for you, let me write it",
            "Here you goes",
            "Here you are",
            "42",
            " ",
        ]),
        vec![
            pad(1_000),
            format!("{}Here is the code:", pad(100)),
            format!("{}Here you go", pad(90)),
            format!("Here is the {}:", "é".repeat(88)),
            format!("Let me {} for you", "é".repeat(90)),
        ],
    ]
    .concat();
    check("format_collapse", &ends, &[], &never);
}

#[test]
fn markdown_collapse_is_found() {
    let mut ends = Vec::new();
    for marks in [
        "**a** **b** **c** **d**",
        "**a** __b__ **c** **d** *e* **f**",
        "# A\n## B\n### C\n###### D\n",
        "[a](b) [c](d) [e](f) [g](h)",
        "![a](b) [c](d \"e\") [e](f), [g](h)",
        "```\nlet x;\n```\n```\nlet y;\n```\n",
        "```rust\nlet x;\n```\n# Header\n**bold**",
        "# Header\n**bold** [link](target) and **more**",
        "- **a**: b\n- **c**: d\n- **e**: f\n- **g**: h\n",
        "1. **a**\n2. **b**\n3. [c](d)\n4. [e](f)",
        "```a``` ```b```",
        "**日本** **語** **é** **ü**",
    ] {
        ends.push(format!("{marks}\n{}", pad(300)));
        ends.push(format!("{}\n{marks} {}", pad(500), pad(202)));
    }
    let passes = [
        format!("**a** **b** **c** **d** {}**e**", pad(300)),
        format!("# A\n# B\n# C\n# D\n{}", pad(500)),
        format!("# A\n# B\n# C\n# D\n{}\n## E\nend", pad(300)),
    ];
    let mut never = vec![
        pad(2_000),
        " ".to_owned(),
        // Too short, three marks, or marks up to the end.
        "**a** **b** **c** **d**".to_owned(),
        format!("**a** **b** **c** **d** {}", pad(199)),
        format!("**a** **b** **c** {}", pad(400)),
        format!("**a** {}", pad(150)).repeat(10),
        format!("# Header\n{}\n", pad(150)).repeat(10),
        format!("{}**a** **b** **c** **d**", pad(400)),
        // Code is Markdown.
        format!("**a** **b** **c** **d**\n```\n{}", pad(500)),
        format!("**a** **b** **c** **d**\n```\n{}\n```\n**e**", pad(500)),
        format!(
            "# A\n# B\n# C\n\n```python\n{}\n{}",
            "# comment\n".repeat(9),
            "x = 1\n".repeat(90)
        ),
        format!("````\n```\n# a\n```\n# b\n```\n{}", pad(500)),
        format!("**a** **b** **c** **d**\n~~~\n{}", pad(500)),
        format!("**a** **b** **c** **d**\n1. ```\n{}", pad(500)),
        format!("**a** **b** **c** **d**\n```\n``` none\n{}", pad(500)),
    ];
    for no_marks in [
        "#a #b #c #d #e",
        " # a\n # b\n # c\n # d\n",
        "####### a\n####### b\n####### c\n####### d\n",
        "a # b # c # d # e",
        "*a* *b* *c* *d* *e*",
        "* a\n* b\n* c\n* d\n",
        "**a\n**b\n**c\n**d\n",
        "[a] [b] [c] [d]",
        "[a](b\n[c](d\n[e](f\n[g](h\n",
        "(a)[b] (c)[d] (e)[f] (g)[h]",
        "`a` `b` `c` `d` ``e``",
        "<b>a</b> <i>b</i>",
        "2 * 3 * 4 * 5 = 120",
    ] {
        never.push(format!("{no_marks}\n{}", pad(400)));
    }
    check("markdown_collapse", &ends, &passes, &never);
}

#[test]
fn hedging_is_found() {
    let ends = strings([
        "Sure",
        "Sure!",
        "sure!",
        "SURE!",
        "Sure!\n",
        "Sure!\n\nThe answer is 42.",
        "Certainly",
        "Certainly!\nHere it comes.",
        "certainly!\r\nHere it comes.",
        "Of course",
        "Of course!",
        "of course!\n\n1. One",
        "OF COURSE\n",
        "Of  course!",
        "Absolutely",
        "Absolutely!",
        "absolutely!\nYes.",
        "  Sure!  \nYes.",
        "\n\n\tCertainly!\nYes.",
        "\u{A0}Absolutely!\u{3000}\n日本語",
        "Sure!\t",
        "Sure.",
        "Certainly.\nHere it comes.",
        "Of course,\n",
    ]);
    let never = [
        strings([
            "Sure, here it comes.",
            "Sure! Here it comes.",
            "Sure. Here it comes.",
            "Sure..",
            "Sure!!",
            "Sure?",
            "Surely",
            "Surely!",
            "Not sure",
            "Sure thing!",
            "Certainly, sir.",
            "Certainly not!\n",
            "Uncertainly",
            "Of courses",
            "Of course not.",
            "Off course!",
            "Absolutely not",
            "Absolutely!!\nYes",
            "**Sure!**",
            "The answer is 42.\nSure!",
            "Yes!\nSure!",
            "Súre!",
            "!",
            "\n\n",
            "Su\nre!",
            "確かに！",
            "of\ncourse",
        ]),
        vec![pad(1_000), format!("Sure {}", pad(1_000)), "!".repeat(100)],
    ]
    .concat();
    check("hedging", &ends, &[], &never);
}

/// Returns a mixed answer: many deltas of a few letters, followed by this one.
fn after(calm: &[&str], times: usize, last: &str) -> Vec<String> {
    let calm = calm.iter().copied().cycle().take(times);
    calm.chain([last]).map(str::to_owned).collect()
}

#[test]
fn entropy_spikes_are_found_in_deltas() {
    let l0 = l0(only("entropy_spike"), &Captured::new());
    let found = |deltas: &[String]| {
        let seen = seen(&l0, deltas.iter().map(String::as_str));
        assert!(!seen.ends, "a spike is only recorded");
        !seen.kinds.is_empty()
    };
    for calm in [
        &["aaaa"][..],
        &["abab"],
        &["the "],
        &["日本"],
        &["aa", "ab"],
        &["the ", "and ", "ooh "],
        &["lalala", "lululu"],
    ] {
        for (last, times) in [
            ("q8#Zx!7@Lw$3^Kp&", 10),
            ("qwertyuiopasdfgh", 49),
            ("Ω≈ç√∫˜µ≤≥÷åß∂ƒ©˙", 200),
            ("x7Gq2LpW9zRt4KmB", 12),
        ] {
            let mut deltas = after(calm, times, last);
            assert!(found(&deltas), "{calm:?} and {last:?}");
            deltas.extend(after(calm, 100, "a"));
            assert!(found(&deltas), "and continues");
        }
        // Only calm deltas, deltas that are no more mixed, and deltas that come too early.
        for (last, times) in [
            (calm[0], 100),
            ("aaaa", 100),
            ("a", 9),
            ("q8#Zx!7@Lw$3^Kp&", 8),
        ] {
            assert!(
                !found(&after(calm, times, last)),
                "{calm:?} and {last:?} after {times}"
            );
        }
    }
    // The tenth value is the first to be checked.
    assert!(found(&after(&["aaaa"], 9, "abcd")));
    assert!(!found(&after(&["aaaa"], 8, "abcd")));
    // A constantly mixed answer has no spike, and neither does a decrease.
    for deltas in [
        after(&["q8#Zx!7@", "x7Gq2LpW", "9zRt4KmB"], 500, "7xGq2LpW"),
        after(&["q8#Zx!7@"], 500, "a"),
        after(&["a", "abcdefgh"], 500, "abcdefgh"),
        vec!["a".to_owned(); 1_000],
        vec!["abc".to_owned(); 1_000],
    ] {
        assert!(!found(&deltas), "{:?}", &deltas[..5]);
    }
    // A single piece has nothing to compare with.
    assert!(!found(
        &[after(&["aaaa"], 100, "q8#Zx!7@Lw$3^Kp&").concat()]
    ));
}

#[test]
fn entropy_thresholds_and_windows_are_respected() {
    let found = |drift: Drift, deltas: Vec<String>| {
        let seen = seen(
            &l0(drift, &Captured::new()),
            deltas.iter().map(String::as_str),
        );
        !seen.kinds.is_empty()
    };
    let drift = || only("entropy_spike");
    // One value of n that differs is the square root of n - 1 deviations above the mean.
    for (n, deviations) in [(10, 2.99), (17, 3.99), (50, 6.99)] {
        let spike = || after(&["aaaa"], n - 1, "abcd");
        assert!(found(drift().entropy_threshold(deviations), spike()));
        assert!(!found(
            drift().entropy_threshold(deviations + 0.02),
            spike()
        ));
    }
    // A window of ten allows at most three deviations, however long the answer is.
    let spike = || after(&["aaaa"], 100, "abcd");
    assert!(!found(
        drift().entropy_threshold(3.01).entropy_window(10),
        spike()
    ));
    assert!(found(
        drift().entropy_threshold(3.01).entropy_window(11),
        spike()
    ));
    // A spike that has left the window does not hide the next one.
    let two = |calm| {
        [
            after(&["aaaa"], 20, "abcdefghijkl"),
            after(&["aaaa"], calm, "abcd"),
        ]
        .concat()
    };
    let after_the_first = |drift: Drift, deltas: Vec<String>| {
        let captured = Captured::new();
        let l0 = l0(drift, &captured);
        seen(&l0, deltas.iter().map(String::as_str));
        captured
            .kinds()
            .iter()
            .filter(|kind| **kind == "drift")
            .count()
    };
    assert_eq!(
        after_the_first(drift(), two(60)),
        1,
        "each kind is reported once"
    );
    for odd in [f64::NAN, f64::INFINITY, -1.0, 0.0] {
        found(drift().entropy_threshold(odd), spike());
    }
    assert!(!found(drift().entropy_threshold(f64::INFINITY), spike()));
    assert!(found(drift().entropy_threshold(-1.0), spike()));
    assert_eq!(drift().entropy_threshold(f64::NAN), drift());
    assert_eq!(
        drift().entropy_threshold(-1.0),
        drift().entropy_threshold(0.0)
    );
}

#[test]
fn repetition_thresholds_and_windows_are_respected() {
    let ends = |drift: Drift, text: &str| seen_in_any_pieces(&drift, text).ends;
    let drift = || only("repetition");
    let times = |times: usize| {
        "This is a repeated sentence. ".repeat(times) + "And here comes the last one."
    };
    for threshold in 2..7 {
        assert!(!ends(
            drift().repetition_threshold(threshold),
            &times(threshold - 1)
        ));
        assert!(ends(
            drift().repetition_threshold(threshold),
            &times(threshold)
        ));
    }
    assert!(!ends(drift().repetition_threshold(1), &times(1)));
    assert!(!ends(drift().repetition_threshold(usize::MAX), &times(10)));
    // Three times in 600 characters.
    let far = format!("This is a repeated sentence. {}. ", "x".repeat(250));
    let far = format!("{far}{far}This is a repeated sentence.");
    assert!(!ends(drift(), &far));
    assert!(ends(drift().window(1_000), &far));
    assert!(!ends(drift().window(0), &times(3)), "at least a hundred");
    assert!(ends(drift().window(usize::MAX), &far));
}

#[test]
fn settings_out_of_range_are_clamped() {
    let drift = Drift::new;
    assert_eq!(drift(), Drift::default());
    assert_eq!(drift().window(0), drift().window(100));
    assert_eq!(drift().window(usize::MAX), drift().window(10_000));
    assert_eq!(drift().window(500), drift());
    assert_eq!(
        drift().repetition_threshold(0),
        drift().repetition_threshold(2)
    );
    assert_eq!(drift().repetition_threshold(3), drift());
    assert_eq!(drift().entropy_window(0), drift().entropy_window(10));
    assert_eq!(
        drift().entropy_window(usize::MAX),
        drift().entropy_window(1_000)
    );
    assert_eq!(drift().entropy_window(50).entropy_threshold(2.5), drift());
    assert_ne!(drift().hedging(false), drift());
    for kind in KINDS {
        assert_eq!(switch(drift(), kind, true), drift());
        assert_ne!(switch(drift(), kind, false), drift());
    }
}

/// Returns deltas with all kinds of drift. All except the entropy spike are present at the end.
fn everything() -> Vec<String> {
    let mut deltas = vec!["Sure!\n".to_owned(), "Here you go: ".to_owned()];
    deltas.extend(after(&["aa "], 30, "q8#Zx7@Lw$3^Kp& "));
    deltas.push(pad(100));
    deltas.push("**a** **b** **c** **d** ".to_owned());
    deltas.push(pad(60));
    deltas.push("This is a long sentence. ".repeat(3));
    deltas.push("gonna wanna yeah. To clarify, it ends here. ".to_owned());
    deltas.push(pad(70));
    deltas
}

#[test]
fn switches_turn_single_kinds_off() {
    let kinds = |drift: Drift| {
        let seen = seen(
            &l0(drift, &Captured::new()),
            everything().iter().map(String::as_str),
        );
        seen.kinds
    };
    let mut all: Vec<_> = KINDS.iter().map(ToString::to_string).collect();
    all.sort_unstable();
    assert_eq!(kinds(Drift::new()), all);
    for kind in KINDS {
        let others: Vec<_> = all.iter().filter(|one| *one != kind).cloned().collect();
        assert_eq!(
            kinds(switch(Drift::new(), kind, false)),
            others,
            "without {kind}"
        );
        assert_eq!(kinds(only(kind)), [kind], "only {kind}");
    }
    let none = KINDS
        .iter()
        .fold(Drift::new(), |drift, kind| switch(drift, kind, false));
    assert_eq!(kinds(none), [""; 0]);
}

/// Returns the kinds and confidences of the drift events, in order. Each event reports one kind.
fn reports(captured: &Captured) -> Vec<(String, f64)> {
    let report = |event| match event {
        OwnedEvent::Drift { report, .. } => Some(report),
        _ => None,
    };
    let reports = captured.events().into_iter().filter_map(report);
    let one = |report: DriftReport| {
        assert_eq!(report.types.len(), 1, "{report:?}");
        (report.types[0].to_string(), report.confidence)
    };
    reports.map(one).collect()
}

#[test]
fn kinds_are_reported_in_order_with_their_confidences() {
    for (kind, confidence) in KINDS.into_iter().zip([0.9, 0.7, 0.8, 0.6, 0.8, 0.7, 0.5]) {
        let captured = Captured::new();
        let run = l0(only(kind), &captured)
            .watch(stream::iter(everything()).map(Ok::<_, Infallible>))
            .start();
        run.for_each(|_| async {}).to_the_end();
        assert_eq!(reports(&captured), [(kind.to_owned(), confidence)]);
    }
    // Kinds that are found at the same time are reported separately.
    let captured = Captured::new();
    let text = everything().concat();
    let run = l0(Drift::new(), &captured)
        .watch(stream::iter([Ok::<_, Infallible>(text)]))
        .start();
    run.for_each(|_| async {}).to_the_end();
    let kinds: Vec<_> = reports(&captured).into_iter().map(|one| one.0).collect();
    let all_but_entropy = KINDS.into_iter().filter(|kind| *kind != "entropy_spike");
    assert_eq!(kinds, all_but_entropy.collect::<Vec<_>>());
}

#[test]
fn drift_at_the_end_is_a_model_retry_and_completes_when_retries_are_exhausted() {
    let captured = Captured::new();
    let l0 = l0(Drift::new(), &captured);
    let l0 = l0
        .to_builder()
        .retry(Retry::new().model_retries(2).backoff(Backoff::none()))
        .build();
    let script = Script::new()
        .attempt(|a| a.tokens(["Sure", "!"]))
        .attempt(|a| a.tokens(["To clarify", ", no."]))
        .attempt(|a| a.tokens(["Sure!", "\n", "In other words, yes."]));
    let mut run = l0.stream(script.source()).start();
    let text = run.text().to_the_end();
    assert_eq!(
        text.expect("drift is not an error"),
        "Sure!\nIn other words, yes."
    );
    assert_eq!(run.outcome(), Some(Outcome::Completed));
    assert_eq!(script.calls(), 3);
    let telemetry = run.telemetry().expect("measured");
    let drift = telemetry.drift.expect("drift was checked");
    assert_eq!(
        drift.types,
        ["hedging", "meta_commentary"],
        "the union, in order of first detection"
    );
    assert_eq!(telemetry.metrics.model_retries, 2);
    assert_eq!(telemetry.metrics.network_retries, 0);
    assert_eq!(telemetry.network.error_count, 0);
    let retries: Vec<_> = captured
        .events()
        .into_iter()
        .filter_map(|event| match event {
            OwnedEvent::Retry { reason, kind, .. } => Some((reason, kind)),
            _ => None,
        })
        .collect();
    assert_eq!(retries, [(RetryReason::Drift, RetryKind::Model); 2]);
    assert_eq!(
        reports(&captured),
        [
            ("hedging".to_owned(), 0.5),
            ("meta_commentary".to_owned(), 0.9),
            ("hedging".to_owned(), 0.5),
            ("meta_commentary".to_owned(), 0.9),
        ],
        "each kind once per attempt, though some are reported in mid-stream and at the end"
    );
}

#[test]
fn drift_is_only_recorded_unless_retries_are_enabled() {
    let answers = [
        "Sure!",
        "In other words, it is a monad.",
        "Here you go: 42",
        "This is a repeated sentence. This is a repeated sentence. This is a repeated sentence.",
    ];
    for (drift, calls) in [
        (Drift::new(), 1),
        (Drift::new().retry(false), 1),
        (Drift::new().retry(true), 2),
    ] {
        for answer in answers {
            for whole in [true, false] {
                let captured = Captured::new();
                let l0 = l0(Drift::new(), &captured);
                let l0 = l0.to_builder().drift(drift.clone()).build();
                let pieces: Vec<&str> = if whole {
                    vec![answer]
                } else {
                    answer.split("").collect()
                };
                let script = Script::new().attempt(|a| a.tokens(pieces));
                let mut run = l0.stream(script.source()).start();
                let text = run.text().to_the_end();
                assert_eq!(text.expect("drift is not an error"), answer);
                assert_eq!(script.calls(), calls, "{drift:?}: {answer}");
                assert_eq!(
                    reports(&captured).len(),
                    calls,
                    "{answer}: once per attempt"
                );
                let telemetry = run.telemetry().expect("measured");
                assert_eq!(telemetry.outcome, Some(Outcome::Completed));
                assert_eq!(telemetry.metrics.model_retries as usize, calls - 1);
                assert!(telemetry.drift.expect("drift was checked").detected());
            }
        }
    }
}

#[test]
fn a_new_attempt_starts_with_fresh_state() {
    let script = Script::new()
        .attempt(|a| a.tokens(["Su", "re!"]))
        .attempt(|a| a.tokens(["Sure", ", the answer is 42."]));
    let l0 = l0(Drift::new(), &Captured::new());
    let mut run = l0.stream(script.source()).start();
    let text = run.text().to_the_end();
    assert_eq!(
        text.expect("drift is not an error"),
        "Sure, the answer is 42."
    );
    assert_eq!(script.calls(), 2);
}

#[test]
fn drift_that_is_over_at_the_end_is_only_recorded() {
    let captured = Captured::new();
    let script = Script::new()
        .attempt(|a| a.tokens(["To clarify, ".to_owned(), pad(300), "End.".to_owned()]));
    let mut run = l0(Drift::new(), &captured).stream(script.source()).start();
    run.text().to_the_end().expect("drift is not an error");
    assert_eq!(script.calls(), 1);
    assert_eq!(reports(&captured), [("meta_commentary".to_owned(), 0.9)]);
    let telemetry = run.telemetry().expect("measured");
    assert_eq!(telemetry.drift.expect("found").types, ["meta_commentary"]);
}

#[test]
fn a_kind_is_reported_once_per_attempt() {
    let captured = Captured::new();
    let text = "As an AI, I am. To clarify: I am an AI. ".repeat(100);
    let seen = seen(
        &l0(only("meta_commentary"), &captured),
        text.split_inclusive(' '),
    );
    assert!(seen.ends);
    assert_eq!(reports(&captured).len(), 2, "in each of two attempts");
}

#[test]
fn drift_that_was_checked_and_not_found_is_recorded_as_such() {
    let mut run = l0(Drift::new(), &Captured::new())
        .stream(
            Script::new()
                .attempt(|a| a.token("The answer is 42."))
                .source(),
        )
        .start();
    run.text().to_the_end().expect("no drift");
    let drift = run
        .telemetry()
        .expect("measured")
        .drift
        .expect("drift was checked");
    assert!(!drift.detected());
}

#[test]
fn a_watched_stream_only_records() {
    let captured = Captured::new();
    let deltas = everything();
    let source = stream::iter(deltas.clone()).map(Ok::<_, Infallible>);
    let mut watched = l0(Drift::new(), &captured).watch(source).start();
    let items: Vec<_> = watched.by_ref().collect().to_the_end();
    let items: Result<Vec<String>, _> = items.into_iter().collect();
    assert_eq!(items, Ok(deltas));
    assert_eq!(watched.outcome(), Some(Outcome::Completed));
    let telemetry = watched.telemetry().expect("measured");
    assert_eq!(telemetry.drift.expect("found").types.len(), KINDS.len());
    assert_eq!(telemetry.metrics.total_retries, 0);
}

/// Returns a megabyte in small pieces, with every kind of content.
fn megabyte() -> Vec<&'static str> {
    let pieces = [
        "The ",
        "**quick**",
        " brown",
        " fox ",
        "is ok. ",
        "Thus ",
        "日本語",
        "。 ",
        "# no\n",
        "`x` ",
        "[a](b) ",
        "jumps",
        " over",
        " yeah",
        ", to",
        " clarify",
        "! ",
        "\n",
        "```\n",
        "qX7#",
        "\n```\n",
        "he ",
        "it’s ",
    ];
    let mut rng = fastrand::Rng::with_seed(7);
    let mut length = 0;
    std::iter::from_fn(|| {
        let piece = pieces[rng.usize(..pieces.len())];
        length += piece.len();
        (length < 1_000_000).then_some(piece)
    })
    .collect()
}

#[test]
fn memory_stays_flat() {
    let l0 = L0::builder().drift(Drift::new()).build();
    let pieces = megabyte();
    let mut run = l0
        .watch(stream::iter(pieces.iter().map(Ok::<_, Infallible>)))
        .start();
    let mut poll = |count: usize| {
        for _ in 0..count {
            assert!(run.next().now_or_never().is_some());
        }
    };
    let begins = measure(|| poll(20_000));
    let goes_on = measure(|| poll(pieces.len() - 20_000));
    assert!(begins.bytes_max < 32 * 1024, "{begins:?}");
    // The first findings are reported and kept. Nothing else allocates memory or grows.
    assert!(goes_on.count_total < 10 * KINDS.len() as u64, "{goes_on:?}");
    assert!(
        goes_on.bytes_current < 100 * KINDS.len() as i64,
        "{goes_on:?}"
    );
}

/// Returns the bytes that a live run keeps after a long answer.
fn live_bytes(builder: L0Builder) -> i64 {
    let sentence = |n| format!("Part {n} says what this is about, and {n} other words. ");
    let pieces: Vec<String> = (0..100).map(sentence).collect();
    let l0 = builder.build();
    let mut run = None;
    measure(|| {
        let source = stream::iter(pieces.iter().map(Ok::<_, Infallible>));
        let run = run.insert(Box::new(l0.watch(source).start()));
        for _ in 0..pieces.len() {
            assert!(run.next().now_or_never().is_some());
        }
    })
    .bytes_current
}

#[test]
fn a_measured_run_with_three_rules_and_drift_keeps_less_than_4500_bytes() {
    let rules = Guardrails::none()
        .with(Json::new)
        .with(Markdown::new)
        .with(ZeroOutput::new);
    let builder = L0::builder()
        .monitoring(Monitoring::new())
        .guardrails(rules)
        .drift(Drift::new());
    // Shared data is created for the first run.
    live_bytes(builder.clone());
    let bytes = live_bytes(builder);
    assert!((2_000..4_500).contains(&bytes), "{bytes}");
}

#[test]
fn a_live_detector_uses_little_memory() {
    let bytes = |drift: Option<Drift>| {
        let builder = L0::builder();
        live_bytes(match drift {
            Some(drift) => builder.drift(drift),
            None => builder,
        })
    };
    // Shared data is created for the first detector.
    bytes(Some(Drift::new()));
    let of_drift = |drift| bytes(Some(drift)) - bytes(None);
    let default = of_drift(Drift::new());
    assert!((500..2_048).contains(&default), "{default}");
    let large = of_drift(Drift::new().window(5_000));
    assert!((default..12 * 1_024).contains(&large), "{large}");
}

#[test]
fn one_long_piece_is_read_like_many_short_ones() {
    let text = megabyte().concat();
    let drift = switch(Drift::new(), "entropy_spike", false);
    let l0 = l0(drift, &Captured::new());
    let whole = seen(&l0, [&*text]);
    assert_eq!(seen(&l0, megabyte()), whole);
    for text in [
        "a".repeat(1_000_000),
        "日本".repeat(200_000),
        "**# `[(.".repeat(100_000),
    ] {
        seen(&l0, [&*text]);
    }
}

proptest! {
    #[test]
    fn any_text_is_read(pieces in prop::collection::vec(any::<String>(), 0..30)) {
        seen(&l0(Drift::new(), &Captured::new()), pieces.iter().map(String::as_str));
    }

    #[test]
    fn the_division_into_pieces_makes_no_difference(
        parts in prop::collection::vec(
            prop::sample::select(vec![
                "ok ", "yeah", "thus", "hence, ", "moreover", "**bold** ", "**", "# ", "#", "\n", "```", "`",
                "[a](b)", "](", "Sure!", "of course", "here is the ", "here's the", ":", "let me ", " for you",
                "I’ll ", "here you go", "as an AI", " to clarify", ", but I", "I'm sorry", "日本語。", "été ",
                "This is a repeated sentence. ", "one two three four five ", " ", ".", "x", "\u{A0}", ">",
                "A line that is rather long, and goes on for a while without any mark or word that matters ",
            ]),
            0..60,
        ),
        seed: u64,
    ) {
        let text = parts.concat();
        let l0 = l0(switch(Drift::new(), "entropy_spike", false), &Captured::new());
        let whole = seen(&l0, [&*text]);
        prop_assert_eq!(&seen(&l0, text.split("")), &whole);
        let pieces = support::split(&text, &mut fastrand::Rng::with_seed(seed));
        prop_assert_eq!(&seen(&l0, pieces), &whole);
    }
}
