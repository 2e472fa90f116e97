//! Packets: lines as datagrams that a server accepts.

/// Splits lines into datagrams of whole lines, each with as many lines as fit into `limit` bytes. A line that
/// does not fit is returned alone, longer than the limit, and must not be sent.
pub(crate) fn datagrams(lines: &str, limit: usize) -> impl Iterator<Item = &str> {
    let mut rest = lines;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (datagram, others) = rest.split_at(end(rest, limit));
        rest = others.strip_prefix('\n').unwrap_or(others);
        Some(datagram)
    })
}

/// Returns the end of the first datagram.
fn end(lines: &str, limit: usize) -> usize {
    if lines.len() <= limit {
        return lines.len();
    }
    let newline = |byte: &u8| *byte == b'\n';
    let bytes = lines.as_bytes();
    // The newline itself is not part of the datagram, so it can lie just past the limit.
    let last = bytes[..=limit].iter().rposition(newline);
    last.or_else(|| bytes.iter().position(newline))
        .unwrap_or(lines.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_datagram_has_as_many_whole_lines_as_fit() {
        let cases: [(&str, usize, &[&str]); 9] = [
            ("", 5, &[]),
            ("ab", 5, &["ab"]),
            ("ab\ncd", 5, &["ab\ncd"]),
            ("ab\ncd", 4, &["ab", "cd"]),
            ("ab\ncde", 5, &["ab", "cde"]),
            ("ab\ncd\nef\ng", 5, &["ab\ncd", "ef\ng"]),
            ("abcdef", 5, &["abcdef"]),
            ("ab\ncdefgh\ni\nj", 5, &["ab", "cdefgh", "i\nj"]),
            ("äöü\nä", 5, &["äöü", "ä"]),
        ];
        for (lines, limit, expected) in cases {
            let datagrams: Vec<_> = datagrams(lines, limit).collect();
            assert_eq!(datagrams, expected, "{lines:?} by {limit}");
        }
    }

    proptest! {
        #[test]
        fn datagrams_are_all_lines_in_order(
            lines in prop::collection::vec("[^\n]{1,40}", 0..40),
            limit in 1_usize..200,
        ) {
            let lines = lines.join("\n");
            let datagrams: Vec<_> = datagrams(&lines, limit).collect();
            prop_assert_eq!(datagrams.join("\n"), lines.as_str());
            for datagram in &datagrams {
                prop_assert!(datagram.len() <= limit || !datagram.contains('\n'));
            }
            for pair in datagrams.windows(2) {
                let first = pair[1].split('\n').next().unwrap_or_default();
                prop_assert!(
                    pair[0].len() + 1 + first.len() > limit,
                    "{:?} had space for {:?}", pair[0], first
                );
            }
        }
    }
}
