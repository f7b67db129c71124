//! Collects what the server answers, as documents that can be checked.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::path::Path;

use tempfile::TempDir;

use super::sources;
use crate::support::*;

pub struct Walk {
    folder: TempDir,
    routes: Vec<String>,
    visited: BTreeSet<String>,
    answers: Vec<String>,
}

impl Walk {
    pub fn new() -> Self {
        Self {
            folder: tempfile::tempdir().expect("a folder for the answers"),
            routes: sources::routes(),
            visited: BTreeSet::new(),
            answers: Vec::new(),
        }
    }

    /// Where the documents are.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Asks all routes, for pages and for fragments, also of what has one of these ids. Some may
    /// lead elsewhere or tell that there is nothing.
    pub fn every_page(&mut self, visitor: &Visitor, ids: RangeInclusive<u32>) {
        for route in self.routes.clone() {
            let paths: Vec<String> = match route.contains('{') {
                true => ids.clone().map(|id| fill(&route, id)).collect(),
                false => vec![route.clone()],
            };
            for path in paths {
                for answer in [visitor.get(&path), visitor.htmx_get(&path)] {
                    if !is_html(&answer) {
                        continue;
                    }
                    if answer.status == 200 {
                        self.visited.insert(route.clone());
                    }
                    self.keep(&path, answer);
                }
            }
        }
    }

    pub fn get(&mut self, visitor: &Visitor, path: &str) -> Answer {
        let fragment = visitor.htmx_get(path);
        self.keep(path, fragment);
        self.keep(path, visitor.get(path))
    }

    /// Keeps an answer, and gives it back.
    pub fn keep(&mut self, what: &str, answer: Answer) -> Answer {
        assert!(is_html(&answer), "{what}: {answer:?}");
        if !self.answers.contains(&answer.body) {
            let name: String = what
                .chars()
                .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
                .collect();
            let file = format!("{:03}{name}-{}.html", self.answers.len(), answer.status);
            std::fs::write(self.folder().join(file), document(&answer.body)).unwrap();
            self.answers.push(answer.body.clone());
        }
        answer
    }

    /// Nothing was forgotten.
    pub fn assert_complete(&self) {
        let routes = self.routes.iter();
        let missed: Vec<&String> = routes.filter(|r| !self.visited.contains(*r)).collect();
        assert!(missed.is_empty(), "no page was seen at {missed:?}");
        for template in sources::templates() {
            let is_seen = template.is_in(&self.answers);
            assert!(is_seen, "nothing was seen of templates/{}", template.path);
        }
    }
}

/// A route's pattern with an id in the place of its parameter.
fn fill(route: &str, id: u32) -> String {
    let (before, rest) = route.split_once('{').unwrap();
    let (_, after) = rest.split_once('}').unwrap();
    format!("{before}{id}{after}")
}

fn is_html(answer: &Answer) -> bool {
    let kind = answer.header("content-type").unwrap_or_default();
    kind.starts_with("text/html") && !answer.body.is_empty()
}

/// An answer as a whole document: a fragment where htmx would put it.
fn document(body: &str) -> String {
    let fragment = body.trim_start();
    if fragment.starts_with("<!doctype html>") {
        return body.to_owned();
    }
    let main = if fragment.starts_with("<tr") {
        let (row, beside) = split_out_of_band(fragment);
        format!("<table><tbody>{row}</tbody></table>{beside}")
    } else if fragment.contains("id=\"dialog-title\"") {
        let (dialog, beside) = split_out_of_band(fragment);
        format!("<dialog aria-labelledby=\"dialog-title\">{dialog}</dialog>{beside}")
    } else {
        fragment.to_owned()
    };
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><title>A fragment</title></head>\n\
         <body><main><h1>A fragment</h1>\n{main}\n</main></body></html>"
    )
}

/// What goes into the dialog, and what goes elsewhere.
fn split_out_of_band(fragment: &str) -> (&str, &str) {
    let at = fragment.find("hx-swap-oob");
    let begin = at.and_then(|at| fragment[..at].rfind('<'));
    fragment.split_at(begin.unwrap_or(fragment.len()))
}
