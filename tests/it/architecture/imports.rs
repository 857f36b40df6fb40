//! Which paths does a Rust source name? A scan of its tokens: enough for `use` trees and qualified paths, no parser.

use std::collections::BTreeSet;

/// One path that a source names outside its tests, made absolute: `crate`, then modules, or the name of another crate first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Import {
    /// Line of the path's last segment, from 1.
    pub(super) line: usize,
    /// The segments; never empty.
    pub(super) path: Vec<String>,
}

/// The module that a file below `src/` holds: nothing for `lib.rs` and `main.rs`.
pub(super) fn module_of(file: &str) -> Vec<String> {
    let stem = file.strip_suffix(".rs").unwrap_or(file);
    let mut module: Vec<String> = stem.split('/').map(str::to_owned).collect();
    if matches!(module.last().map(String::as_str), Some("mod" | "lib" | "main")) {
        module.pop();
    }
    module
}

/// The modules that a file declares at its top.
pub(super) fn child_modules(source: &str) -> BTreeSet<String> {
    let code = blank(source);
    let scan = Scan::new(&code, &[]);
    scan.declared.iter().filter(|(module, _)| module.is_empty()).map(|(_, child)| child.clone()).collect()
}

/// The modules that a source declares for its tests only and keeps in files of their own.
pub(super) fn test_modules(source: &str, module: &[String]) -> Vec<Vec<String>> {
    let code = blank(source);
    let mut scan = Scan::new(&code, module);
    scan.run();
    scan.test_modules
}

/// All paths of a source that holds `module`, in order. Comments, literals and items under `#[cfg(test)]` are left out.
pub(super) fn imports(source: &str, module: &[String]) -> Vec<Import> {
    let code = blank(source);
    let mut scan = Scan::new(&code, module);
    scan.run();
    scan.found
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Token<'a> {
    text: &'a str,
    line: usize,
}

impl Token<'_> {
    fn is_name(self) -> bool {
        self.text.starts_with(|first: char| first.is_alphabetic() || first == '_')
    }
}

struct Scan<'a> {
    tokens: Vec<Token<'a>>,
    at: usize,
    /// Where the scan is: the file's module, then inline ones with the depth of their braces.
    module: Vec<String>,
    inline: Vec<usize>,
    depth: usize,
    /// Modules that are declared in this file, by the module that declares them: their names are no crates.
    declared: BTreeSet<(Vec<String>, String)>,
    test_modules: Vec<Vec<String>>,
    found: Vec<Import>,
}

impl<'a> Scan<'a> {
    fn new(code: &'a str, module: &[String]) -> Self {
        let tokens = tokens(code);
        let mut scan = Self {
            tokens,
            at: 0,
            module: module.to_vec(),
            inline: Vec::new(),
            depth: 0,
            declared: BTreeSet::new(),
            test_modules: Vec::new(),
            found: Vec::new(),
        };
        while scan.at < scan.tokens.len() {
            if scan.text(0) == "mod" && scan.name(1) {
                scan.declared.insert((scan.module.clone(), scan.text(1).to_owned()));
            }
            scan.step();
        }
        scan.at = 0;
        scan
    }

    fn run(&mut self) {
        while self.at < self.tokens.len() {
            if self.skip_test_item() {
                continue;
            }
            let first_of_path = self.at == 0 || self.tokens[self.at - 1].text != "::";
            if self.text(0) == "use" && self.text(1) != "<" {
                self.at += 1;
                self.tree(&[]);
            } else if self.text(0) == "extern" && self.text(1) == "crate" {
                self.at += 2;
                self.tree(&[]);
            } else if self.name(0) && first_of_path && self.text(1) == "::" {
                self.path();
            } else if self.text(0) == "::" && self.name(1) && !self.follows_a_type() {
                self.at += 1;
                self.path();
            } else {
                self.step();
            }
        }
    }

    /// `>::name` and `name::name` go on with a path; a path that begins with `::` stands after something else.
    fn follows_a_type(&self) -> bool {
        self.at > 0 && (self.tokens[self.at - 1].is_name() || self.tokens[self.at - 1].text == ">")
    }

    /// Goes on by one token and keeps account of inline modules.
    fn step(&mut self) {
        match self.text(0) {
            "mod" if self.name(1) && self.text(2) == "{" => {
                self.module.push(self.text(1).to_owned());
                self.inline.push(self.depth);
                self.at += 2;
                self.depth += 1;
            }
            "{" => self.depth += 1,
            "}" => {
                self.depth = self.depth.saturating_sub(1);
                if self.inline.last() == Some(&self.depth) {
                    self.inline.pop();
                    self.module.pop();
                }
            }
            _ => {}
        }
        self.at += 1;
    }

    /// A path in an expression, a type or an attribute.
    fn path(&mut self) {
        let mut path = vec![self.text(0).to_owned()];
        while self.text(1) == "::" && self.name(2) {
            path.push(self.text(2).to_owned());
            self.at += 2;
        }
        self.found(&path, self.at);
        self.at += 1;
    }

    /// A `use` tree behind `prefix`, up to what ends it.
    fn tree(&mut self, prefix: &[String]) {
        let mut path = prefix.to_vec();
        loop {
            match self.text(0) {
                "::" => self.at += 1,
                "{" => {
                    self.at += 1;
                    while !matches!(self.text(0), "}" | "") {
                        self.tree(&path);
                        if self.text(0) == "," {
                            self.at += 1;
                        }
                    }
                    self.at += 1;
                    return;
                }
                "*" => {
                    path.push("*".to_owned());
                    self.found(&path, self.at);
                    self.at += 1;
                    return;
                }
                _ if self.name(0) => {
                    // `self` at the end of a tree is what stands before it.
                    if self.text(0) != "self" || path.is_empty() {
                        path.push(self.text(0).to_owned());
                    }
                    self.at += 1;
                    if self.text(0) == "::" {
                        continue;
                    }
                    self.found(&path, self.at - 1);
                    if self.text(0) == "as" {
                        self.at += 2;
                    }
                    return;
                }
                _ => {
                    self.at += 1;
                    return;
                }
            }
        }
    }

    /// Notes a path, made absolute.
    fn found(&mut self, path: &[String], last: usize) {
        let line = self.tokens[last].line;
        let mut module = self.module.clone();
        let mut rest = path;
        let mut inside = false;
        match path.first().map(String::as_str) {
            Some("crate") => {
                module.clear();
                inside = true;
                rest = &path[1..];
            }
            Some("self" | "super") => {
                inside = true;
                while let Some((first, after)) = rest.split_first() {
                    match first.as_str() {
                        "self" => {}
                        "super" => drop(module.pop()),
                        _ => break,
                    }
                    rest = after;
                }
            }
            Some(name) => inside = self.declared.contains(&(module.clone(), name.to_owned())),
            None => {}
        }
        let mut absolute = if inside { vec!["crate".to_owned()] } else { Vec::new() };
        if inside {
            absolute.extend(module);
        }
        absolute.extend_from_slice(rest);
        self.found.push(Import { line, path: absolute });
    }

    /// Skips an item under `#[cfg(test)]` or `#[cfg(all(test, ..))]`.
    fn skip_test_item(&mut self) -> bool {
        let attribute: Vec<&str> = (0..8).map(|ahead| self.text(ahead)).collect();
        let is_test = match attribute.as_slice() {
            ["#", "[", "cfg", "(", "test", ")", ..] => true,
            ["#", "[", "cfg", "(", "all", "(", rest @ ..] => rest.first() == Some(&"test"),
            _ => false,
        };
        if !is_test {
            return false;
        }
        while self.text(0) == "#" {
            self.at += 1;
            self.skip_block("[", "]");
        }
        // Up to the item's body and over it, or to its semicolon. `[u8; 4]` in a signature has one that is not.
        while self.at < self.tokens.len() {
            match self.text(0) {
                "{" => {
                    self.skip_block("{", "}");
                    // `use a::{b};` goes on behind its braces.
                    if self.text(0) == ";" {
                        self.at += 1;
                    }
                    return true;
                }
                "mod" if self.name(1) && self.text(2) == ";" => {
                    let mut module = self.module.clone();
                    module.push(self.text(1).to_owned());
                    self.test_modules.push(module);
                    self.at += 3;
                    return true;
                }
                "[" => self.skip_block("[", "]"),
                "(" => self.skip_block("(", ")"),
                // A field or an arm, the last of its braces.
                "}" => return true,
                ";" => {
                    self.at += 1;
                    return true;
                }
                _ => self.at += 1,
            }
        }
        true
    }

    fn skip_block(&mut self, open: &str, close: &str) {
        let mut depth = 0_usize;
        while self.at < self.tokens.len() {
            if self.text(0) == open {
                depth += 1;
            } else if self.text(0) == close {
                depth -= 1;
            }
            self.at += 1;
            if depth == 0 {
                return;
            }
        }
    }

    fn text(&self, ahead: usize) -> &'a str {
        self.tokens.get(self.at + ahead).map_or("", |token| token.text)
    }

    fn name(&self, ahead: usize) -> bool {
        self.tokens.get(self.at + ahead).is_some_and(|token| token.is_name())
    }
}

fn tokens(code: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut line = 1;
    let mut rest = code;
    while let Some(first) = rest.chars().next() {
        let is_name = |c: char| c.is_alphanumeric() || c == '_';
        let length = if is_name(first) {
            rest.find(|c| !is_name(c)).unwrap_or(rest.len())
        } else if rest.starts_with("::") {
            2
        } else {
            first.len_utf8()
        };
        let (text, after) = rest.split_at(length);
        if first == '\n' {
            line += 1;
        } else if !first.is_whitespace() {
            tokens.push(Token { text, line });
        }
        rest = after;
    }
    tokens
}

/// Puts spaces in place of comments and literals; lines stay where they are.
fn blank(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let in_name = out.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment(rest)
        } else if first == '"' {
            string(rest)
        } else if let Some(length) = raw_string(rest).filter(|_| !in_name) {
            length
        } else if first == '\'' {
            character(rest)
        } else {
            out.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        };
        let (gone, after) = rest.split_at(length);
        out.extend(gone.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        rest = after;
    }
    out
}

fn block_comment(rest: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < rest.len() {
        if rest[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += rest[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    rest.len()
}

fn string(rest: &str) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// `r"…"`, `r#"…"#`, also behind `b` or `c`.
fn raw_string(rest: &str) -> Option<usize> {
    let body = rest.strip_prefix(['b', 'c']).unwrap_or(rest).strip_prefix('r')?;
    let hashes = body.len() - body.trim_start_matches('#').len();
    body[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let start = rest.len() - body.len() + hashes + 1;
    Some(rest[start..].find(&end).map_or(rest.len(), |found| start + found + end.len()))
}

/// `'x'` and `'\n'`; a lifetime is one quote long.
fn character(rest: &str) -> usize {
    let mut chars = rest.char_indices().skip(1);
    match chars.next() {
        Some((_, '\\')) => rest[3..].find('\'').map_or(1, |found| 3 + found + 1),
        Some(_) => match chars.next() {
            Some((at, '\'')) => at + 1,
            _ => 1,
        },
        None => 1,
    }
}
