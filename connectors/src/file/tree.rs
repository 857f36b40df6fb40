//! The files below a directory.

use std::path::Path;

use super::error::{LinesError, io_error};

/// Returns the paths of all files below `root`, relative to it with `/` between the parts, sorted.
///
/// Names that begin with `.` or `_` are left out with all that is below them. Links to files are followed, links to
/// directories are not: they may lead in a circle.
pub(super) fn files_below(root: &Path, suffixes: Option<&[String]>) -> Result<Vec<String>, LinesError> {
    let mut files = Vec::new();
    let mut open = vec![String::new()];
    while let Some(prefix) = open.pop() {
        let dir = root.join(&prefix);
        for entry in std::fs::read_dir(&dir).map_err(io_error("list", &dir))? {
            let entry = entry.map_err(io_error("list", &dir))?;
            let path = entry.path();
            let name = file_name(&path)?;
            if name.starts_with(['.', '_']) {
                continue;
            }
            let kind = entry.file_type().map_err(io_error("read", &path))?;
            if kind.is_dir() {
                open.push(format!("{prefix}{name}/"));
                continue;
            }
            let wanted = suffixes.is_none_or(|suffixes| suffixes.iter().any(|suffix| name.ends_with(suffix.as_str())));
            // Sockets, pipes and devices are no files to read to an end.
            if wanted && std::fs::metadata(&path).map_err(io_error("read", &path))?.is_file() {
                files.push(format!("{prefix}{name}"));
            }
        }
    }
    files.sort_unstable();
    Ok(files)
}

/// Returns the last part of a path as text: split names are durable and printed, so they must be text.
pub(super) fn file_name(path: &Path) -> Result<String, LinesError> {
    match path.file_name().map(|name| name.to_str()) {
        Some(Some(name)) => Ok(name.to_owned()),
        _ => Err(LinesError::NoName { path: path.to_owned() }),
    }
}
