//! Which file uses which: every path in the code, followed to the file that defines what it names.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::source::{Source, Token, paths_in_template};

/// A path in one file that names something of another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Import {
    pub from: String,
    pub to: String,
    pub line: usize,
    /// As in `crate::keys::store::Key`.
    pub path: String,
}

type Path = Vec<String>;

/// A file as a module.
struct Module {
    file: String,
    children: BTreeSet<String>,
    /// What a name stands for that a `use` brought here.
    aliases: HashMap<String, Path>,
    /// Modules of which all names are brought here.
    globs: Vec<Path>,
    /// What it defines itself.
    items: BTreeSet<String>,
    /// Paths in the code, and imports of its own use.
    paths: Vec<(Path, usize)>,
}

/// Every import of every file: by `use` in any of its forms, by a path in the code, or by one in a
/// template that the file renders.
///
/// A `mod` line is not an import, and neither is a `pub use` of the file's own children, which only
/// makes a path shorter: whoever names that path imports from the file that defines the item. What
/// the code of a `mod.rs` uses is an import like any other. So a file may use its room's `mod.rs`, or
/// be used by its code, but not both.
pub fn all(sources: &[Source]) -> BTreeSet<Import> {
    let modules: BTreeMap<Path, Module> = sources
        .iter()
        .map(|source| (module_path(&source.path), read(source)))
        .collect();
    let mut imports = BTreeSet::new();
    for module in modules.values() {
        for (path, line) in &module.paths {
            let Some(file) = define(&modules, path, 0) else {
                continue;
            };
            if file != module.file {
                imports.insert(Import {
                    from: module.file.clone(),
                    to: file,
                    line: *line,
                    path: path.join("::"),
                });
            }
        }
    }
    imports
}

/// The tables that a file names: by way of `crate::schema`, or in SQL. `*`: it takes them all.
pub fn tables_of(source: &Source) -> BTreeSet<String> {
    let of_path = |(path, _): (Path, usize)| match &path[..] {
        [first, second, table, ..] if first == "crate" && second == "schema" => Some(table.clone()),
        // A glob: the names of the tables do not show.
        [first, second] if first == "crate" && second == "schema" => Some("*".to_owned()),
        _ => None,
    };
    let mut tables: BTreeSet<String> = read(source).paths.into_iter().filter_map(of_path).collect();
    for string in &source.strings {
        let text = string.text.replace(['"', '(', ')', ','], " ");
        let words: Vec<&str> = text.split_whitespace().collect();
        for pair in words.windows(2) {
            if ["FROM", "JOIN", "INTO", "UPDATE", "TABLE"].contains(&pair[0]) {
                tables.insert(pair[1].to_owned());
            }
        }
    }
    tables
}

fn module_path(file: &str) -> Path {
    let path = file.strip_suffix(".rs").unwrap();
    let path = path.strip_suffix("/mod").unwrap_or(path);
    let inner = path.split('/').filter(|name| *name != "lib");
    ["crate"]
        .into_iter()
        .chain(inner)
        .map(str::to_owned)
        .collect()
}

/// The file that defines what a path from the crate's root names.
fn define(modules: &BTreeMap<Path, Module>, path: &Path, depth: usize) -> Option<String> {
    // An alias that stands for itself.
    if depth > 16 || path.first().is_none_or(|first| first != "crate") {
        return None;
    }
    let mut length = 1;
    while length < path.len() && modules.contains_key(&path[..=length]) {
        length += 1;
    }
    let module = &modules[&path[..length]];
    let Some(name) = path.get(length) else {
        return Some(module.file.clone());
    };
    if module.items.contains(name) {
        return Some(module.file.clone());
    }
    if let Some(target) = module.aliases.get(name) {
        let rest = path[length + 1..].iter();
        let target: Path = target.iter().chain(rest).cloned().collect();
        return define(modules, &target, depth + 1);
    }
    for glob in &module.globs {
        let defines = modules.get(glob).is_some_and(|m| m.items.contains(name));
        if defines {
            let target: Path = glob.iter().chain(&path[length..]).cloned().collect();
            return define(modules, &target, depth + 1);
        }
    }
    Some(module.file.clone())
}

fn read(source: &Source) -> Module {
    let here = module_path(&source.path);
    let tokens = &source.tokens;
    let mut module = Module {
        file: source.path.clone(),
        children: BTreeSet::new(),
        aliases: HashMap::new(),
        globs: Vec::new(),
        items: BTreeSet::new(),
        paths: Vec::new(),
    };
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text.as_str());
    for at in 0..tokens.len() {
        if text(at) == "mod" && text(at + 2) == ";" {
            module.children.insert(text(at + 1).to_owned());
        }
    }
    // Modules that stand in this file: what `super` means there is still this file.
    let mut inner: Vec<usize> = Vec::new();
    let (mut depth, mut at) = (0, 0);
    let mut public = Vec::new();
    let mut code: Vec<(Path, usize)> = Vec::new();
    while at < tokens.len() {
        match text(at) {
            "{" => depth += 1,
            "}" => {
                depth -= 1;
                inner.retain(|opened| *opened <= depth);
            }
            "mod" if text(at + 2) == "{" => inner.push(depth + 1),
            "mod" if text(at + 2) == ";" => at += 1,
            // Not the functions of a type.
            "fn" | "struct" | "enum" | "type" | "trait" | "const" | "static"
                if depth == inner.len() =>
            {
                module.items.insert(text(at + 1).to_owned());
            }
            // Not the `use<>` of a type.
            "use" if text(at + 1) != "<" => {
                let is_public = at > 0 && matches!(text(at - 1), "pub" | ")");
                let mut found = Vec::new();
                let line = tokens[at].line;
                at = tree(tokens, at + 1, &[], &mut found);
                for (path, name) in found {
                    let path = from_root(&here, &module.children, inner.len(), path);
                    let Some(path) = path else { continue };
                    match name.as_str() {
                        "*" => {
                            module.globs.push(path.clone());
                            if !is_public || !path.starts_with(&here) {
                                module.paths.push((path, line));
                            }
                        }
                        _ => {
                            public.push((name.clone(), path.clone(), line, is_public));
                            module.aliases.insert(name, path);
                        }
                    }
                }
            }
            first if is_name(first) && (at == 0 || !matches!(text(at - 1), "::" | ".")) => {
                let line = tokens[at].line;
                let mut path = vec![first.to_owned()];
                while text(at + 1) == "::" && is_name(text(at + 2)) {
                    path.push(text(at + 2).to_owned());
                    at += 2;
                }
                if path.len() > 1 {
                    let root = from_root(&here, &module.children, inner.len(), path.clone());
                    match root {
                        Some(root) => module.paths.push((root, line)),
                        None => code.push((path, line)),
                    }
                } else {
                    code.push((path, line));
                }
            }
            _ => {}
        }
        at += 1;
    }
    let words: BTreeSet<&str> = code.iter().map(|(path, _)| path[0].as_str()).collect();
    for (path, line) in &code {
        if path.len() > 1
            && let Some(target) = module.aliases.get(&path[0])
        {
            let path = target.iter().chain(&path[1..]).cloned().collect();
            module.paths.push((path, *line));
        }
    }
    for (name, path, line, is_public) in public {
        let only_as_a_module = code
            .iter()
            .any(|(path, _)| path.len() > 1 && path[0] == name)
            && !code
                .iter()
                .any(|(path, _)| path.len() == 1 && path[0] == name);
        let is_shortcut = is_public && path.starts_with(&here) && !words.contains(name.as_str());
        if !is_shortcut && !only_as_a_module {
            module.paths.push((path, line));
        }
    }
    for template in templates(source) {
        for path in paths_in_template(&template) {
            module.paths.push((path, 1));
        }
    }
    module
}

/// The templates that a file renders.
fn templates(source: &Source) -> Vec<String> {
    let is_template = |string: &&Token| string.text.ends_with(".html\"");
    let names = source.strings.iter().filter(is_template);
    names
        .map(|string| string.text.trim_matches('"').to_owned())
        .collect()
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// A path of this house, from its root; `None` for one that begins with another crate, or with a name
/// that a `use` brought here.
fn from_root(
    here: &[String],
    children: &BTreeSet<String>,
    inner: usize,
    path: Path,
) -> Option<Path> {
    let first = path[0].as_str();
    match first {
        "crate" => Some(path),
        "self" | "super" => {
            let supers = path.iter().take_while(|name| *name == "super").count();
            let skipped = supers.max(usize::from(first == "self"));
            let up = supers.saturating_sub(inner);
            let root = here[..here.len().saturating_sub(up).max(1)].iter();
            Some(root.chain(&path[skipped..]).cloned().collect())
        }
        _ if children.contains(first) && inner == 0 => {
            Some(here.iter().chain(&path).cloned().collect())
        }
        _ => None,
    }
}

/// Reads the tree behind `use`: paths, each with the name that it has from then on. Gives where the
/// tree ends.
fn tree(
    tokens: &[Token],
    mut at: usize,
    prefix: &[String],
    found: &mut Vec<(Path, String)>,
) -> usize {
    let mut path = prefix.to_vec();
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text.as_str());
    loop {
        match text(at) {
            "{" => {
                at += 1;
                while text(at) != "}" {
                    at = tree(tokens, at, &path, found);
                    if text(at) == "," {
                        at += 1;
                    }
                }
                return at + 1;
            }
            "*" => {
                found.push((path, "*".to_owned()));
                return at + 1;
            }
            "::" => at += 1,
            name => {
                // In braces it means the module before them.
                if name != "self" || path.is_empty() {
                    path.push(name.to_owned());
                }
                at += 1;
                if text(at) == "::" {
                    continue;
                }
                let mut known_as = path.last().cloned().unwrap_or_default();
                if text(at) == "as" {
                    known_as = text(at + 1).to_owned();
                    at += 2;
                }
                found.push((path, known_as));
                return at;
            }
        }
    }
}
