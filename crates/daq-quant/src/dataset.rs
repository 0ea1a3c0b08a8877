//! The samples that a model is calibrated and compared with: pictures, or arrays in numpy's files.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use walkdir::WalkDir;

use crate::npy::{Array, NpyError, NpyHeader};
use crate::npz::{npz_shapes, read_npz};
use crate::preprocess::{ImageTarget, PictureError, Preprocess};

/// One input of the model, as the dataset has to fill it.
#[derive(Debug, Clone, PartialEq)]
pub struct InputSpec {
    /// The input's name.
    pub name: String,
    /// Its shape; `None` where a dimension is open.
    pub shape: Vec<Option<usize>>,
}

/// What a dataset is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DatasetKind {
    /// JPEG and PNG files, which [`Preprocess`] makes into tensors.
    Pictures,
    /// `.npy` and `.npz` files, used as they are.
    Arrays,
}

/// Why a dataset or one of its samples cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DatasetError {
    /// The path does not exist or cannot be read.
    #[error("cannot read the data {}: {why}", .path.display())]
    Unreadable {
        /// The path.
        path: PathBuf,
        /// What the system said.
        why: String,
    },
    /// The folder or file holds no samples.
    #[error("no samples in {}: {why}", .path.display())]
    Empty {
        /// The path.
        path: PathBuf,
        /// What was looked for.
        why: String,
    },
    /// The data cannot feed the model.
    #[error("{}: {why}", .path.display())]
    Unfit {
        /// The file or folder.
        path: PathBuf,
        /// Why, and what is expected.
        why: String,
    },
    /// A file of arrays is damaged.
    #[error(transparent)]
    Arrays(#[from] NpyError),
    /// A picture is damaged, or the settings do not fit the model.
    #[error(transparent)]
    Picture(#[from] PictureError),
}

/// One file, and which of its samples; pictures have one.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Item {
    file: usize,
    part: usize,
}

/// Samples of one kind for one model, in a fixed order.
///
/// [`Dataset::load`] takes `&self`, so samples can be read from several threads.
#[derive(Debug)]
pub struct Dataset {
    kind: DatasetKind,
    root: PathBuf,
    files: Vec<PathBuf>,
    items: Vec<Item>,
    inputs: Vec<InputSpec>,
    /// The arrays of the file read last: items are sorted, so a file is read once.
    recent: Mutex<Option<(usize, FileArrays)>>,
}

/// The named arrays of one file.
type FileArrays = Arc<Vec<(String, Array)>>;

const PICTURES: [&str; 3] = ["jpg", "jpeg", "png"];
const ARRAYS: [&str; 2] = ["npy", "npz"];

/// The files of one kind in a folder, searched as by [`Dataset::open`], in order; or a single one.
///
/// # Errors
/// [`DatasetError::Unreadable`], and [`DatasetError::Empty`] where there are none.
pub fn files(path: &Path) -> Result<(DatasetKind, Vec<PathBuf>), DatasetError> {
    let unreadable = |why: String| DatasetError::Unreadable { path: path.to_owned(), why };
    let about = std::fs::metadata(path).map_err(|e| unreadable(e.to_string()))?;
    let (mut pictures, mut arrays) = (Vec::new(), Vec::new());
    if about.is_dir() {
        for entry in WalkDir::new(path).follow_links(true) {
            let entry = entry.map_err(|e| unreadable(e.to_string()))?;
            match kind_of(entry.path()) {
                Some(kind) if entry.file_type().is_file() => match kind {
                    DatasetKind::Pictures => pictures.push(entry.into_path()),
                    DatasetKind::Arrays => arrays.push(entry.into_path()),
                },
                _ => {}
            }
        }
    } else {
        match kind_of(path) {
            Some(DatasetKind::Pictures) => pictures.push(path.to_owned()),
            Some(DatasetKind::Arrays) => arrays.push(path.to_owned()),
            None => {}
        }
    }
    let (kind, mut files) = match (pictures.is_empty(), arrays.is_empty()) {
        (false, _) => (DatasetKind::Pictures, pictures),
        (true, false) => (DatasetKind::Arrays, arrays),
        (true, true) => {
            let why = "looked for .jpg, .jpeg and .png pictures (in any letter case), .npy and .npz, subfolders \
                       included";
            return Err(DatasetError::Empty { path: path.to_owned(), why: why.into() });
        }
    };
    files.sort();
    Ok((kind, files))
}

impl Dataset {
    /// Opens a folder, searched with its subfolders for `.jpg`, `.jpeg` and `.png` in any letter case or,
    /// if there are none, for `.npy` and `.npz`; or a single such file. The order is that of the paths.
    ///
    /// Pictures serve a model with one input. An `.npy` does too, an `.npz` holds one array per input,
    /// under its name. An array is one sample if it has the input's shape (its first dimension, the
    /// batch, may be left out), else as many as its leading axis holds: `[500, 3, 224, 224]` for an input
    /// `[1, 3, 224, 224]` are 500. All arrays of an `.npz` must have equally many.
    ///
    /// # Errors
    /// [`DatasetError`]; arrays are checked here by their headers, pictures only when loaded.
    pub fn open(path: &Path, inputs: &[InputSpec]) -> Result<Self, DatasetError> {
        let (kind, files) = files(path)?;
        let folder = path.is_dir();
        let root = if folder { path } else { path.parent().unwrap_or(Path::new("")) }.to_owned();
        let mut set = Self {
            kind,
            root,
            files,
            items: Vec::new(),
            inputs: inputs.to_vec(),
            recent: Mutex::new(None),
        };
        if kind == DatasetKind::Pictures && inputs.len() != 1 {
            let names: Vec<_> = inputs.iter().map(|i| i.name.as_str()).collect();
            let why = format!(
                "pictures serve a model with one input, this one has {} ({}); give .npz files with an array for each",
                inputs.len(),
                names.join(", ")
            );
            return Err(DatasetError::Unfit { path: path.to_owned(), why });
        }
        for file in 0..set.files.len() {
            let parts = if kind == DatasetKind::Pictures { 1 } else { set.count_parts(file)? };
            set.items.extend((0..parts).map(|part| Item { file, part }));
        }
        if set.items.is_empty() {
            let why = "the arrays' leading axes are 0 long".into();
            return Err(DatasetError::Empty { path: path.to_owned(), why });
        }
        Ok(set)
    }

    /// The number of samples.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there are no samples; [`Dataset::open`] does not return such a set.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// What the samples are made of.
    pub fn kind(&self) -> DatasetKind {
        self.kind
    }

    /// Keeps `count` samples, chosen by `seed` alone: the same on every machine and in every version. Their
    /// order stays that of the paths. Returns how many are kept: all, with a line in the log, if there are
    /// no more than `count`.
    pub fn choose(&mut self, count: usize, seed: u64) -> usize {
        let available = self.items.len();
        if count >= available {
            if count > available {
                log::warn!(
                    "{count} samples wanted, {available} available in {}: all used",
                    self.root.display()
                );
            }
            return available;
        }
        let mut kept = choose_indices(available, count, seed);
        kept.sort_unstable();
        self.items = kept.into_iter().map(|i| self.items[i].clone()).collect();
        count
    }

    /// The name of sample `i`: its path relative to the folder that was opened, with `/` between folders;
    /// for arrays with the number of the sample in the file.
    ///
    /// # Panics
    /// If `i` is not below [`Dataset::len`], as all functions with an `i`.
    pub fn name(&self, i: usize) -> String {
        let path = self.path(i);
        let relative = path.strip_prefix(&self.root).unwrap_or(path);
        let parts: Vec<_> = relative.iter().map(|p| p.to_string_lossy()).collect();
        match self.kind {
            DatasetKind::Pictures => parts.join("/"),
            DatasetKind::Arrays => format!("{}[{}]", parts.join("/"), self.items[i].part),
        }
    }

    /// The file of sample `i`.
    pub fn path(&self, i: usize) -> &Path {
        &self.files[self.items[i].file]
    }

    /// The tensor that pictures are made into, or `None` for arrays. Worth calling before the first sample:
    /// it says whether the settings fit the model.
    ///
    /// # Errors
    /// [`DatasetError::Picture`].
    pub fn target(&self, settings: &Preprocess) -> Result<Option<ImageTarget>, DatasetError> {
        match self.kind {
            DatasetKind::Pictures => Ok(Some(settings.target(&self.inputs[0].shape)?)),
            DatasetKind::Arrays => Ok(None),
        }
    }

    /// Sample `i`: a named array for each input, in the inputs' order. Pictures become float32 arrays;
    /// others keep the type that the file has.
    ///
    /// # Errors
    /// [`DatasetError`] about this sample; the caller may count it and go on with the next.
    pub fn load(
        &self,
        i: usize,
        settings: &Preprocess,
    ) -> Result<Vec<(String, Array)>, DatasetError> {
        let item = &self.items[i];
        if let Some(target) = self.target(settings)? {
            let data = settings.load(&self.files[item.file], &target)?;
            return Ok(vec![(
                self.inputs[0].name.clone(),
                Array::new(target.shape(), data.into()),
            )]);
        }
        let arrays = self.arrays(item.file)?;
        let mut sample = Vec::with_capacity(self.inputs.len());
        for input in &self.inputs {
            let (_, array) = self.find(&arrays, input, item.file)?;
            let parts = self.split(&array.shape, input, item.file)?;
            if item.part >= parts.count {
                return Err(self.unfit(item.file, "it has changed since it was opened".into()));
            }
            let size = parts.shape.iter().product::<usize>();
            let data = array.data.slice(item.part * size..(item.part + 1) * size);
            sample.push((input.name.clone(), Array::new(parts.shape, data)));
        }
        Ok(sample)
    }

    /// All samples in order, with their names.
    pub fn iter<'a>(
        &'a self,
        settings: &'a Preprocess,
    ) -> impl Iterator<Item = (String, Result<Vec<(String, Array)>, DatasetError>)> + 'a {
        (0..self.len()).map(|i| (self.name(i), self.load(i, settings)))
    }

    fn unfit(&self, file: usize, why: String) -> DatasetError {
        DatasetError::Unfit { path: self.files[file].clone(), why }
    }

    /// The number of samples in a file of arrays, from its headers.
    fn count_parts(&self, file: usize) -> Result<usize, DatasetError> {
        let path = &self.files[file];
        let shapes = if has_extension(path, "npz") {
            npz_shapes(path)?
        } else {
            vec![(String::new(), NpyHeader::of_file(path)?.shape)]
        };
        let mut counts = Vec::new();
        for input in &self.inputs {
            let (_, shape) = self.find(&shapes, input, file)?;
            counts.push(self.split(shape, input, file)?.count);
        }
        match counts.windows(2).position(|pair| pair[0] != pair[1]) {
            None => Ok(counts.first().copied().unwrap_or(0)),
            Some(at) => {
                let (a, b) = (&self.inputs[at].name, &self.inputs[at + 1].name);
                let (n, m) = (counts[at], counts[at + 1]);
                Err(self.unfit(
                    file,
                    format!("`{a}` has {n} samples but `{b}` has {m}; they must be equally many"),
                ))
            }
        }
    }

    /// The array of `input`; an `.npy` has one without a name.
    fn find<'a, T>(
        &self,
        arrays: &'a [(String, T)],
        input: &InputSpec,
        file: usize,
    ) -> Result<&'a (String, T), DatasetError> {
        if !has_extension(&self.files[file], "npz") {
            if self.inputs.len() == 1 {
                return Ok(&arrays[0]);
            }
            let why = format!(
                "an .npy serves one input, the model has {}; give an .npz",
                self.inputs.len()
            );
            return Err(self.unfit(file, why));
        }
        arrays.iter().find(|(name, _)| *name == input.name).ok_or_else(|| {
            let names: Vec<_> = arrays.iter().map(|(name, _)| name.as_str()).collect();
            self.unfit(
                file,
                format!("no array for the input `{}`; it holds: {}", input.name, names.join(", ")),
            )
        })
    }

    fn split(
        &self,
        shape: &[usize],
        input: &InputSpec,
        file: usize,
    ) -> Result<Parts, DatasetError> {
        Parts::new(shape, &input.shape).ok_or_else(|| {
            let dims: Vec<_> = input.shape.iter().map(|d| d.map_or("?".into(), |d| d.to_string())).collect();
            let why = format!(
                "an array of shape {shape:?} does not fit the input `{}` of shape [{}], nor a number of them",
                input.name,
                dims.join(", ")
            );
            self.unfit(file, why)
        })
    }

    fn arrays(&self, file: usize) -> Result<FileArrays, DatasetError> {
        // A panic of another thread cannot leave a half-written entry: it is replaced as a whole.
        let mut recent = self.recent.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some((held, arrays)) = recent.as_ref()
            && *held == file
        {
            return Ok(Arc::clone(arrays));
        }
        let path = &self.files[file];
        let arrays = Arc::new(match has_extension(path, "npz") {
            true => read_npz(path)?,
            false => vec![(String::new(), Array::read_npy(path)?)],
        });
        *recent = Some((file, Arc::clone(&arrays)));
        Ok(arrays)
    }
}

/// How an array divides into samples.
#[derive(Debug, PartialEq)]
struct Parts {
    count: usize,
    shape: Vec<usize>,
}

impl Parts {
    fn new(array: &[usize], input: &[Option<usize>]) -> Option<Self> {
        let fits = |dims: &[usize], input: &[Option<usize>]| {
            dims.len() == input.len()
                && dims.iter().zip(input).all(|(&d, i)| i.is_none_or(|i| i == d))
        };
        let batch = input.first().copied().flatten();
        // One sample without its batch axis.
        if !input.is_empty() && batch.is_none_or(|b| b == 1) && fits(array, &input[1..]) {
            return Some(Self { count: 1, shape: [&[1], array].concat() });
        }
        let (&leading, rest) = match array.split_first() {
            Some(split) => split,
            None => return input.is_empty().then_some(Self { count: 1, shape: Vec::new() }),
        };
        // The batch axis holds the samples; an open batch is run one by one.
        if !input.is_empty() && fits(rest, &input[1..]) {
            let batch = batch.unwrap_or(1).max(1);
            let shape = [&[batch], rest].concat();
            return leading.is_multiple_of(batch).then_some(Self { count: leading / batch, shape });
        }
        // An axis of samples before the whole shape.
        fits(rest, input).then(|| Self { count: leading, shape: rest.to_vec() })
    }
}

fn has_extension(path: &Path, wanted: &str) -> bool {
    path.extension().is_some_and(|e| e.eq_ignore_ascii_case(wanted))
}

/// Whether a file of this name would be read as a picture or array.
pub(crate) fn is_sample(path: &Path) -> bool {
    kind_of(path).is_some()
}

fn kind_of(path: &Path) -> Option<DatasetKind> {
    if PICTURES.iter().any(|e| has_extension(path, e)) {
        Some(DatasetKind::Pictures)
    } else if ARRAYS.iter().any(|e| has_extension(path, e)) {
        Some(DatasetKind::Arrays)
    } else {
        None
    }
}

/// `count` of the numbers below `total`, by a partial Fisher-Yates shuffle. Written out rather than taken
/// from a crate because it must never change: published accuracies name the samples by their seed.
fn choose_indices(total: usize, count: usize, seed: u64) -> Vec<usize> {
    let mut state = seed;
    // SplitMix64.
    let mut random = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    let mut indices: Vec<usize> = (0..total).collect();
    for i in 0..count.min(total) {
        let below = (total - i) as u128;
        indices.swap(i, i + ((u128::from(random()) * below) >> 64) as usize);
    }
    indices.truncate(count);
    indices
}

#[cfg(test)]
mod tests;
