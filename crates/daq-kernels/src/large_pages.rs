//! Memory for packed weights, on pages of 2 MiB where the system gives them: the weights of a network, which
//! each run reads from the first to the last, need far more pages of 4 KiB than a core knows the addresses of.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Bytes of a large page.
const PAGE: usize = 2 << 20;
/// Bytes of a piece of memory that several weights share. It is freed with the last of them.
const CHUNK: usize = 4 * PAGE;
/// What weights in a chunk begin at a multiple of: a cache line.
const ALIGN: usize = 64;
/// Fewer bytes of weights are left where they were: a model that has no more shall not take a large page.
const FEW: usize = 64 << 10;

/// Items that were a vector's, and stay as they are.
#[derive(Debug)]
pub(crate) enum Packed<T> {
    Few(Vec<T>),
    Many { first: NonNull<T>, len: usize, _chunk: Arc<Chunk> },
}

// SAFETY: it owns its items like a vector, and never changes them.
unsafe impl<T: Send> Send for Packed<T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for Packed<T> {}

impl<T: Copy> From<Vec<T>> for Packed<T> {
    fn from(items: Vec<T>) -> Packed<T> {
        const { assert!(align_of::<T>() <= ALIGN) };
        let bytes = size_of_val(&*items);
        if bytes < FEW {
            return Packed::Few(items);
        }
        let (chunk, at) = room_for(bytes);
        // SAFETY: `at..at + bytes` lies in the chunk, at a multiple of [`ALIGN`], and is nobody else's; the items are
        // copies.
        unsafe {
            let first = chunk.memory.add(at).cast::<T>();
            first.copy_from_nonoverlapping(NonNull::from(&items[..]).cast(), items.len());
            Packed::Many { first, len: items.len(), _chunk: chunk }
        }
    }
}

impl<T> Deref for Packed<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match self {
            Packed::Few(items) => items,
            // SAFETY: so many items were copied there, and the chunk lives as long as this.
            Packed::Many { first, len, .. } => unsafe {
                std::slice::from_raw_parts(first.as_ptr(), *len)
            },
        }
    }
}

/// Memory of whole large pages.
#[derive(Debug)]
pub(crate) struct Chunk {
    memory: NonNull<u8>,
    layout: Layout,
}

// SAFETY: bytes that only those write who were given them.
unsafe impl Send for Chunk {}
// SAFETY: as above.
unsafe impl Sync for Chunk {}

impl Chunk {
    fn new(layout: Layout) -> Chunk {
        // SAFETY: the layout has a size.
        let memory = unsafe { alloc(layout) };
        let Some(memory) = NonNull::new(memory) else { handle_alloc_error(layout) };
        advise_large_pages(memory, layout.size());
        Chunk { memory, layout }
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        // SAFETY: it was allocated so.
        unsafe { dealloc(self.memory.as_ptr(), self.layout) };
    }
}

/// So many bytes of a chunk, and where in it they begin: at a multiple of [`ALIGN`].
fn room_for(bytes: usize) -> (Arc<Chunk>, usize) {
    /// The chunk that has room, and how much of it is taken.
    static OPEN: Mutex<(Weak<Chunk>, usize)> = Mutex::new((Weak::new(), 0));
    let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    let (chunk, taken) = &mut *open;
    let has_room = |chunk: &Arc<Chunk>| chunk.layout.size() - *taken >= bytes;
    let (chunk, at) = match chunk.upgrade().filter(has_room) {
        Some(chunk) => (chunk, *taken),
        None => {
            let size = bytes.max(CHUNK).next_multiple_of(PAGE);
            let layout = Layout::from_size_align(size, PAGE).expect("weights that fit memory");
            (Arc::new(Chunk::new(layout)), 0)
        }
    };
    *open = (Arc::downgrade(&chunk), at + bytes.next_multiple_of(ALIGN));
    (chunk, at)
}

/// Asks for large pages, which the system may not have: nothing else changes then.
#[cfg(target_os = "linux")]
fn advise_large_pages(memory: NonNull<u8>, len: usize) {
    const MADVISE: u64 = 28;
    const MADV_HUGEPAGE: u64 = 14;
    // SAFETY: the system call changes no contents.
    unsafe {
        std::arch::asm!(
            "syscall",
            inout("rax") MADVISE => _,
            in("rdi") memory.as_ptr(),
            in("rsi") len,
            in("rdx") MADV_HUGEPAGE,
            out("rcx") _,
            out("r11") _,
            options(nostack),
        );
    }
}

#[cfg(not(target_os = "linux"))]
fn advise_large_pages(_: NonNull<u8>, _: usize) {}
