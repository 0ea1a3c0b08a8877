//! Threads that sessions share.

/// Runs tasks, for now one after the other.
#[derive(Debug)]
pub struct Pool;

impl Pool {
    /// A pool of `threads` threads, the caller included.
    pub fn new(_threads: usize) -> Pool {
        Pool
    }

    /// How many threads run tasks.
    pub fn threads(&self) -> usize {
        1
    }

    /// Runs `f` for each task and returns when all are done.
    pub fn run(&self, tasks: usize, f: impl Fn(usize) + Sync) {
        (0..tasks).for_each(f);
    }

    /// Splits `data` into chunks and gives each to a task with its index.
    pub fn for_each_chunk<T: Send>(
        &self,
        data: &mut [T],
        chunk_len: usize,
        f: impl Fn(usize, &mut [T]) + Sync,
    ) {
        data.chunks_mut(chunk_len).enumerate().for_each(|(i, chunk)| f(i, chunk));
    }
}
