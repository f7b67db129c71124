//! Splits HTML into pieces (HTML, 13.2.5, as far as extracting text requires). It reads every byte
//! once and keeps nothing, so the cost is proportional to the length of the input. Parsers that
//! build a tree do not guarantee that: they reopen elements, and compare each attribute with all
//! before it.

/// Elements whose content is not markup and is not displayed (HTML, 13.1.2 and 15.3.1).
const NOT_SHOWN: [&str; 6] = ["script", "style", "title", "iframe", "noembed", "noframes"];
/// Elements whose content is not markup and is displayed as it is.
const SHOWN: [&str; 3] = ["textarea", "xmp", "plaintext"];

#[derive(Debug, PartialEq)]
pub enum Piece<'a> {
    /// Never empty. May contain character references.
    Text(&'a str),
    Start(Tag<'a>),
    /// With the name as written.
    End(&'a str),
}

/// A start tag, with the attributes that matter for text, as written. If an attribute is repeated,
/// the first one counts.
#[derive(Debug, Default, PartialEq)]
pub struct Tag<'a> {
    pub name: &'a str,
    pub alt: Option<&'a str>,
    pub hidden: Option<&'a str>,
    pub href: Option<&'a str>,
    pub start: Option<&'a str>,
    pub style: Option<&'a str>,
}

/// Comments, declarations and hidden content are left out.
pub fn pieces(html: &str) -> Pieces<'_> {
    Pieces {
        rest: html,
        literal: None,
    }
}

pub struct Pieces<'a> {
    rest: &'a str,
    /// The element that was just opened, if its content is not markup.
    literal: Option<&'a str>,
}

impl<'a> Iterator for Pieces<'a> {
    type Item = Piece<'a>;

    fn next(&mut self) -> Option<Piece<'a>> {
        if let Some(name) = self.literal.take() {
            let content = self.take(end_of_literal(self.rest, name));
            if !content.is_empty() && is_one_of(name, &SHOWN) {
                return Some(Piece::Text(content));
            }
        }
        while !self.rest.is_empty() {
            if !self.rest.starts_with('<') {
                let end = self.rest.find('<').unwrap_or(self.rest.len());
                return Some(Piece::Text(self.take(end)));
            }
            match self.rest.as_bytes().get(1) {
                Some(b'a'..=b'z' | b'A'..=b'Z') => {
                    let tag = self.tag("<".len())?;
                    let is_literal = is_one_of(tag.name, &NOT_SHOWN) || is_one_of(tag.name, &SHOWN);
                    self.literal = is_literal.then_some(tag.name);
                    return Some(Piece::Start(tag));
                }
                Some(b'/') => match self.rest.as_bytes().get(2) {
                    Some(b'a'..=b'z' | b'A'..=b'Z') => {
                        return Some(Piece::End(self.tag("</".len())?.name));
                    }
                    _ => self.skip_past(">", 2),
                },
                Some(b'!' | b'?') => self.comment(),
                _ => {
                    let end = self.rest[1..]
                        .find('<')
                        .map_or(self.rest.len(), |at| at + 1);
                    return Some(Piece::Text(self.take(end)));
                }
            }
        }
        None
    }
}

impl<'a> Pieces<'a> {
    fn take(&mut self, end: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        taken
    }

    /// Skips to the end of the next `end` after a position, or to the end of the text.
    fn skip_past(&mut self, end: &str, from: usize) {
        let found = self.rest[from..].find(end);
        self.rest = found.map_or("", |at| &self.rest[from + at + end.len()..]);
    }

    fn comment(&mut self) {
        if !self.rest.starts_with("<!--") {
            // This includes Outlook's conditional comments, whose content is displayed.
            return self.skip_past(">", 2);
        }
        let is_empty = |end: &&str| self.rest.starts_with(*end);
        if let Some(whole) = ["<!-->", "<!--->"].iter().find(|end| is_empty(end)) {
            self.take(whole.len());
            return;
        }
        self.skip_past("--", "<!--".len());
        loop {
            match self.rest.strip_prefix("!>").or(self.rest.strip_prefix('>')) {
                Some(rest) => return self.rest = rest,
                // Of many hyphens, the last two close the comment.
                None if self.rest.starts_with('-') => self.rest = &self.rest[1..],
                None if self.rest.is_empty() => return,
                None => self.skip_past("--", 0),
            }
        }
    }

    /// A tag whose name begins at this position. `None`: it is not terminated, and nothing is left.
    fn tag(&mut self, from: usize) -> Option<Tag<'a>> {
        self.rest = &self.rest[from..];
        let is_end = |c: char| is_space(c) || matches!(c, '/' | '>');
        let name = self.take(self.rest.find(is_end).unwrap_or(self.rest.len()));
        let mut tag = Tag {
            name,
            ..Tag::default()
        };
        loop {
            let is_between = |c: char| is_space(c) || c == '/';
            self.rest = self.rest.trim_start_matches(is_between);
            if self.rest.is_empty() {
                return None;
            }
            if let Some(rest) = self.rest.strip_prefix('>') {
                self.rest = rest;
                return Some(tag);
            }
            let (name, value) = self.attribute();
            tag.set(name, value);
        }
    }

    fn attribute(&mut self) -> (&'a str, &'a str) {
        // The name may begin with a character that ends other names.
        let first = self.rest.chars().next().map_or(0, char::len_utf8);
        let is_end = |c: char| is_space(c) || matches!(c, '/' | '>' | '=');
        let end = self.rest[first..].find(is_end);
        let name = self.take(end.map_or(self.rest.len(), |at| first + at));
        let Some(rest) = self.rest.trim_start_matches(is_space).strip_prefix('=') else {
            return (name, "");
        };
        self.rest = rest.trim_start_matches(is_space);
        let quote = self.rest.chars().next().filter(|c| matches!(c, '"' | '\''));
        let value = match quote {
            Some(quote) => {
                self.rest = &self.rest[1..];
                let value = self.take(self.rest.find(quote).unwrap_or(self.rest.len()));
                self.rest = self.rest.strip_prefix(quote).unwrap_or_default();
                value
            }
            None => {
                let is_end = |c: char| is_space(c) || c == '>';
                self.take(self.rest.find(is_end).unwrap_or(self.rest.len()))
            }
        };
        (name, value)
    }
}

impl<'a> Tag<'a> {
    fn set(&mut self, name: &str, value: &'a str) {
        let attributes = [
            ("alt", &mut self.alt),
            ("hidden", &mut self.hidden),
            ("href", &mut self.href),
            ("start", &mut self.start),
            ("style", &mut self.style),
        ];
        for (known, attribute) in attributes {
            if name.eq_ignore_ascii_case(known) {
                attribute.get_or_insert(value);
            }
        }
    }
}

/// The position at which an element with literal content ends.
fn end_of_literal(rest: &str, name: &str) -> usize {
    let mut from = 0;
    if name.eq_ignore_ascii_case("plaintext") {
        return rest.len();
    }
    while let Some(at) = rest[from..].find("</") {
        let end = from + at;
        from = end + "</".len();
        let tag = rest.as_bytes().get(from..from + name.len() + 1);
        let is_end = tag.is_some_and(|tag| {
            let (found, after) = tag.split_at(name.len());
            found.eq_ignore_ascii_case(name.as_bytes())
                && matches!(after[0], b' ' | b'\t' | b'\n' | b'\r' | 0x0C | b'/' | b'>')
        });
        if is_end {
            return end;
        }
    }
    rest.len()
}

fn is_one_of(name: &str, names: &[&str]) -> bool {
    names.iter().any(|one| name.eq_ignore_ascii_case(one))
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r' | '\u{0C}')
}
