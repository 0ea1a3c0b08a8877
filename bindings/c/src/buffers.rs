//! The caller's buffers: arrays of pointers with sizes, checked before they become slices.

use std::ops::Range;

use daq::Port;

use crate::error::Failure;

/// Buffers as C gives them: `count` pointers and `count` numbers of elements.
pub struct Given<P> {
    pub pointers: *const P,
    pub sizes: *const usize,
    pub count: usize,
}

impl<P: Copy> Given<P> {
    /// Whether there are as many as the model has.
    pub fn count(&self, what: &str, wanted: usize) -> Result<(), Failure> {
        match self.count == wanted {
            true => Ok(()),
            false => Err(Failure::argument(format!(
                "{} {what} given, the model has {wanted}",
                self.count
            ))),
        }
    }

    /// Pointers with sizes.
    ///
    /// # Safety
    /// Each array is null or holds `count` entries.
    pub unsafe fn buffers(&self, what: &str) -> Result<Vec<(P, usize)>, Failure> {
        // SAFETY: the caller's promise.
        let pointers = unsafe { slice(what, self.pointers, self.count) }?;
        // SAFETY: the caller's promise.
        let sizes = unsafe { slice(&format!("the sizes of {what}"), self.sizes, self.count) }?;
        Ok(pointers.iter().copied().zip(sizes.iter().copied()).collect())
    }
}

/// Whether a buffer has as many elements as its port.
pub fn size(what: &str, port: &Port, given: usize) -> Result<(), Failure> {
    let wanted = port.shape.iter().product::<usize>();
    match given == wanted {
        true => Ok(()),
        false => Err(Failure::argument(format!(
            "{what} `{}` has {given} elements, the model's shape {:?} has {wanted}",
            port.name, port.shape
        ))),
    }
}

/// The bytes of each buffer of elements of `size` bytes.
pub fn ranges<P>(
    buffers: &[(P, usize)],
    size: usize,
    address: impl Fn(&P) -> usize,
) -> Vec<Range<usize>> {
    let range = |at: usize, bytes: usize| at..at.saturating_add(bytes);
    buffers.iter().map(|(p, n)| range(address(p), n.saturating_mul(size))).collect()
}

/// Whether no output overlaps an input or another output.
pub fn disjoint(inputs: &[Range<usize>], outputs: &[Range<usize>]) -> Result<(), Failure> {
    let others = [outputs, inputs].concat();
    for (i, a) in outputs.iter().enumerate() {
        if let Some(j) =
            (i + 1..others.len()).find(|&j| a.start < others[j].end && others[j].start < a.end)
        {
            let other = match j.checked_sub(outputs.len()) {
                Some(input) => format!("input {input}"),
                None => format!("output {j}"),
            };
            return Err(Failure::argument(format!(
                "output {i} overlaps {other}; give each a buffer of its own"
            )));
        }
    }
    Ok(())
}

/// Buffers to read.
///
/// # Safety
/// Each pointer is null or points to as many elements as the number beside it says.
pub unsafe fn shared<'a, T>(buffers: &[(*const T, usize)]) -> Result<Vec<&'a [T]>, Failure> {
    // SAFETY: the caller's promise.
    buffers.iter().map(|&(p, n)| unsafe { slice("an input", p, n) }).collect()
}

/// Buffers to write.
///
/// # Safety
/// As for [`shared`], and none overlaps another buffer in use.
pub unsafe fn unique<'a, T>(buffers: &[(*mut T, usize)]) -> Result<Vec<&'a mut [T]>, Failure> {
    let one = |&(pointer, len): &(*mut T, usize)| {
        check("an output", pointer, len)?;
        match len {
            0 => Ok(&mut [][..]),
            // SAFETY: `check` saw that it is neither null nor misaligned nor too long; the rest is
            // the caller's promise.
            _ => Ok(unsafe { std::slice::from_raw_parts_mut(pointer, len) }),
        }
    };
    buffers.iter().map(one).collect()
}

/// `len` elements at `pointer`.
///
/// # Safety
/// `pointer` is null or points to `len` elements.
pub unsafe fn slice<'a, T>(what: &str, pointer: *const T, len: usize) -> Result<&'a [T], Failure> {
    check(what, pointer, len)?;
    match len {
        0 => Ok(&[]),
        // SAFETY: `check` saw that it is neither null nor misaligned nor too long; the rest is the
        // caller's promise.
        _ => Ok(unsafe { std::slice::from_raw_parts(pointer, len) }),
    }
}

fn check<T>(what: &str, pointer: *const T, len: usize) -> Result<(), Failure> {
    check_bytes(what, pointer.addr(), len, (size_of::<T>(), align_of::<T>()))
}

/// As [`check`], compiled once for all types.
fn check_bytes(
    what: &str,
    address: usize,
    len: usize,
    (size, align): (usize, usize),
) -> Result<(), Failure> {
    if len == 0 {
        return Ok(());
    }
    if address == 0 {
        return Err(Failure::argument(format!("{what}: a null pointer")));
    }
    if !address.is_multiple_of(align) {
        return Err(Failure::argument(format!("{what}: not aligned to {align} bytes")));
    }
    match len.checked_mul(size).is_some_and(|n| n <= isize::MAX as usize) {
        true => Ok(()),
        false => Err(Failure::argument(format!("{what}: {len} elements are more than fit memory"))),
    }
}
