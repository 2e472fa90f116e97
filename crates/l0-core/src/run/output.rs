//! Output: what one attempt's items amount to.

use crate::token::{TokenKind, TokenView};

/// Why an attempt that ended by itself is no success.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shortfall {
    Truncated,
    ZeroOutput,
}

/// What an attempt must show at its end.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expect {
    /// A finish reason.
    pub(super) finish: bool,
    /// Text with a letter or digit, or a tool call.
    pub(super) output: bool,
}

/// What an attempt has shown so far.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Output {
    finished: bool,
    meaningful: bool,
}

impl Output {
    #[inline]
    pub(super) fn add(&mut self, view: &TokenView<'_>) {
        self.finished |= view.finish.is_some();
        if !self.meaningful {
            self.meaningful = is_meaningful(view.kind, view.text);
        }
    }

    /// Whether the source said why the model stopped: the answer is complete.
    pub(super) fn finished(self) -> bool {
        self.finished
    }

    /// Judges an attempt whose source has ended.
    pub(super) fn judge(self, expect: Expect) -> Result<(), Shortfall> {
        if expect.finish && !self.finished {
            // First: a cut connection also explains missing output.
            Err(Shortfall::Truncated)
        } else if expect.output && !self.meaningful {
            Err(Shortfall::ZeroOutput)
        } else {
            Ok(())
        }
    }
}

/// Kept out of the path of a token: it is asked until the answer is yes.
#[inline(never)]
fn is_meaningful(kind: TokenKind, text: &str) -> bool {
    match kind {
        TokenKind::Text => text.chars().any(char::is_alphanumeric),
        TokenKind::ToolCall => true,
        TokenKind::Reasoning | TokenKind::Other => false,
    }
}
