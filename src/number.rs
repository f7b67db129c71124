//! Numbers as people read them.

/// With commas as thousands separators: `1,234,567`.
pub fn grouped(number: i64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// With its noun: `1 key`, `1,000 keys`.
pub fn counted(number: i64, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", grouped(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_set_apart() {
        for (number, text) in [
            (0, "0 keys"),
            (1, "1 key"),
            (999, "999 keys"),
            (1_000, "1,000 keys"),
            (1_234_567, "1,234,567 keys"),
        ] {
            assert_eq!(counted(number, "key"), text);
        }
    }
}
