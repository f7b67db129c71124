//! Rust source as the rules see it: without comments and unit tests, and cut into words and signs.

use crate::support::files::{files, root};

/// A file below `src`.
pub struct Source {
    /// Below `src`, as in `keys/store/mod.rs`.
    pub path: String,
    /// Words and signs, without comments, strings and unit tests.
    pub tokens: Vec<Token>,
    /// What stands in its strings.
    pub strings: Vec<Token>,
}

#[derive(Debug, Clone)]
pub struct Token {
    pub text: String,
    pub line: usize,
}

pub fn read_all() -> Vec<Source> {
    let src = root().join("src");
    let mut sources: Vec<Source> = files(&src)
        .iter()
        .filter(|file| file.extension().is_some_and(|is| is == "rs"))
        .map(|file| {
            let path = file.strip_prefix(&src).unwrap().display().to_string();
            Source::read(path, &std::fs::read_to_string(file).unwrap())
        })
        .collect();
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(sources.len() > 30);
    sources
}

/// The paths that a template names, and those of the templates that it is made of.
pub fn paths_in_template(name: &str) -> Vec<Vec<String>> {
    let file = root().join("templates").join(name);
    let text = std::fs::read_to_string(file).unwrap();
    let mut paths = Vec::new();
    for part in text.split("crate::").skip(1) {
        let is_in_path = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
        let end = part.find(|c| !is_in_path(c)).unwrap_or(part.len());
        let segments = part[..end].split("::").filter(|name| !name.is_empty());
        paths.push(
            ["crate"]
                .into_iter()
                .chain(segments)
                .map(str::to_owned)
                .collect(),
        );
    }
    for tag in ["include", "extends", "import"] {
        for part in text.split(&format!("{tag} \"")).skip(1) {
            let other = part.split('"').next().unwrap();
            paths.extend(paths_in_template(other));
        }
    }
    paths
}

impl Source {
    pub fn read(path: String, text: &str) -> Self {
        let (mut tokens, mut strings) = cut(text);
        drop_tests(&mut tokens, &mut strings);
        Self {
            path,
            tokens,
            strings,
        }
    }

    /// Where a word stands in the code first.
    pub fn line_of(&self, word: &str) -> Option<usize> {
        let mut tokens = self.tokens.iter();
        tokens
            .find(|token| token.text == word)
            .map(|token| token.line)
    }
}

/// Words, `::` and single signs; and, apart from them, strings.
fn cut(text: &str) -> (Vec<Token>, Vec<Token>) {
    let chars: Vec<char> = text.chars().collect();
    let (mut tokens, mut strings) = (Vec::new(), Vec::new());
    let (mut at, mut line) = (0, 1);
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    while at < chars.len() {
        let begin = at;
        let rest = &chars[at..];
        let next = |ahead: usize| rest.get(ahead).copied().unwrap_or(' ');
        match rest[0] {
            '/' if next(1) == '/' => at += rest.iter().take_while(|c| **c != '\n').count(),
            '/' if next(1) == '*' => at += block_comment(rest),
            '"' => at += string(rest),
            'r' | 'b' | 'c' if raw_string(rest) > 0 => at += raw_string(rest),
            'b' | 'c' if next(1) == '"' => at += 1 + string(&rest[1..]),
            '\'' => at += character_or_lifetime(rest),
            c if is_word(c) => at += rest.iter().take_while(|c| is_word(**c)).count(),
            ':' if next(1) == ':' => at += 2,
            _ => at += 1,
        }
        let text: String = chars[begin..at].iter().collect();
        let lines = text.matches('\n').count();
        let token = Token { text, line };
        match token.text.chars().next() {
            Some('/') if token.text.len() > 1 => {}
            Some(c) if c.is_whitespace() => {}
            Some('\'') => {}
            _ if token.text.contains('"') => strings.push(token),
            _ => tokens.push(token),
        }
        line += lines;
    }
    (tokens, strings)
}

fn block_comment(rest: &[char]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        match (rest[at], rest.get(at + 1)) {
            ('/', Some('*')) => (depth, at) = (depth + 1, at + 2),
            ('*', Some('/')) => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

fn string(rest: &[char]) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != '"' {
        at += if rest[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}

/// Its length; 0 if none begins here.
fn raw_string(rest: &[char]) -> usize {
    let mut at = rest.iter().take_while(|c| "rbc".contains(**c)).count();
    if !rest[..at].contains(&'r') {
        return 0;
    }
    let hashes = rest[at..].iter().take_while(|c| **c == '#').count();
    at += hashes;
    if rest.get(at) != Some(&'"') {
        return 0;
    }
    at += 1;
    let end: Vec<char> = ['"'].into_iter().chain(vec!['#'; hashes]).collect();
    while at < rest.len() && !rest[at..].starts_with(&end) {
        at += 1;
    }
    (at + end.len()).min(rest.len())
}

fn character_or_lifetime(rest: &[char]) -> usize {
    match (rest.get(1), rest.get(2)) {
        (Some('\\'), _) => {
            let end = rest.iter().skip(3).position(|c| *c == '\'');
            end.map_or(rest.len(), |end| end + 4)
        }
        (Some(_), Some('\'')) => 3,
        _ => {
            1 + rest[1..]
                .iter()
                .take_while(|c| c.is_alphanumeric() || **c == '_')
                .count()
        }
    }
}

/// Takes out each item that is marked with `#[cfg(test)]`.
fn drop_tests(tokens: &mut Vec<Token>, strings: &mut Vec<Token>) {
    let mark = ["#", "[", "cfg", "(", "test", ")", "]"];
    while let Some(begin) = (0..tokens.len()).find(|at| {
        let these = tokens[*at..].iter().map(|token| token.text.as_str());
        these.take(mark.len()).eq(mark)
    }) {
        let mut depth = 0;
        let mut end = begin + mark.len();
        while end < tokens.len() {
            match tokens[end].text.as_str() {
                "{" => depth += 1,
                "}" if depth == 1 => break,
                "}" => depth -= 1,
                ";" if depth == 0 => break,
                _ => {}
            }
            end += 1;
        }
        let last = tokens.get(end).map_or(usize::MAX, |token| token.line);
        let first = tokens[begin].line;
        strings.retain(|string| string.line < first || string.line > last);
        tokens.drain(begin..(end + 1).min(tokens.len()));
    }
}
