//! Makes the text of an email that has only HTML: what people would see of it, in lines. Time and
//! memory are proportional to the length of the HTML, whatever it contains.

use super::html::{self, Piece, Tag};

/// A text is never longer than its HTML, except up to this size.
const SHORT_BYTES: usize = 4 * 1024;
/// Nesting depth of elements. The tags of deeper ones are ignored; browsers stop at 512.
const MOST_DEEP: usize = 4_096;
/// Nesting depth up to which lists are indented.
const MOST_INDENTED: usize = 4;

/// How an element is laid out.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Layout {
    Inline,
    /// On its own lines.
    Lines,
    /// With an empty line before and after.
    Paragraph,
    /// Like a paragraph, but keeps its white space.
    Verbatim,
    List {
        is_ordered: bool,
    },
    Item,
    Table,
    Row,
    Cell,
    Link,
    /// Never displayed.
    Gone,
    /// Without content and end tag.
    Void,
    /// Exists once, whatever tags there are.
    Root,
}

use Layout::*;

/// Sorted by name.
#[rustfmt::skip]
const ELEMENTS: [(&str, Layout); 88] = [
    ("a", Link), ("address", Lines), ("area", Void), ("article", Lines), ("aside", Lines),
    ("b", Inline), ("base", Void), ("big", Inline), ("blockquote", Paragraph), ("body", Root),
    ("br", Void), ("button", Inline), ("caption", Lines), ("center", Lines), ("code", Inline),
    ("col", Void), ("datalist", Gone), ("dd", Lines), ("del", Inline), ("details", Lines),
    ("dialog", Gone), ("dir", List { is_ordered: false }), ("div", Lines), ("dl", Paragraph),
    ("dt", Lines), ("em", Inline), ("embed", Void), ("fieldset", Lines), ("figcaption", Lines),
    ("figure", Paragraph), ("font", Inline), ("footer", Lines), ("form", Lines), ("h1", Paragraph),
    ("h2", Paragraph), ("h3", Paragraph), ("h4", Paragraph), ("h5", Paragraph), ("h6", Paragraph),
    ("head", Root), ("header", Lines), ("hr", Void), ("html", Root), ("i", Inline), ("img", Void),
    ("input", Void), ("ins", Inline), ("label", Inline), ("legend", Lines), ("li", Item),
    ("link", Void), ("listing", Verbatim), ("main", Lines), ("menu", List { is_ordered: false }),
    ("meta", Void), ("nav", Lines), ("object", Inline), ("ol", List { is_ordered: true }),
    ("optgroup", Lines), ("option", Lines), ("p", Paragraph), ("param", Void),
    ("plaintext", Verbatim), ("pre", Verbatim), ("s", Inline), ("section", Lines),
    ("select", Lines), ("small", Inline), ("source", Void), ("span", Inline), ("strike", Inline),
    ("strong", Inline), ("sub", Inline), ("summary", Lines), ("sup", Inline), ("table", Table),
    ("tbody", Row), ("td", Cell), ("template", Gone), ("textarea", Verbatim), ("tfoot", Row),
    ("th", Cell), ("thead", Row), ("tr", Row), ("track", Void), ("u", Inline),
    ("ul", List { is_ordered: false }), ("wbr", Void),
];

/// All elements with other names count as this one, which is inline.
const UNKNOWN: usize = ELEMENTS.len();

const A: usize = place_of("a");
const BR: usize = place_of("br");
const CAPTION: usize = place_of("caption");
const DD: usize = place_of("dd");
const DIR: usize = place_of("dir");
const DL: usize = place_of("dl");
const DT: usize = place_of("dt");
const HR: usize = place_of("hr");
const IMG: usize = place_of("img");
const LI: usize = place_of("li");
const MENU: usize = place_of("menu");
const OL: usize = place_of("ol");
const OPTGROUP: usize = place_of("optgroup");
const OPTION: usize = place_of("option");
const P: usize = place_of("p");
const TABLE: usize = place_of("table");
const TBODY: usize = place_of("tbody");
const TD: usize = place_of("td");
const TFOOT: usize = place_of("tfoot");
const TH: usize = place_of("th");
const THEAD: usize = place_of("thead");
const TR: usize = place_of("tr");
const UL: usize = place_of("ul");

const fn place_of(name: &str) -> usize {
    let mut place = 0;
    loop {
        let (known, name) = (ELEMENTS[place].0.as_bytes(), name.as_bytes());
        let mut same = 0;
        while same < known.len() && same < name.len() && known[same] == name[same] {
            same += 1;
        }
        if same == known.len() && same == name.len() {
            return place;
        }
        place += 1;
    }
}

fn element(name: &str) -> usize {
    let mut lower = [0; "blockquote".len()];
    let Some(lower) = lower.get_mut(..name.len()) else {
        return UNKNOWN;
    };
    lower.copy_from_slice(name.as_bytes());
    lower.make_ascii_lowercase();
    let found = ELEMENTS.binary_search_by(|(known, _)| known.as_bytes().cmp(lower));
    found.unwrap_or(UNKNOWN)
}

fn layout(element: usize) -> Layout {
    ELEMENTS.get(element).map_or(Inline, |(_, layout)| *layout)
}

/// `None` if there is nothing to read.
pub fn of_html(html: &str) -> Option<String> {
    let most = html.len().max(SHORT_BYTES);
    let mut page = Page::new();
    for piece in html::pieces(html) {
        if page.writer.text.len() > most {
            break;
        }
        match piece {
            Piece::Text(text) => page.text(text),
            Piece::Start(tag) => page.start(&tag),
            Piece::End(name) => page.end(element(name)),
        }
    }
    page.close_down_to(0);
    page.writer.end(most)
}

/// The properties of an element's style that decide whether its text is visible.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Look {
    /// Hidden with all descendants, whatever their own style says.
    is_gone: bool,
    has_no_size: bool,
    is_invisible: bool,
    keeps_space: bool,
}

impl Look {
    fn is_seen(self) -> bool {
        !self.is_gone && !self.has_no_size && !self.is_invisible
    }
}

struct Open {
    element: u8,
    look: Look,
    /// The position of the previous open element of the same name, from 1.
    before: u16,
}

struct OpenLink<'a> {
    href: &'a str,
    /// The position at which its text begins.
    begin: usize,
}

/// The state of the conversion from HTML to text.
struct Page<'a> {
    writer: Writer,
    open: Vec<Open>,
    /// For each element name, the position of the innermost open one, from 1.
    innermost: [u16; UNKNOWN + 1],
    /// For each open list, the number of its next item, if its items are numbered.
    lists: Vec<Option<i32>>,
    link: Option<OpenLink<'a>>,
}

impl<'a> Page<'a> {
    fn new() -> Self {
        Self {
            writer: Writer::default(),
            open: Vec::new(),
            innermost: [0; UNKNOWN + 1],
            lists: Vec::new(),
            link: None,
        }
    }

    fn look(&self) -> Look {
        self.open.last().map(|open| open.look).unwrap_or_default()
    }

    fn text(&mut self, text: &str) {
        let look = self.look();
        if look.is_seen() {
            let text = htmlize::unescape(text);
            match look.keeps_space {
                true => self.writer.put_verbatim(&text),
                false => self.writer.put(&text),
            }
        }
    }

    fn start(&mut self, tag: &Tag<'a>) {
        let element = element(tag.name);
        let layout = layout(element);
        if layout == Root {
            return;
        }
        self.close_before(element, layout);
        let mut look = match tag.style {
            Some(style) => styled(self.look(), &htmlize::unescape_attribute(style), layout),
            None => self.look(),
        };
        look.is_gone |= tag.hidden.is_some() || layout == Gone;
        look.keeps_space |= layout == Verbatim;
        if layout == Void {
            if look.is_seen() {
                self.void(element, tag);
            }
            return;
        }
        if self.open.len() == MOST_DEEP {
            return;
        }
        self.open.push(Open {
            element: element as u8,
            look,
            before: self.innermost[element],
        });
        self.innermost[element] = self.open.len() as u16;
        if look.is_seen() {
            self.stand_apart(layout);
        }
        match layout {
            List { is_ordered } => {
                let first = tag.start.and_then(|start| start.trim().parse().ok());
                self.lists.push(is_ordered.then_some(first.unwrap_or(1)));
                self.writer.indent = self.lists.len().min(MOST_INDENTED);
            }
            Item if look.is_seen() => self.writer.marker = Some(self.marker()),
            Link if look.is_seen() => {
                let begin = self.writer.text.len();
                self.link = tag.href.map(|href| OpenLink { href, begin });
            }
            Verbatim => self.writer.is_after_pre = true,
            _ => {}
        }
    }

    fn void(&mut self, element: usize, tag: &Tag) {
        match element {
            BR => self.writer.end_line(),
            HR => {
                self.writer.part(2);
                self.writer.put("---");
                self.writer.part(2);
            }
            IMG => {
                let alt = tag.alt.unwrap_or_default();
                self.writer.put(&htmlize::unescape_attribute(alt));
            }
            _ => {}
        }
    }

    /// The marker of the next item of the innermost list.
    fn marker(&mut self) -> String {
        match self.lists.last_mut() {
            Some(Some(number)) => {
                let marker = format!("{number}. ");
                *number = number.saturating_add(1);
                marker
            }
            _ => "- ".to_owned(),
        }
    }

    fn end(&mut self, element: usize) {
        let at = self.innermost[element];
        if at > self.scope_of(element) {
            self.close_down_to(usize::from(at) - 1);
        } else if self.look().is_seen() {
            match element {
                // Browsers treat it as a line break.
                BR => self.writer.end_line(),
                _ => self.stand_apart(layout(element)),
            }
        }
    }

    /// Closes the elements that the start of another one ends (HTML, 13.1.2.4).
    fn close_before(&mut self, element: usize, layout: Layout) {
        match element {
            A => self.close(&[A], 0),
            LI => self.close(&[LI], self.innermost_of(&[UL, OL, MENU, DIR])),
            DT | DD => self.close(&[DT, DD], self.innermost_of(&[DL])),
            OPTION | OPTGROUP => self.close(&[OPTION], 0),
            TD | TH => self.close(&[TD, TH, CAPTION], 0),
            TR => self.close(&[TD, TH, CAPTION, TR], 0),
            TBODY | THEAD | TFOOT => {
                self.close(&[TD, TH, CAPTION, TR, TBODY, THEAD, TFOOT], 0);
            }
            _ => {}
        }
        if !matches!(layout, Inline | Link | Void | Gone | Cell | Row) {
            self.close(&[P], 0);
        }
    }

    /// Closes the innermost of each of these elements, if it is open within that position and its
    /// scope.
    fn close(&mut self, elements: &[usize], within: u16) {
        for element in elements {
            let at = self.innermost[*element];
            if at > within.max(self.scope_of(*element)) {
                self.close_down_to(usize::from(at) - 1);
            }
        }
    }

    /// The position of the innermost element that an end tag cannot cross: a table or a table cell.
    fn scope_of(&self, element: usize) -> u16 {
        match element {
            TABLE => 0,
            TD | TH | TR | TBODY | THEAD | TFOOT | CAPTION => self.innermost[TABLE],
            _ => self.innermost_of(&[TABLE, TD, TH, CAPTION]),
        }
    }

    fn innermost_of(&self, elements: &[usize]) -> u16 {
        let places = elements.iter().map(|element| self.innermost[*element]);
        places.max().unwrap_or_default()
    }

    /// Closes elements until this many are open.
    fn close_down_to(&mut self, number: usize) {
        while self.open.len() > number {
            let Some(closed) = self.open.pop() else {
                return;
            };
            let element = usize::from(closed.element);
            self.innermost[element] = closed.before;
            let layout = layout(element);
            match layout {
                List { .. } => {
                    self.lists.pop();
                    self.writer.indent = self.lists.len().min(MOST_INDENTED);
                }
                Item => self.writer.marker = None,
                Link => {
                    if let Some(link) = self.link.take() {
                        self.writer.put_url(link.begin, link.href);
                    }
                }
                _ => {}
            }
            if closed.look.is_seen() {
                self.stand_apart(layout);
            }
        }
    }

    /// Separates it from the text before or after it.
    fn stand_apart(&mut self, layout: Layout) {
        match layout {
            Paragraph | Verbatim | Table => self.writer.part(2),
            List { .. } if self.lists.is_empty() => self.writer.part(2),
            Lines | Item | Row | List { .. } => self.writer.part(1),
            Cell => self.writer.is_spaced = true,
            Inline | Link | Gone | Void | Root => {}
        }
    }
}

/// The look of an element with this style inside an element with that look.
fn styled(mut look: Look, style: &str, layout: Layout) -> Look {
    let style = style.to_ascii_lowercase();
    let (mut is_none, mut is_clear, mut is_flat, mut is_small) = (false, false, false, false);
    let (mut is_clipped, mut is_for_others) = (false, false);
    for declaration in style.split(';') {
        let Some((property, value)) = declaration.split_once(':') else {
            continue;
        };
        let value = value.split('!').next().unwrap_or_default().trim();
        match property.trim() {
            "display" => is_none = value == "none",
            "opacity" => is_clear = is_zero(value),
            "max-height" => is_flat = is_zero(value),
            "height" | "width" | "max-width" => is_small |= is_zero(value),
            "overflow" => is_clipped = matches!(value, "hidden" | "clip"),
            "visibility" => match value {
                "hidden" | "collapse" => look.is_invisible = true,
                "visible" | "initial" => look.is_invisible = false,
                _ => {}
            },
            "font-size" if is_zero(value) => look.has_no_size = true,
            "font-size" if !is_relative(value) => look.has_no_size = false,
            "font" => {
                let size = |word: &str| is_zero(word.split('/').next().unwrap_or_default());
                look.has_no_size = value.split_whitespace().any(size);
            }
            // On links and tables it only hides content from Outlook that is also there in another
            // form.
            "mso-hide" if !matches!(layout, Link | Table | Row | Cell) => {
                is_for_others = value == "all";
            }
            _ => {}
        }
    }
    look.is_gone |= is_none || is_clear || is_flat || is_for_others || (is_small && is_clipped);
    look
}

/// Whether a CSS length is zero, in any unit.
fn is_zero(value: &str) -> bool {
    let number = value.trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == '%');
    number.parse::<f32>() == Ok(0.0)
}

/// Whether a size is inherited from the surrounding element, or relative to it.
fn is_relative(value: &str) -> bool {
    let ends = ["em", "%", "inherit", "unset", "smaller", "larger"];
    ends.iter().any(|end| value.ends_with(end)) && !value.ends_with("rem")
}

/// Writes text in lines. White space is written only if visible text follows.
#[derive(Default)]
struct Writer {
    text: String,
    /// Line ends to write before the next text.
    breaks: usize,
    /// Whether a space comes before the next text.
    is_spaced: bool,
    /// The number of joining characters since the last visible one, and the last of them.
    joiners: (usize, char),
    /// The beginning of the next line.
    marker: Option<String>,
    indent: usize,
    /// Whether the next line end is ignored (HTML, 13.2.6.4.7, "pre").
    is_after_pre: bool,
}

impl Writer {
    fn part(&mut self, breaks: usize) {
        self.breaks = self.breaks.max(breaks);
    }

    fn end_line(&mut self) {
        self.breaks = self.breaks.max((self.breaks + 1).min(2));
    }

    /// Writes text whose white space is collapsed to single spaces.
    fn put(&mut self, text: &str) {
        for c in text.chars() {
            match c {
                c if is_space(c) => self.is_spaced = true,
                c => self.put_char(c),
            }
        }
    }

    fn put_verbatim(&mut self, text: &str) {
        let text = match std::mem::take(&mut self.is_after_pre) {
            true => text
                .strip_prefix("\r\n")
                .or(text.strip_prefix('\n'))
                .unwrap_or(text),
            false => text,
        };
        for c in text.chars() {
            match c {
                '\n' => self.breaks += 1,
                ' ' | '\t' => {
                    self.begin();
                    self.text.push(c);
                }
                c if is_space(c) => self.is_spaced = true,
                c => self.put_char(c),
            }
        }
    }

    fn put_char(&mut self, c: char) {
        match c {
            // Emoji and some scripts need them; long runs of them only pad a preview.
            '\u{200C}'..='\u{200F}' | '\u{61C}' => self.joiners = (self.joiners.0 + 1, c),
            c if is_not_seen(c) => {}
            c => {
                let joins = self.breaks == 0 && !self.is_spaced && !self.text.is_empty();
                self.begin();
                if let (1, joiner) = std::mem::take(&mut self.joiners)
                    && joins
                {
                    self.text.push(joiner);
                }
                self.text.push(c);
            }
        }
    }

    /// Writes the pending white space before visible text.
    fn begin(&mut self) {
        let is_first = self.text.is_empty();
        if is_first || self.breaks > 0 {
            let breaks = if is_first { 0 } else { self.breaks };
            self.text
                .truncate(self.text.trim_end_matches([' ', '\t']).len());
            self.text.extend(std::iter::repeat_n('\n', breaks));
            let indent = self.indent - usize::from(self.marker.is_some() && self.indent > 0);
            self.text.extend(std::iter::repeat_n("  ", indent));
            self.text.push_str(&self.marker.take().unwrap_or_default());
        } else if self.is_spaced && !self.text.ends_with([' ', '\t']) {
            self.text.push(' ');
        }
        self.breaks = 0;
        self.is_spaced = false;
    }

    /// Writes the target of a link after its text, unless the text already contains it.
    fn put_url(&mut self, begin: usize, href: &str) {
        let href = htmlize::unescape_attribute(href);
        let url: String = href.trim().chars().filter(|c| !c.is_control()).collect();
        let (scheme, rest) = url.split_once(':').unwrap_or(("", &url));
        let url = match scheme.to_ascii_lowercase().as_str() {
            "mailto" => rest.split('?').next().unwrap_or_default(),
            "tel" | "sms" => rest,
            "javascript" | "vbscript" | "data" | "cid" => return,
            _ => &url,
        };
        let text = self.text[begin..].trim();
        if url.is_empty() || url.starts_with('#') || bare(text).eq_ignore_ascii_case(bare(url)) {
            return;
        }
        if text.is_empty() {
            self.begin();
            self.text.push_str(url);
        } else {
            self.text.push_str(" (");
            self.text.push_str(url);
            self.text.push(')');
        }
    }

    /// The text, limited to this many bytes.
    fn end(mut self, most: usize) -> Option<String> {
        let most = most.min(self.text.len());
        let is_boundary = |at: &usize| self.text.is_char_boundary(*at);
        self.text
            .truncate((0..=most).rev().find(is_boundary).unwrap_or(0));
        self.text.truncate(self.text.trim_end().len());
        let is_empty = self.text.trim_start().is_empty();
        (!is_empty).then_some(self.text)
    }
}

/// A URL without the parts that people leave out.
fn bare(url: &str) -> &str {
    let schemes = ["https://", "http://"].into_iter();
    let rest = schemes.filter_map(|scheme| url.strip_prefix(scheme)).next();
    let rest = rest.unwrap_or(url);
    rest.strip_prefix("www.")
        .unwrap_or(rest)
        .trim_end_matches('/')
}

/// Including the blank Braille cell, which is used to pad previews.
fn is_space(c: char) -> bool {
    c.is_whitespace() || c == '\u{2800}'
}

/// Zero-width characters, and fillers.
fn is_not_seen(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{AD}' | '\u{34F}' | '\u{115F}' | '\u{1160}' | '\u{17B4}' | '\u{17B5}'
                | '\u{180B}'..='\u{180E}' | '\u{200B}' | '\u{2060}'..='\u{2064}'
                | '\u{206A}'..='\u{206F}' | '\u{3164}' | '\u{FEFF}' | '\u{FFA0}'
                | '\u{FFF9}'..='\u{FFFB}'
        )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn text(html: &str) -> String {
        of_html(html).unwrap_or_default()
    }

    #[test]
    fn people_read_what_the_html_says() {
        let html = "<html><head><title>x</title><style>p { color: red }</style></head><body>\
            <h1>Welcome, Zoë!</h1><p>Your order<br>is on its <b>way</b> &amp; paid.</p>\
            <table><tr><td>Apples</td><td>3 €</td></tr></table>\
            <p><a href=\"https://acme.test/o/1\">Follow it</a></p><script>evil()</script>";
        assert_eq!(
            text(html),
            "Welcome, Zoë!\n\nYour order\nis on its way & paid.\n\nApples 3 €\n\n\
             Follow it (https://acme.test/o/1)"
        );
    }

    #[test]
    fn where_there_is_no_text_there_is_none() {
        for html in [
            "",
            " \n",
            "<p></p>",
            "<style>p {}</style>",
            "<div><br></div>",
            "&nbsp;&zwnj;&shy;",
            "<!-- x",
            "<img src=x>",
            "<script>x",
            "<ul><li></ul>",
        ] {
            assert_eq!(of_html(html), None, "{html}");
        }
    }

    #[test]
    fn what_is_hidden_is_left_out() {
        for hidden in [
            "<div style='display:none'>secret</div>",
            "<div style=\"color: red; DISPLAY : None !important;\">se<b>cr</b>et</div>",
            "<div style=display:none><div>secret</div>secret</div>",
            "<div style='display&colon;none'>secret</div>",
            "<span style='font-size:0'>secret</span>",
            "<span style='font-size: 0.0px !important'>secret<em style='font-size:2em'>x</em></span>",
            "<span style='font:0/0 a'>secret</span>",
            "<span style='visibility:hidden'>secret</span>",
            "<div style='max-height:0px;overflow:hidden'>secret</div>",
            "<div style='height:0;width:0;overflow:hidden'>secret</div>",
            "<div style='opacity:0'>secret</div>",
            "<div style='mso-hide:all'>secret</div>",
            "<div hidden>secret</div>",
            "<div HIDDEN=''>secret</div>",
            "<template>secret</template>",
            "<img style='display:none' alt=secret>",
            "<a style='display:none' href=secret>secret</a>",
            "<ul style='display:none'><li>secret</ul>",
            "<p style='display:none'>secret<p>",
            "<div><span style='display:none'>secret</div>",
            "<table><tr><td style='display:none'>secret<td></table>",
            "<table><tr><td><div hidden>secret</table>",
            "<table hidden><tr><td></div>secret</table>",
            "<ul><li hidden>secret<li></ul>",
            "<!--[if mso]>secret<![endif]-->",
            "<!-- > secret -- --!>",
            "<style>secret</styl></STYLE >",
            "<script>'</scrip'; secret</script\n>",
            "<noframes>secret</noframes>",
            "<?php secret ?>",
            "<!DOCTYPE secret>",
            "<head><title>secret</title></head>",
        ] {
            let html = format!("{hidden}<p>Hello</p>");
            assert_eq!(text(&html), "Hello", "{hidden}");
        }
    }

    #[test]
    fn what_only_looks_hidden_is_kept() {
        for shown in [
            "<div style='display:none;display:block'>Hello</div>",
            "<td style='font-size:0px'><div style='font-size:13px'>Hello</div></td>",
            "<div style='visibility:hidden'><b style='visibility:visible'>Hello</b></div>",
            "<div style='font:400 14px/1.5 Arial'>Hello</div>",
            "<div style='max-height:10px'>Hello</div>",
            "<div style='padding:0;margin:0;line-height:0'>Hello</div>",
            "<a style='mso-hide:all'>Hello</a>",
            "<!--[if !mso]><!-->Hello<!--<![endif]-->",
            "<![if !mso]>Hello<![endif]>",
            "<!-->Hello",
            "<noscript>Hello</noscript>",
            "<head>Hello</head>",
            "</body></html>Hello",
        ] {
            assert_eq!(text(shown), "Hello", "{shown}");
        }
    }

    #[test]
    fn invisible_characters_fill_no_preview() {
        let fill = "&nbsp;&zwnj;&#8199;&shy;&#847; \u{200B}\u{FEFF}\u{2007}\u{200D}".repeat(50);
        assert_eq!(
            text(&format!("<div>Sale{fill}</div><p>Hello")),
            "Sale\n\nHello"
        );
        assert_eq!(text("co&shy;op\u{200B}er\u{AD}ate\0"), "cooperate");
        // They belong to the characters they join.
        assert_eq!(
            text("👩\u{200D}👧 می\u{200C}خواهم"),
            "👩\u{200D}👧 می\u{200C}خواهم"
        );
        assert_eq!(text("a\u{200C}\u{200C}b"), "ab");
    }

    #[test]
    fn links_tell_where_they_lead_once() {
        for (html, read) in [
            (
                "<a href='https://a.test/x?a=1&amp;b=2'>More</a>.",
                "More (https://a.test/x?a=1&b=2).",
            ),
            (
                "<a href=https://a.test/>https://a.test</a>",
                "https://a.test",
            ),
            ("<a href='https://www.a.test/'>a.test</a>", "a.test"),
            (
                "<a href='mailto:b@a.test?subject=x'>b@a.test</a>",
                "b@a.test",
            ),
            ("<a href='mailto:b@a.test'>Write</a>", "Write (b@a.test)"),
            ("<a href='tel:+491'>Call</a>", "Call (+491)"),
            ("<a href='#top'>Up</a> <a name=x>x</a>", "Up x"),
            ("<a href='javascript:alert(1)'>Go</a>", "Go"),
            (
                "<a href='https://a.test'><img alt='Our shop'></a>",
                "Our shop (https://a.test)",
            ),
            ("<a href='https://a.test'><img></a>", "https://a.test"),
            (
                "<a href='https://a.test/\nx'><div>Go </div></a>on",
                "Go (https://a.test/x)\non",
            ),
            (
                "<a href=https://a.test>One<a href=https://b.test>Two",
                "One (https://a.test)Two (https://b.test)",
            ),
            (
                "<p><a href=https://a.test>One</p>x</a>",
                "One (https://a.test)\n\nx",
            ),
        ] {
            assert_eq!(text(html), read, "{html}");
        }
    }

    #[test]
    fn blocks_and_lists_stand_in_lines() {
        for (html, read) in [
            ("a<div>b</div>c", "a\nb\nc"),
            ("<p>a<p>b", "a\n\nb"),
            ("<h2>a</h2>b", "a\n\nb"),
            ("a<br><br><br>b<br></div>c", "a\n\nb\nc"),
            ("a  \n b<hr>c", "a b\n\n---\n\nc"),
            ("<ul><li>a<li><p>b</p><li></ul>c", "- a\n\n- b\n\nc"),
            (
                "<ol start=9><li>a<li>b<ul><li>c</ul><li>d</ol>",
                "9. a\n10. b\n  - c\n11. d",
            ),
            ("<ol start=999999999999><li>a</ol>", "1. a"),
            (
                "<ol start=2147483647><li>a<li>b</ol>",
                "2147483647. a\n2147483647. b",
            ),
            ("<li>a", "- a"),
            ("<dl><dt>a<dd>b</dl>c", "a\nb\n\nc"),
            (
                "<table><tr><th>a<th>b<tr><td colspan=999999999>c<td>d</table>e",
                "a b\nc d\n\ne",
            ),
            ("<pre>\n  a\n\n   b </pre>c", "  a\n\n   b\n\nc"),
            ("<textarea><b>a</textarea>", "<b>a"),
            (
                "a < b & c &lt;d&gt; &copy &#x41;&unknown;",
                "a < b & c <d> © A&unknown;",
            ),
            ("x<svg><text>y</text></svg><math><mi>z</mi></math>", "xyz"),
            ("<p title='>'>a</p><p a=\">\" b='\"'>b", "a\n\nb"),
            ("a</>b</ c>d", "abd"),
        ] {
            assert_eq!(text(html), read, "{html}");
        }
    }

    #[test]
    fn a_newsletter_of_nested_tables_is_read() {
        let cell = "<table><tr><td><div><p>News<br><a href='https://acme.test'>more</a></div>";
        let ends = "</td></tr></table>";
        let row = format!("<tr><td>{}{}", cell.repeat(12), ends.repeat(12));
        let html = format!("<table>{}</table>", row.repeat(60));
        let read = text(&html);
        assert_eq!(
            read.matches("News\nmore (https://acme.test)").count(),
            12 * 60
        );
    }

    /// Every input must cost time proportional to its length, or this test would not end: an
    /// algorithm that rescans the open elements, or earlier text, takes hours for each.
    #[test]
    fn no_html_takes_longer_than_its_length() {
        const BYTES: usize = 1_000_000;
        let many = |part: &str| part.repeat(BYTES / part.len());
        let numbered = |part: fn(usize) -> String| (0..BYTES / 20).map(part).collect::<String>();
        let hostile = [
            many("<b>"),
            many("<b>x</i>"),
            many("<div><span></div>"),
            many("<table>"),
            many("<table><tr><td>x"),
            many("<td></table>"),
            many("<a href=x>y"),
            many("<ul><li>x"),
            many("<ol start=999999999999><li>"),
            many("<p>"),
            many("</p>"),
            many("<pre>\nx"),
            many("<svg><math><foreignObject>"),
            many("<blockquote>x"),
            many("<!-- -- "),
            many("<!--x"),
            many("<![CDATA["),
            many("<p a=\""),
            many("<script></scrip"),
            many("<textarea></text"),
            many("<plaintext>"),
            many("&amp;"),
            many("&aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"),
            many("&#"),
            many("\0\u{202E}\u{200C}"),
            many("<"),
            many("</"),
            many("<hr>"),
            many("<p style='display:none;'>x"),
            many("<img alt=x>"),
            format!("<!--{}", many("-")),
            format!("&#{}", many("1")),
            format!("<p style='{}'>x", many("display:none;")),
            format!("<p {}>x", numbered(|n| format!("a{n}=1 "))),
            format!("<p {}>x", many("style=x ")),
            numbered(|n| format!("<b x={n}>")),
            numbered(|n| format!("<tr><td colspan={n}>a")),
            format!(
                "<a href='{0}'>x</a><a href='{0}'>y</a>",
                "h".repeat(BYTES / 2)
            ),
            numbered(|n| format!("<x{n}>a")),
        ];
        let (send, receive) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for html in hostile {
                let length = of_html(&html).map_or(0, |text| text.len());
                let begin: String = html.chars().take(20).collect();
                send.send((begin, html.len(), length)).unwrap();
            }
        });
        while let Ok((begin, html, text)) = receive.recv_timeout(Duration::from_secs(20 * 60)) {
            assert!(text <= html.max(SHORT_BYTES), "{begin}: {text} of {html}");
            if begin.starts_with("<x0>") {
                return;
            }
        }
        panic!("an HTML takes too long");
    }

    #[test]
    fn elements_are_found_by_name() {
        assert!(ELEMENTS.is_sorted_by(|(one, _), (next, _)| one < next));
        for (place, (name, _)) in ELEMENTS.iter().enumerate() {
            assert_eq!(element(&name.to_uppercase()), place);
        }
        assert_eq!(element("o:p"), UNKNOWN);
        assert_eq!(element(&"p".repeat(100_000)), UNKNOWN);
    }

    proptest! {
        #[test]
        fn no_html_makes_it_panic_or_write_more_than_there_is(
            parts in prop::collection::vec(
                prop_oneof![
                    Just("<table>"), Just("<td colspan=3>"), Just("</td>"), Just("<ul><li>"),
                    Just("</ul>"), Just("<b>"), Just("</b>"), Just("<pre>"), Just("<a href=x>"),
                    Just("</a>"), Just("<h1>"), Just("text "), Just("<svg>"), Just("</table>"),
                    Just("<"), Just("&#0;"), Just("<img alt=x>"), Just("\u{1F600}\n"),
                    Just("<div hidden>"), Just("</div>"), Just("<p style='font-size:0'>"),
                    Just("<!--"), Just("-->"), Just("\""), Just("<a href='"), Just("é"),
                    Just("<textarea>"), Just("</textarea>"), Just("<ol start=7>"), Just("</li>"),
                    Just("\u{200D}"), Just("<tr>"), Just("</"), Just("<!"), Just("=' /"),
                ],
                0..60,
            )
        ) {
            let html = parts.concat();
            let text = of_html(&html).unwrap_or_default();
            prop_assert!(text.len() <= html.len().max(SHORT_BYTES));
            prop_assert!(!text.contains(['\0', '\r']));
            // Each step consumes some of the input.
            prop_assert!(html::pieces(&html).count() <= html.len());
        }

        #[test]
        fn any_text_is_read(html in "\\PC{0,200}") {
            let _ = of_html(&html);
        }
    }
}
