//! The sources of pages: their templates, and the modules and the style sheet in `static/`.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::PathBuf;

use flate2::read::GzDecoder;

use crate::support::files::{files, root};

const LONGEST_LINE: usize = 160;

/// The lines that are too long to be read, and to be compared between two commits.
fn long_lines(text: &str) -> Vec<usize> {
    let lines = text.lines().enumerate();
    lines
        .filter(|(_, line)| line.chars().count() > LONGEST_LINE)
        .map(|(at, _)| at + 1)
        .collect()
}

#[test]
fn no_line_of_a_template_or_of_our_own_assets_is_too_long() {
    let mut seen = 0;
    for path in [
        files(&root().join("templates")),
        files(&root().join("static")),
    ]
    .concat()
    {
        let is_own = !path.ends_with("htmx.min.js");
        let kind = path.extension().and_then(|kind| kind.to_str());
        if is_own && matches!(kind, Some("html" | "css" | "js")) {
            let lines = long_lines(&std::fs::read_to_string(&path).unwrap());
            assert_eq!(lines, [0; 0], "{}", path.display());
            seen += 1;
        }
    }
    assert!(seen > 40, "{seen}");
}

/// The alarm works.
#[test]
fn a_long_line_is_noticed() {
    let longest = "“".repeat(LONGEST_LINE);
    assert_eq!(long_lines(&format!("\n{longest}\n{longest}a\n")), [3]);
}

#[test]
fn the_list_of_static_files_is_complete() {
    let folder = root().join("static");
    let list = std::fs::read_to_string(folder.join("README.md")).unwrap();
    let rows = list.lines().filter_map(|line| line.strip_prefix("| `"));
    let listed: BTreeSet<String> = rows
        .map(|row| row.split('`').next().unwrap().to_owned())
        .collect();
    let name = |file: &PathBuf| file.strip_prefix(&folder).unwrap().display().to_string();
    let mut there: BTreeSet<String> = files(&folder).iter().map(name).collect();
    there.remove("README.md");
    assert_eq!(listed, there);
}

/// The addresses in a page's tags of one kind.
fn linked<'a>(page: &'a str, tag: &str) -> Vec<&'a str> {
    let tags = page.split(tag).skip(1);
    let address = |rest: &'a str| {
        let end = rest.find('>').unwrap();
        let mut attributes = rest[..end].split('"');
        attributes.find(|value| value.starts_with("/static/"))
    };
    tags.filter_map(address).collect()
}

/// The modules that a module imports, by their addresses.
fn imports(module: &str, source: &str) -> Vec<String> {
    let folder = module.rsplit_once('/').unwrap().0;
    let lines = source.lines().filter(|line| line.starts_with("import "));
    let name = |line: &str| line.split('"').nth(1).unwrap().to_owned();
    let names = lines.map(name);
    names
        .map(|name| format!("{folder}/{}", name.strip_prefix("./").expect(&name)))
        .collect()
}

fn unzipped(bytes: &[u8]) -> String {
    let mut text = String::new();
    GzDecoder::new(bytes).read_to_string(&mut text).unwrap();
    text
}

both! {
    fn static_files_are_compressed_for_those_who_take_that(app: App) {
        let visitor = app.visitor();
        let page = visitor.get("/signup").body;
        for tag in ["<link rel=\"stylesheet\" ", "<script type=\"module\" "] {
            let [file] = linked(&page, tag)[..] else {
                panic!("{tag} is there once");
            };
            let plain = visitor.get(file);
            assert_eq!(plain.header("content-encoding"), None);
            assert_eq!(plain.header("vary"), Some("Accept-Encoding"));
            for (accepted, encoding) in [
                ("gzip, deflate, br, zstd", Some("gzip")),
                ("gzip;q=0.5, identity;q=0.1", Some("gzip")),
                ("br", None),
                ("gzip;q=0", None),
                ("identity, gzip;q=0.5", None),
                ("nonsense;;q", None),
            ] {
                let request = visitor.request("GET", file);
                let answer = request.header("accept-encoding", accepted).send().unwrap();
                let header = |name| answer.headers().get(name).map(|value| value.to_str().unwrap());
                assert_eq!(header("content-encoding"), encoding, "{accepted}");
                assert_eq!(header("vary"), Some("Accept-Encoding"), "{accepted}");
                let body = answer.bytes().unwrap();
                let content = match encoding {
                    Some(_) => unzipped(&body),
                    None => String::from_utf8(body.to_vec()).unwrap(),
                };
                assert_eq!(content, plain.body, "{file} {accepted}");
            }
        }
    }

    /// A module that is served by another release than its importer may not fit; one that is not
    /// preloaded costs a round trip.
    fn every_module_is_of_one_release_preloaded_and_kept_for_good(app: App) {
        let owner = app.owner();
        for path in ["/api-keys", "/docs/api", "/nothing"] {
            let page = owner.get(path).body;
            let [entry] = linked(&page, "<script type=\"module\" ")[..] else {
                panic!("{path} has one entry");
            };
            let mut waiting = vec![entry.to_owned()];
            let mut found = BTreeSet::new();
            while let Some(module) = waiting.pop() {
                if !found.insert(module.clone()) {
                    continue;
                }
                let answer = owner.get(&module);
                assert_eq!(answer.status, 200, "{module}");
                assert_eq!(answer.header("content-type"), Some("text/javascript"));
                let cache = Some("public, max-age=31536000, immutable");
                assert_eq!(answer.header("cache-control"), cache, "{module}");
                waiting.extend(imports(&module, &answer.body));
            }
            let preloaded = linked(&page, "<link rel=\"modulepreload\" ");
            let mut named: Vec<&str> = preloaded.into_iter().chain([entry]).collect();
            named.sort_unstable();
            assert_eq!(Vec::from_iter(&found), named, "{path}");
            let sources = files(&root().join("static/js"));
            assert_eq!(found.len(), sources.len(), "every module is imported");
        }
    }
}
