//! Plain arrays, and reading and writing them as numpy's `.npy`.
//!
//! Calibration data and dumped activations travel in numpy's formats because every training toolchain
//! speaks them. The header is parsed in `npy/header.rs`: it is one line with three known keys, and the sizes it claims
//! must be checked against the bytes that are really there before anything is allocated.

use std::io::{self, Write};
use std::path::Path;

use crate::files::{WriteError, write_atomically};

mod header;

pub(crate) use header::NpyHeader;

/// A dense array in row-major (C) order.
#[derive(Debug, Clone, PartialEq)]
pub struct Array {
    /// Dimensions, outermost first; empty for a scalar.
    pub shape: Vec<usize>,
    /// The elements, as many as the product of `shape`.
    pub data: ArrayData,
}

/// The elements of an [`Array`].
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "the variants say their type")]
pub enum ArrayData {
    F32(Vec<f32>),
    U8(Vec<u8>),
    I8(Vec<i8>),
    I32(Vec<i32>),
    I64(Vec<i64>),
    Bool(Vec<bool>),
}

/// Runs `$body` with `$v` bound to the vector of any variant.
macro_rules! with_data {
    ($data:expr, $v:ident => $body:expr) => {
        match $data {
            ArrayData::F32($v) => $body,
            ArrayData::U8($v) => $body,
            ArrayData::I8($v) => $body,
            ArrayData::I32($v) => $body,
            ArrayData::I64($v) => $body,
            ArrayData::Bool($v) => $body,
        }
    };
}

/// What is wrong with an array file.
#[derive(Debug, thiserror::Error)]
pub enum NpyError {
    /// The file could not be read.
    #[error("{file}: {source}")]
    Io {
        /// The file (for an `.npz`, with the array's name).
        file: String,
        /// What the system said.
        source: io::Error,
    },
    /// The content is not a usable array.
    #[error("{file}: {why}")]
    Bad {
        /// The file (for an `.npz`, with the array's name).
        file: String,
        /// What was wrong and what to do.
        why: String,
    },
    /// The file could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

impl NpyError {
    pub(crate) fn bad(file: &str, why: impl Into<String>) -> Self {
        Self::Bad { file: file.to_owned(), why: why.into() }
    }
}

impl ArrayData {
    /// The number of elements.
    pub fn len(&self) -> usize {
        with_data!(self, v => v.len())
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// numpy's name of the element type, such as `float32`.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::F32(_) => "float32",
            Self::U8(_) => "uint8",
            Self::I8(_) => "int8",
            Self::I32(_) => "int32",
            Self::I64(_) => "int64",
            Self::Bool(_) => "bool",
        }
    }

    /// A copy of the elements `range`.
    ///
    /// # Panics
    /// If the range is out of bounds.
    pub fn slice(&self, range: std::ops::Range<usize>) -> Self {
        match self {
            Self::F32(v) => Self::F32(v[range].to_vec()),
            Self::U8(v) => Self::U8(v[range].to_vec()),
            Self::I8(v) => Self::I8(v[range].to_vec()),
            Self::I32(v) => Self::I32(v[range].to_vec()),
            Self::I64(v) => Self::I64(v[range].to_vec()),
            Self::Bool(v) => Self::Bool(v[range].to_vec()),
        }
    }

    fn descr(&self) -> &'static str {
        match self {
            Self::F32(_) => "<f4",
            Self::U8(_) => "|u1",
            Self::I8(_) => "|i1",
            Self::I32(_) => "<i4",
            Self::I64(_) => "<i8",
            Self::Bool(_) => "|b1",
        }
    }
}

impl Array {
    /// An array of `shape` holding `data`.
    ///
    /// # Panics
    /// If the number of elements is not the product of `shape`.
    pub fn new(shape: Vec<usize>, data: ArrayData) -> Self {
        assert_eq!(
            shape.iter().product::<usize>(),
            data.len(),
            "elements of an array of {shape:?}"
        );
        Self { shape, data }
    }

    /// Reads an `.npy` file. Types: float16, float32 and float64 (all become float32), uint8, int8, int32,
    /// int64 and bool, in either byte order, C or Fortran order (becomes C).
    ///
    /// # Errors
    /// [`NpyError`] for a missing, truncated or corrupt file and for other types.
    pub fn read_npy(path: &Path) -> Result<Self, NpyError> {
        let file = path.display().to_string();
        let bytes =
            std::fs::read(path).map_err(|source| NpyError::Io { file: file.clone(), source })?;
        Self::from_npy_bytes(&bytes, &file)
    }

    /// As [`Array::read_npy`], from the whole content of a file; `file` names it in errors.
    ///
    /// # Errors
    /// [`NpyError::Bad`].
    pub fn from_npy_bytes(bytes: &[u8], file: &str) -> Result<Self, NpyError> {
        let header = NpyHeader::parse(bytes).map_err(|why| NpyError::bad(file, why))?;
        let data = &bytes[header.data_start..];
        let expected = header.data_bytes;
        if data.len() < expected {
            let why = format!(
                "truncated: {} bytes of data, {expected} announced by the header",
                data.len()
            );
            return Err(NpyError::bad(file, why));
        }
        let data = header.kind.decode(&data[..expected], header.big_endian);
        let data = match header.fortran {
            true => with_data!(data, v => c_order(&v, &header.shape).into()),
            false => data,
        };
        Ok(Self { shape: header.shape, data })
    }

    /// Writes an `.npy` file (format 1.0, little-endian, C order), whole or not at all.
    ///
    /// # Errors
    /// [`NpyError::Write`].
    pub fn write_npy(&self, path: &Path) -> Result<(), NpyError> {
        Ok(write_atomically(path, |w| self.to_npy(w))?)
    }

    /// Writes the `.npy` form to `w`.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn to_npy(&self, w: &mut impl Write) -> io::Result<()> {
        let dims: String = self.shape.iter().map(|d| format!("{d}, ")).collect();
        let dims =
            if self.shape.len() == 1 { dims.trim_end() } else { dims.trim_end_matches(", ") };
        let descr = self.data.descr();
        let mut text =
            format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({dims}), }}");
        // numpy aligns the data to 64 bytes; magic, version and length take 10, the newline 1.
        let padding = (64 - (text.len() + 11) % 64) % 64;
        text.extend(std::iter::repeat_n(' ', padding));
        text.push('\n');
        let length = u16::try_from(text.len())
            .map_err(|_| io::Error::other("an array with that many dimensions has no .npy form"))?;
        w.write_all(b"\x93NUMPY\x01\x00")?;
        w.write_all(&length.to_le_bytes())?;
        w.write_all(text.as_bytes())?;
        match &self.data {
            ArrayData::U8(v) => w.write_all(v),
            ArrayData::I8(v) => w.write_all(bytemuck::cast_slice(v)),
            ArrayData::Bool(v) => w.write_all(&v.iter().map(|&b| u8::from(b)).collect::<Vec<_>>()),
            ArrayData::F32(v) => write_all(w, v, f32::to_le_bytes),
            ArrayData::I32(v) => write_all(w, v, i32::to_le_bytes),
            ArrayData::I64(v) => write_all(w, v, i64::to_le_bytes),
        }
    }
}

macro_rules! from_vec {
    ($($t:ty => $variant:ident),*) => {
        $(impl From<Vec<$t>> for ArrayData {
            fn from(v: Vec<$t>) -> Self {
                Self::$variant(v)
            }
        })*
    };
}
from_vec!(f32 => F32, u8 => U8, i8 => I8, i32 => I32, i64 => I64, bool => Bool);

fn write_all<T: Copy, const N: usize>(
    w: &mut impl Write,
    values: &[T],
    bytes: fn(T) -> [u8; N],
) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(N * values.len().min(4096));
    for chunk in values.chunks(4096) {
        buffer.clear();
        chunk.iter().for_each(|&v| buffer.extend_from_slice(&bytes(v)));
        w.write_all(&buffer)?;
    }
    Ok(())
}

/// Fortran order (first axis fastest) to C order.
fn c_order<T: Copy>(values: &[T], shape: &[usize]) -> Vec<T> {
    let mut out = Vec::with_capacity(values.len());
    let mut index = vec![0usize; shape.len()];
    for _ in 0..values.len() {
        let at = shape.iter().zip(&index).rev().fold(0, |at, (&dim, &i)| at * dim + i);
        out.push(values[at]);
        for (i, &dim) in index.iter_mut().zip(shape).rev() {
            *i += 1;
            if *i < dim {
                break;
            }
            *i = 0;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An `.npy` file as numpy writes it.
    fn npy(dict: &str, data: &[u8]) -> Vec<u8> {
        let mut file = b"\x93NUMPY\x01\x00".to_vec();
        file.extend((dict.len() as u16 + 1).to_le_bytes());
        file.extend(dict.as_bytes());
        file.push(b'\n');
        file.extend(data);
        file
    }

    fn dict(descr: &str, fortran: &str, shape: &str) -> String {
        format!("{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': {shape}, }}")
    }

    #[test]
    fn reads_types_and_orders() {
        let cases: [(&str, &str, &str, &[u8], Array); 9] = [
            (
                "<f4",
                "False",
                "(2,)",
                &[0, 0, 128, 63, 0, 0, 0, 192],
                Array::new(vec![2], vec![1f32, -2.0].into()),
            ),
            (
                ">f4",
                "False",
                "(1, 1)",
                &[0x3f, 0x80, 0, 0],
                Array::new(vec![1, 1], vec![1f32].into()),
            ),
            (
                ">f8",
                "False",
                "()",
                &[0x3f, 0xf8, 0, 0, 0, 0, 0, 0],
                Array::new(vec![], vec![1.5f32].into()),
            ),
            // Halves: 1, -2, the largest, the smallest, minus zero, infinity.
            (
                "<f2",
                "False",
                "(6,)",
                &[0, 0x3c, 0, 0xc0, 0xff, 0x7b, 1, 0, 0, 0x80, 0, 0x7c],
                Array::new(
                    vec![6],
                    vec![1f32, -2.0, 65504.0, 2f32.powi(-24), -0.0, f32::INFINITY].into(),
                ),
            ),
            (
                "|u1",
                "True",
                "(2, 3)",
                &[1, 2, 3, 4, 5, 6],
                Array::new(vec![2, 3], vec![1u8, 3, 5, 2, 4, 6].into()),
            ),
            ("|i1", "False", "(2, 0)", &[], Array::new(vec![2, 0], Vec::<i8>::new().into())),
            (
                "<i4",
                "False",
                "(1,)",
                &[255, 255, 255, 255],
                Array::new(vec![1], vec![-1i32].into()),
            ),
            (
                ">i8",
                "False",
                "(1,)",
                &[0, 0, 0, 0, 0, 0, 1, 0],
                Array::new(vec![1], vec![256i64].into()),
            ),
            ("|b1", "False", "(2,)", &[0, 1], Array::new(vec![2], vec![false, true].into())),
        ];
        for (descr, fortran, shape, data, expected) in cases {
            let read =
                Array::from_npy_bytes(&npy(&dict(descr, fortran, shape), data), "a").unwrap();
            assert_eq!(read, expected, "{descr} {fortran} {shape}");
        }
    }

    #[test]
    fn bad_files_are_errors() {
        let whole = npy(&dict("<f4", "False", "(2,)"), &[0; 8]);
        for cut in 0..whole.len() {
            let error = Array::from_npy_bytes(&whole[..cut], "a.npy").unwrap_err().to_string();
            assert!(error.contains("a.npy"), "{cut}: {error}");
        }
        let huge = "(4611686018427387904, 4611686018427387904)";
        for (dict, part) in [
            (dict("<f4", "False", "(1000000000,)"), "truncated"),
            (dict("<f4", "False", huge), "fits no memory"),
            (dict("<f4", "False", "(-2,)"), "dimension"),
            (dict("<f4", "False", "2"), "tuple"),
            (dict("<f4", "Maybe", "(2,)"), "fortran_order"),
            (dict("<c8", "False", "(2,)"), "<c8"),
            (dict("|O", "False", "(2,)"), "|O"),
            (
                "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2,), }".into(),
                "structured",
            ),
            ("{}".into(), "descr"),
            ("(".repeat(3000), "descr"),
        ] {
            let error = Array::from_npy_bytes(&npy(&dict, &[0; 8]), "a").unwrap_err().to_string();
            assert!(error.contains(part), "{dict}: {error}");
        }
        // A version-2 header that claims four gigabytes.
        let error = Array::from_npy_bytes(b"\x93NUMPY\x02\x00\xff\xff\xff\xff{}", "a")
            .unwrap_err()
            .to_string();
        assert!(error.contains("4294967295"), "{error}");
    }

    #[test]
    fn written_files_are_numpys() {
        // numpy.save(f, numpy.array([[1, -2]], "<i4")), byte for byte.
        let mut expected = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
        expected.extend(b"{'descr': '<i4', 'fortran_order': False, 'shape': (1, 2), }");
        expected.resize(127, b' ');
        expected.extend(b"\n\x01\0\0\0\xfe\xff\xff\xff");
        let mut written = Vec::new();
        Array::new(vec![1, 2], vec![1i32, -2].into()).to_npy(&mut written).unwrap();
        assert_eq!(written, expected);
    }

    #[test]
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.npy");
        for array in [
            Array::new(vec![], vec![1.5f32].into()),
            Array::new(vec![3], vec![1u8, 2, 255].into()),
            Array::new(vec![1, 2], vec![-1i8, 3].into()),
            Array::new(vec![2, 1, 1], vec![i32::MIN, i32::MAX].into()),
            Array::new(vec![1], vec![i64::MIN].into()),
            Array::new(vec![2], vec![true, false].into()),
            Array::new(vec![5000], (0..5000).map(|i| i as f32).collect::<Vec<_>>().into()),
        ] {
            array.write_npy(&path).unwrap();
            assert_eq!(Array::read_npy(&path).unwrap(), array);
        }
    }
}
