//! What is to be visited, by the text of the sources: the routes of pages, and the templates.

use std::path::{Path, PathBuf};

use crate::support::files::{files, root};

/// What no page is answered with: redirects, files and what programs ask.
const NO_PAGES: [&str; 10] = [
    "/",
    "/activity.csv",
    "/api-keys/first-uses",
    "/healthz",
    "/info",
    "/openapi.json",
    "/readyz",
    "/settings/export/{file}",
    "/static/{version}/{name:.*}",
    "/verify",
];

/// The patterns of the routes that answer GET with a page.
pub fn routes() -> Vec<String> {
    let text = std::fs::read_to_string(root().join("src/routes.rs")).unwrap();
    let resources = text.split("resource(\"").skip(1);
    let patterns: Vec<String> = resources
        .filter(|resource| resource.contains(".get("))
        .map(|resource| resource.split('"').next().unwrap().to_owned())
        .collect();
    let count = text.matches(".get(").count();
    assert_eq!(patterns.len(), count, "src/routes.rs reads unlike before");
    for pattern in NO_PAGES {
        assert!(patterns.iter().any(|p| p == pattern), "{pattern} is gone");
    }
    let mut pages = patterns;
    pages.retain(|pattern| !NO_PAGES.contains(&pattern.as_str()));
    pages
}

/// A template, by what only it says, if there is such a thing.
pub struct Template {
    pub path: String,
    pieces: Vec<String>,
}

impl Template {
    /// Whether any of these answers was made with it. One without words of its own cannot be missed.
    pub fn is_in(&self, answers: &[String]) -> bool {
        let mut pieces = self.pieces.iter();
        self.pieces.is_empty()
            || pieces.any(|piece| answers.iter().any(|answer| answer.contains(piece)))
    }
}

pub fn templates() -> Vec<Template> {
    let root = root().join("templates");
    let texts: Vec<(PathBuf, String)> = files(&root)
        .into_iter()
        .map(|file| (file.clone(), std::fs::read_to_string(file).unwrap()))
        .collect();
    let is_own = |path: &Path, piece: &str| {
        let mut others = texts.iter().filter(|(other, _)| other != path);
        others.all(|(_, text)| !text.contains(piece))
    };
    let template = |(file, text): &(PathBuf, String)| {
        let all = pieces(text);
        let own: Vec<String> = all.iter().filter(|p| is_own(file, p)).cloned().collect();
        Template {
            path: file.strip_prefix(&root).unwrap().display().to_string(),
            pieces: if own.is_empty() { all } else { own },
        }
    };
    texts.iter().map(template).collect()
}

/// What of a template stands in every answer as it is: the text between its tags.
fn pieces(text: &str) -> Vec<String> {
    let tags = [("{{", "}}"), ("{%", "%}"), ("{#", "#}")];
    let mut pieces = vec![text];
    for (open, close) in tags {
        pieces = pieces
            .into_iter()
            .flat_map(|piece| piece.split(open))
            .map(|piece| piece.split_once(close).map_or(piece, |(_, rest)| rest))
            .collect();
    }
    let pieces = pieces.into_iter().map(str::trim);
    pieces.filter(|p| p.len() > 7).map(str::to_owned).collect()
}
