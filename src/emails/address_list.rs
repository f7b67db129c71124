//! A tolerant parser of address lists as people and programs write them (RFC 5322, 3.4): it still
//! finds the addresses that follow an error.

/// A possible address, with the name in front of it.
#[derive(Debug, Default, PartialEq)]
pub struct Entry {
    pub name: String,
    pub address: String,
}

/// The entries of a list, including those inside groups, without comments.
pub fn parse(text: &str) -> Vec<Entry> {
    let mut reader = Reader::default();
    // An unterminated quote or comment is taken literally.
    if !reader.read(text, true) {
        reader = Reader::default();
        reader.read(text, false);
    }
    let entries = reader.entries;
    let mut with_address = entries.iter().filter(|entry| entry.address.contains('@'));
    // Some programs write names such as “Acme, Inc.” without quotes.
    if let (Some(only), None, Some((name, _))) = (
        with_address.next(),
        with_address.next(),
        text.rsplit_once('<'),
    ) && entries.len() > 1
        && !only.name.is_empty()
    {
        let name = name.trim().trim_matches('"').to_owned();
        let address = only.address.clone();
        return vec![Entry { name, address }];
    }
    entries
}

#[derive(Default)]
struct Reader {
    entries: Vec<Entry>,
    /// The name of the current entry: once without its quotes, once as written.
    name: String,
    literal: String,
    /// The text in angle brackets.
    bracketed: Option<String>,
}

impl Reader {
    /// Returns whether all quotes and comments were terminated, if they are recognized.
    fn read(&mut self, text: &str, has_quotes: bool) -> bool {
        let mut chars = text.chars();
        let (mut is_quoted, mut comments, mut is_in_brackets) = (false, 0_usize, false);
        while let Some(c) = chars.next() {
            match c {
                '\\' if comments > 0 => drop(chars.next()),
                '\\' if is_quoted => {
                    let escaped = chars.next();
                    self.literal.push(c);
                    self.literal.extend(escaped);
                    self.name.extend(escaped);
                    if is_in_brackets {
                        self.add_in_brackets(c);
                        escaped.into_iter().for_each(|c| self.add_in_brackets(c));
                    }
                }
                '(' if has_quotes && !is_quoted => comments += 1,
                ')' if comments > 0 => comments -= 1,
                _ if comments > 0 => {}
                '"' if has_quotes => {
                    is_quoted = !is_quoted;
                    self.literal.push(c);
                    if is_in_brackets {
                        self.add_in_brackets(c);
                    }
                }
                _ if is_quoted && is_in_brackets => self.add_in_brackets(c),
                _ if is_quoted => {
                    self.literal.push(c);
                    self.name.push(c);
                }
                '<' => {
                    is_in_brackets = true;
                    self.bracketed = Some(String::new());
                }
                '>' => is_in_brackets = false,
                ',' | ';' => {
                    is_in_brackets = false;
                    self.end_entry();
                }
                // The name of a group, or a URL scheme.
                ':' if !is_in_brackets && !self.literal.contains('[') => {
                    self.name.clear();
                    self.literal.clear();
                }
                _ if is_in_brackets => self.add_in_brackets(c),
                _ if self.bracketed.is_none() => {
                    self.literal.push(c);
                    self.name.push(c);
                }
                // Text after the brackets is ignored.
                _ => {}
            }
        }
        self.end_entry();
        !is_quoted && comments == 0
    }

    fn add_in_brackets(&mut self, c: char) {
        self.bracketed.get_or_insert_default().push(c);
    }

    fn end_entry(&mut self) {
        let name = std::mem::take(&mut self.name);
        let literal = std::mem::take(&mut self.literal);
        let entry = match self.bracketed.take() {
            Some(address) => Entry {
                name: name.split_whitespace().collect::<Vec<_>>().join(" "),
                address: address.trim().to_owned(),
            },
            None => Entry {
                name: String::new(),
                address: literal.trim().to_owned(),
            },
        };
        if entry != Entry::default() {
            self.entries.push(entry);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn found(text: &str) -> Vec<(String, String)> {
        let entries = parse(text).into_iter();
        entries.map(|entry| (entry.name, entry.address)).collect()
    }

    #[test]
    fn each_address_keeps_its_own_name() {
        for (text, entries) in [
            ("a@x.test", &[("", "a@x.test")][..]),
            ("Ada <a@x.test>", &[("Ada", "a@x.test")]),
            ("<a@x.test>", &[("", "a@x.test")]),
            ("a@x.test, b@x.test", &[("", "a@x.test"), ("", "b@x.test")]),
            ("a@x.test;b@x.test;", &[("", "a@x.test"), ("", "b@x.test")]),
            (
                "\"Love, Ada\" <a@x.test>, Bob B. <b@x.test>",
                &[("Love, Ada", "a@x.test"), ("Bob B.", "b@x.test")],
            ),
            (
                "\"A \\\"x, <y@z.test>\\\"\" <a@x.test>, b@x.test",
                &[("A \"x, <y@z.test>\"", "a@x.test"), ("", "b@x.test")],
            ),
            (
                "Team: Ada <a@x.test>, b@x.test; c@x.test",
                &[("Ada", "a@x.test"), ("", "b@x.test"), ("", "c@x.test")],
            ),
            ("Nobody:;", &[]),
            (
                "a@x.test (Ada, <no@x.test> (she)), Bob (B\\)) <b@x.test>",
                &[("", "a@x.test"), ("Bob", "b@x.test")],
            ),
            (
                "\"a, b\"@x.test, c@x.test",
                &[("", "\"a, b\"@x.test"), ("", "c@x.test")],
            ),
            ("<\"a, >b\"@x.test>", &[("", "\"a, >b\"@x.test")]),
            ("Acme, Inc. <a@x.test>", &[("Acme, Inc.", "a@x.test")]),
            (
                "\"Ada <a@x.test>, b@x.test",
                &[("\"Ada", "a@x.test"), ("", "b@x.test")],
            ),
            ("Ada (x <a@x.test>", &[("Ada (x", "a@x.test")]),
            (
                "Ada <a@x.test, b@x.test",
                &[("Ada", "a@x.test"), ("", "b@x.test")],
            ),
            (
                "Ada\t<a@x.test> behind, <@r.test,@s.test:b@x.test>",
                &[("Ada", "a@x.test"), ("", "@r.test"), ("", "b@x.test")],
            ),
            ("mailto:a@x.test", &[("", "a@x.test")]),
            (", ,", &[]),
            ("nobody", &[("", "nobody")]),
        ] {
            let entries: Vec<(String, String)> = entries
                .iter()
                .map(|(name, address)| ((*name).to_owned(), (*address).to_owned()))
                .collect();
            assert_eq!(found(text), entries, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_is_a_trouble(text in "[a<>,;:@()\" \\\\é]{0,60}") {
            for entry in parse(&text) {
                prop_assert!(entry != Entry::default());
            }
        }
    }
}
