//! What a peer sends and its tunnel does not take, for people: under the tunnel, wherever it is
//! shown.

use super::{clock::Clock, output::Paint};
use crate::report::Mismatch;

/// Two lines, the second with the command that mends it.
pub(super) fn text(mismatch: &Mismatch, indent: &str, clock: Clock, paint: Paint) -> String {
    let Mismatch { sends, expects, since, last, packets, fix, .. } = mismatch;
    let what = paint.bad(&format!("peer sends {sends}; this tunnel expects {expects}"));
    let plural = if *packets == 1 { "" } else { "s" };
    format!(
        "{indent}{what} ({} packet{plural}, since {}, last {})\n{indent}  mend it here: {fix}\n",
        grouped(*packets),
        clock.time(*since),
        clock.ago(*last)
    )
}

/// With a comma before every three digits.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i != 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_numbers_are_grouped() {
        let grouped = [0, 999, 1000, 123_456, 1_234_567].map(grouped);
        assert_eq!(grouped, ["0", "999", "1,000", "123,456", "1,234,567"]);
    }
}
