//! A run of 8-bit operators allocates nothing: memory is the session's, or is kept by its threads.
//!
//! Operators that compute in float inside, such as Softmax, do; so the model's last one is left out.

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use daq::Model;
use daq_quant::onnx::{ReadOptions, read};

/// Counts what it hands out.
struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: all calls go to the system's allocator as they come.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        // SAFETY: as the caller's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as the caller's.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// One test, since the count is that of the process.
#[test]
fn nothing_is_allocated_in_a_run() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/quantized");
    for threads in [1, 2] {
        let graph = read(data.join("default.onnx"), &ReadOptions::default()).unwrap();
        let mut graph = daq_quant::qdq::fold(&graph);
        let last = graph.nodes.iter().position(|node| node.op.name() == "Softmax").unwrap();
        graph.outputs = vec![graph.nodes[last].inputs[0].unwrap()];
        graph.nodes.truncate(last);
        let mut session = Model::from_graph(graph).unwrap().session(threads);
        let len = |shape: &[usize]| shape.iter().product::<usize>();
        let input = vec![0.25f32; len(&session.inputs()[0].shape)];
        let mut output = vec![0f32; len(&session.outputs()[0].shape)];
        // The first runs let the threads grow their memory.
        for _ in 0..20 {
            session.predict(&[&input], &mut [&mut output]).unwrap();
        }
        let before = ALLOCATIONS.load(Relaxed);
        for _ in 0..10 {
            session.predict(&[&input], &mut [&mut output]).unwrap();
        }
        assert_eq!(ALLOCATIONS.load(Relaxed) - before, 0, "{threads} threads");
    }
}
