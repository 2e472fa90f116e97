//! The pattern rule and custom patterns: the texts with each violation, and texts without.

use l0_core::Severity::{self, Error, Fatal, Warning};
use l0_core::{Check, Findings, Violation};
use l0_guardrails::{CustomPattern, Guardrails, PatternError, Patterns};
use proptest::prelude::*;

mod support;

use support::{check_table, violations_in_any_split, violations_of};

/// Checks that a violation is reported for each text of the first list, and for none of the second.
fn check(rule: &'static str, severity: Severity, positive: &[&str], negative: &[&str]) {
    assert!(
        positive.len() >= 20 && negative.len() >= 20,
        "too few cases for {rule}"
    );
    let one = [(rule, severity)];
    let positive = positive.iter().map(|text| (*text, &one[..]));
    let negative = negative.iter().map(|text| (*text, &[][..]));
    let table: Vec<_> = positive.chain(negative).collect();
    check_table(Patterns::new, &table);
}

fn found(text: &str) -> Vec<Violation> {
    violations_in_any_split(Patterns::new, text)
}

#[test]
fn meta_commentary() {
    check(
        "pattern-meta-commentary",
        Error,
        &[
            "As an AI language model, I have no opinion on that.",
            "as an ai language model",
            "AS AN AI LANGUAGE MODEL I AM NEUTRAL",
            "Well, as an AI language model I think so.",
            "As an AI assistant, my knowledge ends in 2023.",
            "As an AI, I have no opinion on that.",
            "Speaking as an AI assistant: yes.",
            "I'm an AI, so I have never been to Paris.",
            "I’m an AI and have no body.",
            "Remember that I'm an\nAI.",
            "I am an AI developed by a company.",
            "**I am an AI**",
            "_I am an AI_",
            "\"I am an AI\" is a strange sentence",
            "I  am\tan \r\n AI",
            "I'm an AI-powered tool",
            "I don't have personal opinions.",
            "I don’t have personal experience with that",
            "Since I don't have personal feelings, no.",
            "I cannot actually see the image.",
            "While I cannot actually\nrun code, here it goes",
            "I apologize, but I lost track.",
            "I apologize,  but  I  did not follow.",
            "I'm sorry, but I have to stop.",
            "I’m sorry, but I’m confused",
            "(i'm sorry, but i think so)",
        ],
        &[
            "",
            "As an air traveller, I have no opinion.",
            "As an AI researcher, she disagrees.",
            "As an AI, it has no body.",
            "It is described as an AI. I doubt it.",
            "To clarify: in other words, let me explain.",
            "As an AI language modeller, he knows.",
            "As an AI assistants' guild, they object.",
            "was an AI language model",
            "Has an AI assistant been useful?",
            "I'm an airline pilot.",
            "Hi'm an AI",
            "I am an aide.",
            "I am a AI",
            "I'm not an AI.",
            "I amanAI",
            "I don't have personnel.",
            "We don't have personal data.",
            "I do not have personal opinions.",
            "I cannot, actually, see it.",
            "I cannot actuallyize",
            "Sci cannot actually be counted",
            "I apologize but I was late.",
            "I apologize, but it works.",
            "I'm sorry, but it is late.",
            "I'm sorry. But I like it.",
            "I'm sorry , but I",
            "I`m an AI",
            "日本語は難しいですが、AIです。",
            "as-an-ai-language-model",
        ],
    );
}

#[test]
fn refusal() {
    check(
        "pattern-refusal",
        Error,
        &[
            "I cannot provide medical advice.",
            "I CANNOT PROVIDE THAT",
            "Unfortunately, I cannot provide this",
            "I cannot\nprovide",
            "I'm not able to help with that.",
            "I’m not able to help with that.",
            "Right now I'm not able to.",
            "I'm   not   able   to",
            "I can't assist with that request.",
            "I can’t assist with it",
            "\"I can't assist with that.\"",
            "`I can't assist with`",
            "**I can't assist with**",
            "I'm unable to open links.",
            "I’m unable to open links.",
            "but I'm unable to, sadly",
            "I'M UNABLE TO",
            "i'm unable to",
            "That would be inappropriate.",
            "that would be inappropriate, wouldn't it",
            "I think that would be\r\ninappropriate",
            "日本語: I'm unable to です",
        ],
        &[
            "Unable to open the file.",
            "I am unable to see why.",
            "He's unable to come.",
            "Jim's unable to come.",
            "I'm unable  together",
            "I'm unabletod",
            "Hi'm unable to",
            "I cannot provided",
            "I cannot; provide",
            "I can provide that.",
            "I could not provide it.",
            "SCSI cannot provide enough bandwidth",
            "You cannot provide both options.",
            "I'm able to help.",
            "I'm not able. To be fair, nobody is.",
            "I'm not ablest",
            "I can assist with that.",
            "I can't assist within",
            "I can't assist you with that.",
            "I cant assist with",
            "That would be appropriate.",
            "That would be inappropriately loud",
            "What would be inappropriate?",
            "That wouldn't be inappropriate.",
            "I.m unable to",
        ],
    );
}

#[test]
fn a_refusal_is_not_recoverable_and_is_reported_while_streaming() {
    let refusal = found("Hm. I'm unable to, I fear.");
    assert!(!refusal[0].recoverable);
    assert_eq!(refusal[0].position, Some(17));
    assert_eq!(refusal[0].message, "The model refuses: \"i'm unable to\"");
    assert!(found("I am an AI.")[0].recoverable);

    let mut findings = Findings::new();
    let mut rule = Patterns::new();
    rule.text("I'm unab", &mut findings);
    rule.text("le to", &mut findings);
    assert_eq!(
        findings.iter().count(),
        0,
        "it could become `unable tonight`"
    );
    rule.text(" ", &mut findings);
    assert_eq!(findings.iter().count(), 1);
}

#[test]
fn instruction_leak() {
    check(
        "pattern-instruction-leak",
        Error,
        &[
            "[SYSTEM] You are a helpful assistant.",
            "[system]",
            "[System]: be brief",
            "text[system]text",
            "[USER] Hello",
            "Then [user] says",
            "\n\n[user]\n",
            "[ASSISTANT]",
            "[assistant] Hello!",
            "«[Assistant]»",
            "<|im_start|>system",
            "<|IM_START|>",
            "Done.<|im_end|>",
            "x<|im_end|>y",
            "### Instruction:\nWrite a poem",
            "### Instruction\nWrite a poem",
            "### INSTRUCTION",
            "### instruction  :",
            "### Instruction: write",
            "### System:\nYou are",
            "### System",
            "###\tSystem \n You are",
            "#### System:",
            "text ### system: text",
        ],
        &[
            "the system",
            "(system)",
            "{user}",
            "[ system ]",
            "[system",
            "system]",
            "[systems]",
            "[users]",
            "[user1]",
            "[user.name]",
            "[assistants]",
            "<|im_start>",
            "<im_end>",
            "<| im_start |>",
            "|im_end|",
            "<|im_ended|>",
            "## Instruction:",
            "### Instructions: read on",
            "### Instructions",
            "### Systematic errors",
            "### System requirements\n",
            "### Instruction set of the 6502",
            "### system-wide",
            "###System",
            "### The system:",
            "### Ecosystem:",
        ],
    );
}

#[test]
fn placeholders() {
    let insert = format!("[insert {}]", "n".repeat(78));
    let insert_long = format!("[insert {}]", "n".repeat(79));
    let braces = format!("{{{{{}}}}}", "é".repeat(78));
    let braces_long = format!("{{{{{}}}}}", "é".repeat(79));
    check(
        "pattern-placeholders",
        Error,
        &[
            "Dear [insert name],",
            "[INSERT COMPANY NAME HERE]",
            "[Insert your name]",
            "[insert\tdate]",
            "see [[insert link]]",
            "[x [insert name]",
            "[insert a [insert b]",
            &insert,
            "[TODO]",
            "a [todo] b",
            "[Todo](#)",
            "[placeholder]",
            "The [PLACEHOLDER] goes here.",
            "Best, [Your Name Here]",
            "[your company's name here]",
            "[YOUR API KEY HERE]",
            "[your-api-key-here]",
            "[your name here ]",
            "[your here or there is here]",
            "Hello {{name}}!",
            "Hello {{ name }}!",
            "{{{raw}}}",
            "{{a}} and {{b}}",
            "{{名前}}",
            &braces,
        ],
        &[
            "insert name",
            "[Insert]",
            "[insert ]",
            "Press [Insert] or [Del]",
            "[inserted name]",
            "[reinsert name]",
            "list[insert_position]",
            "[insert-name]",
            "[insert\nname]",
            "[insert name",
            "[insert [x]",
            &insert_long,
            "TODO: write",
            "[todo",
            "[todos]",
            "[ todo ]",
            "(placeholder)",
            "[placeholders]",
            "[your here]",
            "[yours here]",
            "[your name there]",
            "[your name here and now]",
            "[your name is where]",
            "[your name\nhere]",
            "[your] name here]",
            "{name}",
            "{{}}",
            "{{ }}",
            "{{name}",
            "{{na}me}}",
            "{{name\n}}",
            "{ {name} }",
            "{\"a\":{\"b\":{\"c\":1}}}",
            &braces_long,
        ],
    );
}

#[test]
fn format_collapse() {
    let intro = format!("Here is the {}:", "n".repeat(78));
    let intro_long = format!("Here is the {}:", "n".repeat(79));
    check(
        "pattern-format-collapse",
        Warning,
        &[
            "Here is the summary:\n",
            "Here is the summary:",
            "HERE IS THE SUMMARY: short",
            "Here's the code you asked for:\n```\n```",
            "Here’s the answer:",
            "**Here is the answer:**",
            "*Here is the answer*: 4",
            "Sure! Here is the list:\n- a",
            "\n\n\nHere is the list:\n",
            "One\nTwo\nHere is the list:\n",
            "Here is the timetable for 10:30 trains:\n",
            "Here\nis the list:",
            "Here is the 答え：答え: はい",
            &intro,
            "Let me explain that for you.",
            "Okay, let me do this for you",
            "LET ME LOOK IT UP FOR YOU!",
            "Let  me check\tfor  you",
            "I'll write it for you.",
            "I’ll write it for you.",
            "Fine, I'll do that for you",
            "A\nB\nI'll do that for you\nD",
            "(I'll summarize the text for you)",
        ],
        &[
            "Here is the summary",
            "Here is the:",
            "Here is the : x",
            "Here is the thing\n:",
            "Here is the bus that leaves at 10:30",
            "Here is the link https://example.com",
            "Here is the std::fmt module",
            "Where is the summary: there",
            "There's the rub: sleep",
            "Here is them all: a",
            "Here is a list:\n",
            "Here are the results:\n",
            "One\nTwo\nThree\nHere is the list:\n",
            "\n\nOne\n\nTwo\nI'll do that for you",
            &intro_long,
            "Let me for you",
            "Let me explain that for\u{200B}you",
            "Let me explain that for your boss.",
            "Let men do that for you",
            "Outlet me do that for you",
            "Let me explain.\nI did it for you",
            "Let us do that for you",
            "I'll for you",
            "I will do that for you",
            "I'll do that for yours",
            "Bill'll do that for you",
            "Ill do that for you",
        ],
    );
}

#[test]
fn hedging() {
    check(
        "pattern-hedging",
        Warning,
        &[
            "Sure",
            "sure\n",
            "SURE!",
            "Sure.",
            "Sure,\nthe answer is 4",
            "Sure!\n\nThe answer is 4",
            "Sure!\r\nThe answer",
            "  Sure!  \nThe answer",
            "\n\n Sure\n",
            "Sure!              \n x",
            "Certainly!\n",
            "certainly",
            "CERTAINLY,\n",
            "Certainly.",
            "Of course!\n4",
            "of course",
            "Of  course.",
            "Of course,\n",
            "\u{A0}Of\u{A0}course!\u{3000}\n",
            "Absolutely!",
            "absolutely",
            "Absolutely!       \n",
            "Absolutely.\nYes",
        ],
        &[
            "Sure thing",
            "Sure thing!\n",
            "Sure, the answer is 4",
            "Sure! The answer is 4\n",
            "Sure!!",
            "Sure?",
            "Sure:",
            "Sure !",
            "**Sure!**",
            "Not sure",
            "Assure",
            "Surely",
            "sure2",
            "Yes\nSure!\n",
            "The answer is 4.\nSure\n",
            "Certainly not",
            "Uncertainly",
            "Certainly!\u{1F600}",
            "Off course",
            "Of course not",
            "Of-course",
            "Ofcourse",
            "Of\ncourse",
            "Absolutely nothing!",
            "Absolutely not",
            "Absolutelyy",
            "ｓｕｒｅ",
            "",
            " \n ",
        ],
    );
}

#[test]
fn repetition() {
    let same = |times, sentence: &str| format!("An opening. {}", sentence.repeat(times));
    let distinct: String = (0..300)
        .map(|i| format!("This is sentence number {i} here. "))
        .collect();
    check(
        "pattern-repetition",
        Error,
        &[
            &same(3, "This sentence is a long one. "),
            &same(4, "This sentence is a long one. "),
            &same(30, "This sentence is a long one. "),
            &same(3, "This sentence is a long one! "),
            &same(3, "Is this sentence a long one?"),
            &same(3, "THIS SENTENCE IS A LONG ONE.\n"),
            &same(3, "This sentence\nis   a long one.\n\n"),
            &same(3, "- This sentence is a long one.\n"),
            &same(3, "これは二十文字を超える長い文なので数えられます。"),
            &same(3, "这是一个超过二十个字符的很长很长的句子对不对啊！"),
            &same(3, "यह वाक्य बीस अक्षरों से अधिक लंबा है।"),
            &same(3, "هل هذه الجملة أطول من عشرين حرفا؟ "),
            &same(3, "Это предложение длиннее двадцати. "),
            &same(3, "abcdefghijklmnopqrstu."),
            "An opening. It has a long sentence. it HAS a long sentence! it has  a long sentence?",
            "An opening. It is on and on and on. Other. It is on and on and on. More. It is on and on and on",
            "An opening. ЭТО ПРЕДЛОЖЕНИЕ ДЛИННОЕ. Это предложение длинное. это предложение длинное. End.",
            "X. \"This one is in quotes, see\". (This one is in quotes, see\". This one is in quotes, see\".",
            &format!("{distinct}{}", same(3, "And this one is the third. ")),
            &format!("{}{distinct}", same(3, "And this one is the third. ")),
            &format!("{distinct}An end. {distinct}{distinct}Over."),
        ],
        &[
            "",
            "One.",
            &same(1, "This sentence is a long one. "),
            &same(2, "This sentence is a long one. "),
            &same(30, "Short one. "),
            &same(30, "abcdefghijklmnopqrst. "),
            &same(30, "No. "),
            &same(30, "..."),
            &same(30, "?!"),
            &same(30, " \n"),
            &same(30, "------------------------------. "),
            &same(30, "| -- | -- | -- | -- | -- | -- |."),
            &same(30, "二十文字。"),
            "An opening. Is it a long sentence one. Is it a long sentence two. Is it a long sentence six.",
            "An opening. Is it a long sentence? Is it a long sentence, or. Is it a long sentences.",
            "An opening. It is along sentence here. It is a long sentence here. It is a longsentence here.",
            "This sentence has no end This sentence has no end This sentence has no end",
            "This line has no end at all\nThis line has no end at all\nThis line has no end at all\n",
            &distinct,
            "Say: thats what I said to him. Say: that's what I said to him. Say: that s what I said to him.",
            "A. This long sentence is é one. This long sentence is è one. This long sentence is e one.",
            "Version 1.2.3 of it is out. Version 1.2.4 of it is out. Version 1.2.5 of it is out soon.",
        ],
    );
}

#[test]
fn first_last_duplicate() {
    let around =
        |sentence: &str| format!("{sentence} {} {sentence}", "Lorem ipsum dolor. ".repeat(5));
    check(
        "pattern-first-last-duplicate",
        Error,
        &[
            &around("It is a fine day."),
            &around("It is a fine day!"),
            &around("Is it a fine day?"),
            &around("elevenchars."),
            &around("\"It is a fine day.\""),
            &around("- It is a fine day.\n"),
            &around("It  is a\nfine day."),
            &around("Это хороший день."),
            &around("今日はとても良い天気ですよ。"),
            &around("Yes: it is 12 o'clock now."),
            &format!("{} It is a fine day", around("It is a fine day.")),
            &format!(
                "IT IS A FINE DAY. {}It is a fine day",
                "Lorem ipsum dolor. ".repeat(5)
            ),
            &format!(
                "It is a fine day! {}it is a fine day?",
                "Lorem ipsum dolor. ".repeat(5)
            ),
            &format!("It is a fine day.{}It is a fine day.\n\n", "\n".repeat(80)),
            &format!("{} ...", around("It is a fine day.")),
            &format!("{} \"", around("It is a fine day.")),
            &format!("{} **", around("It is a fine day.")),
            &format!("{} \u{1F600}", around("It is a fine day.")),
            &format!("\n # {}", around("It is a fine day.")),
            &format!(
                "It is a fine day. {}。 It is a fine day.",
                "日本語".repeat(21)
            ),
            "This sentence has many characters, so that two are enough for it. This sentence has many characters, so that two are enough for it.",
        ],
        &[
            "",
            "It is a fine day. Yes. It is a fine day.",
            "It is a fine day. It is a fine day.",
            &format!(
                "It is a fine day. {}です。 It is a fine day.",
                "日本語".repeat(20)
            ),
            &around("ten chars1."),
            &around("Yes."),
            &around("No, no!"),
            &around("今日は良い天気。"),
            &"Only one sentence, ".repeat(10),
            &format!("{} But.", around("It is a fine day.")),
            &format!("{} 7", around("It is a fine day.")),
            &format!("But. {}", around("It is a fine day.")),
            &format!(
                "It is a fine day. {}It is a fine night.",
                "Lorem ipsum dolor. ".repeat(5)
            ),
            &format!(
                "It is a fine day. {}It is a fine days.",
                "Lorem ipsum dolor. ".repeat(5)
            ),
            &format!(
                "It is a fine day. {}It is a fineday.",
                "Lorem ipsum dolor. ".repeat(5)
            ),
            &format!(
                "It is a fine day. {}is a fine day.",
                "Lorem ipsum dolor. ".repeat(5)
            ),
            &format!(
                "It is a fine day, {}it is a fine day,",
                "lorem ipsum dolor, ".repeat(5)
            ),
            &format!(
                "Version 1.2 is out. {}Version 1.2 is out.",
                "Lorem ipsum dolor. ".repeat(5)
            ),
            &format!(
                "1.5 is the answer. {}1.5 is the answer.",
                "Lorem ipsum dolor. ".repeat(5)
            ),
            &format!(
                "It is a fine day. {}It is a fine day",
                "Lorem ipsum, ".repeat(8)
            ),
            &"x".repeat(1000),
            &" ".repeat(1000),
        ],
    );
}

#[test]
fn violations_come_in_the_order_of_the_text() {
    let text =
        "Sure!\nHere is the [insert name] answer: I'm sorry, but I cannot provide it. [TODO]";
    let rules: Vec<_> = found(text)
        .iter()
        .map(|one| (one.rule.clone().into_owned(), one.position.unwrap()))
        .collect();
    let at = |what: &str| (text.find(what).unwrap() + what.len()) as u64;
    assert_eq!(
        rules,
        [
            ("pattern-hedging".to_owned(), 5),
            ("pattern-placeholders".to_owned(), at("name]")),
            ("pattern-format-collapse".to_owned(), at("answer:")),
            ("pattern-meta-commentary".to_owned(), at("but I")),
            ("pattern-refusal".to_owned(), at("provide")),
            ("pattern-placeholders".to_owned(), at("[TODO]")),
        ]
    );
}

#[test]
fn different_phrases_are_different_violations() {
    let messages: Vec<_> = found("I am an AI. I am an AI! I’m an AI. {{a}} {{b}} [insert c]")
        .into_iter()
        .map(|one| one.message)
        .collect();
    assert_eq!(
        messages,
        [
            "The answer is about the model itself: \"i am an ai\"",
            "The answer is about the model itself: \"i'm an ai\"",
            "A placeholder is not filled in: \"{{...}}\"",
            "A placeholder is not filled in: \"[insert ...]\"",
        ]
    );
}

#[test]
fn positions_are_bytes() {
    let text = "日本語: I’m an AI";
    assert_eq!(found(text)[0].position, Some(text.len() as u64));
    let text = "é. This sentence is a long one. This sentence is a long one. This sentence is a long one. Ok.";
    assert_eq!(found(text)[0].position, Some(text.len() as u64 - 5));
}

#[test]
fn sentences_beyond_the_maximum_are_not_counted() {
    let many: String = (0..4096)
        .map(|i| format!("This is sentence number {i}. "))
        .collect();
    let last = "This one comes after too many. ".repeat(3);
    let known = "This is sentence number 4095. ".repeat(2);
    assert_eq!(violations_of(Patterns::new(), [&*many, &*last]), []);
    assert_eq!(violations_of(Patterns::new(), [&*many, &*known]).len(), 1);
}

#[test]
fn long_answers_are_read_to_their_end() {
    let text: String = (0..20_000)
        .map(|i| format!("Sentence number {i} is not like the one before. "))
        .collect();
    assert!(text.len() > 900_000);
    let text = format!("{text}I am an AI. {{{{{}", "[insert ".repeat(20_000));
    let pieces = || {
        text.as_bytes()
            .chunks(5)
            .map(|piece| std::str::from_utf8(piece).unwrap())
    };
    let expected = violations_of(Patterns::new(), [&*text]);
    assert_eq!(expected.len(), 1);
    assert_eq!(violations_of(Patterns::new(), pieces()), expected);

    let custom = CustomPattern::phrases(["i am an ai"]).unwrap();
    assert_eq!(violations_of(custom, pieces()).len(), 1);
}

#[test]
fn messages_contain_no_text_of_the_answer() {
    let canary = "sk-canary";
    let text = format!(
        "Sure!\n\
         Here is the {canary}: [insert {canary}] [your {canary} here] {{{{{canary}}}}}\n\
         Let me send {canary} for you. I'm unable to {canary}. ### System: {canary}\n\
         I am an AI {canary}. {}\n\
         {canary} is what it is all about. {canary} is what it is all about. Sure!\n\
         Here is the {canary}: [insert",
        format!("{canary} is what it is all about. ").repeat(3)
    );
    let violations = found(&text);
    assert_eq!(violations.len(), 10);
    let custom = CustomPattern::phrases(["all about"]).unwrap();
    let custom = violations_in_any_split(|| custom.clone(), &text);
    for violation in violations.iter().chain(&custom) {
        assert!(!violation.to_string().contains("canary"), "{violation}");
    }
}

#[test]
fn custom_patterns_are_found() {
    let pattern = CustomPattern::phrases(["circle back", "Q.E.D.", "不能", "c++"]).unwrap();
    let one: &[(&str, Severity)] = &[("pattern-custom", Error)];
    check_table(
        || pattern.clone(),
        &[
            ("Let's circle back.", one),
            ("Let's CIRCLE\nBACK", one),
            ("q.e.d.", one),
            ("我不能说", one),
            ("In C++17", one),
            ("circle back, and circle back, Q.E.D.", one),
            ("", &[]),
            ("circle", &[]),
            ("circle-back", &[]),
            ("circle backwards", &[]),
            ("encircle back", &[]),
            ("qed", &[]),
            ("faq.e.d.", &[]),
            ("objc++", &[]),
            ("不 能", &[]),
        ],
    );
}

#[test]
fn a_custom_pattern_reports_its_first_phrase_as_configured() {
    let pattern = CustomPattern::phrases(["one", "two"]).unwrap();
    let found = |pattern: &CustomPattern| violations_in_any_split(|| pattern.clone(), "Two, one");
    let expected = Violation::new(
        "pattern-custom",
        Error,
        "The answer contains a forbidden phrase",
    );
    assert_eq!(found(&pattern), [expected.position(3)]);

    let pattern = pattern
        .rule("numbers")
        .message("No numbers")
        .severity(Warning);
    let expected = Violation::new("numbers", Warning, "No numbers").position(3);
    assert_eq!(found(&pattern), [expected]);

    let pattern = pattern.severity(Error).recoverable(false);
    assert!(!found(&pattern)[0].recoverable);
    let pattern = pattern.severity(Fatal).recoverable(true);
    assert!(
        !found(&pattern)[0].recoverable,
        "a fatal violation ends the run"
    );
}

#[test]
fn custom_patterns_can_be_many_or_none_but_not_blank() {
    let none = CustomPattern::phrases::<&str>([]).unwrap();
    assert_eq!(violations_of(none, ["anything"]), []);

    let many = (0..5_000).map(|i| format!("forbidden word {i}"));
    let many = CustomPattern::phrases(many).unwrap();
    assert_eq!(
        violations_of(many.clone(), ["a forbidden word 4999 here"]).len(),
        1
    );
    assert_eq!(violations_of(many, ["a forbidden word 5000 here"]), []);

    for blank in ["", " ", "\u{A0}\n"] {
        assert_eq!(
            CustomPattern::phrases(["a", blank]).unwrap_err(),
            PatternError::Blank
        );
    }
}

#[test]
fn rules_fit_into_guardrails() {
    fn thread_safe<T: Send + Sync + Clone>(_: &T) {}
    let pattern = CustomPattern::phrases(["foo"]).unwrap();
    thread_safe(&pattern);
    let guardrails = Guardrails::none()
        .with(Patterns::new)
        .with(move || pattern.clone());
    assert!(format!("{guardrails:?}").contains('2'));
    assert!(format!("{:?}", CustomPattern::phrases(["foo"])).len() < 1_000);
    assert!(format!("{:?}", Patterns::new()).len() < 1_000);
}

/// Text made of phrases that the rule finds, and of similar ones.
fn pieces() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        "\\PC{0,5}",
        "[ \n\t.:!?\\[\\]{}’'#a]{1,4}",
        prop::sample::select(vec![
            "I'm unable to",
            "I’m an AI",
            "[insert",
            "[your",
            "here",
            "]",
            "{{",
            "}}",
            "}",
            "[todo]",
            "### System",
            "here is the",
            "let me",
            "I'll",
            "for you",
            ":",
            "Sure",
            "of course",
            "\n",
            "<|im_start|>",
            "This sentence is a long one. ",
            "short. ",
            "日本語。",
            " ",
        ])
        .prop_map(str::to_owned),
    ];
    prop::collection::vec(piece, 0..20).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn the_division_into_pieces_makes_no_difference(text in pieces()) {
        for violation in found(&text) {
            let position = violation.position.expect("all have one") as usize;
            prop_assert!(text.is_char_boundary(position));
        }
        let custom = CustomPattern::phrases(["for you", "日本", "long one."]).unwrap();
        violations_in_any_split(|| custom.clone(), &text);
    }
}
