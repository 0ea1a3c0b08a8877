//! Which class each picture shows, and what the classes are called.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::dataset;

/// Why a labels or class-name file was refused.
#[derive(Debug, thiserror::Error)]
pub enum LabelsError {
    /// The file could not be read.
    #[error("cannot read {}: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A line is not understood.
    #[error("{}, line {line}: {why}", .path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What was wrong and what is expected.
        why: String,
    },
    /// There is nothing in it.
    #[error("{}: no labels in it; expected lines such as `{example}`", .path.display())]
    Empty {
        /// The file.
        path: PathBuf,
        /// A line as it should be.
        example: &'static str,
    },
}

/// The classes of pictures, from a `labels.txt`: one line `FILE CLASS` each, where FILE is relative to the
/// folder of the labels, CLASS is a number from 0, and the rest of the line is ignored. Empty lines
/// and lines that begin with `#` are skipped. A FILE may hold spaces where it ends in the extension of a picture or
/// array, as in `my cat.jpg 7`, or is put in quotes, as in `"my cat" 7`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Labels {
    classes: HashMap<String, usize>,
}

impl Labels {
    /// Reads the file.
    ///
    /// # Errors
    /// [`LabelsError`] with the line's number.
    pub fn read(path: &Path) -> Result<Self, LabelsError> {
        let mut classes = HashMap::new();
        for (line, text) in lines(path)? {
            let fail = |why: String| LabelsError::Line { path: path.to_owned(), line, why };
            let text = text.trim();
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            let (file, class) = file_and_class(text).ok_or_else(|| {
                fail(format!("expected FILE CLASS with a class number from 0, found `{text}`"))
            })?;
            let file = file.strip_prefix("./").unwrap_or(file);
            if classes.insert(file.to_owned(), class).is_some_and(|old| old != class) {
                return Err(fail(format!("{file} is listed a second time, with another class")));
            }
        }
        match classes.is_empty() {
            true => Err(LabelsError::Empty { path: path.to_owned(), example: "picture.jpg 7" }),
            false => Ok(Self { classes }),
        }
    }

    /// The class of a picture, by its path relative to the folder of the labels, with `/` between folders.
    pub fn class(&self, file: &str) -> Option<usize> {
        self.classes.get(file).copied()
    }

    /// The number of pictures listed.
    pub fn len(&self) -> usize {
        self.classes.len()
    }

    /// Whether no picture is listed.
    pub fn is_empty(&self) -> bool {
        self.classes.is_empty()
    }

    /// The highest class, for comparing with the number of a model's outputs.
    pub fn highest_class(&self) -> Option<usize> {
        self.classes.values().copied().max()
    }
}

/// The file that a line names and its class. The file ends at the first white space with a class behind it: that
/// of a word with a known extension where there is one, else that of the first word.
fn file_and_class(line: &str) -> Option<(&str, usize)> {
    let class = |rest: &str| rest.split_whitespace().next()?.parse().ok();
    if let Some(quoted) = line.strip_prefix('"') {
        let (file, rest) = quoted.split_once('"')?;
        return Some((file, class(rest)?));
    }
    let ends = line.match_indices(char::is_whitespace).map(|(end, _)| line.split_at(end));
    let known = |(file, _): &(&str, &str)| dataset::is_sample(Path::new(file));
    let first = ends.clone().next();
    let with_class = |(file, rest): (&'_ str, _)| Some((file.len(), class(rest)?));
    let found = ends.filter(known).find_map(with_class).or_else(|| first.and_then(with_class));
    found.map(|(end, class)| (&line[..end], class))
}

/// What the classes are called, in order.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ClassNames(Vec<String>);

impl ClassNames {
    /// Reads one name per line. If every line begins with a WordNet id, as in `n01440764 tench`, the ids are
    /// left out.
    ///
    /// # Errors
    /// [`LabelsError`]; an empty line between names is one, since it would shift all later names.
    pub fn read(path: &Path) -> Result<Self, LabelsError> {
        let mut names: Vec<String> = Vec::new();
        for (line, text) in lines(path)? {
            let text = text.trim();
            if text.is_empty() {
                continue;
            }
            if line != names.len() + 1 {
                let why = "names must follow each other without empty lines".into();
                return Err(LabelsError::Line { path: path.to_owned(), line: line - 1, why });
            }
            names.push(text.to_owned());
        }
        if names.is_empty() {
            return Err(LabelsError::Empty { path: path.to_owned(), example: "tench" });
        }
        let stripped: Option<Vec<&str>> = names.iter().map(|name| without_synset(name)).collect();
        if let Some(stripped) = stripped {
            names = stripped.into_iter().map(str::to_owned).collect();
        }
        Ok(Self(names))
    }

    /// The name of `class`, if there is one.
    pub fn get(&self, class: usize) -> Option<&str> {
        self.0.get(class).map(String::as_str)
    }

    /// All names; the position is the class.
    pub fn names(&self) -> &[String] {
        &self.0
    }
}

fn without_synset(line: &str) -> Option<&str> {
    let (id, name) = line.split_once(char::is_whitespace)?;
    let digits = id.strip_prefix('n')?;
    (digits.len() == 8 && digits.bytes().all(|b| b.is_ascii_digit())).then(|| name.trim_start())
}

/// The lines of a text file with their numbers from 1; bytes that are not UTF-8 are replaced.
fn lines(path: &Path) -> Result<Vec<(usize, String)>, LabelsError> {
    let bytes = std::fs::read(path)
        .map_err(|source| LabelsError::Read { path: path.to_owned(), source })?;
    let text = String::from_utf8_lossy(&bytes);
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    Ok(text.lines().enumerate().map(|(i, line)| (i + 1, line.to_owned())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("labels.txt");
        std::fs::write(&path, text).unwrap();
        (dir, path)
    }

    #[test]
    fn labels_are_read() {
        let (_dir, path) =
            file("\u{feff}a.jpg 0\r\n\n# by hand\nsub/b.png\t12 grocery store 3\n./c.jpg 1\n");
        let labels = Labels::read(&path).unwrap();
        assert_eq!(labels.len(), 3);
        for (name, class) in
            [("a.jpg", Some(0)), ("sub/b.png", Some(12)), ("c.jpg", Some(1)), ("d", None)]
        {
            assert_eq!(labels.class(name), class, "{name}");
        }
        assert_eq!(labels.highest_class(), Some(12));
    }

    #[test]
    fn file_names_may_hold_spaces() {
        let (_dir, path) = file(
            "my cat.jpg 7 a cat\nIMG 2 copy.JPEG\t3 b.jpg 4\n\"no extension 5\" 6 x\n./a b/c d.png 1\nbare 2 3\n\
             x.npy[3] 4\na.jpg b.jpg 9\n",
        );
        let labels = Labels::read(&path).unwrap();
        for (name, class) in [
            ("my cat.jpg", Some(7)),
            ("IMG 2 copy.JPEG", Some(3)),
            ("no extension 5", Some(6)),
            ("a b/c d.png", Some(1)),
            ("bare", Some(2)),
            ("x.npy[3]", Some(4)),
            ("a.jpg b.jpg", Some(9)),
            ("IMG", None),
        ] {
            assert_eq!(labels.class(name), class, "{name}");
        }
    }

    #[test]
    fn wrong_labels_name_the_line() {
        for (text, part) in [
            ("a.jpg 0\nb.jpg\n", "line 2: expected FILE CLASS"),
            ("a.jpg tench\n", "line 1"),
            ("a.jpg -1", "line 1"),
            ("my cat.jpg", "line 1"),
            ("\"my cat.jpg\"", "line 1"),
            ("\"my cat.jpg 1", "line 1"),
            ("a.jpg 1\nb.jpg 2\na.jpg 2", "line 3: a.jpg is listed a second time"),
            ("\n", "no labels"),
        ] {
            let (_dir, path) = file(text);
            let error = Labels::read(&path).unwrap_err().to_string();
            assert!(error.contains(part) && error.contains("labels.txt"), "{text:?}: {error}");
        }
        let missing = Labels::read(Path::new("no/such.txt")).unwrap_err().to_string();
        assert!(missing.contains("such.txt"), "{missing}");
    }

    #[test]
    fn class_names_are_read() {
        for (text, names) in [
            ("cat\nhot dog\n\n", ["cat", "hot dog"]),
            ("n01440764 tench\nn01443537 gold fish", ["tench", "gold fish"]),
            ("n01440764 tench\nn2 goldfish", ["n01440764 tench", "n2 goldfish"]),
        ] {
            let (_dir, path) = file(text);
            let read = ClassNames::read(&path).unwrap();
            assert_eq!(read.names(), names);
            assert_eq!((read.get(1), read.get(2)), (Some(names[1]), None));
        }
        for (text, part) in [("a\n\nb", "line 2"), ("", "no labels")] {
            let (_dir, path) = file(text);
            let error = ClassNames::read(&path).unwrap_err().to_string();
            assert!(error.contains(part), "{text:?}: {error}");
        }
    }
}
