//! What the documentation names is there: files, sections, settings.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use clap::{Args, CommandFactory};
use tosend_dashboard::cli::Cli;
use tosend_dashboard::config::Settings;

use crate::support::files::{files, root};

/// What a path in the text begins with.
const FOLDERS: [&str; 10] = [
    "src/",
    "tests/",
    "docs/",
    "templates/",
    "static/",
    "migrations/",
    "benches/",
    "packaging/",
    ".ci/",
    ".cargo/",
];

struct Document {
    path: PathBuf,
    /// Without what stands between fences.
    lines: Vec<String>,
}

impl Document {
    fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let mut is_fenced = false;
        let lines = text.lines().filter(|line| {
            let is_fence = line.trim_start().starts_with("```");
            is_fenced ^= is_fence;
            !is_fenced && !is_fence
        });
        Self {
            lines: lines.map(str::to_owned).collect(),
            path: path.to_owned(),
        }
    }

    fn name(&self) -> String {
        self.path
            .strip_prefix(root())
            .unwrap()
            .display()
            .to_string()
    }

    /// What stands between backticks.
    fn code(&self) -> impl Iterator<Item = &str> {
        let lines = self.lines.iter();
        lines.flat_map(|line| line.split('`').skip(1).step_by(2))
    }

    /// Where its links lead, those to other sites left out.
    fn links(&self) -> impl Iterator<Item = &str> {
        let lines = self.lines.iter();
        let targets = lines.flat_map(|line| line.split("](").skip(1));
        targets
            .map(|rest| rest.split(')').next().unwrap())
            .filter(|target| !target.contains("://"))
    }

    /// The addresses of its sections, as forges make them of the headings.
    fn anchors(&self) -> BTreeSet<String> {
        let headings = self.lines.iter().filter(|line| line.starts_with('#'));
        let slug = |heading: &String| {
            let text = heading.trim_start_matches('#').trim().to_lowercase();
            let kept = text
                .chars()
                .filter(|c| c.is_alphanumeric() || "-_ ".contains(*c));
            kept.collect::<String>().replace(' ', "-")
        };
        headings.map(slug).collect()
    }
}

fn documents() -> Vec<Document> {
    let mut paths: Vec<PathBuf> = ["", "docs", "benches", "static"]
        .iter()
        .flat_map(|folder| fs::read_dir(root().join(folder)).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "md"))
        .collect();
    paths.sort();
    assert!(paths.len() > 10);
    paths.iter().map(|path| Document::read(path)).collect()
}

#[test]
fn paths_that_the_documentation_names_are_there() {
    let mut missing = Vec::new();
    for document in documents() {
        for code in document.code() {
            // The rest may be an argument.
            let path = code.split_whitespace().next().unwrap_or_default();
            let is_path = FOLDERS.iter().any(|folder| path.starts_with(folder));
            let is_pattern = path.contains(['<', '*', '{', '…']) || path.contains("YYYY");
            if is_path && !is_pattern && !root().join(path).exists() {
                missing.push(format!("{}: {path}", document.name()));
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
}

/// Types and functions, such as `App::on`, where developers read.
#[test]
fn names_that_developers_are_told_are_in_the_code() {
    let mut code = String::new();
    for folder in ["src", "tests/it"] {
        for path in rust_files(&root().join(folder)) {
            code.push_str(&fs::read_to_string(path).unwrap());
        }
    }
    let is_word_end = |c: char| !c.is_alphanumeric() && c != '_';
    let words: BTreeSet<&str> = code.split(is_word_end).collect();
    let mut unknown = Vec::new();
    for name in ["CONTRIBUTING.md", "docs/architecture.md"] {
        let document = Document::read(&root().join(name));
        for code in document.code().filter(|code| !code.contains(['/', '-'])) {
            let mut parts = code.split(is_word_end);
            // A word in capitals is SQL's.
            let is_type = |part: &str| {
                part.starts_with(char::is_uppercase) && part.contains(char::is_lowercase)
            };
            if parts.any(|part| is_type(part) && !words.contains(part)) {
                unknown.push(format!("{name}: {code}"));
            }
        }
    }
    assert!(unknown.is_empty(), "{unknown:#?}");
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    files(folder)
        .into_iter()
        .filter(|path| path.extension().is_some_and(|ending| ending == "rs"))
        .collect()
}

#[test]
fn links_of_the_documentation_lead_somewhere() {
    let mut dead = Vec::new();
    for document in documents() {
        for link in document.links() {
            let (file, section) = link.split_once('#').unwrap_or((link, ""));
            let path = match file {
                "" => document.path.clone(),
                file => document.path.parent().unwrap().join(file),
            };
            let is_there = path.exists()
                && (section.is_empty() || Document::read(&path).anchors().contains(section));
            if !is_there {
                dead.push(format!("{}: {link}", document.name()));
            }
        }
    }
    assert!(dead.is_empty(), "{dead:#?}");
}

#[test]
fn the_readme_is_short_and_leads_to_every_page() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    assert!(readme.lines().count() <= 200);
    for document in documents() {
        let name = document.name();
        if name.starts_with("docs/") {
            assert!(readme.contains(&format!("]({name})")), "{name}");
        }
    }
}

/// The floors in the picture of the house are those of the code.
#[test]
fn the_floors_that_are_described_are_there() {
    let architecture = Document::read(&root().join("docs/architecture.md"));
    let rows = architecture
        .lines
        .iter()
        .skip_while(|line| !line.starts_with("| floor"))
        .skip(2)
        .take_while(|line| line.starts_with('|'));
    let floors = rows.map(|row| row.split('|').nth(1).unwrap());
    let names: Vec<&str> = floors
        .flat_map(|names| names.split('`').skip(1).step_by(2))
        .collect();
    assert!(names.len() > 15);
    for name in &names {
        assert!(root().join("src").join(name).exists(), "{name}");
    }
    for entry in fs::read_dir(root().join("src")).unwrap() {
        let entry = entry.unwrap();
        let mut name = entry.file_name().into_string().unwrap();
        if entry.path().is_dir() {
            name.push('/');
        }
        assert!(names.contains(&name.as_str()), "{name} has no floor");
    }
}

/// The commands of a row, such as “`key edit`, `pause`”: what a word belongs to stands once.
fn commands_of(row: &str) -> Vec<String> {
    let cell = row.split('|').nth(1).unwrap();
    let mut group = None;
    let names = cell.split('`').skip(1).step_by(2).map(|name| {
        let words: Vec<&str> = name.split(' ').collect();
        match (words[..].split_last(), group) {
            (Some((_, above)), _) if !above.is_empty() => {
                group = Some(above[0]);
                name.to_owned()
            }
            (_, Some(group)) => format!("{group} {name}"),
            (_, None) => name.to_owned(),
        }
    });
    names.collect()
}

fn commands_below(command: &clap::Command, words: &str, all: &mut BTreeSet<String>) {
    for below in command.get_subcommands() {
        let words = format!("{words} {}", below.get_name());
        match below.has_subcommands() {
            true => commands_below(below, &words, all),
            false => {
                all.insert(words.trim().to_owned());
            }
        }
    }
}

#[test]
fn every_command_is_described() {
    let page = Document::read(&root().join("docs/command-line.md"));
    let rows = page
        .lines
        .iter()
        .skip_while(|line| !line.starts_with("| command"));
    let rows = rows.skip(2).take_while(|line| line.starts_with('|'));
    let described: BTreeSet<String> = rows.flat_map(|row| commands_of(row)).collect();
    let mut commands = BTreeSet::new();
    commands_below(&Cli::command(), "", &mut commands);
    assert!(commands.len() > 20);
    assert_eq!(described, commands);
}

#[test]
fn every_setting_is_described_with_its_default() {
    let settings = Document::read(&root().join("docs/settings.md"));
    let rows: Vec<&String> = settings
        .lines
        .iter()
        .filter(|line| line.starts_with("| `TOSEND_"))
        .collect();
    let command = Settings::augment_args(clap::Command::new("settings"));
    let mut count = 0;
    for setting in command.get_arguments() {
        let name = setting.get_env().unwrap().to_str().unwrap();
        let row = rows
            .iter()
            .find(|row| row.starts_with(&format!("| `{name}` |")))
            .unwrap_or_else(|| panic!("{name} is not described"));
        for default in setting.get_default_values() {
            let default = default.to_str().unwrap();
            assert!(
                default.is_empty() || row.contains(&format!("| `{default}` |")),
                "{name}: {default}"
            );
        }
        count += 1;
    }
    assert_eq!(count, rows.len());
}
