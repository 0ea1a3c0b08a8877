//! A small pool of threads that spin for a moment before they sleep.
//!
//! A network is some fifty short parallel loops in a row, often less than 100 microseconds apart:
//! waking a sleeping thread for each of them would cost as much as the work. The pool has one
//! slot for one job. Workers enter the job that is open and leave when its tasks run out; the
//! caller works too, closes the job and waits only for the workers that did enter, so a worker
//! that was late to wake holds nobody up.

use std::any::Any;
use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::*};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// The part of `Shared::gate` that counts the workers inside the job.
const INSIDE: u64 = 0xffff;
/// Set in `Shared::gate` while workers may enter.
const OPEN: u64 = 1 << 16;
/// Set in `Shared::gate` when the pool goes away.
const STOP: u64 = 1 << 17;
/// The lowest bit of the job's number in `Shared::gate`.
const NUMBER: u64 = 1 << 32;
/// Turns of the loop before a waiting thread gives its core away: 20 to 100 microseconds.
const SPINS: u32 = 2_000;

type Payload = Box<dyn Any + Send>;

/// The closure of the open job, with its lifetime taken away.
type Task = *const (dyn Fn(usize) + Sync);

struct Shared {
    /// The job's number, `OPEN`, `STOP` and the workers inside.
    gate: AtomicU64,
    /// Written while the gate is closed and nobody is inside, read only from inside.
    task: UnsafeCell<Option<Task>>,
    tasks: AtomicUsize,
    next: AtomicUsize,
    panic: Mutex<Option<Payload>>,
    sleepers: AtomicUsize,
    sleep: Mutex<()>,
    wake: Condvar,
}

// SAFETY: `task` is the only field that is not `Sync` or `Send` by itself. It points to a `Sync`
// closure; `Pool::run` writes it only while the gate is closed and empty, and workers read it
// only after they entered through the gate.
unsafe impl Sync for Shared {}
// SAFETY: as above.
unsafe impl Send for Shared {}

/// Threads that share the tasks of one parallel loop at a time. Sessions share it in an `Arc`.
pub struct Pool {
    shared: Arc<Shared>,
    /// Whether some caller owns the slot.
    busy: AtomicBool,
    workers: Vec<JoinHandle<()>>,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("threads", &self.threads()).finish()
    }
}

impl Pool {
    /// A pool of `threads` threads (at least 1, at most 1024) of which the caller of
    /// [`run`](Self::run) is one. A single thread means no workers and no synchronisation at
    /// all. Where the system refuses a thread, the pool is smaller.
    pub fn new(threads: usize) -> Pool {
        let shared = Arc::new(Shared {
            gate: AtomicU64::new(0),
            task: UnsafeCell::new(None),
            tasks: AtomicUsize::new(0),
            next: AtomicUsize::new(0),
            panic: Mutex::new(None),
            sleepers: AtomicUsize::new(0),
            sleep: Mutex::new(()),
            wake: Condvar::new(),
        });
        let spawn = |index: usize| {
            let shared = Arc::clone(&shared);
            let name = format!("daq-worker-{index}");
            std::thread::Builder::new().name(name).spawn(move || shared.work()).ok()
        };
        let workers = (1..threads.min(1024)).map_while(spawn).collect();
        Pool { shared, busy: AtomicBool::new(false), workers }
    }

    /// How many threads take part, the caller's among them.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `f(0)` to `f(tasks - 1)`, each once, in any order and on any thread of the pool,
    /// and returns when all have ended. While another caller holds the workers (or from inside a
    /// task), the tasks run one after another on the calling thread.
    ///
    /// # Panics
    /// Where tasks panic, one of the panics goes on in the caller after every task has ended.
    pub fn run(&self, tasks: usize, f: impl Fn(usize) + Sync) {
        self.run_tasks(tasks, &f);
    }

    /// As [`run`](Self::run), compiled once for all tasks.
    fn run_tasks(&self, tasks: usize, f: &(dyn Fn(usize) + Sync)) {
        let alone = self.workers.is_empty() || tasks <= 1;
        if alone || self.busy.compare_exchange(false, true, Acquire, Relaxed).is_err() {
            let mut panic = None;
            (0..tasks).for_each(|index| keep_first(&mut panic, call(f, index)));
            return raise(panic);
        }
        let shared = &*self.shared;
        // SAFETY: only the lifetime changes. The closure outlives its use: this function does not
        // return, and cannot unwind (tasks are caught), before the gate is closed and empty.
        let task = unsafe { std::mem::transmute::<&(dyn Fn(usize) + Sync), Task>(f) };
        // SAFETY: `busy` makes this the only caller, and the last one left the gate closed and
        // empty, so no worker reads the slot.
        unsafe { *shared.task.get() = Some(task) };
        shared.tasks.store(tasks, Relaxed);
        shared.next.store(0, Relaxed);
        // Sequentially consistent, like its counterpart in `wait`: either this thread sees the
        // sleeper or the sleeper sees the open gate.
        shared.gate.fetch_add(NUMBER | OPEN, SeqCst);
        if shared.sleepers.load(SeqCst) > 0 {
            drop(lock(&shared.sleep));
            shared.wake.notify_all();
        }
        shared.take_tasks(f);
        shared.gate.fetch_and(!OPEN, AcqRel);
        let mut spins = 0;
        while shared.gate.load(Acquire) & INSIDE != 0 {
            pause(&mut spins);
        }
        let panic = lock(&shared.panic).take();
        self.busy.store(false, Release);
        raise(panic);
    }

    /// Cuts `data` into chunks of `chunk_len` elements (the last may be shorter) and gives each
    /// to a task, with its index.
    ///
    /// # Panics
    /// If `chunk_len` is 0, and as [`run`](Self::run) does.
    pub fn for_each_chunk<T: Send>(
        &self,
        data: &mut [T],
        chunk_len: usize,
        f: impl Fn(usize, &mut [T]) + Sync,
    ) {
        assert!(chunk_len > 0, "chunks of 0 elements");
        let len = data.len();
        let base = Base(data.as_mut_ptr());
        self.run(len.div_ceil(chunk_len), |index| {
            let start = index * chunk_len;
            // SAFETY: `run` gives every index below the number of chunks to exactly one task, so
            // the chunks are disjoint and inside `data`, which is borrowed until `run` returns.
            let chunk = unsafe {
                std::slice::from_raw_parts_mut(base.get().add(start), chunk_len.min(len - start))
            };
            f(index, chunk);
        });
    }

    /// Calls `f` with each index below `parts` and the start of `data`: every call writes a part of
    /// its own.
    pub(crate) fn for_each_part<T: Send>(
        &self,
        data: &mut [T],
        parts: usize,
        f: impl Fn(usize, *mut T) + Sync,
    ) {
        let base = Base(data.as_mut_ptr());
        self.run(parts, |index| f(index, base.get()));
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.gate.fetch_or(STOP, SeqCst);
        drop(lock(&self.shared.sleep));
        self.shared.wake.notify_all();
        for worker in self.workers.drain(..) {
            // A worker catches what its tasks raise, so there is nothing to learn from its end.
            let _ = worker.join();
        }
    }
}

impl Shared {
    /// A worker's life.
    fn work(&self) {
        let mut last = 0;
        loop {
            let gate = self.wait(last);
            if gate & STOP != 0 {
                return;
            }
            if self.gate.compare_exchange(gate, gate + 1, Acquire, Relaxed).is_err() {
                continue;
            }
            last = gate / NUMBER;
            // SAFETY: this thread is inside, so the slot is not written, and its closure lives
            // until `run` has seen this thread leave.
            if let Some(task) = unsafe { *self.task.get() } {
                // SAFETY: as above.
                self.take_tasks(unsafe { &*task });
            }
            self.gate.fetch_sub(1, Release);
        }
    }

    /// Waits for a job other than number `last`, or for the end; gives the gate.
    fn wait(&self, last: u64) -> u64 {
        let ready = |gate: u64| gate & STOP != 0 || (gate & OPEN != 0 && gate / NUMBER != last);
        for _ in 0..SPINS {
            let gate = self.gate.load(Relaxed);
            if ready(gate) {
                return gate;
            }
            std::hint::spin_loop();
        }
        let mut guard = lock(&self.sleep);
        self.sleepers.fetch_add(1, SeqCst);
        let gate = loop {
            let gate = self.gate.load(SeqCst);
            if ready(gate) {
                break gate;
            }
            guard = self.wake.wait(guard).unwrap_or_else(PoisonError::into_inner);
        };
        self.sleepers.fetch_sub(1, SeqCst);
        gate
    }

    /// Does tasks until none is left to begin.
    fn take_tasks(&self, f: &(dyn Fn(usize) + Sync)) {
        let tasks = self.tasks.load(Relaxed);
        loop {
            let index = self.next.fetch_add(1, Relaxed);
            if index >= tasks {
                return;
            }
            if let Err(payload) = call(f, index) {
                keep_first(&mut lock(&self.panic), Err(payload));
            }
        }
    }
}

/// Spins, later yields.
fn pause(spins: &mut u32) {
    if *spins < SPINS {
        *spins += 1;
        std::hint::spin_loop();
    } else {
        std::thread::yield_now();
    }
}

fn call(f: &(dyn Fn(usize) + Sync), index: usize) -> Result<(), Payload> {
    catch_unwind(AssertUnwindSafe(|| f(index)))
}

fn keep_first(kept: &mut Option<Payload>, result: Result<(), Payload>) {
    if let Err(payload) = result {
        kept.get_or_insert(payload);
    }
}

fn raise(panic: Option<Payload>) {
    if let Some(payload) = panic {
        resume_unwind(payload);
    }
}

/// Nothing that holds these locks can leave them half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The start of a slice that tasks cut into disjoint chunks.
struct Base<T>(*mut T);

impl<T> Base<T> {
    fn get(&self) -> *mut T {
        self.0
    }
}

// SAFETY: only `for_each_chunk` uses it; it hands disjoint chunks of `T: Send` to the threads.
unsafe impl<T: Send> Sync for Base<T> {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn every_task_runs_once() {
        for threads in [1, 2, 3, 8] {
            let pool = Pool::new(threads);
            assert_eq!(pool.threads(), threads);
            for tasks in [0, 1, 2, 7, 1000] {
                let counts: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
                pool.run(tasks, |index| {
                    counts[index].fetch_add(1, Relaxed);
                });
                assert!(counts.iter().all(|count| count.load(Relaxed) == 1), "{threads} {tasks}");
            }
        }
    }

    #[test]
    fn many_short_jobs_and_sleeps_between_them() {
        let pool = Pool::new(3);
        let total = AtomicUsize::new(0);
        for job in 0..3000 {
            if job % 500 == 0 {
                std::thread::sleep(Duration::from_millis(5));
            }
            pool.run(5, |index| {
                total.fetch_add(index, Relaxed);
            });
        }
        assert_eq!(total.load(Relaxed), 3000 * 10);
    }

    #[test]
    fn workers_take_part() {
        let pool = Pool::new(2);
        let barrier = std::sync::Barrier::new(2);
        // Two tasks that each wait for the other: only two threads at once can end them.
        pool.run(2, |_| {
            barrier.wait();
        });
    }

    #[test]
    fn a_panic_reaches_the_caller_after_all_tasks() {
        for threads in [1, 4] {
            let pool = Pool::new(threads);
            let ended = AtomicUsize::new(0);
            let result = catch_unwind(AssertUnwindSafe(|| {
                pool.run(50, |index| {
                    if index % 20 == 3 {
                        resume_unwind(Box::new("third"));
                    }
                    ended.fetch_add(1, Relaxed);
                });
            }));
            assert_eq!(result.unwrap_err().downcast_ref::<&str>(), Some(&"third"));
            assert_eq!(ended.load(Relaxed), 47);
            pool.run(10, |_| {
                ended.fetch_add(1, Relaxed);
            });
            assert_eq!(ended.load(Relaxed), 57, "the pool works on");
        }
    }

    #[test]
    fn nested_and_concurrent_callers_end() {
        let pool = Pool::new(3);
        let total = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        pool.run(4, |_| {
                            pool.run(3, |_| {
                                total.fetch_add(1, Relaxed);
                            });
                        });
                    }
                });
            }
        });
        assert_eq!(total.load(Relaxed), 4 * 100 * 4 * 3);
    }

    #[test]
    fn chunks_cover_the_slice() {
        let pool = Pool::new(3);
        for (len, chunk_len) in [(0, 4), (1, 4), (8, 4), (103, 10), (5, 100)] {
            let mut data = vec![usize::MAX; len];
            pool.for_each_chunk(&mut data, chunk_len, |index, chunk| {
                for (offset, item) in chunk.iter_mut().enumerate() {
                    *item = index * chunk_len + offset;
                }
            });
            assert!(data.iter().copied().eq(0..len), "{len} by {chunk_len}");
        }
    }

    #[test]
    fn drop_joins_the_workers() {
        let pool = Pool::new(4);
        pool.run(16, |_| std::thread::sleep(Duration::from_micros(50)));
        let shared = Arc::downgrade(&pool.shared);
        drop(pool);
        assert!(shared.upgrade().is_none(), "a worker still holds the pool's state");
    }
}
