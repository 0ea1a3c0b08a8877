//! Plain arrays, and reading and writing them as numpy's `.npy`.
//!
//! Calibration data and dumped activations travel in numpy's formats because every training toolchain
//! speaks them. The header is parsed here: it is one line with three known keys, and the sizes it claims
//! must be checked against the bytes that are really there before anything is allocated.

use std::io::{self, Read, Write};
use std::path::Path;

use crate::files::{WriteError, write_atomically};

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

/// The element types that files may have.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    F16,
    F32,
    F64,
    U8,
    I8,
    I32,
    I64,
    Bool,
}

impl Kind {
    fn bytes(self) -> usize {
        match self {
            Self::U8 | Self::I8 | Self::Bool => 1,
            Self::F16 => 2,
            Self::F32 | Self::I32 => 4,
            Self::F64 | Self::I64 => 8,
        }
    }

    fn decode(self, bytes: &[u8], big: bool) -> ArrayData {
        fn each<const N: usize, T>(
            bytes: &[u8],
            big: bool,
            from_le: impl Fn([u8; N]) -> T,
        ) -> Vec<T> {
            let (chunks, _) = bytes.as_chunks::<N>();
            chunks
                .iter()
                .map(|&chunk| {
                    let mut chunk = chunk;
                    if big {
                        chunk.reverse();
                    }
                    from_le(chunk)
                })
                .collect()
        }
        match self {
            Self::U8 => ArrayData::U8(bytes.to_vec()),
            Self::I8 => ArrayData::I8(bytes.iter().map(|&b| b.cast_signed()).collect()),
            Self::Bool => ArrayData::Bool(bytes.iter().map(|&b| b != 0).collect()),
            Self::I32 => ArrayData::I32(each(bytes, big, i32::from_le_bytes)),
            Self::I64 => ArrayData::I64(each(bytes, big, i64::from_le_bytes)),
            Self::F32 => ArrayData::F32(each(bytes, big, f32::from_le_bytes)),
            Self::F64 => ArrayData::F32(each(bytes, big, |b| f64::from_le_bytes(b) as f32)),
            Self::F16 => ArrayData::F32(each(bytes, big, |b| f32_of_f16(u16::from_le_bytes(b)))),
        }
    }
}

/// The value of an IEEE half, exactly.
fn f32_of_f16(bits: u16) -> f32 {
    let sign = u32::from(bits & 0x8000) << 16;
    let (exponent, fraction) = (u32::from(bits >> 10) & 31, u32::from(bits) & 0x3ff);
    match exponent {
        0 => f32::from_bits(sign | (fraction as f32 / 16_777_216.0).to_bits()),
        31 => f32::from_bits(sign | 0x7f80_0000 | (fraction << 13)),
        _ => f32::from_bits(sign | ((exponent + 112) << 23) | (fraction << 13)),
    }
}

/// The header of an `.npy` file, its sizes checked for overflow.
#[derive(Debug)]
pub(crate) struct NpyHeader {
    pub(crate) shape: Vec<usize>,
    kind: Kind,
    big_endian: bool,
    fortran: bool,
    data_start: usize,
    data_bytes: usize,
}

impl NpyHeader {
    /// Longer than any header with at most 32 dimensions; what a caller needs to read of a file.
    pub(crate) const MAX_BYTES: usize = 4096;

    /// Reads the header of a file and checks that the file holds what it announces.
    pub(crate) fn of_file(path: &Path) -> Result<Self, NpyError> {
        let name = path.display().to_string();
        let io_error = |source| NpyError::Io { file: name.clone(), source };
        let file = std::fs::File::open(path).map_err(io_error)?;
        let mut start = Vec::new();
        (&file).take(Self::MAX_BYTES as u64).read_to_end(&mut start).map_err(io_error)?;
        let header = Self::parse(&start).map_err(|why| NpyError::bad(&name, why))?;
        let (found, expected) = (file.metadata().map_err(io_error)?.len(), header.data_bytes);
        if found < (header.data_start as u64).saturating_add(expected as u64) {
            let why =
                format!("truncated: {found} bytes, but the header announces {expected} of data");
            return Err(NpyError::bad(&name, why));
        }
        Ok(header)
    }

    /// Parses the beginning of a file: at least its first [`Self::MAX_BYTES`], or all of it.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let Some((magic, rest)) = bytes.split_at_checked(8) else {
            return Err(format!("not an .npy file: only {} bytes", bytes.len()));
        };
        if &magic[..6] != b"\x93NUMPY" {
            return Err("not an .npy file: it does not begin with numpy's magic bytes".into());
        }
        let (start, length) = match (magic[6], rest) {
            (1, [a, b, ..]) => (10, usize::from(u16::from_le_bytes([*a, *b]))),
            (2 | 3, [a, b, c, d, ..]) => (12, u32::from_le_bytes([*a, *b, *c, *d]) as usize),
            (1..=3, _) => return Err("truncated inside the header".into()),
            (version, _) => {
                return Err(format!("format version {version} is unknown; 1 to 3 are read"));
            }
        };
        if length > Self::MAX_BYTES - 12 {
            return Err(format!("a header of {length} bytes is not that of a plain array"));
        }
        let text = bytes.get(start..start + length).ok_or("truncated inside the header")?;
        let text = std::str::from_utf8(text).map_err(|_| "the header is not text")?;

        let descr = value_of(text, "descr")?;
        let quoted = descr.strip_prefix('\'').or_else(|| descr.strip_prefix('"'));
        let descr = quoted
            .and_then(|d| d.split(['\'', '"']).next())
            .ok_or("structured arrays are not read; save one plain array")?;
        let (kind, big_endian) = element_type(descr)?;
        let fortran = match value_of(text, "fortran_order")? {
            v if v.starts_with("True") => true,
            v if v.starts_with("False") => false,
            _ => return Err("corrupt header: fortran_order is neither True nor False".into()),
        };
        let shape = value_of(text, "shape")?
            .strip_prefix('(')
            .and_then(|s| Some(s.split_once(')')?.0))
            .ok_or("corrupt header: shape is not a tuple")?
            .split(',')
            .map(|d| d.trim().trim_end_matches('L'))
            .filter(|d| !d.is_empty())
            .map(|d| d.parse().map_err(|_| format!("corrupt header: dimension `{d}`")))
            .collect::<Result<Vec<usize>, _>>()?;
        let data_bytes = shape
            .iter()
            .try_fold(kind.bytes(), |n, &d| n.checked_mul(d))
            .ok_or_else(|| format!("corrupt header: an array of {shape:?} fits no memory"))?;
        Ok(Self { shape, kind, big_endian, fortran, data_start: start + length, data_bytes })
    }
}

/// The text after `'key':` in the header's dictionary.
fn value_of<'a>(text: &'a str, key: &str) -> Result<&'a str, String> {
    [format!("'{key}'"), format!("\"{key}\"")]
        .iter()
        .find_map(|quoted| {
            let (_, after) = text.split_once(quoted.as_str())?;
            Some(after.trim_start().strip_prefix(':')?.trim_start())
        })
        .ok_or_else(|| format!("corrupt header: no `{key}`"))
}

fn element_type(descr: &str) -> Result<(Kind, bool), String> {
    let (order, name) = match descr.strip_prefix(['<', '>', '|', '=']) {
        Some(name) => (&descr[..1], name),
        None => ("<", descr),
    };
    let kind = match name {
        "f2" => Kind::F16,
        "f4" => Kind::F32,
        "f8" => Kind::F64,
        "u1" => Kind::U8,
        "i1" => Kind::I8,
        "i4" => Kind::I32,
        "i8" => Kind::I64,
        "b1" | "?" => Kind::Bool,
        _ => {
            return Err(format!(
                "elements of type `{descr}` are not read; use float16, float32, float64, uint8, int8, \
                 int32, int64 or bool"
            ));
        }
    };
    Ok((kind, order == ">"))
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
