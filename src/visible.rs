//! Makes text written by strangers (in DNS, in a relay's replies, in request headers) visible, so
//! that a page shows everything it contains.

use std::borrow::Cow;

/// Escapes each character, as in `\u{202e}`, that is invisible or changes the order in which others
/// are displayed. Text that is already escaped is left alone. The result contains no NUL, which
/// PostgreSQL cannot store.
pub fn visible(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_hidden) {
        return text.into();
    }
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match is_hidden(c) {
            true => shown.extend(c.escape_unicode()),
            false => shown.push(c),
        }
    }
    shown.into()
}

/// Control characters (except the tab, which shows as space), and most of Unicode's
/// `Default_Ignorable_Code_Point` and `Bidi_Control`.
fn is_hidden(c: char) -> bool {
    (c.is_control() && c != '\t')
        || matches!(c,
            '\u{AD}' | '\u{34F}' | '\u{61C}' | '\u{115F}' | '\u{1160}' | '\u{17B4}' | '\u{17B5}'
            | '\u{180B}'..='\u{180F}' | '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}'
            | '\u{2060}'..='\u{206F}' | '\u{3164}' | '\u{FE00}'..='\u{FE0F}' | '\u{FEFF}'
            | '\u{FFA0}' | '\u{FFF0}'..='\u{FFFB}' | '\u{1BCA0}'..='\u{1BCA3}'
            | '\u{1D173}'..='\u{1D17A}' | '\u{E0000}'..='\u{E0FFF}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hides_or_reorders_is_escaped() {
        for (given, shown) in [
            ("", ""),
            ("v=DKIM1; p=é 名 \\u{202e}", "v=DKIM1; p=é 名 \\u{202e}"),
            ("a\0b", "a\\u{0}b"),
            ("a\r\n\tb", "a\\u{d}\\u{a}\tb"),
            ("\u{1b}[31m\u{7f}\u{9b}", "\\u{1b}[31m\\u{7f}\\u{9b}"),
            ("\u{202e}moc.emca", "\\u{202e}moc.emca"),
            ("\u{e0041}\u{fe0f}", "\\u{e0041}\\u{fe0f}"),
        ] {
            assert_eq!(visible(given), shown);
            assert_eq!(visible(shown), shown);
        }
        let hidden = [
            ('\u{200B}', '\u{200F}'),
            ('\u{202A}', '\u{202E}'),
            ('\u{2060}', '\u{2069}'),
            ('\u{61C}', '\u{61C}'),
            ('\u{2028}', '\u{2029}'),
        ];
        for c in hidden.into_iter().flat_map(|(from, to)| from..=to) {
            let escaped = format!("<\\u{{{:x}}}>", u32::from(c));
            assert_eq!(visible(&format!("<{c}>")), escaped);
        }
    }
}
