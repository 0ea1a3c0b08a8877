//! The caller's buffers: arrays of pointers with sizes, checked before they become slices.

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

/// Whether no output overlaps an input or another output.
pub fn disjoint<I, O>(
    inputs: &[(*const I, usize)],
    outputs: &[(*mut O, usize)],
) -> Result<(), Failure> {
    let range = |at: usize, bytes: usize| at..at.saturating_add(bytes);
    let outputs: Vec<_> =
        outputs.iter().map(|&(p, n)| range(p.addr(), n.saturating_mul(size_of::<O>()))).collect();
    let inputs = inputs.iter().map(|&(p, n)| range(p.addr(), n.saturating_mul(size_of::<I>())));
    let others: Vec<_> = outputs.iter().cloned().chain(inputs).collect();
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
    if len == 0 {
        return Ok(());
    }
    if pointer.is_null() {
        return Err(Failure::argument(format!("{what}: a null pointer")));
    }
    if !pointer.is_aligned() {
        let why = format!("{what}: not aligned to {} bytes", align_of::<T>());
        return Err(Failure::argument(why));
    }
    match len.checked_mul(size_of::<T>()).is_some_and(|n| n <= isize::MAX as usize) {
        true => Ok(()),
        false => Err(Failure::argument(format!("{what}: {len} elements are more than fit memory"))),
    }
}
