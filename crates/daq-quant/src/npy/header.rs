//! The header of an `.npy` file, which says what the bytes after it are.

use std::io::Read;
use std::path::Path;

use super::{ArrayData, NpyError};

/// The element types that files may have.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Kind {
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

    pub(super) fn decode(self, bytes: &[u8], big: bool) -> ArrayData {
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
    pub(super) kind: Kind,
    pub(super) big_endian: bool,
    pub(super) fortran: bool,
    pub(super) data_start: usize,
    pub(super) data_bytes: usize,
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
