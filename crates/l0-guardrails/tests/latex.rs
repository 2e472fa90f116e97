//! The rule `latex-environments`: its violations and their timing, independent of how the stream is
//! divided.

mod support;

use l0_core::Severity::{self, Error, Warning};
use l0_core::{Check, Findings};
use l0_guardrails::Latex;
use proptest::prelude::*;
use support::{check_table, violations_in_any_split, violations_of};

type Expected = &'static [(&'static str, Severity)];

const NONE: Expected = &[];
const ENVIRONMENT: Expected = &[("latex-environments", Error)];
const TWO_ENVIRONMENTS: Expected = &[("latex-environments", Error), ("latex-environments", Error)];
const MANY: Expected = &[("latex-environments", Warning)];
const MATH: Expected = &[("latex-math", Error)];
const ODD: Expected = &[("latex-math", Warning)];
const BRACE: Expected = &[("latex-common", Warning)];

fn check(texts: &[&str], expected: Expected) {
    assert!(texts.len() >= 20, "{}", texts.len());
    let table: Vec<_> = texts.iter().map(|text| (*text, expected)).collect();
    check_table(Latex::new, &table);
}

#[test]
fn wrong_environments() {
    check(
        &[
            r"\begin{equation}",
            "\\begin{equation}\nx = 1\n",
            r"\begin{align} a &= b \\ c &= d",
            r"\begin{align} x \end{align*}",
            r"\begin{align} x \end{equation}",
            r"\begin{itemize}\item a \end{enumerate}",
            r"\end{equation}",
            r"x = 1 \end{align}",
            r"\begin{equation} x \end{equation} \end{equation}",
            r"\begin{itemize} \begin{enumerate} \end{itemize}",
            r"\begin{mything} x \end{myother}",
            r"\begin{mything} x \end{center}",
            r"\begin{center} x \end{mything}",
            r"\begin{mything}",
            r"\end{mything}",
            r"\begin{verbatim} \end{center} \begin{x}",
            r"\begin{verbatim} \end{verbatim*}",
            r"\begin{lstlisting}[language=C] int main() {}",
            r"\begin{minted}{rust} fn main() { \end {mint}",
            r"\begin {equation} x",
            r"\begin{Equation} x \end{equation}",
            "\\begin{equation}\r\nx\r\n",
            "```latex\n\\begin{equation}\nx\n```\n",
            "```tex title=\"a\"\n\\begin{center}\n```\n",
            "~~~math\n\\begin{align}\n~~~\n",
            "It's `a' \\begin{center} in quotes",
            "``a'' \\begin{center} in quotes",
            r"\begin{日本} x \end{日}",
            r"\begin{tabular}{c|c} a & b \\ \hline c & d",
            r"\begin{a}\begin{b}\end{b}",
            "\\begin{cases} a \\\\\n\n\n b",
            "- a\n- \\begin{center}\n",
            r"\begin{thisisaverylongnameofanenvironmentindeed} \end{thisisaverylongnameofanenvironmentINDEED}",
            "Not closed `code \\begin{center}\nnext line",
            "\\verb|\\begin{a}| \\begin{b}",
        ],
        ENVIRONMENT,
    );
}

#[test]
fn right_environments() {
    check(
        &[
            "",
            "No LaTeX at all.",
            "C:\\begin\\end\\beginning{of}",
            r"\begin{equation} x = 1 \end{equation}",
            r"\begin{align*} x \end{align*}",
            "\\begin{document}\n\\begin{itemize}\n\\item a\n\\end{itemize}\n\\end{document}\n",
            r"\begin{a}\end{a}\begin{a}\end{a}",
            r"\begin{a}\begin{a}\end{a}\end{a}",
            r"\begin{a}\begin{b}\begin{c}\begin{d}\begin{e}\end{e}\end{d}\end{c}\end{b}\end{a}",
            r"\begin{tabular}{|c|c|} a & b \end{tabular}",
            r"\[ \begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix} \]",
            r"$$ f(x) = \begin{cases} 1 \\ 2 \end{cases} $$",
            r"\begin{verbatim} \end{center} \begin{x} $ \[ \textbf{ \end{verbatim}",
            r"\begin{verbatim} \\end{verbatim}",
            r"\begin{verbatim} \end{\end{verbatim}",
            "\\begin{verbatim}\n```\n\\end{verbatim}\n",
            r"\begin{lstlisting}[language=C] \end{x} \end{lstlisting}",
            "\\begin{minted}{latex}\n\\begin{center}\n\\end{minted}\n",
            r"\begin{comment} \end{center} \end{comment}",
            r"\begin {center} x \end  {center}",
            r"\begin{mything} x \end{mything}",
            r"\begin{日本} x \end{日本}",
            r"\begin{} \end{}",
            r"\\begin{center}",
            r"\textbackslash begin{center}",
            // Code in Markdown.
            "Write `\\begin{equation}` first.",
            "A `\\end{equation}` is missing. Write `\\begin{a}` and `\\begin{b}`.",
            "```\n\\begin{center}\n```\n",
            "```python\ns = '\\\\begin{center} \\end{x}'\n```\n",
            "1. Like this:\n   ~~~bash\n   echo '\\end{a}'\n   ~~~\n",
            "> ```c\n> \\end{a}\n> ```\n",
            "````latex\n\\begin{a}\n\\end{a}\n````\n\n```latex\n\\begin{b}\n\\end{b}\n```\n",
            r"\verb|\begin{center}| and \verb+\end{x}+ and \verb*!\end{y}!",
            "\\begin{equation}\r\nx\r\n\\end{equation}\r\n",
            "\\newcommand{\\be}{\\begin{equation}} \\newcommand{\\ee}{\\end{equation}}",
        ],
        NONE,
    );
}

#[test]
fn several_environments() {
    check_table(
        Latex::new,
        &[
            (r"\begin{a}\begin{b}", TWO_ENVIRONMENTS),
            (r"\begin{itemize}\begin{itemize}", TWO_ENVIRONMENTS),
            (r"\begin{align} \end{cases} \end{align}", TWO_ENVIRONMENTS),
            (r"\begin{center} \end{a} \begin{quote}", TWO_ENVIRONMENTS),
            // One message per distinct mistake.
            (r"\end{center} \end{center}", ENVIRONMENT),
            (r"\begin{a}\begin{b}\begin{c}\end{a}", ENVIRONMENT),
        ],
    );
}

/// Returns this many nested environments, all of which are closed.
fn nested(depth: usize, between: &str) -> String {
    let begin = "\\begin{itemize}\n".repeat(depth);
    let end = "\\end{itemize}\n".repeat(depth);
    format!("{begin}{between}{end}")
}

#[test]
fn many_open_environments() {
    for depth in 0..=5 {
        check_table(Latex::new, &[(&nested(depth, "x"), NONE)]);
        check_table(Latex::new, &[(&nested(depth, "x").repeat(3), NONE)]);
    }
    for depth in (6..=15).chain([63, 64, 65, 100]) {
        check_table(Latex::new, &[(&nested(depth, "x"), MANY)]);
        check_table(Latex::new, &[(&nested(depth, "x").repeat(3), MANY)]);
    }
    let unclosed = r"\begin{a}".repeat(10_000);
    let found = violations_of(Latex::new(), [&*unclosed]);
    assert_eq!(found.len(), 1 + 64 + 1);
    assert_eq!(found[65].message, "Environments open beyond level 64: 9936");
}

#[test]
fn unbalanced_math() {
    check(
        &[
            r"\[",
            r"\]",
            r"\(",
            r"\)",
            r"\[ x = 1",
            r"x = 1 \]",
            r"Let \( x be",
            r"Let x \) be",
            r"\[ x \] and \[ y",
            r"\( x \) and y \)",
            r"\] x \[",
            r"\[ x \[ y \]",
            r"\( \( x \)",
            "$$",
            "$$ x = 1",
            "x = 1 $$",
            "$$x$$ and $$y",
            "$$\nx = 1\n",
            "$$\nx = 1\n\n$$\n\n$$\ny\n",
            "First $a$, then $$b",
            "It costs $5, and $$x = 1",
            "\\[\r\nx\r\n",
            "```latex\n\\[ x\n```\n",
            r"a `quote' \[ x",
            "Text.\n\n1. \\( x",
            r"\text{a \( b}",
            r"\\\[ x",
            "The sign $a stays$ here.\n\n- $$x\n",
            "日本語 \\(x",
            "\\begin{center} \\[ \\end{center}",
            "`open \\(\nnext line",
        ],
        MATH,
    );
}

#[test]
fn odd_dollars() {
    check(
        &[
            "$",
            "$x",
            "x$",
            "Let $x be",
            "Let $x$ and $y be",
            "Let $x$ and $y$ and $z",
            r"Let $\alpha",
            r"Let $x\$",
            "The $ sign.",
            "$x$ costs $5, and $y",
            "First $x\n\nsecond.",
            "$2x$ and $y",
            "Let $ x be",
            "Let $x$$y be",
            "(see $f(x)",
            "**$x",
            "It is 5$ per month.",
            "$x\r\n\r\nnext.\r\n",
            "```latex\n$x\n```\n",
            "`open $x\nnext.",
            "$x `code` y",
            "日本語 $x。",
            "- $x\n- y\n",
            "$$a$$ and $b",
            "$ $ $",
        ],
        ODD,
    );
}

#[test]
fn balanced_math() {
    check(
        &[
            "No math.",
            r"\[ x = 1 \]",
            r"\( x \) and \( y \)",
            r"\[ x \] \( y \) $$ z $$ $w$",
            "$x$",
            "$x$ and $y$.",
            "$ x $ and $ y $.",
            "$$x$$",
            "$$\nx\n$$\n",
            "$a$$b$",
            "$2x$$3y$",
            r"$\$5$",
            r"It costs \$5, or \$ 6.",
            // Prices.
            "It costs $5.",
            "It costs $5 and $10.",
            "It costs $5, $6, or $7.",
            "From $5-$10 to $1,000.00.",
            "A $5 fee\n\nand $20 more",
            "It costs $5, where $x$ is free.",
            "The sum is ($5).",
            "$5",
            "$100k\n$200k\n$300k\n",
            "Costs $5 or 5$.",
            "Between $2x$ and $3y$, at $4.",
            "Price class: $$$ or $$$$.",
            "$x$-$5",
            // One in each of two paragraphs is an even number.
            "The $ sign.\n\nThe other $ sign.",
            r"a \\[2pt] b \\(c)",
            r"a \\] b",
            // Code in Markdown.
            r"Use `\[` to open, or `\(`, or `$$`, or `$`.",
            r"Run `echo $HOME`.",
            r"The backslash `\` and `\\`.",
            "```bash\necho $HOME $$\nsed 's/\\(a/b/'\n```\n",
            "```\n\\[\n```\n",
            "~~~~js\nx = /\\[/\n~~~\n~~~~\n",
            r"\verb|$| and \verb+\[+",
            r"\begin{verbatim} $ \[ $$ \( \end{verbatim}",
            r"\begin{lstlisting} $ \[ \end{lstlisting}",
            "$$\r\nx\r\n$$\r\n",
            "the sign $HOME is $$x$$, and $PATH",
        ],
        NONE,
    );
}

#[test]
fn unclosed_braces() {
    check(
        &[
            r"\textbf{bold",
            r"\textbf{bold and \emph{more}",
            r"\textbf{",
            r"\emph{a} \textit{b",
            r"\frac{1}{2",
            r"\frac{1",
            r"\sqrt[3]{x",
            r"\sqrt{x \} y",
            r"\section*{Title",
            "\\section{Title\n\nText.\n",
            r"\textbf{a{b}c",
            r"\textbf{a{b}",
            r"\textbf{\textit{\emph{a}}",
            r"\[ \frac{1}{2 \]",
            r"$\frac{1}{2$",
            r"$$\sum_{i=1}^{n} \text{all$$",
            r"\href{https://example.com}{here",
            r"\begin{tabular}{c|c \end{tabular}",
            r"\begin{equ",
            r"\begin{",
            r"\end{equ",
            r"\begin{equ$x$",
            "```latex\n\\textbf{a\n```\n",
            "`open \\textbf{a\nnext line",
            "日本語 \\textbf{太字",
            r"\documentclass[12pt]{article",
            r"\item[a]{b",
        ],
        BRACE,
    );
}

#[test]
fn closed_braces() {
    check(
        &[
            "No LaTeX { at all.",
            r"\textbf{bold}",
            r"\textbf{bold \emph{more}}",
            r"\frac{1}{2}",
            r"\sqrt[3]{x}",
            r"\section*{Title}",
            r"\textbf{a \{ b}",
            r"\textbf{a \} b}",
            r"\{ x",
            r"\left\{ x \right.",
            "fn main() {",
            "{\"a\": {",
            "let s = \"\\n  {\";",
            r"$x_{i$",
            r"\alpha {",
            r"\textbf {bold",
            r"\textbf{a}} b",
            r"\textbf{a}{b}{c}",
            r"Write `\textbf{` to begin.",
            "```\n\\textbf{\n```\n",
            "```json\n{\"a\": \"\\u{\"\n```\n",
            r"\verb|\textbf{|",
            r"\begin{verbatim}\textbf{\end{verbatim}",
            r"\begin{tabular}{c|c}\end{tabular}",
            "\\begin{equ\n}",
            r"\\{",
            "\\section{Title}\r\n\\emph{a}\r\n",
            r"\documentclass[12pt,a4paper]{article}",
        ],
        NONE,
    );
}

#[test]
fn violations_have_messages_and_positions() {
    let text = "é \\end{center}\n\\begin{align} \\begin{mine} \\end{cases}\n\\end{yours} \\] \\( $$ \
                \\textbf{ \\begin{quote}\\begin{quote}\\begin{theirs} $x";
    let found = violations_in_any_split(Latex::new, text);
    assert!(found.iter().all(|one| one.recoverable));
    let found: Vec<_> = found
        .iter()
        .map(|one| (&*one.message, one.position))
        .collect();
    let at = |part: &str| text.find(part).map(|at| at as u64);
    assert_eq!(
        found,
        [
            (r"\end{center} without \begin{center}", at(r"\end{center}")),
            (
                r"Expected the end of another environment, found \end{cases}",
                at(r"\end{cases}")
            ),
            (
                r"Expected \end{align}, found the end of another environment",
                at(r"\end{yours}")
            ),
            (
                r"\begin{quote} without \end{quote}, at level 1",
                at(r"\begin{quote}")
            ),
            (
                r"\begin{quote} without \end{quote}, at level 2",
                text.rfind(r"\begin{quote}").map(|at| at as u64)
            ),
            (
                r"A \begin without its \end, at level 3",
                at(r"\begin{theirs}")
            ),
            (
                r"\[ and \] are not balanced: 0 not closed, 1 not opened",
                at(r"\]")
            ),
            (
                r"\( and \) are not balanced: 1 not closed, 0 not opened",
                at(r"\(")
            ),
            ("An odd number of $$", at("$$")),
            ("An odd number of $", at("$x")),
            (
                "A brace opened after a command is not closed",
                at(r"{ \begin{quote}")
            ),
        ]
    );
}

#[test]
fn a_mismatch_is_reported_immediately() {
    let mut rule = Latex::new();
    let mut findings = Findings::new();
    let mut reported = |rule: &mut Latex, text| {
        rule.text(text, &mut findings);
        findings.iter().count()
    };
    assert_eq!(reported(&mut rule, r"\begin{align} \end{cases"), 0);
    assert_eq!(reported(&mut rule, "}"), 1);
    assert_eq!(
        reported(
            &mut rule,
            r"\begin{a}\begin{a}\begin{a}\begin{a}\begin{a}\begin{a"
        ),
        1
    );
    assert_eq!(reported(&mut rule, "}"), 2);
    // Possible code waits for the end of its line, or for the fifth environment.
    assert_eq!(reported(&mut rule, r" `\end{b}"), 2);
    assert_eq!(reported(&mut rule, "\n"), 3);
    assert_eq!(
        reported(&mut rule, r" `\end{a}\end{a}\end{a}\end{center}"),
        3
    );
    assert_eq!(reported(&mut rule, r"\end{a}"), 4);
}

#[test]
fn messages_contain_no_text_of_the_answer() {
    let text = r"\begin{CANARY} CANARY \end{CANARYS} \end{CANARY} \begin{CANARY} \begin{center}
        \end{CANARY} \begin{CANARY} \begin{center} \[ CANARY \( CANARY $$ CANARY $CANARY
        \CANARY{CANARY \textbf{CANARY \begin{CANARY";
    let found = violations_in_any_split(Latex::new, text);
    assert!(found.len() >= 8, "{found:?}");
    for one in &found {
        assert!(!format!("{one:?}").contains("CANARY"), "{one}");
    }
}

#[test]
fn a_megabyte_in_one_line() {
    let cases: [(&str, Expected); 9] = [
        ("word ", NONE),
        ("`", NONE),
        ("$", NONE),
        ("$ ", NONE),
        ("\\", NONE),
        ("\\textbf{", BRACE),
        ("\\begin{}", NONE),
        ("\\end{x}", ENVIRONMENT),
        ("é{", NONE),
    ];
    for (unit, expected) in cases {
        let text = unit.repeat((1 << 20) / unit.len());
        let whole = violations_of(Latex::new(), [&*text]);
        let found: Vec<_> = whole.iter().map(|one| (&*one.rule, one.severity)).collect();
        assert_eq!(found, expected, "{unit}");
        let pieces = text
            .as_bytes()
            .chunks(6)
            .map(|piece| str::from_utf8(piece).unwrap());
        assert_eq!(violations_of(Latex::new(), pieces), whole, "{unit}");
    }
    let name = format!("\\begin{{{0}}}\\end{{{0}}}", "a".repeat(1 << 20));
    assert_eq!(violations_of(Latex::new(), [&*name]), []);
}

#[test]
fn the_rule_is_small() {
    assert!(size_of::<Latex>() < 1024, "{}", size_of::<Latex>());
}

/// Generates texts of the marks that the rule reads.
fn marks() -> impl Strategy<Value = String> {
    let mark = prop::sample::select(vec![
        "\\",
        "$",
        "$$",
        "`",
        "```",
        "~~~",
        "{",
        "}",
        "[",
        "]",
        "(",
        ")",
        "*",
        "\\[",
        "\\]",
        "\\(",
        "\\)",
        "\\$",
        "\\begin",
        "\\end",
        "{a}",
        "{b}",
        "{verbatim}",
        "\\begin{a}",
        "\\end{a}",
        "\\begin{center}",
        "\\end{center}",
        "\\begin{verbatim}",
        "\\end{verbatim}",
        "\\verb",
        "|",
        "\\textbf",
        "\\textbf{",
        "latex",
        "5",
        "x",
        " ",
        "\t",
        "\n",
        "\n\n",
        "\r\n",
        "\r",
        "> ",
        "- ",
        "é",
        "日本",
    ]);
    prop::collection::vec(mark, 0..60).prop_map(|marks| marks.concat())
}

proptest! {
    #[test]
    fn any_marks_split_anywhere(text in marks()) {
        violations_in_any_split(Latex::new, &text);
    }

    #[test]
    fn any_text_split_anywhere(text in any::<String>()) {
        violations_in_any_split(Latex::new, &text);
    }

    #[test]
    fn verbatim_environments_and_code_are_ignored(text in marks()) {
        let verbatim = format!("\\begin{{verbatim}}{}\\end{{verbatim}}", text.replace("verbatim", ""));
        prop_assert_eq!(violations_of(Latex::new(), [&*verbatim]), []);
        // Longer than any generated by chance.
        let fence = "~".repeat(200);
        let code = format!("{fence}\n{text}\n{fence}\n");
        prop_assert_eq!(violations_of(Latex::new(), [&*code]), []);
    }

    #[test]
    fn text_without_latex_has_no_violations(text in "[^\\\\$]*") {
        prop_assert_eq!(violations_of(Latex::new(), [&*text]), []);
    }
}
