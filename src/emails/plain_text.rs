//! The text of an email that has only HTML.

use std::panic::{self, AssertUnwindSafe};

const WIDTH: usize = 78;
/// Longer HTML than any email has that people read.
const MOST_BYTES: usize = 256 * 1024;
/// How deep elements may stand in each other: renderers go down by calling themselves.
const MOST_DEEP: usize = 50;
/// Of all tags, with what each costs: once for each element that is open where it stands, since parsers
/// may open those anew (HTML, 13.2.6.4.7, "reconstruct the active formatting elements"), and for each
/// that indents the text behind it; and for each cell that spans rows, which stands in all of them.
const MOST_WORK: usize = 150_000;
const BYTES_TO_INDENT: usize = 80;
const WORK_OF_SPAN: usize = 8;
const ROWSPAN: &[u8] = b"rowspan";

/// Elements that hold nothing, or that the next one of their kind ends.
const UNCOUNTED: [&str; 24] = [
    "area", "base", "br", "col", "dd", "dt", "embed", "hr", "img", "input", "li", "link", "meta",
    "option", "p", "param", "source", "tbody", "td", "th", "thead", "tr", "track", "wbr",
];

/// `None` where there is no text, or none that could be read in time.
pub fn of_html(html: &str) -> Option<String> {
    if html.len() > MOST_BYTES || !is_easy(html) {
        return None;
    }
    let config = html2text::config::plain()
        .raw_mode(true)
        .allow_width_overflow();
    // An email without a text is better than none.
    let read = AssertUnwindSafe(move || config.string_from_read(html.as_bytes(), WIDTH));
    let text = panic::catch_unwind(read);
    let text = text.ok()?.ok()?;
    let is_sensible = !text.trim().is_empty() && text.len() <= MOST_BYTES.max(2 * html.len());
    is_sensible.then_some(text)
}

/// Whether it can be read in little time and memory, by its tags alone.
fn is_easy(html: &str) -> bool {
    let mut open: Vec<&str> = Vec::new();
    let (mut spans, mut work) = (0, 0);
    for tag in html.split('<').skip(1) {
        let (is_end, tag) = match tag.strip_prefix('/') {
            Some(tag) => (true, tag),
            None => (false, tag),
        };
        let end = tag.find(|c: char| !c.is_ascii_alphanumeric());
        let name = &tag[..end.unwrap_or(tag.len())];
        let is_counted = || !UNCOUNTED.iter().any(|one| one.eq_ignore_ascii_case(name));
        match open.iter().rposition(|one| one.eq_ignore_ascii_case(name)) {
            Some(place) if is_end => {
                open.remove(place);
            }
            _ if !is_end && !name.is_empty() && is_counted() => open.push(name),
            _ => {}
        }
        let mut words = tag.as_bytes().windows(ROWSPAN.len());
        spans += usize::from(words.any(|word| word.eq_ignore_ascii_case(ROWSPAN)));
        work += 1 + open.len() * (1 + tag.len() / BYTES_TO_INDENT) + WORK_OF_SPAN * spans;
        if open.len() > MOST_DEEP || work > MOST_WORK {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn people_read_what_the_html_says() {
        let html = "<html><head><title>x</title><style>p { color: red }</style></head><body>\
            <h1>Welcome, Zoë!</h1><p>Your order<br>is on its <b>way</b> &amp; paid.</p>\
            <table><tr><td>Apples</td><td>3 €</td></tr></table>\
            <p><a href=\"https://acme.test/o/1\">Follow it</a></p><script>evil()</script>";
        let text = of_html(html).unwrap();
        for part in [
            "Welcome, Zoë!",
            "Your order\nis on its",
            "& paid.",
            "Apples",
            "3 €",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(text.contains("Follow it") && text.contains("https://acme.test/o/1"));
        for part in ["color", "evil", "<", "title"] {
            assert!(!text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn where_there_is_no_text_there_is_none() {
        for html in [
            "",
            " \n",
            "<p></p>",
            "<style>p {}</style>",
            "<div><br></div>",
        ] {
            assert_eq!(of_html(html), None, "{html}");
        }
    }

    #[test]
    fn a_newsletter_of_nested_tables_is_read() {
        let cell = "<table><tr><td><div><p>News<br><a href='https://acme.test'>more</a></div>";
        let ends = "</td></tr></table>";
        let row = format!("<tr><td>{}{}", cell.repeat(12), ends.repeat(12));
        let html = format!("<table>{}</table>", row.repeat(60));
        assert!(of_html(&html).unwrap().contains("News"));
    }

    #[test]
    fn hostile_html_is_not_read() {
        let many: String = (0..9_000).map(|n| format!("<b x={n}>")).collect();
        for html in [
            "<div>".repeat(20_000),
            "<table><tr><td>".repeat(5_000),
            "<blockquote>x".repeat(5_000),
            "<div></x>".repeat(5_000),
            "<svg><foreignObject>".repeat(5_000),
            format!("<table>{}", "<tr><td Rowspan=1000000>x".repeat(5_000)),
            format!("{}{}", "<blockquote>".repeat(49), "x ".repeat(125_000)),
            many.clone(),
            format!("{many}{}", "<div>x</div>".repeat(9_000)),
            format!("{}{}", "<b>".repeat(49), "<i>x</i>".repeat(9_000)),
            "x".repeat(MOST_BYTES + 1),
        ] {
            assert_eq!(of_html(&html), None, "{}", &html[..20]);
        }
    }

    #[test]
    fn what_is_read_ends_however_it_is_made() {
        for html in [
            "<td colspan=1000000000 rowspan=1000000000>x".to_owned(),
            format!(
                "<table>{}</table>",
                "<tr><td colspan=99999999>x<td colspan=0>y".repeat(50)
            ),
            format!("<table><tr><td colspan={0}><td colspan={0}>x", usize::MAX),
            "<ol start=9223372036854775807><li>x<li>y</ol>".to_owned(),
            format!("{}x", "<div><marquee></div>".repeat(49)),
            format!("{}x", "<blockquote>".repeat(49)),
            format!("{}x", "<table><tr><td>".repeat(49)),
            format!("<table>{}", "<tr><td ROWSPAN=9>x".repeat(120)),
            "<p".repeat(80_000),
            "&".repeat(200_000),
            "\0\u{202E}".repeat(10_000),
            "<!--".to_owned() + &"-".repeat(200_000),
            "x ".repeat(100_000),
        ] {
            let _ = of_html(&html);
        }
    }

    proptest! {
        #[test]
        fn no_html_makes_it_panic(
            parts in prop::collection::vec(
                prop_oneof![
                    Just("<table>"), Just("<td colspan=3>"), Just("</td>"), Just("<ul><li>"),
                    Just("</ul>"), Just("<b>"), Just("</b>"), Just("<pre>"), Just("<a href=x>"),
                    Just("</a>"), Just("<h1>"), Just("text "), Just("<svg>"), Just("</table>"),
                    Just("<"), Just("&#0;"), Just("<img alt=x>"), Just("\u{1F600}\n"),
                ],
                0..60,
            )
        ) {
            let _ = of_html(&parts.concat());
        }
    }
}
