//! Reads the options out of the sources: methods that take `self` and a value, return `Self`, and state a default.
//!
//! An option's documentation is the one place that states its default and range. A type is one of options if a method of it says
//! so, and then all of its methods have to.

use std::collections::BTreeMap;
use std::path::Path;

/// One option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OptionDoc {
    pub(crate) name: String,
    /// The sentence that begins with `Default`.
    pub(crate) default: Option<String>,
    /// All other sentences of the first paragraph, and of the following ones.
    pub(crate) meaning: String,
}

/// The options of one type.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) of: String,
    pub(crate) options: Vec<OptionDoc>,
}

/// Reads the types of options out of one source file, in its order.
pub(crate) fn read(source: &str) -> Vec<Options> {
    let mut found: Vec<Options> = Vec::new();
    let mut macros: BTreeMap<String, Vec<OptionDoc>> = BTreeMap::new();
    let (mut block, mut doc) = (Block::Other, Vec::new());
    for line in source.lines().take_while(|line| *line != "mod tests {") {
        let text = line.trim();
        if let Some(comment) = text.strip_prefix("///") {
            doc.push(comment.trim().to_owned());
            continue;
        }
        if text.starts_with("#[") {
            continue;
        }
        if !line.starts_with(' ') && !text.is_empty() && text != "}" {
            block = Block::of(text);
        }
        let of = match &block {
            Block::Macro(name) => Some(macros.entry(name.clone()).or_default()),
            Block::Type(name) | Block::Struct(name) => {
                if found.iter().all(|options| options.of != *name) {
                    found.push(Options { of: name.clone(), options: Vec::new() });
                }
                found.iter_mut().find(|options| options.of == *name).map(|options| &mut options.options)
            }
            Block::Other => None,
        };
        let name = if let Block::Struct(_) = block { field(text) } else { method(text) };
        // A public field may have a method of its name.
        if let (Some(of), Some(name)) = (of, name)
            && of.iter().all(|known| known.name != name)
        {
            of.push(OptionDoc::new(name, &doc));
        }
        if let (Block::Type(of), Some(inserted)) = (&block, text.strip_suffix("!();"))
            && let (Some(options), Some(inserted)) =
                (found.iter_mut().find(|options| options.of == *of), macros.get(inserted))
        {
            options.options.extend(inserted.iter().cloned());
        }
        doc.clear();
    }
    found.retain(|options| options.options.iter().any(|option| option.default.is_some()));
    found
}

/// All source files below a directory, in the order of their paths.
pub(crate) fn sources(below: &Path) -> Vec<String> {
    let mut entries: Vec<_> = std::fs::read_dir(below).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    let mut found = Vec::new();
    for path in entries {
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(std::fs::read_to_string(&path).unwrap());
        }
    }
    found
}

/// What a line stands in.
enum Block {
    Macro(String),
    Type(String),
    /// A struct whose public fields are options.
    Struct(String),
    Other,
}

impl Block {
    fn of(text: &str) -> Self {
        let name = |text: &str| -> String { text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect() };
        if let Some(rest) = text.strip_prefix("macro_rules! ") {
            return Self::Macro(name(rest));
        }
        if let Some(rest) = text.strip_prefix("pub struct ") {
            return Self::Struct(name(rest));
        }
        let Some(rest) = text.strip_prefix("impl") else { return Self::Other };
        // Behind the generics, up to the next word; not the implementation of a trait.
        let rest = rest.strip_prefix('<').map_or(rest, |generics| {
            let mut depth = 1;
            let end = generics.find(|c| {
                depth += i32::from(c == '<') - i32::from(c == '>');
                depth == 0
            });
            &generics[end.map_or(0, |end| end + 1)..]
        });
        if rest.contains(" for ") { Self::Other } else { Self::Type(name(rest.trim())) }
    }
}

/// The name of a method that takes itself and a value and returns itself.
fn method(text: &str) -> Option<String> {
    let rest = text.strip_prefix("pub fn ").or_else(|| text.strip_prefix("pub const fn "))?;
    let (name, arguments) = rest.split_once('(')?;
    let name = name.split('<').next()?;
    let arguments = arguments.strip_prefix("mut ").unwrap_or(arguments);
    (arguments.starts_with("self, ") && text.contains("-> Self")).then(|| name.to_owned())
}

fn field(text: &str) -> Option<String> {
    let (name, _type) = text.strip_prefix("pub ")?.split_once(": ")?;
    (!name.contains(' ')).then(|| name.to_owned())
}

impl OptionDoc {
    fn new(name: String, doc: &[String]) -> Self {
        let text = plain(
            &doc.iter()
                .take_while(|line| *line != "```" && !line.starts_with('#'))
                .cloned()
                .collect::<Vec<_>>()
                .join(" "),
        );
        let (default, others): (Vec<_>, Vec<_>) =
            sentences(&text).into_iter().partition(|sentence| sentence.starts_with("Default"));
        let join = |sentences: Vec<String>| sentences.join(" ");
        Self { name, default: (!default.is_empty()).then(|| join(default)), meaning: join(others) }
    }
}

/// Cuts a text behind full stops that end a sentence.
fn sentences(text: &str) -> Vec<String> {
    let mut sentences = vec![String::new()];
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        if let Some(sentence) = sentences.last_mut() {
            sentence.push(character);
        }
        if character == '.' && characters.peek() == Some(&' ') {
            characters.next();
            sentences.push(String::new());
        }
    }
    sentences.retain(|sentence| !sentence.is_empty());
    sentences
}

/// Takes the links out of a documentation text: they lead nowhere outside of it.
fn plain(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, link)) = rest.split_once("[`") {
        let Some((inner, behind)) = link.split_once("`]") else { break };
        out.push_str(before);
        out.push('`');
        out.push_str(inner);
        out.push('`');
        rest = behind;
        if let Some(target) = behind.strip_prefix('(') {
            rest = target.split_once(')').map_or("", |(_, rest)| rest);
        }
    }
    out.push_str(rest);
    out.split_whitespace().collect::<Vec<_>>().join(" ")
}
